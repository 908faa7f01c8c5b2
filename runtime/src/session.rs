//! Sessions: one thread's buffers around a model, from a picture to ranked labels.

use smalti_models::{Picture, Preprocess};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SimpleState, TypedFact, TypedOp};

use crate::engine::guarded;
use crate::error::{Error, Result};
use crate::gate::{Form, Input};
use crate::load::Model;

/// What a model says about one picture, as numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// One score a class, not normalised.
    pub logits: Vec<f32>,
    /// The vector in front of the head, where the model gives it.
    pub embedding: Option<Vec<f32>>,
}

/// One label with its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The label's text.
    pub label: String,
    /// The class's number.
    pub index: usize,
    /// Its probability (softmax of the logits).
    pub probability: f32,
}

/// What a model says about one picture: all labels, most probable first.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// All labels, most probable first; of equal ones the lower class first.
    pub ranked: Vec<Ranked>,
    /// The numbers behind.
    pub output: Output,
}

impl Prediction {
    /// The most probable label.
    pub fn best(&self) -> Option<&Ranked> {
        self.ranked.first()
    }
}

/// One thread's buffers around a [`Model`].
pub struct Session {
    model: Model,
    state: State,
    /// What goes into the engine; it gives its share of it back after a run.
    input: Arc<Tensor>,
    /// Normalised pixels of the last picture.
    floats: Vec<f32>,
}

/// The engine's own state of a run.
type State = SimpleState<TypedFact, Box<dyn TypedOp>>;

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(model: &Model) -> Result<Session> {
        let state = guarded("start a session", || SimpleState::new(model.plan()))?;
        let input = Arc::new(guarded("make room for a picture", || room(model.input()))?);
        Ok(Session { model: model.clone(), state, input, floats: Vec::new() })
    }

    /// The model that this session runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Prepares a picture as the model's record says, runs the model and ranks the labels.
    pub fn classify(&mut self, picture: &Picture) -> Result<Prediction> {
        let Some(preprocess) = self.model.preprocess().cloned() else {
            let problem =
                "the model file does not say how to prepare pictures; give preprocessing (mean, std, fit)";
            return Err(Error::Usage(problem.into()));
        };
        let output = self.run_prepared(&preprocess, picture)?;
        Ok(Prediction { ranked: rank(self.model.labels(), &output.logits), output })
    }

    /// Prepares a picture and runs the model.
    fn run_prepared(&mut self, preprocess: &Preprocess, picture: &Picture) -> Result<Output> {
        let unusable = |error: smalti_models::Error| Error::data("picture", error);
        let prepared = preprocess.apply(picture).map_err(unusable)?;
        if self.model.input().form == Form::U8Nhwc {
            return self.run_pixels(prepared.data());
        }
        let mut floats = std::mem::take(&mut self.floats);
        floats.resize(self.model.input().values(), 0.0);
        let result = preprocess.normalise(prepared.data(), &mut floats).map_err(unusable);
        let result = result.and_then(|()| self.run_floats(&floats));
        self.floats = floats;
        result
    }

    /// Runs the model on pixels of the right size: rows from top to bottom, channels innermost (HWC). A model
    /// that takes floats needs its preprocessing known, and gets the pixels normalised.
    pub fn run_pixels(&mut self, pixels: &[u8]) -> Result<Output> {
        let input = self.model.input();
        check_length(pixels.len(), input.values(), "bytes")?;
        if input.form == Form::F32Nchw {
            let Some(preprocess) = self.model.preprocess() else {
                return Err(Error::Usage("the model takes normalised floats, not pixels".into()));
            };
            let mut floats = vec![0.0; input.values()];
            let unusable = |error: smalti_models::Error| Error::data("picture", error);
            preprocess.normalise(pixels, &mut floats).map_err(unusable)?;
            return self.run_floats(&floats);
        }
        self.run(pixels)
    }

    /// Runs the model on normalised pixels of the right size, channels outermost (CHW).
    pub fn run_floats(&mut self, values: &[f32]) -> Result<Output> {
        let input = self.model.input();
        if input.form == Form::U8Nhwc {
            return Err(Error::Usage("the model takes pixels (bytes), not floats".into()));
        }
        check_length(values.len(), input.values(), "floats")?;
        self.run(values)
    }

    /// Runs the plan on as many values as the input has. After a failure the engine's state starts afresh.
    fn run<T: Datum + Copy>(&mut self, values: &[T]) -> Result<Output> {
        let (state, input, model) = (&mut self.state, &mut self.input, &self.model);
        let result = guarded("run the model", || {
            if Arc::get_mut(input).is_none() {
                *input = Arc::new(room(model.input())?);
            }
            if let Some(tensor) = Arc::get_mut(input) {
                tensor.try_as_plain_ram_mut()?.as_slice_mut::<T>()?.copy_from_slice(values);
            }
            let outputs = state.run(tvec!(Arc::clone(input).into_tvalue()))?;
            outputs.iter().map(|value| Ok(value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())).collect()
        });
        if result.is_err() {
            self.state = guarded("start a session", || SimpleState::new(self.model.plan()))?;
        }
        let mut outputs: std::vec::IntoIter<Vec<f32>> = result.map(Vec::into_iter)?;
        let (logits, embedding) = (outputs.next().unwrap_or_default(), outputs.next());
        if !logits.iter().all(|logit| logit.is_finite()) {
            let problem = "it gave logits that are not finite for this picture".into();
            return Err(Error::Engine { step: "run the model", problem });
        }
        Ok(Output { logits, embedding: embedding.filter(|_| self.model.has_embedding()) })
    }
}

/// A tensor of the input's type and shape.
fn room(input: &Input) -> TractResult<Tensor> {
    let Input { width, height, channels, .. } = *input;
    match input.form {
        Form::U8Nhwc => Tensor::zero::<u8>(&[1, height, width, channels]),
        Form::F32Nchw => Tensor::zero::<f32>(&[1, channels, height, width]),
    }
}

/// A usage error unless the length is right.
fn check_length(found: usize, wanted: usize, unit: &str) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::Usage(format!("{found} {unit} for a model that takes {wanted}")))
}

/// All labels by falling probability.
fn rank(labels: &[String], logits: &[f32]) -> Vec<Ranked> {
    let probabilities = softmax(logits);
    let mut ranked: Vec<Ranked> = labels
        .iter()
        .zip(probabilities)
        .enumerate()
        .map(|(index, (label, probability))| Ranked { label: label.clone(), index, probability })
        .collect();
    ranked.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    ranked
}

/// Softmax, safe for large logits.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_survives_large_logits() {
        let odds = softmax(&[1000.0, 999.0, -1e30]);
        assert!((odds.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((odds[0] / odds[1] - std::f32::consts::E).abs() < 1e-5);
    }

    #[test]
    fn equal_labels_stay_in_order() {
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let ranked = rank(&labels, &[0.5, 2.0, 0.5]);
        assert_eq!(ranked.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(ranked[0].label, "b");
    }
}
