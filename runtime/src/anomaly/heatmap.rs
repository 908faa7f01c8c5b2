//! Where an image is unusual, in colours.

use smalti_models::Image;
use smalti_models::image::View;

use crate::error::{Error, Result};
use crate::load::Model;

/// Colours from usual to unusual, at 0, 0.5, 1 (the threshold) and 1.5.
const COLOURS: [[f32; 3]; 4] =
    [[0.0, 0.0, 96.0], [0.0, 150.0, 160.0], [255.0, 200.0, 0.0], [255.0, 0.0, 0.0]];
/// The map's part of a pixel.
const SHARE: f32 = 0.5;

/// The image in RGB under the map of a [`Finding`](super::Finding) with so many rows and columns: blue is usual, yellow at
/// the threshold, red above it. What the model's preprocessing cuts off stays grey.
///
/// # Errors
/// [`Error::Usage`] for a model without preprocessing or a map of another size, [`Error::Data`] for an image that cannot be
/// prepared.
pub fn overlay(model: &Model, image: View<'_>, map: &[f32], [rows, columns]: [usize; 2]) -> Result<Image> {
    let Some(preprocess) = model.preprocess() else {
        return Err(Error::Usage("the model file does not say how to prepare images".into()));
    };
    if map.is_empty() || map.len() != rows * columns {
        return Err(Error::Usage(format!("a map of {} places for {rows} x {columns}", map.len())));
    }
    let unusable = |error| Error::data("image", error);
    let (width, height) = (image.width(), image.height());
    let [left, top, wide, high] =
        preprocess.region(model.input().size(), [width, height]).map_err(unusable)?;
    let mut pixels = Vec::new();
    image.convert(3, &mut pixels).map_err(unusable)?;
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let [x, y] = [(i % width) as f64, (i / width) as f64].map(|place| place + 0.5);
        let (across, down) = ((x - left) / wide, (y - top) / high);
        if !(0.0..1.0).contains(&across) || !(0.0..1.0).contains(&down) {
            let grey = pixel.iter().map(|&value| u16::from(value)).sum::<u16>() / 3;
            pixel.fill(grey as u8);
            continue;
        }
        let colour = colour(between(map, [rows, columns], [down, across]));
        for (value, colour) in pixel.iter_mut().zip(colour) {
            *value = ((1.0 - SHARE) * f32::from(*value) + SHARE * colour).round() as u8;
        }
    }
    Image::new(width, height, 3, pixels).map_err(unusable)
}

/// The map's value between the centres of its places; `at` is a share of its height and its width.
fn between(map: &[f32], sides: [usize; 2], at: [f64; 2]) -> f32 {
    let [(top, low, y), (left, right, x)] = [0, 1].map(|axis| {
        let place = (at[axis] * sides[axis] as f64 - 0.5).clamp(0.0, (sides[axis] - 1) as f64);
        let first = place as usize;
        (first, (first + 1).min(sides[axis] - 1), (place - first as f64) as f32)
    });
    let value = |row: usize, column: usize| map[row * sides[1] + column];
    let line = |row: usize| (1.0 - x) * value(row, left) + x * value(row, right);
    (1.0 - y) * line(top) + y * line(low)
}

/// The colour of a value.
fn colour(value: f32) -> [f32; 3] {
    let place = (2.0 * value).clamp(0.0, (COLOURS.len() - 1) as f32);
    let first = (place as usize).min(COLOURS.len() - 2);
    let part = place - first as f32;
    [0, 1, 2].map(|i| (1.0 - part) * COLOURS[first][i] + part * COLOURS[first + 1][i])
}

#[cfg(test)]
mod tests {
    use smalti_models::Preprocess;
    use smalti_models::preprocess::FitMode;

    use super::*;

    #[test]
    fn values_lie_between_those_of_the_places() {
        let map = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(between(&map, [2, 2], [0.25, 0.25]), 0.0);
        assert_eq!(between(&map, [2, 2], [0.5, 0.5]), 1.5);
        assert_eq!(between(&map, [2, 2], [0.99, 0.0]), 2.0);
        assert_eq!(between(&[7.0], [1, 1], [0.3, 0.9]), 7.0);
    }

    #[test]
    fn unusual_is_red() {
        assert_eq!((colour(0.0), colour(1.5), colour(f32::INFINITY)), (COLOURS[0], COLOURS[3], COLOURS[3]));
        assert_eq!(colour(1.0), COLOURS[2]);
    }

    #[test]
    fn what_is_cut_off_stays_grey() {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        let model = Model::open(models.join("colours_u8.onnx")).unwrap();
        let preprocess = Preprocess { fit: FitMode::Crop, ..model.preprocess().unwrap().clone() };
        let model = model.with_preprocess(preprocess).unwrap();
        let image = Image::new(30, 10, 3, vec![200; 900]).unwrap();
        let shown = overlay(&model, image.view(), &[0.0, 9.0], [1, 2]).unwrap();
        let pixel = |x: usize| &shown.data()[3 * (5 * 30 + x)..][..3];
        assert_eq!((pixel(2), pixel(27)), (&[200; 3][..], &[200; 3][..]));
        assert!(pixel(11)[2] > pixel(11)[0] && pixel(18)[0] > pixel(18)[2]);
        assert_eq!(overlay(&model, image.view(), &[0.0], [1, 2]).unwrap_err().exit_code(), 2);
    }
}
