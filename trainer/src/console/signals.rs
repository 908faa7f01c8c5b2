//! Ctrl-C and the system's request to end: the first lets a run save, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use smalti_trainer::{Error, Result};

/// The signal that came, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Listens from now on.
    pub(crate) fn listen() -> Stop {
        let (code, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal arms what the second meets.
            let registered = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))
                .and_then(|_| flag::register(signal, Arc::clone(&again)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&code), 128 + signal as usize));
            if let Err(why) = registered {
                log::warn!("cannot listen to signal {signal}: {why}; it will end the program without saving");
            }
        }
        Stop(code)
    }

    /// The exit code to stop with.
    pub(crate) fn code(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|code| *code != 0)
    }

    /// An error if a signal came, between the stages of a command.
    pub(crate) fn check(&self) -> Result<()> {
        self.code().map_or(Ok(()), |code| Err(Error::Interrupted { step: 0, code }))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_noted() {
        assert_eq!(Stop::default().code(), None);
        let stop = Stop::listen();
        assert_eq!(stop.code(), None);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(stop.code(), Some(143));
    }
}
