//! Runs the exported model as a device does, and compares its answers with the trainer's.

use std::path::Path;
use std::time::Duration;

use smalti_models::Preprocess;
use smalti_runtime::Model;
use smalti_tools::bench;
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::{Predictions, top};

/// How trainer and runtime compare, and how fast the runtime is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    /// Share of the images that both put into the same class.
    pub(super) agreement: f64,
    /// The largest difference between two logits.
    pub(super) largest_difference: f64,
    /// Median latency of one image.
    pub(super) latency_ms: f64,
    /// Size of the file.
    pub(super) bytes: u64,
}

/// Runs the model file over the images that the trainer saw.
pub(super) fn run(file: &Path, data: &Dataset, trainer: &Predictions) -> anyhow::Result<Device> {
    let model = Model::open(file)?;
    let (mut session, side) = (model.session()?, model.preprocess().map(Preprocess::side));
    let (mut same, mut largest) = (0, 0f32);
    let rows = trainer.logits.chunks_exact(trainer.classes);
    for (&id, logits) in trainer.ids.iter().zip(rows) {
        let image = side.map_or_else(|| data.image(id as usize), |side| data.image_for(id as usize, side))?;
        let output = session.classify(&image)?.output;
        same += usize::from(top(&output.logits) == top(logits));
        let differences = output.logits.iter().zip(logits).map(|(a, b)| (a - b).abs());
        largest = differences.fold(largest, f32::max);
    }
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    let times =
        bench::Settings { warm_up: Duration::from_millis(200), measure: Duration::from_secs(1), threads: 1 };
    Ok(Device {
        agreement: share(same, trainer.ids.len()),
        largest_difference: f64::from(largest),
        latency_ms: bench::run(file, &times)?.p50_ms,
        bytes: std::fs::metadata(file)?.len(),
    })
}
