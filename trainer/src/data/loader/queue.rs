//! The bounded queue between the threads that make values and the one that takes them, in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A lock is only held for a few plain statements: a panic elsewhere leaves the value whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbered values, made in any order and taken in theirs.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// How far the threads may be ahead.
    depth: u64,
}

struct State<T> {
    /// The next number that no thread has begun.
    next: u64,
    end: u64,
    /// The number that is taken next.
    wanted: u64,
    done: BTreeMap<u64, T>,
    stop: bool,
}

impl<T> Queue<T> {
    /// A queue of the numbers from `next` to below `end`, of which at most `depth` are begun before they are wanted.
    pub(super) fn new(next: u64, end: u64, depth: usize) -> Queue<T> {
        let state = State { next, end, wanted: next, done: BTreeMap::new(), stop: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), depth: depth as u64 }
    }

    /// The next number to make, as soon as it is near enough to the one that is wanted; none when all is done.
    pub(super) fn begin(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.next >= state.end {
                return None;
            }
            if state.next - state.wanted < self.depth {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hands in the value that was made for a number.
    pub(super) fn put(&self, number: u64, value: T) {
        let mut state = lock(&self.state);
        state.done.insert(number, value);
        self.changed.notify_all();
    }

    /// Waits for a number's value; none when no thread has begun it, so that the caller makes it.
    pub(super) fn take(&self, number: u64) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(value) = state.done.remove(&number) {
                state.wanted = number + 1;
                self.changed.notify_all();
                return Some(value);
            }
            if state.next == number {
                state.next += 1;
                state.wanted = number + 1;
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The numbers whose values wait to be taken.
    #[cfg(test)]
    pub(super) fn ready(&self) -> Vec<u64> {
        lock(&self.state).done.keys().copied().collect()
    }

    /// Ends the threads after what they are making.
    pub(super) fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_run_ahead_no_further_than_the_depth() {
        let queue: Queue<u64> = Queue::new(5, 100, 3);
        assert_eq!([queue.begin(), queue.begin(), queue.begin()], [Some(5), Some(6), Some(7)]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.begin());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiting.is_finished());
            queue.put(6, 60);
            queue.put(5, 50);
            assert_eq!(queue.take(5), Some(50));
            assert_eq!(waiting.join().unwrap(), Some(8));
        });
        assert_eq!(queue.take(6), Some(60));
    }

    #[test]
    fn what_no_thread_has_begun_is_the_callers() {
        let queue: Queue<u64> = Queue::new(0, 3, 1);
        assert_eq!((queue.take(0), queue.take(1)), (None, None));
        assert_eq!(queue.begin(), Some(2));
        assert_eq!(queue.begin(), None, "the end");
        queue.put(2, 20);
        assert_eq!(queue.take(2), Some(20));
        let stopped: Queue<u64> = Queue::new(0, 3, 1);
        stopped.stop();
        assert_eq!(stopped.begin(), None);
    }
}
