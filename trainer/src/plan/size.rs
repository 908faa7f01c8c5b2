//! The model's size, from flags and from the images.

use std::ops::RangeInclusive;
use std::path::Path;

use smalti_models::presets::Preset;
use smalti_models::stem::{STRIDE, Stem};
use smalti_models::{DecoderConfig, DecoderKind, Variant, VitConfig};
use smalti_trainer::model::weights::Sizes;
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
/// The smallest side of an image whose convolutions give as many tokens.
const LEAST_CONVOLVED: usize = 2 * STRIDE;

const STEMS: [(&str, Stem); 2] = [("patches", Stem::Patches), ("convolutions", Stem::Convolutions)];
const DECODERS: [(&str, DecoderKind); 2] = [("full", DecoderKind::Full), ("cross", DecoderKind::Cross)];

/// A preset by its name.
pub(crate) fn preset(name: &str) -> Result<Preset> {
    named("model", name, &Preset::ALL.map(|preset| (preset.name(), preset)))
}

/// The encoder; what flags leave open comes from the images.
pub(crate) fn encoder(args: &mut SizeArgs, shape: impl FnOnce() -> Result<InputShape>) -> Result<VitConfig> {
    let preset = preset(args.model.as_deref().unwrap_or("nano"))?;
    let stem = args.stem.as_deref().map_or(Ok(preset.stem()), |name| named("stem", name, &STEMS))?;
    let (img_size, channels) = match (args.img_size, args.channels) {
        (Some(img_size), Some(channels)) => (img_size, channels),
        (img_size, channels) => {
            let shape = shape()?;
            let own = match stem {
                Stem::Patches => shape.img_size,
                Stem::Convolutions => (shape.img_size / STRIDE * STRIDE).max(LEAST_CONVOLVED),
            };
            (img_size.unwrap_or(own), channels.unwrap_or(shape.channels))
        }
    };
    let patch_size = match (args.patch_size, stem) {
        (Some(given), _) => given,
        (None, Stem::Patches) => patch_size(img_size)?,
        (None, Stem::Convolutions) => STRIDE,
    };
    let usual = preset.encoder(img_size, patch_size, channels);
    let vit = VitConfig {
        dim: args.dim.unwrap_or(usual.dim),
        depth: args.depth.unwrap_or(usual.depth),
        heads: args.heads.unwrap_or(usual.heads),
        stem,
        variant: variant(args)?.unwrap_or_default(),
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
    args.variant = (!vit.variant.is_plain()).then(|| vit.variant.to_string());
    let is_said = preset.is_none() && !vit.stem.is_patches();
    args.stem = is_said.then(|| stem_name(vit.stem).into());
}

/// The variant that the arguments name.
fn variant(args: &SizeArgs) -> Result<Option<Variant>> {
    Ok(args.variant.as_deref().map(str::parse).transpose()?)
}

fn stem_name(stem: Stem) -> &'static str {
    STEMS.iter().find(|(_, known)| *known == stem).map_or("", |(name, _)| name)
}

/// The encoder of `--init`. Flags may repeat its sizes; `--img-size` alone may change, with which positions are resampled.
pub(crate) fn from_init(args: &mut SizeArgs, init: &VitConfig) -> Result<VitConfig> {
    let vit = VitConfig { img_size: args.img_size.unwrap_or(init.img_size), ..init.clone() };
    if let Some((flag, given, found)) = contradiction(args, &vit)? {
        return Err(Error::Usage(format!("{flag} is {given}, but --init has {found}: leave --{flag} out")));
    }
    vit.check()?;
    let usual = preset_of(&vit);
    if let Some(name) = args.model.as_deref().filter(|name| usual.is_none_or(|usual| usual.name() != *name)) {
        return Err(Error::Usage(format!("model is {name}, but --init has another size: leave --model out")));
    }
    say(args, &vit, usual);
    Ok(vit)
}

/// The encoder of a file of weights. Flags may repeat the sizes that its shapes have, or say another `--img-size`. The
/// number of heads, which no shape shows, is `stated` elsewhere, or a flag's, or the usual one for the width.
pub(crate) fn from_file(
    args: &mut SizeArgs,
    path: &Path,
    sizes: &Sizes,
    stated: Option<usize>,
) -> Result<VitConfig> {
    let model = args.model.as_deref().map(preset).transpose()?;
    let usual = model.map(|preset| preset.encoder(sizes.img_size, sizes.patch_size, sizes.channels));
    let heads = stated.or(sizes.heads).or(args.heads).or(usual.as_ref().map(|usual| usual.heads));
    let heads = heads.map_or_else(|| guessed_heads(path, sizes), Ok)?;
    let vit = VitConfig { img_size: args.img_size.unwrap_or(sizes.img_size), ..sizes.with_heads(heads) };
    let refuse = |problem: String| Err(Error::Checkpoint { path: path.into(), problem });
    if let Some((flag, given, found)) = contradiction(args, &vit)? {
        return refuse(format!("has {flag} {found}, but --{flag} is {given}: leave --{flag} out"));
    }
    // What --model says where no flag of its own does.
    if let (Some(usual), Some(model)) = (usual, &args.model) {
        let [dim, depth, heads] =
            [(args.dim, usual.dim), (args.depth, usual.depth), (args.heads, usual.heads)]
                .map(|(given, usual)| given.unwrap_or(usual));
        if (dim, depth, heads) != (vit.dim, vit.depth, vit.heads) {
            let found = format!("dim {}, depth {}, heads {}", vit.dim, vit.depth, vit.heads);
            return refuse(format!("has {found}, which is not --model {model}: leave --model out"));
        }
    }
    vit.check()?;
    say(args, &vit, preset_of(&vit));
    Ok(vit)
}

/// The usual number of heads of an encoder, where nothing says it.
pub(crate) fn guessed_heads(path: &Path, sizes: &Sizes) -> Result<usize> {
    let (path, dim) = (path.display(), sizes.dim);
    let heads = sizes.usual_heads().ok_or_else(|| {
        Error::Usage(format!("heads: {path} does not say how many it has, at width {dim}: give --heads"))
    })?;
    log::warn!(
        "{path} does not say how many heads it has: {heads} assumed, as usual for width {dim}; else give --heads"
    );
    Ok(heads)
}

/// The preset of this size.
fn preset_of(vit: &VitConfig) -> Option<Preset> {
    let same = |preset: &Preset| preset.encoder(vit.img_size, vit.patch_size, vit.channels) == *vit;
    Preset::ALL.into_iter().find(same)
}

/// The first flag that contradicts an encoder, with its value and the encoder's.
fn contradiction(args: &SizeArgs, vit: &VitConfig) -> Result<Option<(&'static str, String, String)>> {
    let stem = stem_name(vit.stem);
    if let Some(given) = args.stem.as_deref().filter(|given| *given != stem) {
        return Ok(Some(("stem", given.into(), stem.into())));
    }
    if let Some(given) = variant(args)?.filter(|given| *given != vit.variant) {
        return Ok(Some(("variant", given.to_string(), format!("`{}`", vit.variant))));
    }
    let all = [
        ("patch-size", args.patch_size, vit.patch_size),
        ("channels", args.channels, vit.channels),
        ("dim", args.dim, vit.dim),
        ("depth", args.depth, vit.depth),
        ("heads", args.heads, vit.heads),
    ];
    let differs = |(flag, given, found): (_, Option<usize>, usize)| {
        let given = given.filter(|given| *given != found)?;
        Some((flag, given.to_string(), found.to_string()))
    };
    Ok(all.into_iter().find_map(differs))
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
    fn convolutions_want_a_multiple_of_their_stride() {
        let model = Some("hybrid-nano".to_string());
        for (img_size, want) in [(28, 32), (32, 32), (60, 48), (96, 96)] {
            let shape = || Ok(InputShape { img_size, channels: 3 });
            let mut args = SizeArgs { model: model.clone(), ..SizeArgs::default() };
            let vit = encoder(&mut args, shape).unwrap();
            assert_eq!((vit.img_size, vit.patch_size, vit.stem), (want, STRIDE, Stem::Convolutions));
            assert_eq!((args.model.as_deref(), args.stem.as_deref()), (Some("hybrid-nano"), None));
            assert_eq!(encoder(&mut args, shape).unwrap(), vit);
        }
        let mut deep = SizeArgs { model: model.clone(), depth: Some(3), ..SizeArgs::default() };
        let vit = encoder(&mut deep, shape).unwrap();
        assert_eq!((deep.model.as_deref(), deep.stem.as_deref()), (None, Some("convolutions")));
        assert_eq!(encoder(&mut deep, shape).unwrap(), vit);
        for wrong in [
            SizeArgs { img_size: Some(40), model: model.clone(), ..SizeArgs::default() },
            SizeArgs { patch_size: Some(8), model: model.clone(), ..SizeArgs::default() },
        ] {
            assert_eq!(encoder(&mut wrong.clone(), shape).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        let plain = Preset::Nano.encoder(32, 4, 3);
        let other = SizeArgs { stem: Some("convolutions".into()), ..SizeArgs::default() };
        assert!(
            from_init(&mut other.clone(), &plain).unwrap_err().to_string().contains("stem is convolutions")
        );
    }

    #[test]
    fn a_variant_is_said_and_kept() {
        let said = "registers=2,no-embed-class,layer-scale".to_string();
        let vit = VitConfig { variant: said.parse().unwrap(), ..Preset::Nano.encoder(32, 4, 3) };
        let mut args = SizeArgs::default();
        assert_eq!(from_init(&mut args, &vit).unwrap(), vit);
        assert_eq!((args.model.as_deref(), args.variant.as_ref()), (None, Some(&said)));
        // What another rank makes of it.
        assert_eq!(encoder(&mut args, shape).unwrap(), vit);
        let other = SizeArgs { variant: Some("swiglu".into()), ..SizeArgs::default() };
        assert!(from_init(&mut other.clone(), &vit).unwrap_err().to_string().contains("variant is swiglu"));
        let wrong = SizeArgs { variant: Some("geglu".into()), ..SizeArgs::default() };
        assert_eq!(encoder(&mut wrong.clone(), shape).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_run_keeps_its_sizes_but_for_the_images() {
        let vit = Preset::Micro.encoder(32, 4, 3);
        let mut args = SizeArgs { img_size: Some(32), ..SizeArgs::default() };
        assert_eq!(from_init(&mut args, &vit).unwrap(), vit);
        assert_eq!(args.model.as_deref(), Some("micro"));
        let larger = from_init(&mut SizeArgs { img_size: Some(64), ..SizeArgs::default() }, &vit).unwrap();
        assert_eq!(larger, Preset::Micro.encoder(64, 4, 3));
        for wrong in [
            SizeArgs { img_size: Some(63), ..SizeArgs::default() },
            SizeArgs { model: Some("tiny".into()), ..SizeArgs::default() },
            SizeArgs { patch_size: Some(8), ..SizeArgs::default() },
            SizeArgs { heads: Some(4), ..SizeArgs::default() },
        ] {
            assert_eq!(from_init(&mut wrong.clone(), &vit).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn shapes_say_the_sizes_and_flags_the_heads() {
        let sizes = Sizes {
            img_size: 32,
            patch_size: 4,
            channels: 3,
            dim: 128,
            depth: 6,
            heads: None,
            variant: Variant::PLAIN,
        };
        let read = |args: &SizeArgs, heads| from_file(&mut args.clone(), Path::new("w"), &sizes, heads);
        let none = SizeArgs::default();
        assert_eq!(read(&none, None).unwrap(), sizes.with_heads(2));
        assert_eq!(read(&none, Some(4)).unwrap(), Preset::Nano.encoder(32, 4, 3));
        let nano = SizeArgs { model: Some("nano".into()), ..SizeArgs::default() };
        assert_eq!(read(&nano, None).unwrap(), Preset::Nano.encoder(32, 4, 3));
        let four = SizeArgs { heads: Some(4), img_size: Some(64), ..SizeArgs::default() };
        assert_eq!(read(&four, None).unwrap(), Preset::Nano.encoder(64, 4, 3));
        for (wrong, said) in [
            (SizeArgs { depth: Some(7), ..SizeArgs::default() }, "has depth 6, but --depth is 7"),
            (SizeArgs { patch_size: Some(8), ..SizeArgs::default() }, "--patch-size is 8"),
            (SizeArgs { model: Some("tiny".into()), ..SizeArgs::default() }, "not --model tiny"),
        ] {
            let error = read(&wrong, None).unwrap_err();
            assert_eq!(error.exit_code(), 5);
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(read(&four, Some(8)).unwrap_err().to_string().contains("has heads 8"));
        let normed = Sizes { heads: Some(4), ..sizes.clone() };
        assert_eq!(from_file(&mut none.clone(), Path::new("w"), &normed, None).unwrap().heads, 4);
        let odd = Sizes { dim: 48, ..sizes };
        let error = from_file(&mut SizeArgs::default(), Path::new("w"), &odd, None).unwrap_err();
        assert!(error.to_string().contains("give --heads"), "{error}");
        assert_eq!(Sizes { dim: 1280, ..odd }.usual_heads(), Some(16));
    }
}
