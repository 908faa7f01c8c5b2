//! From the bytes of a file to a [`Picture`].
//!
//! The format is told by the content, never by the name. The size in the header is checked before anything is
//! allocated for it; a file that ends early is refused, where decoders would fill the rest with grey; the EXIF
//! orientation is applied. Where a format has more than grey or RGB of 8 bits, the result is that of Pillow's
//! `convert("RGB")`: alpha is dropped, of 16 bits the upper 8 remain. Of an animation the first frame is read.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{Limits, Picture, complete};
use crate::error::{Error, Result};

/// Room for a decoder's own tables beside the pixels.
const DECODER_ROOM: u64 = 64 << 20;
/// Bytes of a pixel at most: RGBA of 16 bits, once raw and once converted.
const PIXEL_BYTES: u64 = 16;

/// The picture in the bytes of a JPEG, PNG, WebP or BMP file.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture> {
    if bytes.is_empty() {
        return Err(Error::Picture("the file is empty".into()));
    }
    check_bytes(bytes.len() as u64, limits)?;
    let format = format_of(bytes)?;
    complete::check(format, bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(decoder_limits(limits));
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height, limits)?;
    // Damaged EXIF says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image = eight_bits(image);
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    match image {
        DynamicImage::ImageLuma8(grey) => Picture::new(width, height, 1, grey.into_raw()),
        image => Picture::new(width, height, 3, image.into_rgb8().into_raw()),
    }
}

/// The picture in a file; errors name the file.
pub fn open(path: &Path, limits: &Limits) -> Result<Picture> {
    let in_file = |cause| Error::File { path: path.to_owned(), cause: Box::new(cause) };
    let bytes = read(path, limits)?.map_err(in_file)?;
    decode(&bytes, limits).map_err(in_file)
}

/// The bytes of a file unless it is too long.
fn read(path: &Path, limits: &Limits) -> Result<Result<Vec<u8>>> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if let Err(error) = check_bytes(size, limits) {
        return Ok(Err(error));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // The file may grow, or be a pipe without a size.
    file.take(limits.max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(check_bytes(bytes.len() as u64, limits).map(|()| bytes))
}

fn check_bytes(size: u64, limits: &Limits) -> Result<()> {
    if size <= limits.max_bytes {
        return Ok(());
    }
    Err(Error::Picture(format!("a file of {size} bytes, the limit is {}", limits.max_bytes)))
}

fn check_pixels(width: u32, height: u32, limits: &Limits) -> Result<()> {
    let (width, height) = (u64::from(width), u64::from(height));
    if width * height <= limits.max_pixels {
        return Ok(());
    }
    Err(Error::PictureTooLarge { width, height, limit: limits.max_pixels })
}

/// The format by the first bytes, among those that this crate reads.
fn format_of(bytes: &[u8]) -> Result<ImageFormat> {
    let expected = "expected JPEG, PNG, WebP or BMP";
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => {
            Ok(format)
        }
        Ok(other) => Err(Error::Picture(format!("a {} file: {expected}", other.to_mime_type()))),
        Err(_) => Err(Error::Picture(format!("no picture format begins like this: {expected}"))),
    }
}

/// What a decoder may allocate when a picture may have so many pixels.
fn decoder_limits(limits: &Limits) -> image::Limits {
    let mut decoder = image::Limits::no_limits();
    decoder.max_alloc = Some(limits.max_pixels.saturating_mul(PIXEL_BYTES).saturating_add(DECODER_ROOM));
    decoder
}

/// The decoder's complaint as ours, on one line.
fn damaged(error: image::ImageError) -> Error {
    Error::Picture(format!("damaged or unsupported: {error}").replace('\n', " "))
}

/// Any kind of pixels as grey or RGB of 8 bits.
fn eight_bits(image: DynamicImage) -> DynamicImage {
    match image.color() {
        ColorType::L8 | ColorType::Rgb8 => image,
        ColorType::La8 => DynamicImage::ImageLuma8(image.into_luma8()),
        _ => DynamicImage::ImageRgb8(image.into_rgb8()),
    }
}
