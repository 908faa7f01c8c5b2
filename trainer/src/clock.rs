//! Where the time of a step goes, and how much CPU time the process took. `smalti bench` switches the first on; off, it costs
//! each operation one look at a flag.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Linear layers, forward and backward: matrix products, with biases and residuals.
    Products,
    /// Attention between its linear layers.
    Attention,
    /// Layer norms.
    Norms,
    /// GELU.
    Gelu,
    /// Cutting images into patches, and targets out of them; masks.
    Patches,
    /// Adding gradients over lanes.
    Sums,
    /// Gradient length and parameter update.
    Optimizer,
}

impl Op {
    /// All, in the order of reports.
    pub const ALL: [Op; 7] =
        [Op::Products, Op::Attention, Op::Norms, Op::Gelu, Op::Patches, Op::Sums, Op::Optimizer];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Op::Products => "products",
            Op::Attention => "attention",
            Op::Norms => "layer norm",
            Op::Gelu => "GELU",
            Op::Patches => "patches",
            Op::Sums => "sums",
            Op::Optimizer => "optimizer",
        }
    }
}

static ON: AtomicBool = AtomicBool::new(false);
/// Nanoseconds of all threads together.
static SPENT: [AtomicU64; Op::ALL.len()] = [const { AtomicU64::new(0) }; Op::ALL.len()];

/// Counts the time to its end.
#[derive(Debug)]
pub struct Timer(Op, Instant);

impl Drop for Timer {
    fn drop(&mut self) {
        spend(self.0, self.1.elapsed().as_secs_f64());
    }
}

/// Counts the time from here to the end of the scope, if the clock is on.
#[inline]
pub fn time(op: Op) -> Option<Timer> {
    ON.load(Ordering::Relaxed).then(|| Timer(op, Instant::now()))
}

/// Counts so many seconds.
pub fn spend(op: Op, seconds: f64) {
    SPENT[op as usize].fetch_add((seconds * 1e9) as u64, Ordering::Relaxed);
}

/// Switches the clock on, at zero, or off.
pub fn switch(on: bool) {
    SPENT.iter().for_each(|spent| spent.store(0, Ordering::Relaxed));
    ON.store(on, Ordering::Relaxed);
}

/// Seconds of all threads together since the clock was switched on, in the order of [`Op::ALL`].
pub fn spent() -> [f64; Op::ALL.len()] {
    SPENT.each_ref().map(|spent| spent.load(Ordering::Relaxed) as f64 / 1e9)
}

/// The CPU time of all threads of this process so far.
#[cfg(unix)]
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The CPU time of all threads of this process so far, at most: the time since the first call, on all cores.
#[cfg(not(unix))]
pub fn cpu_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    START.get_or_init(Instant::now).elapsed() * cores.try_into().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_place() {
        assert!(Op::ALL.iter().enumerate().all(|(i, op)| *op as usize == i));
    }
}
