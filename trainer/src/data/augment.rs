//! What is changed about one picture before the model sees it: crop, mirror image, colours, a blot.
//!
//! The order is crop, flip, colour jitter, normalisation, erasing, with one generator for all of it, so that the
//! outcome depends on its key alone.

use smalti_models::Preprocess;
use smalti_models::picture::Picture;
use smalti_models::resize;

use crate::error::{Error, Result};
use crate::rng::Rng;

/// How the part of the picture that the model sees is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropKind {
    /// As [`Preprocess`] cuts it, always the same.
    #[default]
    None,
    /// Preprocessed, surrounded by this many pixels of the data set's mean colour, and cut at a random place: for
    /// pictures as small as the model's input.
    Padded(usize),
    /// A random part of the picture, resized (Szegedy et al. 2014; torchvision's `RandomResizedCrop`).
    RandomResized {
        /// The part's least and greatest share of the area.
        scale: [f64; 2],
        /// The part's least and greatest width by height.
        ratio: [f64; 2],
    },
}

impl CropKind {
    /// The random resized crop of the MAE paper's pretraining: at least a fifth of the picture.
    pub fn random_resized(least: f64) -> CropKind {
        CropKind::RandomResized { scale: [least, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

/// The changes to one picture. The default is none.
#[derive(Clone, Copy, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Augment {
    /// Which part of the picture is taken.
    pub crop: CropKind,
    /// Whether half of the pictures are mirrored.
    pub flip: bool,
    /// Brightness, contrast and saturation are multiplied by `1 - jitter` to `1 + jitter`; 0 leaves them.
    pub jitter: f32,
    /// The probability that a rectangle is filled with noise (Zhong et al. 2017).
    pub erasing: f32,
}

/// Longer sides than this are no use to a crop: pictures are kept at twice the model's size.
const KEPT: usize = 2;

impl Augment {
    /// Refuses settings that cannot be carried out on a model's input of this size.
    pub fn check(&self, img_size: usize) -> Result<()> {
        let bad = |what: String| Err(Error::Usage(what));
        match self.crop {
            CropKind::Padded(pad) if pad > img_size => {
                return bad(format!(
                    "the padded crop is of {pad} pixels, expected at most the image size, {img_size}"
                ));
            }
            CropKind::RandomResized { scale: [low, high], .. }
                if !(low > 0.0 && low <= high && high <= 1.0) =>
            {
                return bad(format!(
                    "the crop's area is {low} to {high}, expected 0 < least <= greatest <= 1"
                ));
            }
            CropKind::RandomResized { ratio: [low, high], .. }
                if !(low > 0.0 && low <= high && high.is_finite()) =>
            {
                return bad(format!("the crop's ratio is {low} to {high}, expected 0 < least <= greatest"));
            }
            _ => {}
        }
        for (name, value) in [("jitter", self.jitter), ("erasing", self.erasing)] {
            if !(0.0..=1.0).contains(&value) {
                return bad(format!("{name} is {value}, expected 0 to 1"));
            }
        }
        Ok(())
    }

    /// The part of the work that is the same at every visit, so that its result can be kept: the right number of
    /// channels and, for a random resized crop, a short side of at most twice the model's, else the whole
    /// preprocessing.
    pub fn prepare(&self, picture: Picture, preprocess: &Preprocess) -> Result<Picture> {
        if !matches!(self.crop, CropKind::RandomResized { .. }) {
            if picture.channels() == preprocess.channels
                && (picture.width(), picture.height()) == (preprocess.img_size, preprocess.img_size)
            {
                return Ok(picture);
            }
            return Ok(preprocess.apply(&picture)?);
        }
        let picture = picture.into_channels(preprocess.channels)?;
        let short = picture.width().min(picture.height());
        let kept = KEPT * preprocess.img_size;
        if short <= kept {
            return Ok(picture);
        }
        let scaled = |side: usize| ((side as f64 * kept as f64 / short as f64).round() as usize).max(kept);
        let (width, height) = (scaled(picture.width()), scaled(picture.height()));
        Ok(resize::resize(&picture, width, height, preprocess.interpolation)?)
    }

    /// Changes a prepared picture and writes it normalised, channel by channel, to `out`.
    pub fn apply(
        &self,
        prepared: &Picture,
        preprocess: &Preprocess,
        rng: &mut Rng,
        out: &mut [f32],
    ) -> Result<()> {
        let size = preprocess.img_size;
        let mut changed: Option<Picture> = match self.crop {
            CropKind::None => None,
            CropKind::Padded(pad) => Some(padded_crop(prepared, pad, &preprocess.mean, rng)?),
            CropKind::RandomResized { scale, ratio } => {
                let region = random_region(prepared.width(), prepared.height(), scale, ratio, rng);
                Some(resize::resize_region(prepared, region, size, size, preprocess.interpolation)?)
            }
        };
        if self.flip && rng.chance(0.5) {
            changed = Some(flip(changed.unwrap_or_else(|| prepared.clone()))?);
        }
        if self.jitter > 0.0 {
            changed = Some(jitter(changed.unwrap_or_else(|| prepared.clone()), self.jitter, rng)?);
        }
        let picture = changed.as_ref().unwrap_or(prepared);
        preprocess.normalise(picture.data(), out)?;
        if self.erasing > 0.0 && rng.chance(f64::from(self.erasing)) {
            erase(out, size, rng);
        }
        Ok(())
    }
}

/// Cuts a part of the picture's own size out of the picture with a border of the mean colour.
fn padded_crop(picture: &Picture, pad: usize, mean: &[f32], rng: &mut Rng) -> Result<Picture> {
    let (width, height, channels) = (picture.width(), picture.height(), picture.channels());
    let (left, top) = (rng.below(2 * pad + 1), rng.below(2 * pad + 1));
    let colour: Vec<u8> =
        (0..channels).map(|c| (mean.get(c).copied().unwrap_or(0.5) * 255.0).round() as u8).collect();
    let mut pixels: Vec<u8> = colour.iter().copied().cycle().take(width * height * channels).collect();
    // Column x of the result is column x + left - pad of the picture, rows likewise.
    let from_x = left.saturating_sub(pad);
    let to_x = pad.saturating_sub(left);
    let n = width.saturating_sub(from_x + to_x) * channels;
    for (y, row) in pixels.chunks_exact_mut(width * channels).enumerate() {
        let Some(from_y) = (y + top).checked_sub(pad).filter(|&y| y < height) else { continue };
        let start = (from_y * width + from_x) * channels;
        let target = row.get_mut(to_x * channels..to_x * channels + n);
        if let (Some(target), Some(source)) = (target, picture.data().get(start..start + n)) {
            target.copy_from_slice(source);
        }
    }
    Ok(Picture::new(width, height, channels, pixels)?)
}

/// A region `[left, top, right, bottom]` of random area and shape; after ten tries that do not fit, the largest in
/// the middle whose shape is allowed.
fn random_region(width: usize, height: usize, scale: [f64; 2], ratio: [f64; 2], rng: &mut Rng) -> [f64; 4] {
    let (w, h) = (width as f64, height as f64);
    let logs = ratio.map(libm::log);
    for _ in 0..10 {
        let area = w * h * rng.range(scale[0], scale[1]);
        let shape = libm::exp(rng.range(logs[0], logs[1]));
        let part_w = libm::round(libm::sqrt(area * shape));
        let part_h = libm::round(libm::sqrt(area / shape));
        if part_w >= 1.0 && part_w <= w && part_h >= 1.0 && part_h <= h {
            let left = rng.below(width - part_w as usize + 1) as f64;
            let top = rng.below(height - part_h as usize + 1) as f64;
            return [left, top, left + part_w, top + part_h];
        }
    }
    let shape = (w / h).clamp(ratio[0], ratio[1]);
    let part_w = libm::round(w.min(h * shape)).clamp(1.0, w);
    let part_h = libm::round(h.min(w / shape)).clamp(1.0, h);
    let (left, top) = (libm::floor((w - part_w) / 2.0), libm::floor((h - part_h) / 2.0));
    [left, top, left + part_w, top + part_h]
}

/// The mirror image, left for right.
fn flip(picture: Picture) -> Result<Picture> {
    let (width, height, channels) = (picture.width(), picture.height(), picture.channels());
    let mut pixels = picture.into_data();
    for row in pixels.chunks_exact_mut(width * channels) {
        if channels == 1 {
            row.reverse();
            continue;
        }
        for x in 0..width / 2 {
            for c in 0..channels {
                row.swap(x * channels + c, (width - 1 - x) * channels + c);
            }
        }
    }
    Ok(Picture::new(width, height, channels, pixels)?)
}

/// Changes brightness, contrast and saturation, in random order (torchvision's `ColorJitter` without hue).
fn jitter(picture: Picture, strength: f32, rng: &mut Rng) -> Result<Picture> {
    let (width, height, channels) = (picture.width(), picture.height(), picture.channels());
    let mut order = [0, 1, 2];
    rng.shuffle(&mut order);
    let mut pixels: Vec<f32> = picture.data().iter().map(|&v| f32::from(v)).collect();
    for change in order {
        let factor = rng.range(f64::from(1.0 - strength), f64::from(1.0 + strength)) as f32;
        match change {
            0 => blend(&mut pixels, factor, |_| 0.0, channels),
            1 => {
                let total: f64 = pixels.chunks_exact(channels).map(|p| f64::from(grey(p))).sum();
                let mean = (total / (width * height) as f64) as f32;
                blend(&mut pixels, factor, |_| mean, channels);
            }
            _ if channels == 3 => blend(&mut pixels, factor, grey, channels),
            _ => {}
        }
    }
    let pixels = pixels.into_iter().map(|v| v.round() as u8).collect();
    Ok(Picture::new(width, height, channels, pixels)?)
}

/// The brightness of a pixel, by the weights of ITU-R BT.601.
fn grey(pixel: &[f32]) -> f32 {
    match pixel {
        [r, g, b] => 0.299 * r + 0.587 * g + 0.114 * b,
        _ => pixel.first().copied().unwrap_or(0.0),
    }
}

/// Moves each pixel away from (factor above 1) or towards (below 1) what `other` says of it.
fn blend(pixels: &mut [f32], factor: f32, other: impl Fn(&[f32]) -> f32, channels: usize) {
    for pixel in pixels.chunks_exact_mut(channels) {
        let base = (1.0 - factor) * other(pixel);
        pixel.iter_mut().for_each(|v| *v = (factor * *v + base).clamp(0.0, 255.0));
    }
}

/// Fills a random rectangle of 2 % to a third of the normalised picture with standard normal noise.
fn erase(pixels: &mut [f32], size: usize, rng: &mut Rng) {
    let area = (size * size) as f64;
    for _ in 0..10 {
        let target = area * rng.range(0.02, 1.0 / 3.0);
        let shape = libm::exp(rng.range(libm::log(0.3), libm::log(1.0 / 0.3)));
        let height = libm::round(libm::sqrt(target * shape)) as usize;
        let width = libm::round(libm::sqrt(target / shape)) as usize;
        if height == 0 || width == 0 || height >= size || width >= size {
            continue;
        }
        let (top, left) = (rng.below(size - height + 1), rng.below(size - width + 1));
        for plane in pixels.chunks_exact_mut(size * size) {
            for row in plane.chunks_exact_mut(size).skip(top).take(height) {
                row.iter_mut().skip(left).take(width).for_each(|v| *v = rng.normal() as f32);
            }
        }
        return;
    }
}
