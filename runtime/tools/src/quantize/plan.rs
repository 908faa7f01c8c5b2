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

/// The values that go into layers, each once for every kind of windows that makes rows of it.
pub(super) fn inputs(layers: &[Layer]) -> Vec<(&str, Option<&Patch>)> {
    let mut inputs: Vec<(&str, Option<&Patch>)> = Vec::new();
    for layer in layers {
        let input = (layer.input.as_str(), layer.patch.as_ref());
        if !inputs.contains(&input) {
            inputs.push(input);
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
        let at = inputs.iter().position(|input| *input == (layer.input.as_str(), layer.patch.as_ref()))?;
        // One step for a value, whatever windows see it.
        let first = inputs.iter().position(|(input, _)| *input == layer.input)?;
        let (activation, step) = (seen.activations.get(at)?, *steps.get(first)?);
        let floats: Vec<f32> = floats(constants.get(layer.weight.as_str())?).collect();
        let floats = layer.patch.as_ref().map_or(floats.clone(), |patch| patch.to_rows(&floats));
        let mut weight = weights::quantize(&floats, layer.shape, &activation.moments());
        let sqnr_db = noise::sqnr_db(&activation.rows, &floats, layer.shape, step, &weight);
        if let Some(patch) = &layer.patch {
            weight.values = patch.to_file(&weight.values);
        }
        let seen = activation.histogram.extremes().unwrap_or_default();
        Some(Plan { layer: layer.clone(), step, weight, seen, sqnr_db })
    };
    layers.iter().filter_map(plan).collect()
}
