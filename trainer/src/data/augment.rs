//! What is changed about one image before the model sees it: crop, mirror image, colours, a blot.
//!
//! The order is crop, flip, colour jitter, normalisation, erasing, with one generator for all of it, so that the
//! outcome depends on its key alone.

use smalti_models::Preprocess;
use smalti_models::image::Image;
use smalti_models::resize;

use crate::error::{Error, Result};
use crate::rng::Rng;

/// How the part of the image that the model sees is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropKind {
    /// As [`Preprocess`] cuts it, always the same.
    #[default]
    None,
    /// Preprocessed, surrounded by this many pixels of the data set's mean colour, and cut at a random place: for
    /// images as small as the model's input.
    Padded(usize),
    /// A random part of the image, resized (Szegedy et al. 2014; torchvision's `RandomResizedCrop`).
    RandomResized {
        /// The part's least and greatest share of the area.
        scale: [f64; 2],
        /// The part's least and greatest width by height.
        ratio: [f64; 2],
    },
}

impl CropKind {
    /// The random resized crop of the MAE paper's pretraining: at least a fifth of the image.
    pub fn random_resized(least: f64) -> CropKind {
        CropKind::RandomResized { scale: [least, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

/// The changes to one image. The default is none.
#[derive(Clone, Copy, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Augment {
    /// Which part of the image is taken.
    pub crop: CropKind,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Brightness, contrast and saturation are multiplied by `1 - jitter` to `1 + jitter`; 0 leaves them.
    pub jitter: f32,
    /// The probability that a rectangle is filled with noise (Zhong et al. 2017).
    pub erasing: f32,
}

/// Longer sides than this are no use to a crop: images are kept at twice the model's size.
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
    pub fn prepare(&self, image: Image, preprocess: &Preprocess) -> Result<Image> {
        if !matches!(self.crop, CropKind::RandomResized { .. }) {
            if image.channels() == preprocess.channels
                && (image.width(), image.height()) == (preprocess.img_size, preprocess.img_size)
            {
                return Ok(image);
            }
            return Ok(preprocess.apply(&image)?);
        }
        let image = image.into_channels(preprocess.channels)?;
        let short = image.width().min(image.height());
        let kept = KEPT * preprocess.img_size;
        if short <= kept {
            return Ok(image);
        }
        let scaled = |side: usize| ((side as f64 * kept as f64 / short as f64).round() as usize).max(kept);
        let (width, height) = (scaled(image.width()), scaled(image.height()));
        Ok(resize::resize(&image, width, height, preprocess.interpolation)?)
    }

    /// Changes a prepared image and writes it normalised, channel by channel, to `out`.
    pub fn apply(
        &self,
        prepared: &Image,
        preprocess: &Preprocess,
        rng: &mut Rng,
        out: &mut [f32],
    ) -> Result<()> {
        let size = preprocess.img_size;
        let mut changed: Option<Image> = match self.crop {
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
        let image = changed.as_ref().unwrap_or(prepared);
        preprocess.normalise(image.data(), out)?;
        if self.erasing > 0.0 && rng.chance(f64::from(self.erasing)) {
            erase(out, size, rng);
        }
        Ok(())
    }
}

/// Cuts a part of the image's own size out of the image with a border of the mean colour.
fn padded_crop(image: &Image, pad: usize, mean: &[f32], rng: &mut Rng) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let (left, top) = (rng.below(2 * pad + 1), rng.below(2 * pad + 1));
    let colour: Vec<u8> =
        (0..channels).map(|c| (mean.get(c).copied().unwrap_or(0.5) * 255.0).round() as u8).collect();
    let mut pixels: Vec<u8> = colour.iter().copied().cycle().take(width * height * channels).collect();
    // Column x of the result is column x + left - pad of the image, rows likewise.
    let from_x = left.saturating_sub(pad);
    let to_x = pad.saturating_sub(left);
    let n = width.saturating_sub(from_x + to_x) * channels;
    for (y, row) in pixels.chunks_exact_mut(width * channels).enumerate() {
        let Some(from_y) = (y + top).checked_sub(pad).filter(|&y| y < height) else { continue };
        let start = (from_y * width + from_x) * channels;
        let target = row.get_mut(to_x * channels..to_x * channels + n);
        if let (Some(target), Some(source)) = (target, image.data().get(start..start + n)) {
            target.copy_from_slice(source);
        }
    }
    Ok(Image::new(width, height, channels, pixels)?)
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
fn flip(image: Image) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let mut pixels = image.into_data();
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
    Ok(Image::new(width, height, channels, pixels)?)
}

/// Changes brightness, contrast and saturation, in random order (torchvision's `ColorJitter` without hue).
fn jitter(image: Image, strength: f32, rng: &mut Rng) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let mut order = [0, 1, 2];
    rng.shuffle(&mut order);
    let mut pixels: Vec<f32> = image.data().iter().map(|&v| f32::from(v)).collect();
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
    Ok(Image::new(width, height, channels, pixels)?)
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

/// Fills a random rectangle of 2 % to a third of the normalised image with standard normal noise.
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

#[cfg(test)]
mod tests {
    use smalti_models::preprocess::FitMode;
    use smalti_models::resize::Interpolation;

    use super::*;
    use crate::rng::stream;

    fn preprocess(img_size: usize, channels: usize) -> Preprocess {
        let (mean, std) = (vec![0.0; channels], vec![1.0 / 255.0; channels]);
        Preprocess {
            img_size,
            channels,
            fit: FitMode::Crop,
            interpolation: Interpolation::Bilinear,
            mean,
            std,
        }
    }

    fn rng(i: u64) -> Rng {
        Rng::new(1, stream::AUGMENT, [0, i])
    }

    /// An image whose first channel is its column and last its row, both from 1.
    fn places(size: usize) -> Image {
        let pixels = (0..size * size).flat_map(|p| [(p % size + 1) as u8, 99, (p / size + 1) as u8]);
        Image::new(size, size, 3, pixels.collect()).unwrap()
    }

    fn applied(augment: Augment, image: &Image, i: u64) -> Vec<f32> {
        let preprocess = preprocess(8, image.channels());
        let prepared = augment.prepare(image.clone(), &preprocess).unwrap();
        let mut out = vec![0.0; 64 * image.channels()];
        augment.apply(&prepared, &preprocess, &mut rng(i), &mut out).unwrap();
        out
    }

    #[test]
    fn none_is_the_image() {
        let out = applied(Augment::default(), &places(8), 0);
        assert!(
            out.iter().take(64).enumerate().all(|(p, v)| (v - (p % 8 + 1) as f32).abs() < 1e-3),
            "{out:?}"
        );
    }

    #[test]
    fn a_padded_crop_shifts() {
        let augment = Augment { crop: CropKind::Padded(2), ..Augment::default() };
        let mut shifts = std::collections::BTreeSet::new();
        for i in 0..200 {
            let out = applied(augment, &places(8), i);
            let (x, y) = (out[3 * 8 + 3].round() as i32 - 4, out[128 + 3 * 8 + 3].round() as i32 - 4);
            shifts.insert((x, y));
            for p in 0..64i32 {
                let (column, row) = (p % 8 + x, p / 8 + y);
                let inside = (0..8).contains(&column) && (0..8).contains(&row);
                let expected = if inside { (column + 1) as f32 } else { 0.0 };
                assert!(
                    (out[p as usize] - expected).abs() < 1e-3,
                    "shift {x} {y}, pixel {p}: {}",
                    out[p as usize]
                );
            }
        }
        assert_eq!(shifts.len(), 25, "every shift happens");
    }

    #[test]
    fn a_padded_crop_is_padded_by_the_mean() {
        let white = Image::new(2, 2, 3, vec![255; 12]).unwrap();
        let corner = (0..50).map(|i| padded_crop(&white, 2, &[0.2, 0.4, 0.6], &mut rng(i)).unwrap());
        let all: std::collections::BTreeSet<Vec<u8>> = corner.map(|p| p.data()[..3].to_vec()).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [vec![51, 102, 153], vec![255; 3]]);
    }

    #[test]
    fn a_flip_mirrors_half_of_them() {
        let augment = Augment { flip: true, ..Augment::default() };
        let mirrored = (0..100).filter(|&i| {
            let out = applied(augment, &places(8), i);
            assert!((out[128] - 1.0).abs() < 1e-3, "rows stay");
            let expected: Vec<f32> = (1..=8).map(|v| v as f32).collect();
            let row: Vec<f32> = out[..8].iter().map(|v| v.round()).collect();
            assert!(row == expected || row.iter().rev().eq(&expected), "{row:?}");
            row != expected
        });
        assert!((35..65).contains(&mirrored.count()));
        let grey = Image::new(3, 1, 1, vec![1, 2, 3]).unwrap();
        assert_eq!(flip(grey).unwrap().data(), [3, 2, 1]);
    }

    #[test]
    fn random_regions_lie_inside_and_keep_their_bounds() {
        let (scale, ratio) = ([0.2, 0.8], [0.75, 4.0 / 3.0]);
        for i in 0..2000 {
            let [left, top, right, bottom] = random_region(100, 80, scale, ratio, &mut rng(i));
            assert!(
                left >= 0.0 && top >= 0.0 && right <= 100.0 && bottom <= 80.0 && left < right && top < bottom
            );
            let (w, h) = (right - left, bottom - top);
            assert!((0.19..0.82).contains(&(w * h / 8000.0)) && (0.72..1.38).contains(&(w / h)), "{w} {h}");
        }
        // No allowed shape of this area fits into a thin image.
        assert_eq!(random_region(100, 2, [0.9, 1.0], ratio, &mut rng(0)), [48.0, 0.0, 51.0, 2.0]);
        assert_eq!(random_region(1, 1, scale, ratio, &mut rng(0)), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn images_are_kept_at_twice_the_size() {
        let augment = Augment { crop: CropKind::random_resized(0.5), ..Augment::default() };
        let kept = |w: usize, h: usize, channels: usize| {
            let image = Image::new(w, h, 1, vec![9; w * h]).unwrap();
            let kept = augment.prepare(image, &preprocess(8, channels)).unwrap();
            (kept.width(), kept.height(), kept.channels())
        };
        assert_eq!(kept(64, 48, 3), (21, 16, 3));
        assert_eq!(kept(12, 100, 1), (12, 100, 1));
        let cut =
            Augment::default().prepare(Image::new(64, 48, 1, vec![9; 64 * 48]).unwrap(), &preprocess(8, 3));
        assert_eq!((cut.as_ref().unwrap().width(), cut.unwrap().height()), (8, 8));
    }

    #[test]
    fn jitter_moves_within_its_bounds() {
        let flat = Image::new(4, 4, 3, [100, 150, 50].repeat(16)).unwrap();
        let mut seen = (255, 0);
        for i in 0..300 {
            let out = jitter(flat.clone(), 0.4, &mut rng(i)).unwrap();
            seen = (seen.0.min(out.data()[1]), seen.1.max(out.data()[1]));
            // A flat image stays flat.
            assert!(out.data().chunks_exact(3).all(|p| p == &out.data()[..3]));
        }
        assert!(seen.0 < 110 && seen.1 > 190, "{seen:?}");
        let same = jitter(flat.clone(), 0.0, &mut rng(0)).unwrap();
        assert_eq!(same, flat);
    }

    #[test]
    fn erasing_fills_a_rectangle_with_noise() {
        let augment = Augment { erasing: 1.0, ..Augment::default() };
        let plain = applied(Augment::default(), &places(8), 3);
        let mut erased = 0;
        for i in 0..100 {
            let out = applied(augment, &places(8), i);
            let changed: Vec<usize> = (0..64).filter(|&p| out[p] != plain[p]).collect();
            erased += usize::from(!changed.is_empty());
            assert!(changed.len() <= 28, "{}", changed.len());
            let columns = changed.iter().map(|p| p % 8).collect::<std::collections::BTreeSet<_>>();
            let rows = changed.iter().map(|p| p / 8).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(columns.len() * rows.len(), changed.len(), "a rectangle");
        }
        assert!(erased > 90);
    }
}
