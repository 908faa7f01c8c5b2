//! Work that is shared out to threads, as many as the system gives.

use std::num::NonZero;
use std::thread::{self, Builder};

use smalti_runtime::{Error, Result};

/// Shares items out to at most so many threads and puts their results together, in order. What no thread can be had for
/// is done on the calling one.
///
/// # Errors
/// The first error of `work`, or [`Error::Internal`] with `step` if a thread panicked.
pub(crate) fn share<T: Sync, R: Send>(
    step: &'static str,
    items: &[T],
    threads: usize,
    work: impl Fn(&[T]) -> Result<Vec<R>> + Sync,
) -> Result<Vec<R>> {
    let threads = NonZero::new(threads.min(items.len())).map_or(1, NonZero::get);
    let parts = items.chunks(items.len().div_ceil(threads).max(1));
    let lost = |_| Err(Error::Internal { step, problem: "a thread panicked".into() });
    let work = &work;
    thread::scope(|scope| {
        let started = parts.map(|part| (part, Builder::new().spawn_scoped(scope, move || work(part))));
        let started: Vec<_> = started.collect();
        let mut all = Vec::with_capacity(items.len());
        for (part, worker) in started {
            all.extend(match worker {
                Ok(worker) => worker.join().unwrap_or_else(lost)?,
                // The system has no thread left.
                Err(_) => work(part)?,
            });
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_for_any_number_of_threads() {
        let items: Vec<u32> = (0..50).collect();
        for threads in [0, 1, 3, 50, 4000] {
            let doubled =
                share("test", &items, threads, |part| Ok(part.iter().map(|i| 2 * i).collect())).unwrap();
            assert_eq!(doubled, items.iter().map(|i| 2 * i).collect::<Vec<_>>());
        }
        assert!(share("test", &[0u8; 0], 3, |_| Ok(vec![1])).unwrap().is_empty());
    }

    #[test]
    fn a_panic_is_an_error() {
        let work = |part: &[u8]| if part.contains(&7) { panic!("seven") } else { Ok(part.to_vec()) };
        let error = share("test", &[1, 2, 7, 3], 2, work).unwrap_err();
        assert_eq!(error.exit_code(), 70);
    }
}
