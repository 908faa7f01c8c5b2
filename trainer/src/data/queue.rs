//! The bounded queue between a loader's threads and whoever wants its batches, in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::loader::Batch;
use crate::error::Result;

/// A lock is only held for a few plain statements: a panic elsewhere leaves the value whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finished batches, waiting for their turn.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// How far the threads may be ahead.
    depth: usize,
}

struct State {
    /// The next batch that no thread has taken.
    next: usize,
    end: usize,
    /// The batch that is handed out next.
    wanted: usize,
    done: BTreeMap<usize, Result<Batch>>,
    stop: bool,
}

impl Queue {
    pub(super) fn new(next: usize, end: usize, depth: usize) -> Queue {
        let state = State { next, end, wanted: next, done: BTreeMap::new(), stop: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), depth }
    }

    /// The next batch to make, once there is room for it; none when there is nothing left to do.
    pub(super) fn take(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.next >= state.end {
                return None;
            }
            if state.next < state.wanted + self.depth {
                let index = state.next;
                state.next += 1;
                return Some(index);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn give(&self, index: usize, batch: Result<Batch>) {
        let mut state = lock(&self.state);
        state.done.insert(index, batch);
        self.changed.notify_all();
    }

    /// Waits for a batch; none when no thread has it in hand, so that the caller makes it.
    pub(super) fn wait(&self, index: usize) -> Option<Result<Batch>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(batch) = state.done.remove(&index) {
                state.wanted = index + 1;
                self.changed.notify_all();
                return Some(batch);
            }
            if state.next == index {
                state.next += 1;
                state.wanted = index + 1;
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }
}
