//! Crops: which part of an image the model sees.

use std::fmt;

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
    /// A random part of the image, resized (arXiv 1409.4842, section 6; torchvision's `RandomResizedCrop`).
    RandomResized {
        /// The part's least and greatest fraction of the image's area.
        scale: [f64; 2],
        /// The part's least and greatest width divided by its height.
        ratio: [f64; 2],
    },
}

/// As `--crop` says it: `none`, `padded:4`, `resized:0.2`.
impl fmt::Display for CropKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CropKind::None => f.write_str("none"),
            CropKind::Padded(pixels) => write!(f, "padded:{pixels}"),
            CropKind::RandomResized { scale, .. } => write!(f, "resized:{}", scale[0]),
        }
    }
}

impl CropKind {
    /// A random resized crop of at least this fraction of the image, as torchvision shapes it; MAE takes 0.2.
    pub fn random_resized(least: f64) -> CropKind {
        CropKind::RandomResized { scale: [least, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }

    pub(super) fn check(&self, img_size: usize) -> Result<()> {
        let problem = match *self {
            CropKind::Padded(pad) if pad > img_size => {
                format!("the padded crop is of {pad} pixels, expected at most the image size, {img_size}")
            }
            CropKind::RandomResized { scale: [low, high], .. }
                if !(low > 0.0 && low <= high && high <= 1.0) =>
            {
                format!("the crop's area is {low} to {high}, expected 0 < least <= greatest <= 1")
            }
            CropKind::RandomResized { ratio: [low, high], .. }
                if !(low > 0.0 && low <= high && high.is_finite()) =>
            {
                format!("the crop's ratio is {low} to {high}, expected 0 < least <= greatest")
            }
            _ => return Ok(()),
        };
        Err(Error::Usage(problem))
    }
}

/// Cuts a part of the image's own size out of the image with a border of `fill`.
pub(super) fn padded(image: &Image, pad: usize, fill: [u8; 3], rng: &mut Rng) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let (left, top) = (rng.below(2 * pad + 1), rng.below(2 * pad + 1));
    // Column x of the result is column x + left - pad of the image, rows likewise.
    let from_x = left.saturating_sub(pad).min(width);
    let to_x = pad.saturating_sub(left).min(width);
    let count = width.saturating_sub(from_x + to_x);
    let mut border = vec![0; width * channels];
    border.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(&fill[..channels]));
    let (before, after) = border.split_at(to_x * channels);
    let mut pixels = Vec::with_capacity(width * height * channels);
    for y in top..top + height {
        match y.checked_sub(pad).filter(|&y| y < height && count > 0) {
            None => pixels.extend_from_slice(&border),
            Some(y) => {
                let start = (y * width + from_x) * channels;
                pixels.extend_from_slice(before);
                pixels.extend_from_slice(&image.data()[start..start + count * channels]);
                pixels.extend_from_slice(&after[count * channels..]);
            }
        }
    }
    Ok(Image::new(width, height, channels, pixels)?)
}

/// A random part of the image, resized to the model's input.
pub(super) fn random_resized(
    image: &Image,
    scale: [f64; 2],
    ratio: [f64; 2],
    input: &Preprocess,
    rng: &mut Rng,
) -> Result<Image> {
    let region = random_region(image.width(), image.height(), scale, ratio, rng);
    Ok(resize::resize_region(image, region, input.img_size, input.img_size, input.interpolation)?)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{applied, draw, places};
    use super::super::{Augment, mean_colour};
    use super::*;

    #[test]
    fn a_padded_crop_shifts() {
        let augment = Augment { crop: CropKind::Padded(2), ..Augment::default() };
        let mut shifts = BTreeSet::new();
        for i in 0..200 {
            let out = applied(augment, &places(8), draw(i));
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
        let mut input = super::super::tests::input(2, 3);
        input.mean = vec![0.2, 0.4, 0.6];
        let fill = mean_colour(&input);
        let corner = (0..50).map(|i| padded(&white, 2, fill, &mut draw(i).shared()).unwrap());
        let all: BTreeSet<Vec<u8>> = corner.map(|p| p.data()[..3].to_vec()).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [vec![51, 102, 153], vec![255; 3]]);
    }

    #[test]
    fn a_border_wider_than_the_image_may_hide_it() {
        let white = Image::new(3, 2, 1, vec![255; 6]).unwrap();
        let mut whole = BTreeSet::new();
        for i in 0..200 {
            let cut = padded(&white, 5, [7; 3], &mut draw(i).shared()).unwrap();
            whole.insert(cut.data().iter().filter(|&&value| value == 255).count());
        }
        assert_eq!(whole.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 6]);
    }

    #[test]
    fn random_regions_lie_inside_and_keep_their_bounds() {
        let (scale, ratio) = ([0.2, 0.8], [0.75, 4.0 / 3.0]);
        let region =
            |width, height, scale, i| random_region(width, height, scale, ratio, &mut draw(i).shared());
        for i in 0..2000 {
            let [left, top, right, bottom] = region(100, 80, scale, i);
            assert!(
                left >= 0.0 && top >= 0.0 && right <= 100.0 && bottom <= 80.0 && left < right && top < bottom
            );
            let (w, h) = (right - left, bottom - top);
            assert!((0.19..0.82).contains(&(w * h / 8000.0)) && (0.72..1.38).contains(&(w / h)), "{w} {h}");
        }
        // No allowed shape of this area fits into a thin image.
        assert_eq!(region(100, 2, [0.9, 1.0], 0), [48.0, 0.0, 51.0, 2.0]);
        assert_eq!(region(1, 1, scale, 0), [0.0, 0.0, 1.0, 1.0]);
    }
}
