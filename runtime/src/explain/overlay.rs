//! A heat map over its image.

use smalti_models::Image;
use smalti_models::resize::{Interpolation, resize};

use super::{HeatMap, palette};
use crate::error::{Error, Result};

/// Between these the longer side of a drawing lies, in pixels.
const SIDES: [usize; 2] = [480, 1024];

/// A fall of the probability that is drawn at full strength, unless the largest one is more: where nothing matters, nothing
/// is to shine.
const FULL: f32 = 0.05;

/// How much of the map's colour covers the image, where little and where much depends on it.
const COVER: [f32; 2] = [0.5, 0.8];

/// How bright the image is beneath the map, and outside of what the model saw.
const BENEATH: [f32; 2] = [0.75, 0.3];

impl HeatMap {
    /// The map over its image, in RGB: the image in grey, and over it dark blue where the answer does not depend on it,
    /// rose, and pale yellow where it depends most; darkened where the model did not see it. The longer side has 480 to
    /// 1024 pixels.
    ///
    /// # Errors
    /// [`Error::Data`] for an image that is too long to be drawn.
    pub fn over(&self, image: &Image) -> Result<Image> {
        let unusable = |error| Error::data("image", error);
        let [width, height] = drawn([image.width(), image.height()]);
        let shown = resize(image, width, height, Interpolation::Bicubic).map_err(unusable)?;
        let grey = shown.into_channels(1).map_err(unusable)?;
        let colours = palette();
        let full = self.falls.iter().copied().fold(FULL, f32::max);
        let mut pixels = Vec::with_capacity(3 * width * height);
        for (i, &value) in grey.data().iter().enumerate() {
            let grey = f32::from(value);
            let place =
                [(i % width, width), (i / width, height)].map(|(i, side)| (i as f64 + 0.5) / side as f64);
            let Some(fall) = self.at(place) else {
                pixels.extend([(BENEATH[1] * grey) as u8; 3]);
                continue;
            };
            let strength = (fall / full).clamp(0.0, 1.0);
            let cover = COVER[0] + strength * (COVER[1] - COVER[0]);
            let colour = colours[(255.0 * strength).round() as usize];
            let mixed = |colour: u8| cover * f32::from(colour) + (1.0 - cover) * BENEATH[0] * grey;
            pixels.extend(colour.map(|colour| mixed(colour).round() as u8));
        }
        Image::new(width, height, 3, pixels).map_err(unusable)
    }

    /// The fall at a place of the image (fractions of width and height), between the cells' centres in proportion; none
    /// where the model did not see it.
    pub(super) fn at(&self, place: [f64; 2]) -> Option<f32> {
        let [left, top, right, bottom] = self.region;
        let inside = [(place[0] - left) / (right - left), (place[1] - top) / (bottom - top)];
        if !inside.iter().all(|part| (0.0..=1.0).contains(part)) {
            return None;
        }
        let [x, y] = [0, 1].map(|axis| {
            let (most, at) = (self.cells[axis] - 1, inside[axis] * self.cells[axis] as f64 - 0.5);
            let (before, part) = (at.floor().max(0.0), at - at.floor());
            let first = (before as usize).min(most);
            let next = if at < 0.0 { first } else { (first + 1).min(most) };
            (first, next, part as f32)
        });
        let fall = |x: usize, y: usize| self.falls[y * self.cells[0] + x];
        let row = |y: usize| fall(x.0, y) * (1.0 - x.2) + fall(x.1, y) * x.2;
        Some(row(y.0) * (1.0 - y.2) + row(y.1) * y.2)
    }
}

/// The size of the drawing of an image.
pub(super) fn drawn(sides: [usize; 2]) -> [usize; 2] {
    let long = sides[0].max(sides[1]);
    let to = long.clamp(SIDES[0], SIDES[1]);
    sides.map(|side| (side * to).div_ceil(long.max(1)).max(1))
}
