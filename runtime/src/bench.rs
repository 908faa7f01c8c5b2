//! How fast a model runs here: latency of single runs, load time, peak memory.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use smalti_models::contract::golden_picture;

use crate::cpu;
use crate::error::Result;
use crate::gate::Form;
use crate::load::Model;
use crate::session::Session;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time to run before measuring.
    pub warm_up: Duration,
    /// Time to measure.
    pub measure: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { warm_up: Duration::from_millis(300), measure: Duration::from_secs(2) }
    }
}

/// The fewest and most runs that are measured.
const RUNS: std::ops::RangeInclusive<usize> = 20..=1_000_000;

/// What was measured; times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Median latency of one picture, already decoded and resized.
    pub p50_ms: f64,
    /// 95 of 100 runs were at least this fast.
    pub p95_ms: f64,
    /// 99 of 100 runs were at least this fast.
    pub p99_ms: f64,
    /// The fastest run.
    pub min_ms: f64,
    /// Runs measured.
    pub runs: usize,
    /// From the file's path to a session that is ready to run.
    pub load_ms: f64,
    /// The most memory that this process had in use, in MiB; 0 where the system does not tell.
    pub peak_rss_mb: f64,
    /// The instruction set that the model runs on.
    pub isa: &'static str,
    /// Threads that one run uses.
    pub threads: usize,
    /// Multiply-adds of one run.
    pub multiply_adds: u64,
    /// Thousand million multiply-adds a second at the median.
    pub gmac_per_s: f64,
}

/// Loads a model and runs it until the time is over.
pub fn run(path: &Path, settings: &Settings) -> Result<Report> {
    let start = Instant::now();
    let model = Model::open(path)?;
    let mut session = model.session()?;
    let load_ms = millis(start.elapsed());

    let picture = Input::new(&model)?;
    let warm_up = Instant::now();
    while warm_up.elapsed() < settings.warm_up {
        picture.run(&mut session)?;
    }
    let mut times = Vec::new();
    let measure = Instant::now();
    while times.len() < *RUNS.start() || (measure.elapsed() < settings.measure && times.len() < *RUNS.end()) {
        let start = Instant::now();
        picture.run(&mut session)?;
        times.push(millis(start.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    let multiply_adds = model.summary().multiply_adds;
    let p50_ms = percentile(&times, 0.50);
    Ok(Report {
        p50_ms,
        p95_ms: percentile(&times, 0.95),
        p99_ms: percentile(&times, 0.99),
        min_ms: times.first().copied().unwrap_or_default(),
        runs: times.len(),
        load_ms,
        peak_rss_mb: cpu::proc_mb("/proc/self/status", "VmHWM").unwrap_or_default(),
        isa: cpu::isa(),
        threads: 1,
        multiply_adds,
        gmac_per_s: multiply_adds as f64 / p50_ms / 1e6,
    })
}

/// A picture in the form that the model takes.
struct Input {
    pixels: Vec<u8>,
    floats: Option<Vec<f32>>,
}

impl Input {
    fn new(model: &Model) -> Result<Input> {
        let input = model.input();
        let side = input.width.max(input.height).min(1024);
        let pattern = golden_picture(0, side, input.channels)?.into_data();
        let pixels: Vec<u8> = pattern.iter().copied().cycle().take(input.values()).collect();
        let floats = pixels.iter().map(|&pixel| f32::from(pixel) / 127.5 - 1.0).collect();
        let floats = (input.form == Form::F32Nchw).then_some(floats);
        Ok(Input { pixels, floats })
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        match &self.floats {
            Some(floats) => session.run_floats(floats)?,
            None => session.run_pixels(&self.pixels)?,
        };
        Ok(())
    }
}

/// A duration in milliseconds.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The smallest value that `share` of the sorted values do not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(
            [0.5, 0.95, 0.99, 1.0].map(|share| percentile(&times, share)),
            [100.0, 190.0, 198.0, 200.0]
        );
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
    }
}
