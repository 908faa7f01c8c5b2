//! The numbers for each layer: step, weights, noise.

use smalti_models::onnx::ModelProto;

use super::calibrate::{Activation, Calibration};
use super::layers::{self, Layer, Patch};
use super::range::Method;
use super::rewrite::Change;
use super::step::Step;
use super::weights::Weight;
use super::{Row, noise, range, weights};
use smalti_runtime::gate::floats;

/// A layer with the numbers for its quantization.
pub(super) struct Plan {
    pub(super) layer: Layer,
    pub(super) step: Step,
    pub(super) weight: Weight,
    pub(super) seen: (f32, f32),
    pub(super) sqnr_db: f64,
}

impl Plan {
    pub(super) fn change(&self) -> Change<'_> {
        Change { layer: &self.layer, step: self.step, weight: &self.weight }
    }

    pub(super) fn row(&self, kept_float: bool) -> Row {
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

/// The values that go into layers, each once, with what makes rows of an image.
pub(super) fn inputs(layers: &[Layer]) -> Vec<(&str, Option<Patch>)> {
    let mut inputs: Vec<(&str, Option<Patch>)> = Vec::new();
    for layer in layers {
        if inputs.iter().all(|(input, _)| *input != layer.input) {
            inputs.push((&layer.input, layer.patch));
        }
    }
    inputs
}

/// Steps, weights and noise of every layer.
pub(super) fn plan(proto: &ModelProto, layers: &[Layer], seen: &Calibration, method: Method) -> Vec<Plan> {
    let constants = proto.graph.as_ref().map(layers::constants).unwrap_or_default();
    let inputs = inputs(layers);
    let step = |seen: &Activation| {
        if seen.are_bytes() { Step::BYTES } else { range::step(&seen.histogram, method) }
    };
    let steps: Vec<Step> = seen.activations.iter().map(step).collect();
    let plan = |layer: &Layer| {
        let at = inputs.iter().position(|(input, _)| *input == layer.input)?;
        let (activation, step) = (seen.activations.get(at)?, *steps.get(at)?);
        let floats: Vec<f32> = floats(constants.get(layer.weight.as_str())?).collect();
        let weight = weights::quantize(&floats, layer.shape, &activation.moments());
        let sqnr_db = noise::sqnr_db(&activation.rows, &floats, layer.shape, step, &weight);
        let seen = activation.histogram.extremes().unwrap_or_default();
        Some(Plan { layer: layer.clone(), step, weight, seen, sqnr_db })
    };
    layers.iter().filter_map(plan).collect()
}
