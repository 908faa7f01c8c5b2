//! From a float model and some images to int8, as standard ONNX that other engines run too, behind a gate.
//!
//! The order of the modules is the order of the data: `layers` finds what can be quantized; `calibrate` runs the
//! images and keeps a `histogram` of what goes into each layer; `range` makes a `step` of each, `weights` makes
//! int8 of the matrices, `noise` measures what both cost each layer, all of which is its `plan`; `rewrite` changes
//! the graph; `search` runs the result beside the float model, and while it costs more than the `budget`, keeps the
//! layers with most noise float. `record` is what the file says about itself, [`report`] a page for people.

mod budget;
mod calibrate;
mod histogram;
mod layers;
mod noise;
mod plan;
mod plot;
mod range;
mod record;
pub mod report;
mod rewrite;
mod search;
mod step;
mod weights;

use serde::Serialize;

pub use budget::{Budget, COSINE, FLIPS, POINTS};
pub use range::Method;

use crate::compare::Comparison;
use crate::samples::{self, Sample};
use calibrate::Calibration;
use layers::Layer;
use plan::{inputs, plan};
use search::Search;
use smalti_models::contract::EMBED;
use smalti_runtime::Model;
use smalti_runtime::gate::{self, Limits};
use smalti_runtime::{Error, Result};

/// What is being done, for progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The float model runs over the calibration images.
    Calibrate,
    /// The float model runs over the images to measure on.
    MeasureFloat,
    /// The quantized model does, with so many layers kept float.
    MeasureInt8(usize),
}

/// How to quantize.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// How ranges of activations are found.
    pub method: Method,
    /// What may be lost.
    pub budget: Budget,
    /// How often to try, with more and more layers kept float. At least once.
    pub tries: usize,
    /// Threads for measuring.
    pub threads: usize,
    /// Called with the images done and in all; from any thread.
    pub progress: &'a (dyn Fn(Stage, usize, usize) + Sync),
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings {
            method: Method::default(),
            budget: Budget::default(),
            tries: 8,
            threads: 1,
            progress: &|_, _, _| {},
        }
    }
}

/// One layer's row of the error table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The weight's name without `.weight`, or the node's place or first output; unique.
    pub name: String,
    /// Length of the inner sum.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Multiply-adds of one run.
    pub multiply_adds: u64,
    /// Signal-to-noise ratio of the output with input and weight quantized, in dB.
    pub sqnr_db: f64,
    /// Whether the layer stays float.
    pub kept_float: bool,
    /// Smallest and largest value of the input in calibration.
    pub seen: (f32, f32),
    /// Smallest and largest value that the input has a level for.
    pub range: (f32, f32),
    /// Distance of two levels of the input.
    pub scale: f32,
    /// The level of 0.
    pub zero_point: u8,
}

/// What came out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quantized {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    /// Float (a) against int8 (b).
    pub comparison: Comparison,
    /// The layers, in the order of the graph.
    pub layers: Vec<Row>,
    /// Calibration images that were used.
    pub samples: usize,
}

/// The first opset whose quantization has a scale for each channel.
const PER_CHANNEL: i64 = 13;

/// Quantizes the model file `bytes`, whose loaded form with its preprocessing is `float`.
///
/// Errors: [`Error::Usage`] for a model that is quantized already or has nothing to quantize, [`Error::Data`] for
/// images that cannot be used, [`Error::GateFailed`] if the budget does not hold with any number of layers tried.
pub fn quantize(
    bytes: &[u8],
    float: &Model,
    calibration: &[Sample],
    measuring: &[Sample],
    settings: &Settings<'_>,
) -> Result<Quantized> {
    let (proto, summary) = gate::open(bytes, &Limits::default())?;
    let graph = proto.graph.as_ref().ok_or_else(|| Error::refused("model", "no graph", "a graph"))?;
    if summary.opset < PER_CHANNEL {
        let allowed =
            format!("{PER_CHANNEL} or later, which has a scale for each channel: export the model again");
        return Err(Error::refused("model", format!("opset {}", summary.opset), allowed));
    }
    if summary.nodes.iter().any(|node| node.op == "QuantizeLinear") {
        return Err(Error::Usage("the model is quantized already: start from the float one".into()));
    }
    let layers = layers::find(graph, &summary);
    if layers.is_empty() {
        return Err(Error::Usage(
            "the model has no layer to quantize (MatMul or Gemm with constant weights)".into(),
        ));
    }
    let seen = look(bytes, float, &layers, calibration, settings)?;
    let plans = plan(&proto, &layers, &seen, settings.method);
    // The largest value of an embedding is no answer.
    let embeds = float.record().is_some_and(|record| record.task == EMBED);
    let budget = if embeds { Budget { flips: 1.0, ..settings.budget } } else { settings.budget };
    let settings = &Settings { budget, ..*settings };
    let total = measuring.len();
    let step = |done| (settings.progress)(Stage::MeasureFloat, done, total);
    let wanted = samples::outputs(float, measuring, settings.threads, &step)?;
    Search { proto: &proto, float, plans: &plans, measuring, wanted: &wanted, settings, images: seen.images }
        .run()
}

/// Calibrates: every value that goes into a layer is looked at once.
fn look(
    bytes: &[u8],
    float: &Model,
    layers: &[Layer],
    samples: &[Sample],
    settings: &Settings<'_>,
) -> Result<Calibration> {
    let total = samples.len();
    let step = |done| (settings.progress)(Stage::Calibrate, done, total);
    calibrate::calibrate(bytes, float, &inputs(layers), samples, &step)
}
