//! How fast a model runs here: latency of single runs, load time, peak memory.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use smalti_kernels::{Isa, peak};
use smalti_models::contract::golden_image;

use smalti_runtime::Model;
use smalti_runtime::Result;
use smalti_runtime::cpu;
use smalti_runtime::gate::Form;
use smalti_runtime::session::Session;
use smalti_runtime::session::{ImageView, StepInfo};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time to run before measuring.
    pub warm_up: Duration,
    /// Time to measure.
    pub measure: Duration,
    /// Threads that a run is shared out to.
    pub threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { warm_up: Duration::from_millis(300), measure: Duration::from_secs(2), threads: 1 }
    }
}

/// The fewest and most runs that are measured.
const RUNS: std::ops::RangeInclusive<usize> = 20..=1_000_000;

/// What was measured; times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Median latency of one image, already decoded and resized.
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
    /// What runs the model: `smalti`, or `tract`.
    pub backend: &'static str,
    /// What one core reaches at most in floats and in bytes, in thousand million multiply-adds a second.
    pub peak_gmac_per_s: [f64; 2],
    /// Where the time goes, the steps of one kind together, most first; empty on tract.
    pub steps: Vec<Step>,
}

/// The steps of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    /// What they do.
    pub kind: &'static str,
    /// How many there are.
    pub count: usize,
    /// Mean time of all of them in one run.
    pub ms: f64,
    /// Their part of the run's time.
    pub share: f64,
    /// Their multiply-adds.
    pub multiply_adds: u64,
    /// Thousand million multiply-adds a second.
    pub gmac_per_s: f64,
    /// That, as a part of what all threads' cores reach at most; 0 for steps without products.
    pub peak_share: f64,
}

/// Loads a model and runs it until the time is over.
pub fn run(path: &Path, settings: &Settings) -> Result<Report> {
    run_opened(|| Model::open(path), settings)
}

/// As [`run`], of a model that is opened in a way of its own.
pub fn run_opened(open: impl FnOnce() -> Result<Model>, settings: &Settings) -> Result<Report> {
    let start = Instant::now();
    let model = open()?;
    let mut session = model.session_with_threads(settings.threads)?;
    let load_ms = millis(start.elapsed());

    let image = Input::new(&model)?;
    let warm_up = Instant::now();
    while warm_up.elapsed() < settings.warm_up {
        image.run(&mut session)?;
    }
    let mut times = Vec::new();
    let measure = Instant::now();
    while times.len() < *RUNS.start() || (measure.elapsed() < settings.measure && times.len() < *RUNS.end()) {
        let start = Instant::now();
        image.run(&mut session)?;
        times.push(millis(start.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    let memory = cpu::peak_memory_mb().unwrap_or_default();
    let peak = peak::measure(Isa::best());
    let steps = steps(&image, &mut session, settings, peak)?;
    let multiply_adds = model.summary().multiply_adds;
    let p50_ms = percentile(&times, 0.50);
    Ok(Report {
        p50_ms,
        p95_ms: percentile(&times, 0.95),
        p99_ms: percentile(&times, 0.99),
        min_ms: times.first().copied().unwrap_or_default(),
        runs: times.len(),
        load_ms,
        peak_rss_mb: memory,
        isa: cpu::isa(),
        threads: session.threads(),
        multiply_adds,
        gmac_per_s: multiply_adds as f64 / p50_ms / 1e6,
        backend: if model.fallback_reason().is_some() { "tract" } else { "smalti" },
        peak_gmac_per_s: [peak.floats, peak.bytes],
        steps,
    })
}

/// Runs a model so many times on one thread, and measures nothing.
pub fn only_runs(model: &Model, runs: u32) -> Result<()> {
    let (image, mut session) = (Input::new(model)?, model.session()?);
    (0..runs).try_for_each(|_| image.run(&mut session))
}

/// Times the steps of some runs, after all others: looking at the clock costs time too.
fn steps(image: &Input, session: &mut Session, settings: &Settings, peak: peak::Peak) -> Result<Vec<Step>> {
    let (start, mut runs, mut times) = (Instant::now(), 0, Vec::new());
    while runs < *RUNS.start() || start.elapsed() < settings.measure / 4 {
        image.time(session, &mut times)?;
        runs += 1;
    }
    let mut kinds: Vec<Step> = Vec::new();
    let all: f64 = times.iter().copied().map(millis).sum::<f64>() / runs as f64;
    for (StepInfo { kind, multiply_adds, .. }, time) in session.steps().zip(&times) {
        let known = kinds.iter().position(|step| step.kind == kind);
        let at = known.unwrap_or(kinds.len());
        if known.is_none() {
            kinds.push(Step { kind, ..Step::default() });
        }
        let Some(step) = kinds.get_mut(at) else { continue };
        step.count += 1;
        step.ms += millis(*time) / runs as f64;
        step.multiply_adds += multiply_adds;
    }
    let threads = session.threads() as f64;
    for step in &mut kinds {
        let most = if step.kind.ends_with("int8") { peak.bytes } else { peak.floats };
        step.share = step.ms / all;
        step.gmac_per_s = step.multiply_adds as f64 / step.ms.max(1e-9) / 1e6;
        step.peak_share = step.gmac_per_s / (most * threads).max(1e-9);
    }
    kinds.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    Ok(kinds)
}

/// An image in the form that the model takes.
struct Input {
    pixels: Vec<u8>,
    floats: Option<Vec<f32>>,
}

impl Input {
    fn new(model: &Model) -> Result<Input> {
        let input = model.input();
        let side = input.width.max(input.height).min(1024);
        let pattern = golden_image(0, side, input.channels)?.into_data();
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

    fn time(&self, session: &mut Session, times: &mut Vec<Duration>) -> Result<()> {
        session.time_steps(
            self.floats.as_ref().map_or(ImageView::U8(&self.pixels), |floats| ImageView::F32(floats)),
            times,
        )
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
