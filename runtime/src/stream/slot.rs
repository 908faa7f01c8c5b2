//! The one place between the thread that reads frames and the one that classifies them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Fault, Keep, Splitter};
use crate::error::Result;

/// What has come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Frames that were complete, dropped ones among them.
    pub frames: u64,
    /// Frames whose place a newer one took before they were classified.
    pub dropped: u64,
    /// Frames that were cut off or too large. (Whether the others can be decoded shows later.)
    pub bad: u64,
    /// What was wrong with the last of those.
    pub last_fault: Option<Fault>,
    /// Bytes that belong to no frame.
    pub outside: u64,
    /// Whether the stream ended inside a frame.
    pub ended_within: bool,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frame: Vec<u8>,
    /// The waiting frame's number.
    waiting: Option<u64>,
    counts: Counts,
    /// No more frames will come.
    end: Option<Result<()>>,
    /// No more frames are wanted.
    closed: bool,
}

pub(super) enum Taken {
    /// A frame of that number.
    Frame(u64),
    Nothing,
    End,
}

impl Slot {
    /// Nothing is ever left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in and gives its memory for another in exchange. False if no more is wanted.
    pub(super) fn put(&self, frame: &mut Vec<u8>, keep: Keep) -> bool {
        let mut state = self.lock();
        while keep == Keep::Every && state.waiting.is_some() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.counts.frames += 1;
        if state.waiting.is_some() {
            state.counts.dropped += 1;
        }
        state.waiting = Some(state.counts.frames + state.counts.bad);
        std::mem::swap(&mut state.frame, frame);
        self.changed.notify_all();
        !state.closed
    }

    /// Counts a bad frame. False if no more is wanted.
    pub(super) fn fault(&self, fault: Fault) -> bool {
        let mut state = self.lock();
        state.counts.bad += 1;
        state.counts.last_fault = Some(fault);
        !state.closed
    }

    /// Notes what the splitter has passed over.
    pub(super) fn note(&self, splitter: &Splitter, ended_within: bool) {
        let mut state = self.lock();
        state.counts.outside = splitter.outside();
        state.counts.ended_within = ended_within;
    }

    /// Says that no more will come.
    pub(super) fn end(&self, result: Result<()>) {
        self.lock().end = Some(result);
        self.changed.notify_all();
    }

    /// Says that no more is wanted.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Exchanges `room` for the waiting frame, or waits for one.
    pub(super) fn take(&self, room: &mut Vec<u8>, wait: Duration) -> Result<Taken> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(number) = state.waiting.take() {
                std::mem::swap(&mut state.frame, room);
                self.changed.notify_all();
                return Ok(Taken::Frame(number));
            }
            if let Some(end) = &mut state.end {
                std::mem::replace(end, Ok(()))?;
                return Ok(Taken::End);
            }
            let Some(left) = wait.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(Taken::Nothing);
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
