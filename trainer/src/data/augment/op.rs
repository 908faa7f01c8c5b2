//! The operations that policies draw, under torchvision's names.

use smalti_models::image::Image;

use super::geometric::Canvas;
use super::{colour, geometric};
use crate::error::{Error, Result};

/// One operation on an 8-bit image. All give Pillow's pixels to the last bit, called as torchvision calls Pillow for
/// RandAugment and TrivialAugment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Nothing.
    Identity,
    /// Rows shift by the magnitude times their distance from the upper edge.
    ShearX,
    /// Columns shift by the magnitude times their distance from the left edge.
    ShearY,
    /// To the right, in pixels.
    TranslateX,
    /// Downwards, in pixels.
    TranslateY,
    /// Counterclockwise around the centre, in degrees.
    Rotate,
    /// Multiplied by 1 plus the magnitude.
    Brightness,
    /// Saturation, multiplied by 1 plus the magnitude.
    Color,
    /// Distance from the mean grey, multiplied by 1 plus the magnitude.
    Contrast,
    /// Distance from the smoothed image, multiplied by 1 plus the magnitude.
    Sharpness,
    /// Bits of each value that are kept.
    Posterize,
    /// The value from which on values are inverted.
    Solarize,
    /// Each channel stretched to the whole range; no magnitude.
    AutoContrast,
    /// Each channel's histogram evened out; no magnitude.
    Equalize,
    /// The negative; no magnitude. RandAugment's and TrivialAugment's lists are without it.
    Invert,
}

/// The largest magnitude that [`Op::apply`] takes: more pixels or degrees than any image has.
const MAX_MAGNITUDE: f64 = 1e6;

impl Op {
    /// All operations.
    pub const ALL: [Op; 15] = [
        Op::Identity,
        Op::ShearX,
        Op::ShearY,
        Op::TranslateX,
        Op::TranslateY,
        Op::Rotate,
        Op::Brightness,
        Op::Color,
        Op::Contrast,
        Op::Sharpness,
        Op::Posterize,
        Op::Solarize,
        Op::AutoContrast,
        Op::Equalize,
        Op::Invert,
    ];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Op::Identity => "identity",
            Op::ShearX => "shear-x",
            Op::ShearY => "shear-y",
            Op::TranslateX => "translate-x",
            Op::TranslateY => "translate-y",
            Op::Rotate => "rotate",
            Op::Brightness => "brightness",
            Op::Color => "color",
            Op::Contrast => "contrast",
            Op::Sharpness => "sharpness",
            Op::Posterize => "posterize",
            Op::Solarize => "solarize",
            Op::AutoContrast => "auto-contrast",
            Op::Equalize => "equalize",
            Op::Invert => "invert",
        }
    }

    /// Whether it moves pixels. The others but [`Op::Identity`] change colours.
    pub fn is_geometric(self) -> bool {
        matches!(self, Op::ShearX | Op::ShearY | Op::TranslateX | Op::TranslateY | Op::Rotate)
    }

    /// Whether magnitudes below 0 make sense, so that policies draw a sign.
    pub(super) fn is_signed(self) -> bool {
        self.is_geometric() || matches!(self, Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness)
    }

    /// The changed image, of the same size.
    ///
    /// # Errors
    /// A magnitude that is not finite, or beyond a million.
    pub fn apply(self, image: Image, magnitude: f64, canvas: Canvas) -> Result<Image> {
        if magnitude.is_nan() || magnitude.abs() > MAX_MAGNITUDE {
            let name = self.name();
            return Err(Error::Usage(format!(
                "{name}'s magnitude is {magnitude}: expected at most {MAX_MAGNITUDE}"
            )));
        }
        match self {
            Op::Identity => Ok(image),
            Op::ShearX => geometric::shear_x(&image, magnitude, canvas),
            Op::ShearY => geometric::shear_y(&image, magnitude, canvas),
            Op::TranslateX => geometric::translate(&image, magnitude, 0.0, canvas),
            Op::TranslateY => geometric::translate(&image, 0.0, magnitude, canvas),
            Op::Rotate => geometric::rotate(image, magnitude, canvas),
            Op::Brightness => colour::brightness(image, 1.0 + magnitude),
            Op::Color => colour::saturation(image, 1.0 + magnitude),
            Op::Contrast => colour::contrast(image, 1.0 + magnitude),
            Op::Sharpness => colour::sharpness(image, 1.0 + magnitude),
            Op::Posterize => colour::posterize(image, magnitude as u32),
            Op::Solarize => colour::solarize(image, magnitude),
            Op::AutoContrast => colour::auto_contrast(image),
            Op::Equalize => colour::equalize(image),
            Op::Invert => colour::invert(image),
        }
    }
}

/// A set of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<Op>", into = "Vec<Op>")]
pub struct OpSet(u16);

impl OpSet {
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Whether it holds this one.
    pub fn contains(self, op: Op) -> bool {
        self.0 & (1 << op as u16) != 0
    }

    /// Its operations, in the order of [`Op::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Op> {
        Op::ALL.into_iter().filter(move |op| self.contains(*op))
    }
}

impl FromIterator<Op> for OpSet {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> OpSet {
        OpSet(ops.into_iter().fold(0, |bits, op| bits | 1 << op as u16))
    }
}

impl From<Vec<Op>> for OpSet {
    fn from(ops: Vec<Op>) -> OpSet {
        ops.into_iter().collect()
    }
}

impl From<OpSet> for Vec<Op> {
    fn from(set: OpSet) -> Vec<Op> {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometric::Sampling;
    use super::*;

    #[test]
    fn names_are_those_in_files() {
        for op in Op::ALL {
            assert_eq!(serde_json::to_value(op).unwrap(), op.name());
        }
    }

    #[test]
    fn sets_hold_what_is_put_in() {
        let set: OpSet = [Op::Invert, Op::Identity].into_iter().collect();
        assert!(set.contains(Op::Invert) && !set.contains(Op::Rotate) && !set.is_empty());
        assert_eq!(set.iter().collect::<Vec<_>>(), [Op::Identity, Op::Invert]);
        assert!(OpSet::default().is_empty());
    }

    #[test]
    fn no_magnitude_panics() {
        let images = [(1, 1, 1), (2, 7, 3), (9, 1, 1), (1, 9, 3), (40, 40, 3)];
        for (width, height, channels) in images {
            let image = Image::new(width, height, channels, vec![200; width * height * channels]).unwrap();
            for (op, sampling) in
                Op::ALL.into_iter().flat_map(|op| [(op, Sampling::Nearest), (op, Sampling::Bilinear)])
            {
                let canvas = Canvas { sampling, fill: [9; 3] };
                for magnitude in [0.0, -0.0, 1.0, -1.0, 1e-300, 9.0, 256.0, -255.5, 1e6, -1e6] {
                    let out = op.apply(image.clone(), magnitude, canvas).unwrap();
                    assert_eq!([out.width(), out.height(), out.channels()], [width, height, channels]);
                }
                for magnitude in [f64::NAN, f64::INFINITY, -1.1e6] {
                    assert_eq!(op.apply(image.clone(), magnitude, canvas).unwrap_err().exit_code(), 2);
                }
            }
        }
    }
}
