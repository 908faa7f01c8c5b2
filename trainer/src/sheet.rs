//! Images to look at: scaled into a square, side by side on a sheet, as JPEG files.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use smalti_models::Image;
use smalti_models::resize::{Interpolation, resize};

use crate::error::{Error, Result};

/// Grey around images and between them.
pub const GREY: u8 = 128;
/// Quality of a JPEG, of 100: what is lost is not seen.
const QUALITY: u8 = 85;

/// The image, at most `side` pixels wide and high; a smaller one is left as it is.
///
/// # Errors
/// An image too long to be resized.
pub fn fit_within(image: Image, side: usize) -> Result<Image> {
    let (width, height) = (image.width(), image.height());
    let longest = width.max(height);
    if longest <= side {
        return Ok(image);
    }
    let scaled = |length: usize| ((length * side + longest / 2) / longest).max(1);
    Ok(resize(&image, scaled(width), scaled(height), Interpolation::Bilinear)?)
}

/// An RGB square of that side with the image in its middle, scaled down to fit, and [`GREY`] around it.
///
/// # Errors
/// As [`fit_within`].
pub fn thumbnail(image: Image, side: usize) -> Result<Image> {
    let image = fit_within(image, side)?.into_channels(3)?;
    let (left, top) = ((side - image.width()) / 2, (side - image.height()) / 2);
    let mut square = vec![GREY; side * side * 3];
    paste(&image, &mut square, side, left, top);
    Ok(Image::new(side, side, 3, square)?)
}

/// Images of one shape in rows of `columns`, in reading order, with gaps of `gap` pixels in [`GREY`] between them.
///
/// # Errors
/// No images, or images of several shapes.
pub fn sheet(images: &[Image], columns: usize, gap: usize) -> Result<Image> {
    let shape = |image: &Image| (image.width(), image.height(), image.channels());
    let first = images.first().filter(|first| images.iter().all(|image| shape(image) == shape(first)));
    let (width, height, channels) =
        first.map(shape).ok_or_else(|| Error::Usage("a sheet needs images of one shape".into()))?;
    let columns = columns.clamp(1, images.len());
    let rows = images.len().div_ceil(columns);
    let size = [columns * (width + gap) - gap, rows * (height + gap) - gap];
    let mut canvas = vec![GREY; size[0] * size[1] * channels];
    for (i, image) in images.iter().enumerate() {
        let (row, column) = (i / columns, i % columns);
        paste(image, &mut canvas, size[0], column * (width + gap), row * (height + gap));
    }
    Ok(Image::new(size[0], size[1], channels, canvas)?)
}

/// Copies an image to a place on a canvas of that width and as many channels.
fn paste(image: &Image, canvas: &mut [u8], canvas_width: usize, left: usize, top: usize) {
    let (channels, length) = (image.channels(), image.width() * image.channels());
    for (y, row) in image.data().chunks_exact(length).enumerate() {
        let to = ((top + y) * canvas_width + left) * channels;
        canvas[to..to + length].copy_from_slice(row);
    }
}

/// An image as a JPEG file.
///
/// # Errors
/// An image beyond the format's sizes.
pub fn jpeg(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let colour = if image.channels() == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .write_image(image.data(), image.width() as u32, image.height() as u32, colour)
        .map_err(|e| Error::data(format!("{image:?}"), format!("cannot be encoded as JPEG: {e}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, value: u8) -> Image {
        Image::new(width, height, 1, vec![value; width * height]).unwrap()
    }

    #[test]
    fn images_fit_without_being_distorted_or_enlarged() {
        let size = |width, height, side| {
            let image = fit_within(grey(width, height, 1), side).unwrap();
            (image.width(), image.height())
        };
        assert_eq!([size(400, 200, 100), size(200, 400, 100)], [(100, 50), (50, 100)]);
        assert_eq!([size(30, 20, 100), size(5000, 1, 100)], [(30, 20), (100, 1)]);
        let square = thumbnail(grey(4, 2, 9), 4).unwrap();
        let rows: Vec<u8> = square.data().chunks_exact(12).map(|row| row[0]).collect();
        assert_eq!((rows, square.channels()), (vec![GREY, 9, 9, GREY], 3));
    }

    #[test]
    fn a_sheet_is_read_like_text() {
        let images: Vec<Image> = (1..=5).map(|value| grey(2, 1, value)).collect();
        let found = sheet(&images, 2, 1).unwrap();
        assert_eq!((found.width(), found.height()), (5, 5));
        let g = GREY;
        assert_eq!(found.data()[..5], [1, 1, g, 2, 2]);
        assert_eq!(found.data()[20..], [5, 5, g, g, g]);
        assert_eq!(sheet(&images[..1], 9, 3).unwrap().data(), [1, 1]);
        assert!(sheet(&[], 2, 1).is_err() && sheet(&[grey(1, 1, 0), grey(2, 1, 0)], 2, 1).is_err());
    }

    #[test]
    fn files_hold_what_they_were_given() {
        let image = thumbnail(grey(40, 30, 200), 40).unwrap();
        let read = |bytes: Vec<u8>| image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(read(image.to_png().unwrap()).into_raw(), image.data());
        let jpeg = read(jpeg(&image).unwrap()).into_raw();
        assert!(jpeg.iter().zip(image.data()).all(|(a, b)| a.abs_diff(*b) < 30));
        assert!(super::jpeg(&grey(70_000, 1, 0)).unwrap_err().to_string().contains("JPEG"));
    }
}
