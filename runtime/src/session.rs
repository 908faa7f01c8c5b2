//! Sessions: one thread's buffers around a model, from an image to ranked labels.

use std::time::Duration;

use smalti_models::Image;
use smalti_models::image::{Limits, PixelFormat, View};
use smalti_models::preprocess::Scratch;

use crate::backend::State;
use crate::compile::Program;
use crate::error::{Error, Result};
use crate::gate::Form;
use crate::load::Model;

pub use crate::compile::ImageView;

/// What a model says about one image, as numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// One score a class: logits, or probabilities where [`Model::gives_probabilities`].
    pub logits: Vec<f32>,
    /// The vector in front of the head, where the model gives it.
    pub embedding: Option<Vec<f32>>,
    /// A vector for each place of the image, row by row, where [`Model::tokens`] are shown.
    pub tokens: Option<Vec<f32>>,
}

/// One label with its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The label's text.
    pub label: String,
    /// The class's number.
    pub index: usize,
    /// Its probability: the softmax of the logits, or what the model gives if that is one.
    pub probability: f32,
}

/// What a model says about one image: all labels, most probable first.
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

/// One step of a model's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepInfo<'a> {
    /// The name of the value that it computes, for layers with weights; else its kind.
    pub name: &'a str,
    /// What it does: `linear int8`, `attention`.
    pub kind: &'static str,
    /// Multiply-adds of one run; 0 for steps without products.
    pub multiply_adds: u64,
}

/// One thread's buffers around a [`Model`].
pub struct Session {
    model: Model,
    state: State,
    /// The last frame that was converted.
    frame: Vec<u8>,
    /// Where images are prepared.
    scratch: Scratch,
    /// Normalised pixels of the last image.
    floats: Vec<f32>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(model: &Model, threads: usize) -> Result<Session> {
        let input = model.input();
        let state = model.backend().state(input, model.tokens(), threads)?;
        let normalises = input.form == Form::F32Nchw && model.preprocess().is_some();
        let floats = vec![0.0; if normalises { input.values() } else { 0 }];
        Ok(Session { model: model.clone(), state, frame: Vec::new(), scratch: Scratch::default(), floats })
    }

    /// The model that this session runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Prepares an image as the model's record says, runs the model and ranks the labels.
    pub fn classify(&mut self, image: &Image) -> Result<Prediction> {
        self.classify_view(image.view())
    }

    /// As [`Session::classify`], of an image in memory that belongs to someone else.
    pub fn classify_view(&mut self, image: View<'_>) -> Result<Prediction> {
        let mut output = Output::default();
        self.run_image_into(image, &mut output)?;
        Ok(Prediction { ranked: self.model.rank(&output.logits), output })
    }

    /// Prepares an image of any size as the model's record says and runs the model. With an output that is used again
    /// and images of one size, nothing is allocated after the first run where our own kernels run the model.
    pub fn run_image_into(&mut self, image: View<'_>, output: &mut Output) -> Result<()> {
        let preprocess = self.model.known_preprocess()?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let prepared = preprocess.apply_to(self.model.input().size(), image, &mut scratch);
        let prepared = prepared.map_err(|error| Error::data("image", error));
        let result = prepared.and_then(|pixels| self.run_pixels_into(pixels, output));
        self.scratch = scratch;
        result
    }

    /// As [`Session::run_image_into`], of a camera's frame of `width` x `height` pixels. Frames that are converted take 3
    /// bytes a pixel besides.
    ///
    /// # Errors
    /// [`Error::Data`] for bytes that are no such frame, and for more than 64 Mi pixels to be converted.
    pub fn run_frame_into(
        &mut self,
        pixels: PixelFormat,
        width: usize,
        height: usize,
        bytes: &[u8],
        output: &mut Output,
    ) -> Result<()> {
        let mut room = std::mem::take(&mut self.frame);
        let view = pixels.view(width, height, bytes, &Limits::default(), &mut room);
        let result = view
            .map_err(|error| Error::data("frame", error))
            .and_then(|view| self.run_image_into(view, output));
        self.frame = room;
        result
    }

    /// Runs the model on pixels of the right size: rows from top to bottom, channels innermost (HWC). A model
    /// that takes floats needs its preprocessing known, and gets the pixels normalised.
    pub fn run_pixels(&mut self, pixels: &[u8]) -> Result<Output> {
        let mut output = Output::default();
        self.run_pixels_into(pixels, &mut output)?;
        Ok(output)
    }

    /// As [`Session::run_pixels`] into an output that is used again: after the first run nothing is allocated where
    /// our own kernels run the model.
    pub fn run_pixels_into(&mut self, pixels: &[u8], output: &mut Output) -> Result<()> {
        let input = self.model.input();
        check_length(pixels.len(), input.values(), "bytes")?;
        if input.form == Form::U8Nhwc {
            return self.run(ImageView::U8(pixels), output);
        }
        let Some(preprocess) = self.model.preprocess() else {
            return Err(Error::Usage("the model takes normalised floats, not pixels".into()));
        };
        let mut floats = std::mem::take(&mut self.floats);
        let result = preprocess
            .normalise_to(input.size(), pixels, &mut floats)
            .map_err(|error| Error::data("image", error));
        let result = result.and_then(|()| self.run(ImageView::F32(&floats), output));
        self.floats = floats;
        result
    }

    /// Runs the model on normalised pixels of the right size, channels outermost (CHW).
    pub fn run_floats(&mut self, values: &[f32]) -> Result<Output> {
        let mut output = Output::default();
        self.run_floats_into(values, &mut output)?;
        Ok(output)
    }

    /// As [`Session::run_floats`] into an output that is used again, as [`Session::run_pixels_into`].
    pub fn run_floats_into(&mut self, values: &[f32], output: &mut Output) -> Result<()> {
        let input = self.model.input();
        if input.form == Form::U8Nhwc {
            return Err(Error::Usage("the model takes pixels (bytes), not floats".into()));
        }
        check_length(values.len(), input.values(), "floats")?;
        if let Some(i) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::data("input", format!("value {i} is {}: expected finite numbers", values[i])));
        }
        self.run(ImageView::F32(values), output)
    }

    /// Threads that a run is shared out to.
    pub fn threads(&self) -> usize {
        self.state.threads()
    }

    /// The steps of the program that our kernels run, in order; none where tract runs the model.
    pub fn steps(&self) -> impl Iterator<Item = StepInfo<'_>> {
        let steps = self.state.program().into_iter().flat_map(Program::steps);
        steps.map(|(name, kind, multiply_adds)| StepInfo { name, kind, multiply_adds })
    }

    /// Runs the model once and adds the time of each of [`Session::steps`] to `times`, which grows to their number. Does
    /// nothing where tract runs the model.
    ///
    /// # Errors
    /// [`Error::Usage`] for an image of another form or length than the input's.
    pub fn time_steps(&mut self, image: ImageView<'_>, times: &mut Vec<Duration>) -> Result<()> {
        let input = self.model.input();
        match (image, input.form) {
            (ImageView::U8(pixels), Form::U8Nhwc) => check_length(pixels.len(), input.values(), "bytes")?,
            (ImageView::F32(values), Form::F32Nchw) => check_length(values.len(), input.values(), "floats")?,
            _ => return Err(Error::Usage("an image in another form than the model's input".into())),
        }
        self.state.time(image, times)
    }

    /// Runs the model on as many values as the input has.
    fn run(&mut self, image: ImageView<'_>, output: &mut Output) -> Result<()> {
        self.state.run(image, output)?;
        if !output.logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::data("image", "the model's answer to it is not finite"));
        }
        Ok(())
    }
}

/// A usage error unless the length is right.
fn check_length(found: usize, wanted: usize, unit: &str) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::Usage(format!("{found} {unit} for a model that takes {wanted}")))
}

impl Model {
    /// The embedding in an answer of this model, which is the answer itself where the model [`embeds`](Model::embeds).
    ///
    /// # Errors
    /// [`Error::Usage`] for a model that gives none, [`Error::Data`] for one that is not finite.
    pub fn embedding_of<'a>(&self, output: &'a Output) -> Result<&'a [f32]> {
        let found = if self.embeds() { Some(&output.logits) } else { output.embedding.as_ref() };
        let Some(found) = found.filter(|found| !found.is_empty() && found.len() == self.embedding_dim())
        else {
            return Err(Error::Usage(
                "the model has no output `embedding`; `smalti export` writes one".into(),
            ));
        };
        if found.iter().all(|value| value.is_finite()) {
            return Ok(found);
        }
        Err(Error::data("image", "the model's embedding of it is not finite"))
    }

    /// All labels by falling probability.
    fn rank(&self, logits: &[f32]) -> Vec<Ranked> {
        let mut ranked = Vec::new();
        self.rank_into(logits, &mut ranked);
        let label = |index: usize| self.labels().get(index).cloned().unwrap_or_default();
        ranked
            .into_iter()
            .map(|(index, probability)| Ranked { label: label(index), index, probability })
            .collect()
    }

    /// All classes with their probabilities, most probable first; of equal ones the lower class first. The list is used
    /// again.
    pub fn rank_into(&self, logits: &[f32], ranked: &mut Vec<(usize, f32)>) {
        ranked.clear();
        match self.gives_probabilities() {
            true => ranked.extend(logits.iter().copied().enumerate()),
            false => ranked.extend(softmax(logits).enumerate()),
        }
        ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    }
}

/// The error for a model without an embedding.
pub(crate) fn no_embedding() -> Error {
    Error::Usage("the model has no output `embedding`; `smalti export` writes one".into())
}

/// The logits of an answer; logarithms where it is probabilities.
pub(crate) fn log_probabilities(model: &Model, answer: &[f32]) -> impl Iterator<Item = f32> {
    let are_probabilities = model.gives_probabilities();
    // Of 0 a finite one.
    answer.iter().map(move |&x| if are_probabilities { libm::logf(x.max(f32::MIN_POSITIVE)) } else { x })
}

/// Softmax, safe for large logits.
pub(crate) fn softmax(logits: &[f32]) -> impl Iterator<Item = f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let power = move |&logit: &f32| libm::exp(f64::from(logit - most));
    let sum: f64 = logits.iter().map(power).sum();
    logits.iter().map(move |logit| (power(logit) / sum) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_survives_large_logits() {
        let odds: Vec<f32> = softmax(&[1000.0, 999.0, -1e30]).collect();
        assert!((odds.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((odds[0] / odds[1] - std::f32::consts::E).abs() < 1e-5);
    }

    #[test]
    fn equal_classes_stay_in_order() {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        let model = Model::open(models.join("colours_u8.onnx")).unwrap();
        let ranked = model.rank(&[0.5, 2.0, 0.5]);
        assert_eq!(ranked.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(ranked[0].label, model.labels()[1]);
    }
}
