//! The plan of a pretraining run.

use smalti_models::MaeConfig;
use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::stages::pretrain::PretrainSettings;

use super::defaults::{MASK_RATIO, PRETRAIN};
use super::{augment, fill, images, optim, size};
use crate::args::PretrainArgs;

/// Settings for these images; the arguments say all of them afterwards.
pub(crate) fn plan(args: &mut PretrainArgs, data: &Dataset) -> Result<PretrainSettings> {
    let encoder = size::encoder(&mut args.size, || images::shape(data))?;
    let decoder = size::decoder(&mut args.decoder, &encoder)?;
    let optim = optim::optim(&mut args.optim, PRETRAIN.layer_decay, &PRETRAIN, encoder.stem, data.len())?;
    let augment = augment::augment(&mut args.images, encoder.img_size, &PRETRAIN)?;
    let settings = PretrainSettings {
        preprocess: images::preprocess(&mut args.images, &encoder, data)?,
        model: MaeConfig { encoder, decoder },
        optim,
        mask_ratio: fill(&mut args.mask_ratio, MASK_RATIO),
        predict_ratio: fill(&mut args.predict_ratio, 1.0),
        norm_pix_loss: fill(&mut args.norm_pix_loss, true),
        augment,
    };
    settings.check()?;
    Ok(settings)
}
