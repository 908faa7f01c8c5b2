//! The model's size, from flags and from the images.

use std::ops::RangeInclusive;

use smalti_models::presets::Preset;
use smalti_models::{DecoderConfig, DecoderKind, VitConfig};
use smalti_trainer::{Error, Result};

use super::images::InputShape;
use super::{fill, named};
use crate::args::training::{DecoderArgs, SizeArgs};

/// The number of patches an image that the chosen patch size comes nearest to.
const PATCHES: f64 = 64.0;
/// The sides of a patch that are chosen by default: a patch of one pixel has no texture to predict, and a larger one hides
/// all detail in one vector.
const PATCH_SIZES: RangeInclusive<usize> = 2..=16;
/// The fewest patches of an image: a model sees nothing but the relation of patches.
const LEAST_PATCHES: usize = 4;

const DECODERS: [(&str, DecoderKind); 2] = [("full", DecoderKind::Full), ("cross", DecoderKind::Cross)];

/// A preset by its name.
pub(crate) fn preset(name: &str) -> Result<Preset> {
    named("model", name, &Preset::ALL.map(|preset| (preset.name(), preset)))
}

/// The encoder; what flags leave open comes from the images.
pub(crate) fn encoder(args: &mut SizeArgs, shape: impl FnOnce() -> Result<InputShape>) -> Result<VitConfig> {
    let (img_size, channels) = match (args.img_size, args.channels) {
        (Some(img_size), Some(channels)) => (img_size, channels),
        (img_size, channels) => {
            let shape = shape()?;
            (img_size.unwrap_or(shape.img_size), channels.unwrap_or(shape.channels))
        }
    };
    let patch_size = args.patch_size.map_or_else(|| patch_size(img_size), Ok)?;
    let preset = preset(args.model.as_deref().unwrap_or("nano"))?;
    let usual = preset.encoder(img_size, patch_size, channels);
    let vit = VitConfig {
        dim: args.dim.unwrap_or(usual.dim),
        depth: args.depth.unwrap_or(usual.depth),
        heads: args.heads.unwrap_or(usual.heads),
        ..usual.clone()
    };
    vit.check()?;
    if vit.patches() < LEAST_PATCHES {
        return Err(Error::Usage(format!(
            "patch-size {patch_size} cuts an image of {img_size} pixels into {} patches: expected at least {LEAST_PATCHES}; \
             choose a smaller --patch-size or a larger --img-size",
            vit.patches()
        )));
    }
    say(args, &vit, (vit == usual).then_some(preset));
    Ok(vit)
}

/// Makes the arguments say this encoder.
fn say(args: &mut SizeArgs, vit: &VitConfig, preset: Option<Preset>) {
    args.img_size = Some(vit.img_size);
    args.patch_size = Some(vit.patch_size);
    args.channels = Some(vit.channels);
    args.model = preset.map(|preset| preset.name().into());
    let own = |value: usize| preset.is_none().then_some(value);
    (args.dim, args.depth, args.heads) = (own(vit.dim), own(vit.depth), own(vit.heads));
}

/// The encoder of the run that --init names: flags may repeat it, not change it.
pub(crate) fn from_init(args: &mut SizeArgs, vit: &VitConfig) -> Result<()> {
    let usual = Preset::ALL
        .into_iter()
        .find(|preset| preset.encoder(vit.img_size, vit.patch_size, vit.channels) == *vit);
    let found = [
        ("img-size", args.img_size, vit.img_size),
        ("patch-size", args.patch_size, vit.patch_size),
        ("channels", args.channels, vit.channels),
        ("dim", args.dim, vit.dim),
        ("depth", args.depth, vit.depth),
        ("heads", args.heads, vit.heads),
    ];
    for (flag, given, run) in found {
        if let Some(given) = given.filter(|given| *given != run) {
            return Err(Error::Usage(format!("{flag} is {given}, but --init has {run}: leave --{flag} out")));
        }
    }
    if let Some(name) = args.model.as_deref().filter(|name| usual.is_none_or(|usual| usual.name() != *name)) {
        return Err(Error::Usage(format!("model is {name}, but --init has another size: leave --model out")));
    }
    say(args, vit, usual);
    Ok(())
}

/// The decoder.
pub(crate) fn decoder(args: &mut DecoderArgs, encoder: &VitConfig) -> Result<DecoderConfig> {
    let usual = Preset::Nano.mae(encoder.img_size, encoder.patch_size, encoder.channels).decoder;
    Ok(DecoderConfig {
        kind: named("decoder", &fill(&mut args.decoder, "full".into()), &DECODERS)?,
        dim: fill(&mut args.dec_dim, usual.dim),
        depth: fill(&mut args.dec_depth, usual.depth),
        heads: fill(&mut args.dec_heads, usual.heads),
    })
}

/// The divisor of the image size, among [`PATCH_SIZES`], that comes nearest to [`PATCHES`].
pub(crate) fn patch_size(img_size: usize) -> Result<usize> {
    let distance = |patch: usize| ((img_size / patch).pow(2) as f64 / PATCHES).ln().abs();
    let fitting = PATCH_SIZES.filter(|patch| img_size.is_multiple_of(*patch));
    let best = fitting.min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
    best.filter(|patch| (2..=32).contains(&(img_size / patch))).ok_or_else(|| {
        let (least, most) = (PATCH_SIZES.start(), PATCH_SIZES.end());
        Error::Usage(format!(
            "img-size is {img_size}: no patch of {least} to {most} pixels divides it into 2 to 32 patches a side; choose a \
             multiple of 8, or give --patch-size"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Result<InputShape> {
        Ok(InputShape { img_size: 32, channels: 3 })
    }

    #[test]
    fn patches_fit_the_image() {
        for (img_size, want) in
            [(32, 4), (28, 4), (96, 12), (64, 8), (224, 16), (128, 16), (8, 2), (4, 2), (12, 2), (6, 2)]
        {
            assert_eq!(patch_size(img_size).unwrap(), want, "{img_size}");
        }
        assert!([1, 2, 3, 97, 1021].iter().all(|img_size| patch_size(*img_size).is_err()));
    }

    #[test]
    fn an_image_has_four_patches_at_least() {
        let size = |img_size, patch_size| {
            let (channels, img_size, patch_size) = (Some(1), Some(img_size), Some(patch_size));
            encoder(&mut SizeArgs { img_size, patch_size, channels, ..SizeArgs::default() }, shape)
        };
        assert_eq!(size(8, 4).unwrap().patches(), 4);
        assert_eq!(size(8, 1).unwrap().patches(), 64);
        let error = size(8, 8).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("into 1 patches"), "{error}");
    }

    #[test]
    fn flags_come_before_the_model_and_that_before_the_images() {
        let mut args = SizeArgs { model: Some("tiny".into()), depth: Some(2), ..SizeArgs::default() };
        let vit = encoder(&mut args, shape).unwrap();
        assert_eq!((vit.img_size, vit.patch_size, vit.dim, vit.depth, vit.heads), (32, 4, 192, 2, 3));
        assert_eq!((args.model.as_deref(), args.dim), (None, Some(192)));
        let again = encoder(&mut args, || Err(Error::Usage("not called".into()))).unwrap();
        assert_eq!(again, vit);
    }

    #[test]
    fn a_run_is_not_resized() {
        let vit = Preset::Micro.encoder(32, 4, 3);
        let mut args = SizeArgs { img_size: Some(32), ..SizeArgs::default() };
        from_init(&mut args, &vit).unwrap();
        assert_eq!(args.model.as_deref(), Some("micro"));
        assert!(from_init(&mut SizeArgs { img_size: Some(64), ..SizeArgs::default() }, &vit).is_err());
        assert!(
            from_init(&mut SizeArgs { model: Some("tiny".into()), ..SizeArgs::default() }, &vit).is_err()
        );
    }
}
