//! What a step of a stage costs here, to turn a budget of CPU time into steps.

use std::time::Duration;

use super::{ExecConfig, Observer, Progress, Task, train};
use crate::clock;
use crate::error::{Error, Result};

/// Steps before the measurement: buffers grow, images are decoded.
const WARM_UP: usize = 2;
/// Steps that are measured.
const MEASURED: usize = 3;
/// The exit code that stops a stage which was watched for long enough. It never leaves this module.
const ENOUGH: u8 = 1;

/// Seconds of CPU time, of all threads, that a step takes. Trains a few and forgets them.
///
/// # Errors
/// As [`train`].
pub fn cpu_per_step<T: Task>(task: &mut T, exec: &ExecConfig) -> Result<f64> {
    let mut watch = Watch { times: vec![clock::cpu_time()] };
    match train(task, exec, None, &mut watch) {
        Ok(_) | Err(Error::Interrupted { code: ENOUGH, .. }) => {}
        Err(error) => return Err(error),
    }
    // A run may be shorter than the warm-up.
    let first = WARM_UP.min(watch.times.len().saturating_sub(2));
    let (steps, span) =
        (watch.times.len() - 1 - first, watch.times[watch.times.len() - 1] - watch.times[first]);
    Ok(span.as_secs_f64() / steps.max(1) as f64)
}

/// The CPU time after each step.
struct Watch {
    times: Vec<Duration>,
}

impl Observer for Watch {
    fn step(&mut self, _: &Progress) {
        self.times.push(clock::cpu_time());
    }

    fn stop(&self) -> Option<u8> {
        (self.times.len() > WARM_UP + MEASURED).then_some(ENOUGH)
    }
}
