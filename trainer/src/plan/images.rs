//! What the images are like, and from that the model's input.

use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_models::{Preprocess, VitConfig};
use smalti_trainer::data::{Dataset, statistics};
use smalti_trainer::{Error, Result};

use super::{fill, named};
use crate::args::training::ImageArgs;

/// Maximum number of images whose size is read.
const LOOKED_AT: usize = 64;
/// Images that share a size up to this keep it.
const OWN_SIZE: usize = 128;
/// The size for all others.
const USUAL_SIZE: usize = 96;

const FITS: [(&str, FitMode); 2] = [("crop", FitMode::Crop), ("squash", FitMode::Squash)];
const FILTERS: [(&str, Interpolation); 2] =
    [("bilinear", Interpolation::Bilinear), ("bicubic", Interpolation::Bicubic)];

/// What a model for these images should take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InputShape {
    pub(crate) img_size: usize,
    pub(crate) channels: usize,
}

/// The input for these images, from up to [`LOOKED_AT`] of them.
pub(crate) fn shape(data: &Dataset) -> Result<InputShape> {
    if let Some((width, height, channels)) = data.shape() {
        return Ok(InputShape { img_size: own_size(width.min(height)), channels });
    }
    let (step, mut sizes, mut colour) = (data.len().div_ceil(LOOKED_AT).max(1), Vec::new(), false);
    let mut failed = None;
    for i in (0..data.len()).step_by(step) {
        match data.image(i) {
            Ok(image) => {
                sizes.push((image.width(), image.height()));
                colour |= image.channels() == 3;
            }
            // An unusable image is named when training meets it.
            Err(why) => _ = failed.get_or_insert(why),
        }
    }
    let Some(&(width, height)) = sizes.first() else {
        let why = failed.map_or_else(String::new, |why| format!("; the first: {why}"));
        let looked_at = data.len().div_ceil(step);
        return Err(Error::data(
            data.root(),
            format!("none of {looked_at} images looked at can be used{why}"),
        ));
    };
    let same = sizes.iter().all(|size| *size == (width, height));
    let img_size = if same { own_size(width.min(height)) } else { USUAL_SIZE };
    Ok(InputShape { img_size, channels: if colour { 3 } else { 1 } })
}

/// The image size for images whose short side is this: their own, down to a multiple of 4 so that patches fit.
fn own_size(short: usize) -> usize {
    match short {
        0..8 => 8,
        8..=OWN_SIZE => short / 4 * 4,
        _ => USUAL_SIZE,
    }
}

/// The model's input; mean and std are those of the images unless given.
pub(crate) fn preprocess(args: &mut ImageArgs, vit: &VitConfig, data: &Dataset) -> Result<Preprocess> {
    let mut preprocess = Preprocess {
        img_size: vit.img_size,
        channels: vit.channels,
        fit: named("fit", &fill(&mut args.fit, "crop".into()), &FITS)?,
        resize: resize(args, vit.img_size)?,
        interpolation: named("interpolation", &fill(&mut args.interpolation, "bicubic".into()), &FILTERS)?,
        mean: vec![0.5; vit.channels],
        std: vec![0.5; vit.channels],
    };
    if let (Some(mean), Some(std)) = (&args.mean, &args.std) {
        let single = |values: &[f64]| values.iter().map(|&x| x as f32).collect();
        (preprocess.mean, preprocess.std) = (single(mean), single(std));
    } else if args.mean.is_some() || args.std.is_some() {
        return Err(Error::Usage("one of --mean and --std is given: expected both or none".into()));
    } else {
        let found = statistics(data, &preprocess, statistics::ENOUGH)?;
        (preprocess.mean, preprocess.std) = (found.mean, found.std);
    }
    say(args, &preprocess);
    preprocess.check()?;
    Ok(preprocess)
}

/// The side that --crop-pct resizes to; none for all of it. The least more than timm's, so that a share that was computed
/// from two sides gives them back.
fn resize(args: &ImageArgs, img_size: usize) -> Result<Option<usize>> {
    let share = args.crop_pct.unwrap_or(1.0);
    if !(0.1..=1.0).contains(&share) {
        return Err(Error::Usage(format!("crop-pct is {share}: expected 0.1 to 1")));
    }
    let side = (img_size as f64 / share + 1e-6).floor() as usize;
    Ok((side > img_size).then_some(side))
}

/// Makes the arguments say this input.
fn say(args: &mut ImageArgs, preprocess: &Preprocess) {
    let name = |found: Option<&str>| found.map(str::to_owned);
    args.fit = name(FITS.iter().find(|(_, fit)| *fit == preprocess.fit).map(|(name, _)| *name));
    args.crop_pct = preprocess.resize.map(|side| preprocess.img_size as f64 / side as f64);
    let filter = FILTERS.iter().find(|(_, filter)| *filter == preprocess.interpolation);
    args.interpolation = name(filter.map(|(name, _)| *name));
    // By way of decimals: 0.4914 rather than 0.49140000343322754.
    let decimals = |values: &[f32]| values.iter().filter_map(|x| x.to_string().parse().ok()).collect();
    args.mean = Some(decimals(&preprocess.mean));
    args.std = Some(decimals(&preprocess.std));
}

/// The input of the run that --init names: flags may repeat it, not change it.
pub(crate) fn from_init(args: &mut ImageArgs, run: &Preprocess) -> Result<()> {
    let before = args.clone();
    say(args, run);
    let differs = [
        ("fit", before.fit.is_some() && before.fit != args.fit),
        ("crop-pct", before.crop_pct.is_some() && resize(&before, run.img_size)? != run.resize),
        ("interpolation", before.interpolation.is_some() && before.interpolation != args.interpolation),
        ("mean", before.mean.is_some() && before.mean != args.mean),
        ("std", before.std.is_some() && before.std != args.std),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((flag, _)) => {
            Err(Error::Usage(format!("{flag} differs from what --init was trained with: leave --{flag} out")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::Image;

    fn data(sizes: &[(usize, usize, usize)]) -> Dataset {
        let image = |&(w, h, c): &(usize, usize, usize)| {
            let pixels = (0..w * h * c).map(|i| (i * 37 % 251) as u8).collect();
            (Image::new(w, h, c, pixels).unwrap(), None)
        };
        Dataset::from_images(Vec::new(), sizes.iter().map(image).collect()).unwrap()
    }

    #[test]
    fn images_that_share_a_size_keep_it() {
        assert_eq!(shape(&data(&[(28, 28, 1); 3])).unwrap(), InputShape { img_size: 28, channels: 1 });
        assert_eq!(shape(&data(&[(96, 128, 3); 3])).unwrap(), InputShape { img_size: 96, channels: 3 });
        assert_eq!(shape(&data(&[(30, 30, 3); 3])).unwrap().img_size, 28);
        assert_eq!(shape(&data(&[(5, 5, 3)])).unwrap().img_size, 8);
        let mixed = [(30, 30, 1), (31, 30, 3)];
        assert_eq!(shape(&data(&mixed)).unwrap(), InputShape { img_size: 96, channels: 3 });
    }

    #[test]
    fn a_share_of_the_resized_side_comes_back() {
        for (img_size, side) in [(224, 256), (224, 248), (518, 592), (126, 144), (96, 97), (1021, 1024)] {
            let share = img_size as f64 / side as f64;
            let args = ImageArgs { crop_pct: Some(share), ..ImageArgs::default() };
            assert_eq!(resize(&args, img_size).unwrap(), Some(side));
        }
        let timm = ImageArgs { crop_pct: Some(0.9), ..ImageArgs::default() };
        assert_eq!(resize(&timm, 224).unwrap(), Some(248));
        assert_eq!(resize(&ImageArgs::default(), 224).unwrap(), None);
        for wrong in [0.0, 1.1, f64::NAN] {
            let args = ImageArgs { crop_pct: Some(wrong), ..ImageArgs::default() };
            assert_eq!(resize(&args, 224).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn statistics_survive_the_way_through_the_arguments() {
        let vit = smalti_models::presets::Preset::Nano.encoder(8, 2, 3);
        let (data, mut args) = (data(&[(9, 8, 3); 5]), ImageArgs::default());
        let found = preprocess(&mut args, &vit, &data).unwrap();
        assert_eq!(preprocess(&mut args, &vit, &data).unwrap(), found);
        from_init(&mut args, &found).unwrap();
        let mut other = ImageArgs { fit: Some("squash".into()), ..ImageArgs::default() };
        assert!(from_init(&mut other, &found).is_err());
        let mut half = ImageArgs { mean: Some(vec![0.5; 3]), ..ImageArgs::default() };
        assert!(preprocess(&mut half, &vit, &data).is_err());
    }
}
