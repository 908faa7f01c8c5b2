//! Where an image is unusual, in colours.

use smalti_models::{HeatMap, Image};

use crate::error::{Error, Result};
use crate::explain::draw;
use crate::load::Model;

/// What is drawn at full strength: twice the threshold, so that the middle of the colours is the threshold.
const FULL: f32 = 2.0;

/// The image in grey under the map of a [`Finding`](super::Finding) with so many rows and columns: dark blue is usual, rose the
/// threshold, pale yellow twice that. What the model's preprocessing cuts off is darkened. The longer side has 480 to 1024
/// pixels.
///
/// # Errors
/// [`Error::Usage`] for a model without preprocessing or a map of another size, [`Error::Data`] for an image that cannot be
/// prepared.
pub fn overlay(model: &Model, image: &Image, map: &[f32], [rows, columns]: [usize; 2]) -> Result<Image> {
    let preprocess = model.known_preprocess()?;
    let wrong = |error: smalti_models::Error| Error::Usage(error.to_string());
    let map = HeatMap::new([columns, rows], map.to_vec()).map_err(wrong)?;
    let region = preprocess.visible_region([image.width(), image.height()], model.input().size());
    draw(&map, image, region.map_err(|error| Error::data("image", error))?, FULL)
}

#[cfg(test)]
mod tests {
    use smalti_models::Preprocess;
    use smalti_models::preprocess::FitMode;

    use super::*;

    #[test]
    fn unusual_is_bright_and_what_is_cut_off_is_dark() {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        let model = Model::open(models.join("colours_u8.onnx")).unwrap();
        let preprocess = Preprocess { fit: FitMode::Crop, ..model.preprocess().unwrap().clone() };
        let model = model.with_preprocess(preprocess).unwrap();
        let image = Image::new(30, 10, 3, vec![200; 900]).unwrap();
        let shown = overlay(&model, &image, &[0.0, 9.0], [1, 2]).unwrap();
        assert_eq!((shown.width(), shown.height()), (480, 160));
        let pixel = |x: usize| &shown.data()[3 * (80 * 480 + x)..][..3];
        assert_eq!((pixel(40), pixel(440)), (&[60; 3][..], &[60; 3][..]));
        assert!(pixel(180)[2] > pixel(180)[0] && pixel(290)[0] > pixel(290)[2]);
        assert_eq!(overlay(&model, &image, &[0.0], [1, 2]).unwrap_err().exit_code(), 2);
    }
}
