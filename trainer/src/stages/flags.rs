//! Settings under the names of the flags that give them: what a run's `config.toml` holds, whether the command line or
//! the library started the run. `smalti pretrain --config RUN/config.toml` leads to the same settings again.

use serde::Serialize;
use smalti_models::{DecoderConfig, Preprocess, VitConfig};
use toml::{Table, Value};

use crate::data::Augment;
use crate::error::{Error, Result};
use crate::train::OptimConfig;
use crate::train::optim::MatrixOptimizer;

/// A settings file's text.
pub(super) fn to_text(table: &Table) -> Result<String> {
    toml::to_string_pretty(table).map_err(unwritable)
}

fn unwritable(error: impl std::fmt::Display) -> Error {
    Error::Usage(format!("settings cannot be written as TOML: {error}"))
}

pub(super) fn put(table: &mut Table, flag: &str, value: impl Serialize) -> Result<()> {
    table.insert(flag.into(), Value::try_from(value).map_err(unwritable)?);
    Ok(())
}

pub(super) fn count(table: &mut Table, flag: &str, value: usize) {
    table.insert(flag.into(), Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)));
}

pub(super) fn encoder(table: &mut Table, vit: &VitConfig) -> Result<()> {
    for (flag, value) in [
        ("img-size", vit.img_size),
        ("patch-size", vit.patch_size),
        ("channels", vit.channels),
        ("dim", vit.dim),
        ("depth", vit.depth),
        ("heads", vit.heads),
    ] {
        count(table, flag, value);
    }
    if !vit.stem.is_patches() {
        put(table, "stem", vit.stem)?;
    }
    if !vit.variant.is_plain() {
        put(table, "variant", vit.variant)?;
    }
    Ok(())
}

pub(super) fn decoder(table: &mut Table, decoder: &DecoderConfig) -> Result<()> {
    put(table, "decoder", decoder.kind)?;
    for (flag, value) in
        [("dec-dim", decoder.dim), ("dec-depth", decoder.depth), ("dec-heads", decoder.heads)]
    {
        count(table, flag, value);
    }
    Ok(())
}

pub(super) fn preprocess(table: &mut Table, preprocess: &Preprocess) -> Result<()> {
    put(table, "fit", preprocess.fit)?;
    if let Some(side) = preprocess.resize {
        put(table, "crop-pct", preprocess.img_size as f64 / side as f64)?;
    }
    put(table, "interpolation", preprocess.interpolation)?;
    put(table, "mean", decimals(&preprocess.mean))?;
    put(table, "std", decimals(&preprocess.std))
}

/// By way of decimals: 0.4914 rather than 0.49140000343322754.
fn decimals(values: &[f32]) -> Vec<f64> {
    values.iter().filter_map(|x| x.to_string().parse().ok()).collect()
}

pub(super) fn augment(table: &mut Table, augment: &Augment) -> Result<()> {
    put(table, "crop", augment.crop.to_string())?;
    put(table, "augment", augment.policy.to_string())?;
    if !augment.skip.is_empty() {
        put(table, "augment-skip", augment.skip)?;
    }
    put(table, "flip", augment.flip)?;
    put(table, "jitter", decimals(&[augment.jitter])[0])?;
    put(table, "erasing", decimals(&[augment.erasing])[0])
}

pub(super) fn optim(table: &mut Table, optim: &OptimConfig) -> Result<()> {
    match optim.steps {
        Some(steps) => put(table, "steps", steps)?,
        None => put(table, "epochs", optim.epochs)?,
    }
    count(table, "batch-size", optim.batch_size);
    put(table, "lr", optim.lr)?;
    put(table, "betas", optim.betas)?;
    put(table, "weight-decay", optim.weight_decay)?;
    put(table, "warmup-epochs", optim.warmup_epochs)?;
    put(table, "schedule", optim.schedule)?;
    put(table, "clip-grad", optim.clip_grad.unwrap_or(0.0))?;
    put(table, "block-lr", optim.block_lr)?;
    match optim.matrices {
        MatrixOptimizer::AdamW => put(table, "optimizer", "adamw")?,
        MatrixOptimizer::Muon(lr) => {
            put(table, "optimizer", "muon")?;
            put(table, "muon-lr", lr)?;
        }
    }
    put(table, "seed", optim.seed)?;
    put(table, "precision", optim.precision)
}
