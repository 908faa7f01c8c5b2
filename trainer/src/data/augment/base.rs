//! The part of the preprocessing that is the same whenever an image is seen, so that its result can be kept.

use smalti_models::Preprocess;
use smalti_models::image::Image;
use smalti_models::resize::{self, Interpolation};

use super::Augment;
use super::crop::CropKind;
use crate::error::Result;

/// A random resized crop takes its region from an image whose short side is at most this many times the model's:
/// larger ones cost memory and time and change nothing that the model can see.
const OVERSAMPLING: usize = 2;

/// What is made of a decoded image before any random change. Views with equal bases share its result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Base {
    /// The model's input, not normalised: resized and cropped.
    Input(Preprocess),
    /// The whole image in the model's channels, with a limited short side.
    Whole { short: usize, channels: usize, interpolation: Interpolation },
}

impl Base {
    pub(super) fn of(augment: &Augment, input: &Preprocess, cut_from: Option<usize>) -> Base {
        let channels = input.channels;
        match augment.crop {
            CropKind::RandomResized { .. } => Base::Whole {
                short: cut_from.unwrap_or(OVERSAMPLING * input.img_size),
                channels,
                interpolation: input.interpolation,
            },
            // Neutral, so that views that differ in the normalisation alone share a base.
            CropKind::None | CropKind::Padded(_) => Base::Input(Preprocess {
                mean: vec![0.0; channels],
                std: vec![1.0; channels],
                ..input.clone()
            }),
        }
    }

    /// The side that the short side of an image is resized to.
    pub(crate) fn side(&self) -> usize {
        match self {
            Base::Input(input) => input.side(),
            Base::Whole { short, .. } => *short,
        }
    }

    /// Whether images of this width, height and number of channels stay as they are.
    pub(crate) fn keeps(&self, [width, height, channels]: [usize; 3]) -> bool {
        match self {
            Base::Input(input) => {
                let is_input = [width, height, channels] == [input.img_size, input.img_size, input.channels];
                is_input && input.resize.is_none()
            }
            Base::Whole { short, channels: wanted, .. } => channels == *wanted && width.min(height) <= *short,
        }
    }

    /// Prepares a decoded image.
    pub(crate) fn make(&self, image: Image) -> Result<Image> {
        if self.keeps([image.width(), image.height(), image.channels()]) {
            return Ok(image);
        }
        match self {
            Base::Input(input) => Ok(input.apply(&image)?),
            Base::Whole { short, channels, interpolation } => {
                limit(image.into_channels(*channels)?, *short, *interpolation)
            }
        }
    }
}

/// Scales an image down until its short side is `most` pixels; smaller ones stay.
fn limit(image: Image, most: usize, interpolation: Interpolation) -> Result<Image> {
    let short = image.width().min(image.height());
    if short <= most {
        return Ok(image);
    }
    let scaled = |side: usize| ((side as f64 * most as f64 / short as f64).round() as usize).max(most);
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    Ok(resize::resize(&image, width, height, interpolation)?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::input;
    use super::*;

    #[test]
    fn a_resized_crop_keeps_twice_the_size() {
        let augment = Augment { crop: CropKind::random_resized(0.5), ..Augment::default() };
        let kept = |augment: &Augment, w: usize, h: usize, channels: usize| {
            let image = Image::new(w, h, 1, vec![9; w * h]).unwrap();
            let base = Base::of(augment, &input(8, channels), None).make(image).unwrap();
            [base.width(), base.height(), base.channels()]
        };
        assert_eq!(kept(&augment, 64, 48, 3), [21, 16, 3]);
        assert_eq!(kept(&augment, 12, 100, 1), [12, 100, 1]);
        assert_eq!(kept(&Augment::default(), 64, 48, 3), [8, 8, 3]);
    }

    #[test]
    fn an_image_of_the_input_s_size_is_resized_where_more_is_cropped() {
        let input = Preprocess { resize: Some(10), ..input(8, 3) };
        let base = Base::of(&Augment::default(), &input, None);
        let image = Image::new(8, 8, 3, (0..192).collect()).unwrap();
        assert!(!base.keeps([8, 8, 3]));
        assert_eq!(base.make(image.clone()).unwrap(), input.apply(&image).unwrap());
    }

    #[test]
    fn what_is_kept_is_not_made() {
        for crop in [CropKind::None, CropKind::Padded(2), CropKind::random_resized(0.5)] {
            let base = Base::of(&Augment { crop, ..Augment::default() }, &input(8, 3), None);
            for shape in [[8, 8, 3], [8, 8, 1], [16, 16, 3], [17, 17, 3], [8, 9, 3], [40, 16, 3]] {
                let [width, height, channels] = shape;
                let pixels = (0..width * height * channels).map(|i| (i * 37 % 256) as u8).collect();
                let image = Image::new(width, height, channels, pixels).unwrap();
                assert_eq!(
                    base.keeps(shape),
                    base.make(image.clone()).unwrap() == image,
                    "{base:?} {shape:?}"
                );
            }
        }
    }
}
