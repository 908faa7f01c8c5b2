//! An image as the model takes it.

use smalti_models::Image;
use smalti_models::preprocess::Scratch;

use crate::error::{Error, Result};
use crate::gate::Form;
use crate::load::Model;

/// Pixels in the form of the model's input.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pixels {
    /// Rows of pixels, channels innermost.
    Bytes(Vec<u8>),
    /// Normalised, channels outermost.
    Floats(Vec<f32>),
}

/// Resizes, crops and normalises as the model's preprocessing says.
pub(super) fn prepare(model: &Model, image: &Image) -> Result<Pixels> {
    let Some(preprocess) = model.preprocess() else {
        let problem = "the model file does not say how to prepare images: give --mean and --std";
        return Err(Error::Usage(problem.into()));
    };
    let unusable = |error: smalti_models::Error| Error::data("image", error);
    let mut scratch = Scratch::default();
    let prepared = preprocess.apply_to(model.input().size(), image.view(), &mut scratch).map_err(unusable)?;
    if model.input().form == Form::U8Nhwc {
        return Ok(Pixels::Bytes(prepared.to_vec()));
    }
    let mut floats = vec![0.0; model.input().values()];
    preprocess.normalise_to(model.input().size(), prepared, &mut floats).map_err(unusable)?;
    Ok(Pixels::Floats(floats))
}
