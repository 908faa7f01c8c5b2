//! The images as the page shows them: turned as their EXIF record says, scaled down, as JPEG.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use smalti_models::image::{self, Limits};
use smalti_trainer::{Result, sheet};

/// Longest side of a preview, in pixels.
const SIDE: usize = 1024;
/// Previews that are kept, each about 100 kB.
const KEPT: usize = 64;

/// Previews, the newest last.
#[derive(Default)]
pub(super) struct Previews {
    kept: Mutex<VecDeque<(usize, Arc<[u8]>)>>,
    /// One image is decoded at a time, so that memory is bounded by the largest.
    decoding: Mutex<()>,
}

impl Previews {
    /// The preview of a row's file, as JPEG.
    ///
    /// # Errors
    /// A file that is no image that can be read.
    pub(super) fn get(&self, row: usize, file: &Path) -> Result<Arc<[u8]>> {
        let _decoding = self.decoding.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |kept: &VecDeque<(usize, Arc<[u8]>)>| {
            kept.iter().find(|(known, _)| *known == row).map(|(_, bytes)| Arc::clone(bytes))
        };
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = find(&kept()) {
            return Ok(bytes);
        }
        // Of a large photo half as many pixels are decoded as its short side needs at most: less is never shown.
        let image = image::open_for(file, &Limits::default(), SIDE / 2)?;
        let bytes: Arc<[u8]> = sheet::jpeg(&sheet::fit_within(image, SIDE)?)?.into();
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((row, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_are_turned_small_and_few() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("large.png");
        ::image::RgbImage::from_pixel(3000, 60, ::image::Rgb([9, 99, 200])).save(&file).unwrap();
        let previews = Previews::default();
        let size = |bytes: &[u8]| {
            let image = ::image::load_from_memory(bytes).unwrap();
            (image.width(), image.height())
        };
        assert_eq!(size(&previews.get(0, &file).unwrap()), (1024, 20));
        let turned =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/golden/images/exif-6.jpg"));
        let (width, height) = size(&previews.get(1, turned).unwrap());
        let (stored_width, stored_height) = ::image::image_dimensions(turned).unwrap();
        assert_eq!((width, height), (stored_height, stored_width));
        // A preview that is kept needs no file.
        std::fs::remove_file(&file).unwrap();
        assert!(previews.get(0, &file).is_ok() && previews.get(2, &file).is_err());
        (10..10 + KEPT).for_each(|row| _ = previews.get(row, turned).unwrap());
        assert!(previews.get(0, &file).is_err());
    }
}
