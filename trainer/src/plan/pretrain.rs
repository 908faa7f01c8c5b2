//! The plan of a pretraining run.

use smalti_models::MaeConfig;
use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::pretrain::PretrainSettings;

use super::defaults::{MASK_RATIO, PRETRAIN};
use super::{course, fill, pictures, size};
use crate::args::PretrainArgs;

/// Settings for these pictures; the arguments say all of them afterwards.
pub(crate) fn plan(args: &mut PretrainArgs, data: &Dataset) -> Result<PretrainSettings> {
    let encoder = size::encoder(&mut args.size, || pictures::facts(data))?;
    let decoder = size::decoder(&mut args.decoder, &encoder)?;
    let course = course::course(&mut args.course, PRETRAIN.layer_decay, &PRETRAIN)?;
    let augment = course::augment(&mut args.pictures, encoder.img_size, &PRETRAIN)?;
    let settings = PretrainSettings {
        preprocess: pictures::preprocess(&mut args.pictures, &encoder, data)?,
        model: MaeConfig { encoder, decoder },
        course,
        mask_ratio: fill(&mut args.mask_ratio, MASK_RATIO),
        predict_ratio: fill(&mut args.predict_ratio, 1.0),
        norm_pix_loss: fill(&mut args.norm_pix_loss, true),
        augment,
    };
    settings.check()?;
    Ok(settings)
}
