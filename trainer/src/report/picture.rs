//! Small pictures inside a page: squares, maps over them, JPEG in data URIs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_models::{HeatMap, Image, Preprocess};
use smalti_trainer::data::Dataset;
use smalti_trainer::{Result, sheet};

/// A fall of the probability that is drawn at full strength, unless the largest one is more: one of less says little.
const FULL: f32 = 0.05;

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

/// A picture with a map over it. Of shares that sum to 1 the largest is at full strength, however small.
pub(super) fn heat(photo: &Image, map: &HeatMap, is_share: bool) -> Result<Image> {
    let least = if is_share { f32::MIN_POSITIVE } else { FULL };
    let full = map.values().iter().copied().fold(least, f32::max);
    Ok(map.over(photo.view(), [0.0, 0.0, 1.0, 1.0], full)?)
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
    fn heat_is_bright_where_the_answer_comes_from() {
        let drawn = |value: f32, is_share: bool| {
            let mut values = vec![0.0; 16];
            values[5] = value;
            let found = heat(&grey(8, 100), &HeatMap::new([4, 4], values).unwrap(), is_share).unwrap();
            let at = |x: usize, y: usize| found.data()[(y * 8 + x) * 3];
            (at(2, 2), at(7, 7))
        };
        let (bright, dark) = drawn(0.4, false);
        assert!(bright > 150 && dark < 70, "{bright} {dark}");
        assert!(drawn(0.01, false).0 < 120 && drawn(0.01, true) == drawn(0.4, true));
    }

    #[test]
    fn a_uri_is_the_picture() {
        let uri = uri(&grey(8, 200)).unwrap();
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let back = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert!((i32::from(back.get_pixel(3, 3)[1]) - 200).abs() < 4);
    }
}
