//! The engine, tract, behind a fence: its errors become ours and its panics do not get out.

pub(crate) mod rewrite;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tract_onnx::prelude::TractResult;

use crate::error::{Error, Result};
use crate::text::one_line;

/// Runs one step of the engine. The caller must not go on using what a failed step may have left half done.
pub(crate) fn guarded<T>(step: &'static str, work: impl FnOnce() -> TractResult<T>) -> Result<T> {
    guarded_own(step, work)?.map_err(|error| Error::Engine { step, problem: one_line(&format!("{error:#}")) })
}

/// Runs a step of our own behind the same fence: no input may make it panic, and if one does, the host lives.
pub(crate) fn guarded_own<T>(step: &'static str, work: impl FnOnce() -> T) -> Result<T> {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(work));
    log::trace!("{step}: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
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
        let error = guarded("run", || -> TractResult<()> { panic!("index {} of 3", 7) }).unwrap_err();
        assert_eq!(error.exit_code(), 70);
        assert!(error.to_string().contains("index 7 of 3"), "{error}");
    }
}
