//! A fence around work on models from outside: a panic does not get out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::text::one_line;

/// Runs one step of the work and logs its time. No input may make it panic, and if one does, the host lives. The caller
/// must not go on using what a failed step may have left half done.
///
/// # Errors
/// [`Error::Internal`] if the step panicked.
pub(crate) fn guard<T>(step: &'static str, work: impl FnOnce() -> T) -> Result<T> {
    // In WebAssembly there is no clock, and asking for the time panics.
    let start = cfg!(not(target_family = "wasm")).then(Instant::now);
    let result = catch_unwind(AssertUnwindSafe(work));
    if let Some(start) = start {
        log::trace!("{step}: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    }
    result.map_err(|panic| Error::Internal { step, problem: one_line(panic_message(&*panic)) })
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_internal_error() {
        let error = guard("run", || -> u8 { panic!("index {} of 3", 7) }).unwrap_err();
        assert_eq!(error.exit_code(), 70);
        assert!(error.to_string().contains("index 7 of 3"), "{error}");
    }
}
