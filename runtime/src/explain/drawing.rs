//! A heat map over its image, at a size that can be looked at.

use smalti_models::resize::{Interpolation, resize};
use smalti_models::{HeatMap, Image};

use crate::error::{Error, Result};

/// Between these the longer side of a drawing lies, in pixels.
const SIDES: [usize; 2] = [480, 1024];

/// [`HeatMap::over`] an image that was enlarged or reduced to a longer side of 480 to 1024 pixels.
///
/// # Errors
/// [`Error::Data`] for an image that is too long to be drawn.
pub(crate) fn draw(map: &HeatMap, image: &Image, region: [f64; 4], full: f32) -> Result<Image> {
    let [width, height] = drawn([image.width(), image.height()]);
    let shown = resize(image, width, height, Interpolation::Bicubic);
    let drawn = shown.and_then(|shown| map.over(shown.view(), region, full));
    drawn.map_err(|error| Error::data("image", error))
}

/// The size of the drawing of an image.
pub(super) fn drawn(sides: [usize; 2]) -> [usize; 2] {
    let long = sides[0].max(sides[1]);
    let to = long.clamp(SIDES[0], SIDES[1]);
    sides.map(|side| (side * to).div_ceil(long.max(1)).max(1))
}
