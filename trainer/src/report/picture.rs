//! Small pictures inside a page: squares, maps over them, JPEG in data URIs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_models::{Image, Preprocess};
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::occlusion::Map;
use smalti_trainer::{Result, sheet};

/// The colour of what a map shows, how much of the picture it hides at most, and the value below which it hides less: a
/// probability that falls by less than that says little.
const HEAT: [f64; 3] = [255.0, 120.0, 0.0];
const HEAT_MOST: f64 = 0.8;
const HEAT_FROM: f64 = 0.05;

/// Image `i` as a square of RGB pixels, its middle cut out.
pub(super) fn thumbnail(data: &Dataset, i: usize, side: usize) -> Result<Image> {
    let square = Preprocess {
        img_size: side,
        channels: 3,
        fit: FitMode::Crop,
        resize: None,
        interpolation: Interpolation::Bicubic,
        mean: vec![0.5; 3],
        std: vec![0.5; 3],
    };
    Ok(square.apply(&data.image_for(i, side)?)?)
}

/// A picture with a map over it: grey where nothing matters, orange where it does. Of shares that sum to 1 the largest is orange,
/// however small.
pub(super) fn heat(photo: &Image, map: &Map, is_share: bool) -> Result<Image> {
    let least = if is_share { 1e-9 } else { HEAT_FROM };
    let most = map.values.iter().copied().fold(0.0, f64::max).max(least);
    let at = |row: usize, column: usize| (map.values[row * map.cells + column] / most).max(0.0);
    // Between the middles of cells.
    let place = |pixel: usize, side: usize| {
        let cell =
            ((pixel as f64 + 0.5) / side as f64 * map.cells as f64 - 0.5).clamp(0.0, (map.cells - 1) as f64);
        (cell as usize, (cell as usize + 1).min(map.cells - 1), cell.fract())
    };
    let mut pixels = Vec::with_capacity(photo.data().len());
    for (i, pixel) in photo.data().chunks_exact(photo.channels()).enumerate() {
        let (top, below, down) = place(i / photo.width(), photo.height());
        let (left, right, across) = place(i % photo.width(), photo.width());
        let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
        let lower = at(below, left) * (1.0 - across) + at(below, right) * across;
        let share = HEAT_MOST * (upper * (1.0 - down) + lower * down);
        let grey = pixel.iter().map(|x| f64::from(*x)).sum::<f64>() / pixel.len() as f64;
        pixels.extend(HEAT.map(|heat| (grey * (1.0 - share) + heat * share).round() as u8));
    }
    Ok(Image::new(photo.width(), photo.height(), 3, pixels)?)
}

/// A picture as a data URI.
pub(super) fn uri(image: &Image) -> Result<String> {
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(sheet::jpeg(image)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(side: usize, value: u8) -> Image {
        Image::new(side, side, 3, vec![value; side * side * 3]).unwrap()
    }

    #[test]
    fn heat_is_orange_where_the_answer_comes_from() {
        let mut values = vec![0.0; 16];
        values[5] = 0.4;
        values[15] = -0.3;
        let found = heat(&grey(8, 100), &Map { cells: 4, values }, false).unwrap();
        let at = |x: usize, y: usize| &found.data()[(y * 8 + x) * 3..][..3];
        assert!(at(2, 2)[0] > 150 && at(2, 2)[2] < 90, "{:?}", at(2, 2));
        assert_eq!(at(7, 7), [100; 3]);
    }

    #[test]
    fn a_uri_is_the_picture() {
        let uri = uri(&grey(8, 200)).unwrap();
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let back = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert!((i32::from(back.get_pixel(3, 3)[1]) - 200).abs() < 4);
    }
}
