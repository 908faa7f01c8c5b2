//! From any image to a model's input: channels, resize, crop, normalise.
//!
//! Written and read as Hugging Face's `preprocessor_config.json`. What that file can say and this crate cannot
//! do exactly (another filter, a crop larger than the resize) is refused, never approximated.
//!
//! A JPEG whose short side is at least 4 times [`Preprocess::side`] is not decoded at its full size
//! ([`crate::image::decode_for`]), in training as on a device. The file says nothing of it: it is the same for all models.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::{Image, View, check_shape};
use crate::resize::{Interpolation, Plan, Resizer};

mod json;

/// The largest input side, as in [`crate::vit::VitConfig::check`].
pub const MAX_IMG_SIZE: usize = 1024;

/// The largest side that an image is resized to before it is cropped.
const MAX_RESIZE: usize = 4 * MAX_IMG_SIZE;

/// How an image of any shape becomes the model's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FitMode {
    /// The short side becomes `img_size`, or [`Preprocess::resize`], then the centre is cut out (torchvision's `Resize` and
    /// `CenterCrop`).
    #[default]
    Crop,
    /// Both sides become the input's, whatever the shape was; or [`Preprocess::resize`], and the centre is cut out.
    Squash,
}

/// What happens to an image before the model sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Preprocess {
    /// Side of the model's input in pixels; of an input that is not square, the longer one.
    pub img_size: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// How an image becomes the model's input.
    pub fit: FitMode,
    /// The side that an image is resized to before its centre is cut out, where that is larger than `img_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<usize>,
    /// The filter of the resize.
    pub interpolation: Interpolation,
    /// Mean of each channel on the scale 0 to 1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel on the scale 0 to 1.
    pub std: Vec<f32>,
}

/// Buffers to prepare images in, one after another.
#[derive(Debug, Default)]
pub struct Scratch {
    converted: Vec<u8>,
    resizer: Resizer,
}

impl Preprocess {
    /// Refuses sizes and numbers that no model can have been trained with.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, found: String, expected: &str| {
            Err(Error::Config { field, found, expected: format!("expected {expected}") })
        };
        if !(1..=MAX_IMG_SIZE).contains(&self.img_size) {
            return refuse("img-size", self.img_size.to_string(), "1 to 1024");
        }
        if self.channels != 1 && self.channels != 3 {
            return refuse("channels", self.channels.to_string(), "1 (grey) or 3 (RGB)");
        }
        if let Some(resize) = self.resize.filter(|resize| !(self.img_size + 1..=MAX_RESIZE).contains(resize))
        {
            return refuse("resize", resize.to_string(), "more than img-size, at most 4096");
        }
        for (field, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != self.channels {
                return refuse(field, format!("{} numbers", values.len()), "one a channel");
            }
        }
        if !self.mean.iter().all(|mean| mean.abs() <= 1e6) {
            return refuse("mean", format!("{:?}", self.mean), "finite numbers on the scale 0 to 1");
        }
        if !self.std.iter().all(|std| (1e-6..=1e6).contains(std)) {
            return refuse("std", format!("{:?}", self.std), "positive numbers on the scale 0 to 1");
        }
        Ok(())
    }

    /// The side in pixels that an image's short side is resized to, or its longer one for an input that is not square:
    /// what a large photo is decoded for ([`crate::image::decode_for`]).
    pub fn side(&self) -> usize {
        self.resize.unwrap_or(self.img_size)
    }

    /// The same preprocessing for another input, of which the resize keeps its ratio to the crop.
    pub fn with_img_size(&self, img_size: usize) -> Preprocess {
        let ratio = |resize: usize| resize * img_size / self.img_size.max(1);
        let resize = self.resize.map(ratio).filter(|resize| *resize > img_size);
        Preprocess { img_size, resize, ..self.clone() }
    }

    /// The model's input: `img_size` x `img_size` x `channels` bytes.
    pub fn apply(&self, image: &Image) -> Result<Image> {
        let mut scratch = Scratch::default();
        self.apply_with(image.view(), &mut scratch)?;
        Image::new(self.img_size, self.img_size, self.channels, scratch.resizer.into_out())
    }

    /// As [`Preprocess::apply`], in buffers that are used again: of images of one size, all but the first allocate
    /// nothing.
    pub fn apply_with<'a>(&self, image: View<'_>, scratch: &'a mut Scratch) -> Result<&'a [u8]> {
        self.apply_to([self.img_size; 2], image, scratch)
    }

    /// As [`Preprocess::apply_with`], for an input of that width and height.
    ///
    /// # Errors
    /// Also for a crop to anything but a square of `img_size`.
    pub fn apply_to<'a>(
        &self,
        to: [usize; 2],
        image: View<'_>,
        scratch: &'a mut Scratch,
    ) -> Result<&'a [u8]> {
        self.check()?;
        let (width, height) = (image.width(), image.height());
        let plan = self.plan([width, height], to)?;
        plan.check(self.channels)?;
        if image.channels() == self.channels {
            return scratch.resizer.resample(image, plan);
        }
        image.convert(self.channels, &mut scratch.converted)?;
        let stride = width * self.channels;
        let converted = View::new(width, height, self.channels, stride, &scratch.converted)?;
        scratch.resizer.resample(converted, plan)
    }

    /// The part of an image of width and height `from` that an input of width and height `to` shows: left, top, right and
    /// bottom as fractions of the image's width and height.
    ///
    /// # Errors
    /// As [`Preprocess::apply_to`].
    pub fn visible_region(&self, from: [usize; 2], to: [usize; 2]) -> Result<[f64; 4]> {
        self.check()?;
        check_shape(from[0], from[1], self.channels)?;
        let region = self.plan(from, to)?.region();
        Ok([0, 1, 2, 3].map(|edge| region[edge] / from[edge % 2] as f64))
    }

    /// Bytes that a [`Scratch`] takes for images of that shape.
    pub fn scratch_bytes(&self, width: usize, height: usize, channels: usize) -> Result<u64> {
        self.scratch_bytes_to([self.img_size; 2], width, height, channels)
    }

    /// As [`Preprocess::scratch_bytes`], for an input of that width and height.
    ///
    /// # Errors
    /// As [`Preprocess::apply_to`].
    pub fn scratch_bytes_to(
        &self,
        to: [usize; 2],
        width: usize,
        height: usize,
        channels: usize,
    ) -> Result<u64> {
        self.check()?;
        check_shape(width, height, channels)?;
        let resizing = self.plan([width, height], to)?.bytes(self.channels)?;
        let converted = width as u64 * height as u64 * self.channels as u64;
        Ok(resizing + if channels == self.channels { 0 } else { converted })
    }

    /// What is resized to what, and which part of it is kept.
    fn plan(&self, from: [usize; 2], to: [usize; 2]) -> Result<Plan> {
        let is_square = to == [self.img_size; 2];
        let size = match (self.fit, self.resize) {
            (FitMode::Squash, None) => to,
            (FitMode::Squash, Some(resize)) if is_square => [resize; 2],
            (FitMode::Crop, resize) if is_square => short_side_to(resize.unwrap_or(self.img_size), from),
            _ => {
                let (found, expected) =
                    (format!("a crop to {} x {} pixels", to[0], to[1]), "expected a square");
                return Err(Error::Config { field: "fit", found, expected: expected.into() });
            }
        };
        let first = [0, 1].map(|axis| crop_start(size[axis] - to[axis]));
        Ok(Plan::window(from, size, first, to, self.interpolation))
    }

    /// `(x / 255 - mean) / std`, from interleaved bytes to planes.
    pub fn normalise(&self, pixels: &[u8], out: &mut [f32]) -> Result<()> {
        self.normalise_to([self.img_size; 2], pixels, out)
    }

    /// As [`Preprocess::normalise`], for an input of that width and height.
    ///
    /// # Errors
    /// For pixels or room of another length.
    pub fn normalise_to(&self, [width, height]: [usize; 2], pixels: &[u8], out: &mut [f32]) -> Result<()> {
        self.check()?;
        let area = width * height;
        let wanted = area * self.channels;
        if pixels.len() != wanted || out.len() != wanted {
            let (bytes, floats) = (pixels.len(), out.len());
            let problem = format!("{bytes} bytes into {floats} floats: expected {wanted} of each");
            return Err(Error::Image(problem));
        }
        let moments = self.mean.iter().zip(&self.std);
        for (channel, (plane, (&mean, &std))) in out.chunks_exact_mut(area).zip(moments).enumerate() {
            let values = pixels.iter().skip(channel).step_by(self.channels);
            for (out, &value) in plane.iter_mut().zip(values) {
                *out = (f32::from(value) / 255.0 - mean) / std;
            }
        }
        Ok(())
    }

    /// Hugging Face's `preprocessor_config.json`.
    pub fn to_json(&self) -> Value {
        json::write(self)
    }

    /// From Hugging Face's `preprocessor_config.json`; errors name the key.
    pub fn from_json(config: &Value) -> Result<Preprocess> {
        json::read(config)
    }
}

/// Width and height when the short side becomes `side`: torchvision's `int(side * long / short)`.
fn short_side_to(side: usize, [width, height]: [usize; 2]) -> [usize; 2] {
    let long = |long: usize, short: usize| {
        let length = side as u128 * long as u128 / short as u128;
        usize::try_from(length).unwrap_or(usize::MAX)
    };
    if width <= height { [side, long(height, width)] } else { [long(width, height), side] }
}

/// Where a centre crop begins when so many pixels are left over: half, to even as Python rounds.
fn crop_start(excess: usize) -> usize {
    let half = excess / 2;
    if excess % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(img_size: usize, fit: FitMode) -> Preprocess {
        let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
        let interpolation = Interpolation::Bilinear;
        Preprocess { img_size, channels: 3, fit, resize: None, interpolation, mean, std }
    }

    #[test]
    fn a_crop_of_a_larger_resize_is_its_centre() {
        let (width, height) = (90, 60);
        let data: Vec<u8> = (0..width * height * 3).map(|i| (i * 31 % 251) as u8).collect();
        let image = Image::new(width, height, 3, data).unwrap();
        for fit in [FitMode::Crop, FitMode::Squash] {
            let whole = match fit {
                FitMode::Crop => [54, 36],
                FitMode::Squash => [36, 36],
            };
            let resized = Plan::window([width, height], whole, [0, 0], whole, Interpolation::Bilinear);
            let mut resizer = Resizer::default();
            let pixels = resizer.resample(image.view(), resized).unwrap();
            let (left, top) = (crop_start(whole[0] - 32), crop_start(whole[1] - 32));
            let row = |y: usize| &pixels[((top + y) * whole[0] + left) * 3..][..32 * 3];
            let want: Vec<u8> = (0..32).flat_map(|y| row(y).to_vec()).collect();
            let preprocess = Preprocess { resize: Some(36), ..rgb(32, fit) };
            assert_eq!(preprocess.apply(&image).unwrap().data(), want);
        }
        let problem = Preprocess { resize: Some(36), ..rgb(16, FitMode::Squash) };
        assert!(problem.apply_to([16, 8], image.view(), &mut Scratch::default()).is_err());
    }

    #[test]
    fn the_visible_region_is_what_the_crop_leaves() {
        let region = |preprocess: Preprocess, from| preprocess.visible_region(from, [32; 2]).unwrap();
        assert_eq!(region(rgb(32, FitMode::Crop), [200, 100]), [0.25, 0.0, 0.75, 1.0]);
        assert_eq!(region(rgb(32, FitMode::Squash), [200, 100]), [0.0, 0.0, 1.0, 1.0]);
        let larger = Preprocess { resize: Some(64), ..rgb(32, FitMode::Crop) };
        assert_eq!(region(larger, [100, 200]), [0.25, 0.375, 0.75, 0.625]);
        assert!(rgb(32, FitMode::Crop).visible_region([0, 1], [32; 2]).is_err());
        assert!(rgb(32, FitMode::Crop).visible_region([9, 9], [32, 16]).is_err());
    }

    #[test]
    fn another_input_keeps_the_ratio() {
        let preprocess = Preprocess { resize: Some(256), ..rgb(224, FitMode::Crop) };
        assert_eq!(preprocess.with_img_size(126).resize, Some(144));
        assert_eq!(preprocess.with_img_size(1).resize, None);
        assert_eq!(rgb(224, FitMode::Crop).with_img_size(96), rgb(96, FitMode::Crop));
    }

    #[test]
    fn sides_are_torchvisions() {
        assert_eq!(short_side_to(224, [500, 375]), [298, 224]);
        assert_eq!(short_side_to(224, [375, 500]), [224, 298]);
        assert_eq!(short_side_to(32, [32, 32]), [32, 32]);
        assert_eq!(short_side_to(3, [7, 9]), [3, 3]);
        // Python: int(round(excess / 2.0)).
        let starts = [0, 1, 2, 3, 4, 5, 6, 7].map(crop_start);
        assert_eq!(starts, [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn every_image_becomes_the_input() {
        for (width, height, channels) in [(40, 30, 3), (30, 40, 1), (32, 32, 3), (1, 300, 1), (5000, 1, 3)] {
            let image = Image::new(width, height, channels, vec![9; width * height * channels]).unwrap();
            for fit in [FitMode::Crop, FitMode::Squash] {
                for channels in [1, 3] {
                    let mut preprocess = rgb(32, fit);
                    preprocess.channels = channels;
                    preprocess.mean.truncate(channels);
                    preprocess.std.truncate(channels);
                    let input = preprocess.apply(&image).unwrap();
                    assert_eq!((input.width(), input.height(), input.channels()), (32, 32, channels));
                    assert!(input.data().iter().all(|&value| value == 9));
                }
            }
        }
    }

    #[test]
    fn an_input_need_not_be_square() {
        let (width, height) = (37, 21);
        let data: Vec<u8> = (0..width * height * 3).map(|i| (i * 31 % 251) as u8).collect();
        let image = Image::new(width, height, 3, data).unwrap();
        let (mut scratch, squash) = (Scratch::default(), rgb(16, FitMode::Squash));
        let found = squash.apply_to([16, 8], image.view(), &mut scratch).unwrap();
        let plan = Plan::window([width, height], [16, 8], [0, 0], [16, 8], Interpolation::Bilinear);
        assert_eq!(found, Resizer::default().resample(image.view(), plan).unwrap());
        let bytes = squash.scratch_bytes_to([16, 8], width, height, 3).unwrap();
        assert_eq!(scratch.converted.capacity() as u64 + scratch.resizer.capacity(), bytes);
        let mut floats = vec![0.0; 16 * 8 * 3];
        squash.normalise_to([16, 8], &[0; 16 * 8 * 3], &mut floats).unwrap();
        assert!(squash.normalise_to([16, 16], &[0; 16 * 8 * 3], &mut floats).is_err());
        let error = rgb(16, FitMode::Crop).apply_to([16, 8], image.view(), &mut scratch).unwrap_err();
        assert!(error.to_string().contains("16 x 8"), "{error}");
    }

    #[test]
    fn buffers_are_used_again_and_as_large_as_said() {
        let mut scratch = Scratch::default();
        for (width, height, channels) in [(40, 30, 3), (300, 700, 1), (32, 32, 3), (700, 31, 3), (32, 900, 1)]
        {
            let data: Vec<u8> = (0..width * height * channels).map(|i| (i * i % 251) as u8).collect();
            let image = Image::new(width, height, channels, data).unwrap();
            for fit in [FitMode::Crop, FitMode::Squash] {
                let preprocess = rgb(32, fit);
                let wanted = preprocess.apply(&image).unwrap();
                for _ in 0..2 {
                    assert_eq!(preprocess.apply_with(image.view(), &mut scratch).unwrap(), wanted.data());
                }
                let mut fresh = Scratch::default();
                preprocess.apply_with(image.view(), &mut fresh).unwrap();
                let bytes = preprocess.scratch_bytes(width, height, channels).unwrap();
                assert_eq!(fresh.converted.capacity() as u64 + fresh.resizer.capacity(), bytes);
            }
        }
        for (width, height, channels) in [(0, 1, 3), (1, 1, 2), (1 << 21, 1, 3), (usize::MAX, 1, 3)] {
            assert!(rgb(32, FitMode::Crop).scratch_bytes(width, height, channels).is_err());
        }
    }

    #[test]
    fn gaps_between_rows_change_nothing() {
        let (width, height) = (50, 90);
        let data: Vec<u8> = (0..width * height).map(|i| (i * 7 % 251) as u8).collect();
        let gappy: Vec<u8> = data.chunks(width).flat_map(|row| row.iter().copied().chain([255; 9])).collect();
        let image = Image::new(width, height, 1, data).unwrap();
        let view = View::new(width, height, 1, width + 9, &gappy[..gappy.len() - 9]).unwrap();
        for channels in [1, 3] {
            for fit in [FitMode::Crop, FitMode::Squash] {
                let mut preprocess = rgb(32, fit);
                preprocess.channels = channels;
                preprocess.mean.truncate(channels);
                preprocess.std.truncate(channels);
                let wanted = preprocess.apply(&image).unwrap();
                assert_eq!(preprocess.apply_with(view, &mut Scratch::default()).unwrap(), wanted.data());
            }
        }
    }

    #[test]
    fn normalising_makes_planes() {
        let preprocess = rgb(2, FitMode::Squash);
        let pixels = [0, 255, 51, 10, 20, 30, 40, 50, 60, 70, 80, 90];
        let mut out = [0.0; 12];
        preprocess.normalise(&pixels, &mut out).unwrap();
        // numpy: (x / 255 - mean) / std in float32.
        assert!((out[0] - -2.117_904).abs() < 1e-6);
        assert!((out[4] - 2.428_571_5).abs() < 1e-6);
        assert!((out[8] - (0.2 - 0.406) / 0.225).abs() < 1e-6);
        assert!((out[3] - (70.0 / 255.0 - 0.485) / 0.229).abs() < 1e-6);
        assert!(preprocess.normalise(&pixels[..11], &mut out).is_err());
        assert!(preprocess.normalise(&pixels, &mut out[..11]).is_err());
    }

    #[test]
    fn impossible_settings_are_named() {
        let bad = |change: fn(&mut Preprocess), field: &str| {
            let mut preprocess = rgb(32, FitMode::Crop);
            preprocess.check().unwrap();
            change(&mut preprocess);
            let message = preprocess.check().unwrap_err().to_string();
            assert!(message.starts_with(field), "{message}");
        };
        bad(|p| p.img_size = 0, "img-size");
        bad(|p| p.img_size = 1025, "img-size");
        bad(|p| p.resize = Some(32), "resize");
        bad(|p| p.resize = Some(1 << 20), "resize");
        bad(|p| p.channels = 2, "channels");
        bad(|p| p.channels = 1, "mean");
        bad(|p| p.mean[1] = f32::NAN, "mean");
        bad(|p| p.std.truncate(1), "std");
        bad(|p| p.std[0] = 0.0, "std");
        bad(|p| p.std[2] = f32::INFINITY, "std");
        bad(|p| p.std[2] = -0.2, "std");
    }
}
