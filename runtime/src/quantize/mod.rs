//! From a float model and some pictures to int8, as standard ONNX that other engines run too, behind a gate.
//!
//! The order of the modules is the order of the data: [`layers`] finds what can be quantized; [`calibrate`] runs the
//! pictures and keeps a [`histogram`] of what goes into each layer; [`range`] makes steps of them, [`weights`] makes
//! int8 of the matrices, [`noise`] measures what both cost each layer; [`rewrite`] changes the graph; the result is
//! run and compared with the float model, and while it costs more than the [`budget`], the layers with most noise
//! stay float. [`record`] is what the file says about itself, [`report`] a page for people.

mod budget;
mod calibrate;
pub mod files;
mod histogram;
mod layers;
mod noise;
mod plot;
mod prepare;
mod range;
mod record;
pub mod report;
mod rewrite;
mod taps;
mod weights;

use prost::Message as _;
use serde::Serialize;
use tract_onnx::pb::ModelProto;

pub use budget::{Budget, COSINE, FLIPS, POINTS};
pub use range::Method;

use crate::compare::{Comparison, of_outputs};
use crate::error::{Error, Result};
use crate::gate::{self, Limits};
use crate::load::Model;
use crate::samples::{self, Outputs, Sample};
use crate::selftest;
use calibrate::Calibration;
use layers::Layer;
use range::Step;
use rewrite::Change;
use weights::Weight;

/// What is being done, for progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The float model runs over the calibration pictures.
    Calibrate,
    /// The float model runs over the pictures to measure on.
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
    /// Called with the pictures done and in all; from any thread.
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
    /// Calibration pictures that were used.
    pub samples: usize,
}

/// Quantizes the model file `bytes`, whose loaded form with its preprocessing is `float`.
///
/// Errors: [`Error::Usage`] for a model that is quantized already or has nothing to quantize, [`Error::Data`] for
/// pictures that cannot be used, [`Error::GateFailed`] if the budget does not hold with any number of layers tried.
pub fn quantize(
    bytes: &[u8],
    float: &Model,
    calibration: &[Sample],
    measuring: &[Sample],
    settings: &Settings<'_>,
) -> Result<Quantized> {
    let (proto, summary) = gate::open(bytes, &Limits::default())?;
    let graph = proto.graph.as_ref().ok_or_else(|| Error::refused("model", "no graph", "a graph"))?;
    if summary.nodes.iter().any(|node| node.op == "QuantizeLinear") {
        return Err(Error::Usage("the model is quantized already: start from the float one".into()));
    }
    let layers = layers::find(graph, &summary);
    if layers.is_empty() {
        return Err(Error::Usage(
            "the model has no layer to quantize (MatMul or Gemm with constant weights)".into(),
        ));
    }
    let seen = look(&proto, float, &layers, calibration, settings)?;
    let plans = plan(&proto, &layers, &seen, settings.method);
    let total = measuring.len();
    let step = |done| (settings.progress)(Stage::MeasureFloat, done, total);
    let wanted = samples::outputs(float, measuring, settings.threads, &step)?;
    Search {
        proto: &proto,
        float,
        plans: &plans,
        measuring,
        wanted: &wanted,
        settings,
        pictures: seen.pictures,
    }
    .run()
}

/// Calibrates: every value that goes into a layer is looked at once.
fn look(
    proto: &ModelProto,
    float: &Model,
    layers: &[Layer],
    samples: &[Sample],
    settings: &Settings<'_>,
) -> Result<Calibration> {
    let total = samples.len();
    let step = |done| (settings.progress)(Stage::Calibrate, done, total);
    calibrate::calibrate(proto, float, &inputs(layers), samples, &step)
}

/// The values that go into layers, each once.
fn inputs(layers: &[Layer]) -> Vec<&str> {
    let mut inputs: Vec<&str> = Vec::new();
    for layer in layers {
        if !inputs.contains(&layer.input.as_str()) {
            inputs.push(&layer.input);
        }
    }
    inputs
}

/// A layer with the numbers for its quantization.
struct Plan {
    layer: Layer,
    step: Step,
    weight: Weight,
    seen: (f32, f32),
    sqnr_db: f64,
}

/// Steps, weights and noise of every layer.
fn plan(proto: &ModelProto, layers: &[Layer], seen: &Calibration, method: Method) -> Vec<Plan> {
    let constants = proto.graph.as_ref().map(layers::constants).unwrap_or_default();
    let inputs = inputs(layers);
    let steps: Vec<Step> = seen.activations.iter().map(|seen| range::step(&seen.histogram, method)).collect();
    let plan = |layer: &Layer| {
        let at = inputs.iter().position(|input| *input == layer.input)?;
        let (activation, step) = (seen.activations.get(at)?, *steps.get(at)?);
        let floats = layers::floats(constants.get(layer.weight.as_str())?);
        let weight = weights::quantize(&floats, layer.shape, &activation.importance());
        let sqnr_db = noise::sqnr_db(&activation.rows, &floats, layer.shape, step, &weight);
        let seen = activation.histogram.extremes().unwrap_or_default();
        Some(Plan { layer: layer.clone(), step, weight, seen, sqnr_db })
    };
    layers.iter().filter_map(plan).collect()
}

/// The search for a model within the budget.
struct Search<'a> {
    proto: &'a ModelProto,
    float: &'a Model,
    plans: &'a [Plan],
    measuring: &'a [Sample],
    /// What the float model gives.
    wanted: &'a Outputs,
    settings: &'a Settings<'a>,
    pictures: usize,
}

impl Search<'_> {
    /// Keeps more and more of the layers with most noise float until the budget holds.
    fn run(&self) -> Result<Quantized> {
        let mut worst: Vec<usize> = (0..self.plans.len()).collect();
        worst.sort_by(|&a, &b| self.plans[a].sqnr_db.total_cmp(&self.plans[b].sqnr_db));
        let mut last = String::new();
        for i in 0..self.settings.tries.max(1) {
            let kept = budget::kept_float(i);
            if kept >= self.plans.len() {
                break;
            }
            let (proto, model) = self.build(&worst[..kept])?;
            let found = self.measure(&model, kept)?;
            match self.settings.budget.exceeded(&found) {
                None => return self.finish(proto, &model, found, &worst[..kept]),
                Some(problem) => {
                    last = format!("{problem}, with {kept} of {} layers kept float", self.plans.len())
                }
            }
            log::info!("{last}");
        }
        let advice = "give pictures like those of the training, or allow more by --budget";
        Err(Error::GateFailed(format!("quantize: {last}; nothing is written; {advice}")))
    }

    /// The model with all layers but these in int8.
    fn build(&self, float: &[usize]) -> Result<(ModelProto, Model)> {
        let chosen = self.plans.iter().enumerate().filter(|(i, _)| !float.contains(i));
        let changes: Vec<Change<'_>> = chosen.map(|(_, plan)| plan.change()).collect();
        let mut proto = self.proto.clone();
        if let Some(graph) = &mut proto.graph {
            rewrite::rewrite(graph, &changes);
        }
        let model = self.load(&proto.encode_to_vec())?;
        Ok((proto, model))
    }

    /// Loads a quantized file with the float model's preprocessing and labels.
    fn load(&self, bytes: &[u8]) -> Result<Model> {
        let model = Model::from_bytes(bytes)?.with_labels(self.float.labels().to_vec())?;
        match self.float.preprocess() {
            Some(preprocess) => model.with_preprocess(preprocess.clone()),
            None => Ok(model),
        }
    }

    fn measure(&self, model: &Model, kept: usize) -> Result<Comparison> {
        let total = self.measuring.len();
        let step = |done| (self.settings.progress)(Stage::MeasureInt8(kept), done, total);
        let found = samples::outputs(model, self.measuring, self.settings.threads, &step)?;
        of_outputs(self.float.labels(), self.measuring, self.wanted, &found)
    }

    /// Writes the record, and holds the file to its own test vectors.
    fn finish(
        &self,
        mut proto: ModelProto,
        model: &Model,
        comparison: Comparison,
        float: &[usize],
    ) -> Result<Quantized> {
        let layers: Vec<Row> =
            self.plans.iter().enumerate().map(|(i, plan)| plan.row(float.contains(&i))).collect();
        let golden = record::golden(self.float, model)?;
        let tolerance = golden.as_ref().map(|(_, furthest)| selftest::quantized_tolerance(*furthest));
        let note = record::quantization(self.settings, self.pictures, &layers, &comparison, tolerance);
        record::write(&mut proto, golden.as_ref().map(|(golden, _)| &golden[..]), &note);
        let bytes = proto.encode_to_vec();
        let written = self.load(&bytes)?;
        if golden.is_some_and(|(golden, _)| !golden.is_empty()) {
            selftest::judge(&selftest::run(&written)?)?;
        }
        Ok(Quantized { bytes, comparison, layers, samples: self.pictures })
    }
}

impl Plan {
    fn change(&self) -> Change<'_> {
        Change { layer: &self.layer, step: self.step, weight: &self.weight }
    }

    fn row(&self, kept_float: bool) -> Row {
        Row {
            name: self.layer.name.clone(),
            inputs: self.layer.shape.inputs,
            outputs: self.layer.shape.outputs,
            multiply_adds: self.layer.multiply_adds,
            sqnr_db: self.sqnr_db,
            kept_float,
            seen: self.seen,
            range: self.step.range(),
            scale: self.step.scale,
            zero_point: self.step.zero,
        }
    }
}
