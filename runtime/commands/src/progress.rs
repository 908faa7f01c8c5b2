//! Progress on the standard error: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Width of the bar in characters.
const WIDTH: usize = 30;

/// Progress of a count; may be called from any thread.
pub(super) struct Progress {
    start: Instant,
    terminal: bool,
    quiet: bool,
    /// When something was last shown.
    shown: Mutex<Instant>,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Progress {
        let start = Instant::now();
        Progress { start, terminal: stderr().is_terminal(), quiet, shown: Mutex::new(start) }
    }

    /// Shows how far things are, not too often.
    pub(super) fn step(&self, done: usize, total: usize) {
        let every = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(10) };
        let Ok(mut shown) = self.shown.lock() else { return };
        if self.quiet || (shown.elapsed() < every && !(self.terminal && done == total)) {
            return;
        }
        *shown = Instant::now();
        let text = describe(done, total, self.start.elapsed());
        // Nobody to tell if the standard error is gone.
        let _ = match self.terminal {
            true if done == total => write!(stderr(), "\r\x1b[K"),
            true => write!(stderr(), "\r\x1b[K{} {text}", bar(done, total)),
            false => writeln!(stderr(), "{text}"),
        };
    }
}

/// Progress of work in stages, each with a name and a count of its own.
#[cfg(feature = "quantize")]
pub(super) struct Stages {
    quiet: bool,
    stage: Mutex<Option<(String, Progress)>>,
}

#[cfg(feature = "quantize")]
impl Stages {
    pub(super) fn new(quiet: bool) -> Stages {
        Stages { quiet, stage: Mutex::new(None) }
    }

    /// Shows how far a stage is; another name starts another stage.
    pub(super) fn step(&self, name: &str, done: usize, total: usize) {
        let Ok(mut stage) = self.stage.lock() else { return };
        if stage.as_ref().is_none_or(|(last, _)| last != name) {
            if !self.quiet {
                let _ = writeln!(stderr(), "{name} ({total} images)");
            }
            *stage = Some((name.to_owned(), Progress::new(self.quiet)));
        }
        if let Some((_, progress)) = &*stage {
            progress.step(done, total);
        }
    }
}

/// Count, rate and time left.
fn describe(done: usize, total: usize, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
    format!("{done}/{total} images, {rate:.0}/s, {left:.0} s left")
}

fn bar(done: usize, total: usize) -> String {
    let filled = (WIDTH * done).checked_div(total).unwrap_or(WIDTH).min(WIDTH);
    format!("[{}{}]", "#".repeat(filled), " ".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_follow_from_the_count() {
        assert_eq!(describe(50, 150, Duration::from_secs(5)), "50/150 images, 10/s, 10 s left");
        assert_eq!(bar(1, 2).matches('#').count(), WIDTH / 2);
        assert_eq!(bar(0, 0).matches('#').count(), WIDTH);
    }
}
