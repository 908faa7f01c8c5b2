//! The plan of an import: what a file of weights is, from its tensors, from the files beside it, and from flags.

use std::path::{Path, PathBuf};

use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_models::{Preprocess, VitConfig};
use smalti_trainer::model::weights::{Beside, Sizes, Weights};
use smalti_trainer::stages::import::ImportSettings;
use smalti_trainer::{Error, Result};

use super::size::guessed_heads;
use crate::args::ImportArgs;

/// The file in a folder.
const FILE: &str = "model.safetensors";
/// The usual mean and standard deviation, of ImageNet's images.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The file of weights that was named, itself or by its folder.
pub(crate) fn file(source: &Path) -> Result<PathBuf> {
    if !source.is_dir() {
        return Ok(source.into());
    }
    let file = source.join(FILE);
    if file.is_file() {
        return Ok(file);
    }
    let advice = match () {
        () if source.join("model.safetensors.index.json").is_file() => {
            "; weights in several files are not read: save them as one"
        }
        () if source.join("pytorch_model.bin").is_file() => {
            "; save the state dict of pytorch_model.bin with safetensors.torch.save_file"
        }
        () => "; name a file if it has another name",
    };
    Err(Error::Checkpoint { path: source.into(), problem: format!("holds no {FILE}{advice}") })
}

/// What the file is.
pub(crate) fn plan(args: &ImportArgs, file: &Path, weights: &Weights) -> Result<ImportSettings> {
    // A bare name lies in the current folder.
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let beside = Beside::read(folder)?;
    let mut sizes = weights.sizes()?;
    sizes.variant.norm_eps = epsilon(&beside, weights, file, &sizes);
    let heads = match beside.heads.or(sizes.heads).or(args.heads) {
        Some(heads) => heads,
        None => guessed_heads(file, &sizes)?,
    };
    if let Some(given) = args.heads.filter(|given| *given != heads) {
        return Err(Error::Usage(format!(
            "heads is {given}, but {} has {heads}: leave --heads out",
            file.display()
        )));
    }
    let preprocess = preprocess(args, &beside, file, &sizes)?;
    let encoder = VitConfig { img_size: preprocess.img_size, ..sizes.with_heads(heads) };
    encoder.check()?;
    let pool = weights.pool();
    check_pooling(&beside, weights, file)?;
    let labels = weights.classes(sizes.dim).map(|classes| labels(&beside, classes)).unwrap_or_default();
    let settings = ImportSettings { encoder, pool, preprocess, labels };
    settings.check()?;
    Ok(settings)
}

/// The epsilon of the layer norms: what is stated, else timm's, which is that of Hugging Face's DINOv2 too.
fn epsilon(beside: &Beside, weights: &Weights, file: &Path, sizes: &Sizes) -> f32 {
    if let Some(eps) = beside.norm_eps {
        return eps;
    }
    let usual = sizes.variant.norm_eps;
    if weights.is_of_hugging_face() && !sizes.variant.layer_scale {
        log::warn!(
            "no config.json beside {} states layer_norm_eps: {usual:e} assumed, where ViT and DeiT of Hugging Face \
             mostly have 1e-12",
            file.display()
        );
    }
    usual
}

/// The model's input, and its size.
fn preprocess(args: &ImportArgs, beside: &Beside, file: &Path, sizes: &Sizes) -> Result<Preprocess> {
    let patch = sizes.patch_size;
    let stated = beside.preprocess.as_ref().map(|input| input.img_size);
    let usable = stated.filter(|side| side.is_multiple_of(patch));
    let img_size = args.img_size.or(usable).unwrap_or(sizes.img_size);
    if !img_size.is_multiple_of(patch) || img_size == 0 {
        return Err(Error::Usage(format!(
            "img-size is {img_size}: expected a multiple of the patch size {patch}"
        )));
    }
    let mut preprocess = match beside.preprocess(Some(img_size)) {
        Some(found) => found,
        None => {
            if args.mean.is_none() {
                log::warn!(
                    "nothing beside {} says how images are prepared: a bicubic resize of the short side, a centre crop \
                     and ImageNet's mean and std are assumed; else give --mean and --std",
                    file.display()
                );
            }
            let moments = |values: [f32; 3]| match sizes.channels {
                1 => vec![0.5],
                _ => values.to_vec(),
            };
            Preprocess {
                img_size,
                channels: sizes.channels,
                fit: FitMode::Crop,
                resize: None,
                interpolation: Interpolation::Bicubic,
                mean: moments(MEAN),
                std: moments(STD),
            }
        }
    };
    let single = |values: &[f64]| values.iter().map(|&x| x as f32).collect();
    match (&args.mean, &args.std) {
        (Some(mean), Some(std)) => (preprocess.mean, preprocess.std) = (single(mean), single(std)),
        (None, None) => {}
        _ => return Err(Error::Usage("one of --mean and --std is given: expected both or none".into())),
    }
    Ok(preprocess)
}

/// Refuses what timm pools in a way that is not ours.
fn check_pooling(beside: &Beside, weights: &Weights, file: &Path) -> Result<()> {
    let norm = match weights.pool() {
        smalti_models::Pooling::Token => "token",
        smalti_models::Pooling::Mean => "avg",
    };
    match beside.global_pool.as_deref().filter(|pool| *pool != norm && !pool.is_empty()) {
        Some(pool) => Err(Error::Checkpoint {
            path: file.into(),
            problem: format!(
                "config.json says global_pool `{pool}`, and its last norm is that of `{norm}`: expected `token` with `norm`, \
                 or `avg` with `fc_norm`"
            ),
        }),
        None => Ok(()),
    }
}

/// The names of a head's classes: those stated, if there are as many, else numbers.
fn labels(beside: &Beside, classes: usize) -> Vec<String> {
    if beside.labels.len() == classes && beside.labels.iter().all(|label| !label.is_empty()) {
        return beside.labels.clone();
    }
    (0..classes).map(|class| class.to_string()).collect()
}
