//! The time that a connection has left.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::lock;

/// When a connection is cut off. A client has some time to send the head of a request, and from then on twice that: once
/// until it is answered, once to take the answer and to send the next head. So neither sending nor reading slowly holds a
/// connection.
pub(super) struct Clock {
    time: Duration,
    state: Mutex<State>,
}

struct State {
    end: Instant,
    /// Requests whose head has arrived.
    requests: u64,
}

impl Clock {
    pub(super) fn start(time: Duration) -> Clock {
        Clock { time, state: Mutex::new(State { end: Instant::now() + time, requests: 0 }) }
    }

    /// A head has arrived; when its answer is due.
    pub(super) fn request(&self) -> Instant {
        let now = Instant::now();
        self.with(|state| {
            state.end = now + 2 * self.time;
            state.requests += 1;
        });
        now + self.time
    }

    /// Requests whose head has arrived.
    pub(super) fn requests(&self) -> u64 {
        self.with(|state| state.requests)
    }

    /// Comes back when the time is over.
    pub(super) async fn over(&self) {
        loop {
            let end = self.with(|state| state.end);
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut lock(&self.state))
    }
}
