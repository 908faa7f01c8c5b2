//! From the bytes of a file to a [`Image`].
//!
//! The format is told by the content, never by the name. The size in the header is checked before anything is
//! allocated for it; a file that ends early is refused, where decoders would fill the rest with grey; the EXIF
//! orientation is applied. Where a format has more than grey or RGB of 8 bits, alpha is dropped, as Pillow's
//! `convert("RGB")` does, and of 16 bits the upper 8 remain. Of an animation the first frame is read.
//!
//! For a model that wants far fewer pixels than a JPEG has, [`decode_for`] reads it at a half, a quarter or an eighth of
//! its size.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[cfg(feature = "webp")]
use image::codecs::webp::WebPDecoder;
use image::codecs::{bmp::BmpDecoder, png::PngDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageResult, RgbImage};

use super::orientation::{jpeg_orientation, orientation};
#[cfg(feature = "webp")]
use super::webp;
use super::{Image, Limits, check_pixels, complete, jpeg};
use crate::error::{Error, Result};
use crate::foreign::{Wanted, recognize};

/// Bytes of a decoder's own tables and rows, besides the pixels.
const DECODER_ROOM: u64 = 64 << 20;

/// The image in the bytes of a JPEG, PNG, WebP or BMP file.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Image> {
    decode_for(bytes, limits, None)
}

/// As [`decode`], for a resize of the short side to `side` pixels ([`Preprocess::side`](crate::Preprocess::side)), if one is
/// given.
///
/// A JPEG comes at the largest 1/s of its size, s being 2, 4 or 8, of which the short side is at least 2 * `side`, each
/// side rounded up; as it is if there is none. Pixels are libjpeg-turbo's with `scale_denom` s. Other formats come as they
/// are.
pub fn decode_for(bytes: &[u8], limits: &Limits, side: impl Into<Option<usize>>) -> Result<Image> {
    if bytes.is_empty() {
        return Err(Error::Image("the file is empty: copy or download it again".into()));
    }
    check_bytes(bytes.len() as u64, limits)?;
    let format = format_of(bytes)?;
    let bytes = complete::trim(format, bytes)?;
    // The last fence: one file must not end a run, whatever a decoder makes of it.
    let side = side.into();
    match catch_unwind(AssertUnwindSafe(|| decode_as(format, bytes, limits, side))) {
        Ok(result) => result,
        Err(_) => Err(Error::Image("damaged: the decoder panicked on it".into())),
    }
}

/// The image in a file; errors name the file.
pub fn open(path: &Path, limits: &Limits) -> Result<Image> {
    open_for(path, limits, None)
}

/// As [`open`], for a resize of the short side to `side` pixels, if one is given; see [`decode_for`].
pub fn open_for(path: &Path, limits: &Limits, side: impl Into<Option<usize>>) -> Result<Image> {
    let in_file = |cause| Error::File { path: path.to_owned(), cause: Box::new(cause) };
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    check_bytes(size, limits).map_err(in_file)?;
    let mut bytes = Vec::with_capacity(size as usize);
    // The file may grow, or be a pipe, which has no size.
    file.take(limits.max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    decode_for(&bytes, limits, side).map_err(in_file)
}

fn check_bytes(size: u64, limits: &Limits) -> Result<()> {
    if size <= limits.max_bytes {
        return Ok(());
    }
    Err(Error::Image(format!("the file has {size} bytes or more, the limit is {}", limits.max_bytes)))
}

/// The format by the first bytes, among those that this crate reads.
fn format_of(bytes: &[u8]) -> Result<ImageFormat> {
    let expected = "expected JPEG, PNG, WebP or BMP";
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => {
            Ok(format)
        }
        guess => Err(Error::Image(match (recognize(bytes, Wanted::Image), guess) {
            (Some((what, remedy)), _) => format!("the file is {what}, {expected}; {remedy}"),
            (None, Ok(other)) => format!("the file is of type {}, {expected}", other.to_mime_type()),
            (None, Err(_)) => format!("no image format begins like this file, {expected}"),
        })),
    }
}

fn decode_as(format: ImageFormat, bytes: &[u8], limits: &Limits, side: Option<usize>) -> Result<Image> {
    let upright = |image: Image| image.turned(orientation(format, bytes));
    match format {
        ImageFormat::Jpeg => {
            let segments = jpeg::segments(bytes)?;
            jpeg::decode(&segments, limits, side)?.turned(jpeg_orientation(&segments))
        }
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), table_limits());
            read_pixels(decoder, limits).and_then(upright)
        }
        #[cfg(not(feature = "webp"))]
        ImageFormat::WebP => {
            Err(Error::Image("a WebP file, which this build does not read: save it as JPEG or PNG".into()))
        }
        #[cfg(feature = "webp")]
        ImageFormat::WebP => {
            // Its decoder takes 7 bytes a pixel, RGBA and RGB, and a few bytes of a file may be all of them.
            let limits = &Limits { max_pixels: limits.max_pixels / 7 * 4, ..*limits };
            webp::check(bytes, limits)?;
            read_pixels(WebPDecoder::new(Cursor::new(bytes)), limits).and_then(upright)
        }
        _ => {
            let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
            let palette = decoder.get_palette().unwrap_or(&[[0, 1, 2]]);
            let grey = palette.iter().all(|[r, g, b]| r == g && g == b);
            let image = read_pixels(Ok(decoder), limits)?;
            if grey { image.into_channels(1) } else { Ok(image) }
        }
    }
}

/// What a decoder may allocate besides the pixels.
fn table_limits() -> image::Limits {
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(DECODER_ROOM);
    limits
}

/// The decoder's complaint as ours, on one line.
fn damaged(error: image::ImageError) -> Error {
    Error::Image(format!("damaged or unsupported: {error}").replace('\n', " "))
}

/// The pixels of a decoder that has read its header and nothing more.
fn read_pixels(decoder: ImageResult<impl ImageDecoder>, limits: &Limits) -> Result<Image> {
    let decoder = decoder.map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_pixels(width.into(), height.into(), limits)?;
    let (channels, data) = eight_bits(DynamicImage::from_decoder(decoder).map_err(damaged)?);
    Image::new(width as usize, height as usize, channels, data)
}

impl Image {
    /// The image as it was seen.
    fn turned(self, orientation: Orientation) -> Result<Image> {
        if orientation == Orientation::NoTransforms {
            return Ok(self);
        }
        let (width, height, channels) = (self.width as u32, self.height as u32, self.channels);
        let mut pixels = if channels == 1 {
            GrayImage::from_raw(width, height, self.data).map(DynamicImage::ImageLuma8)
        } else {
            RgbImage::from_raw(width, height, self.data).map(DynamicImage::ImageRgb8)
        }
        .ok_or_else(|| Error::Image("damaged: fewer pixels than the header says".into()))?;
        pixels.apply_orientation(orientation);
        Image::new(pixels.width() as usize, pixels.height() as usize, channels, pixels.into_bytes())
    }
}

/// Any kind of pixels as grey or RGB of 8 bits: the number of channels and the bytes.
fn eight_bits(image: DynamicImage) -> (usize, Vec<u8>) {
    match image {
        DynamicImage::ImageLuma8(pixels) => (1, pixels.into_raw()),
        DynamicImage::ImageLumaA8(pixels) => (1, narrow::<2, 1, _>(pixels.as_raw(), |value| value)),
        DynamicImage::ImageRgba8(pixels) => (3, narrow::<4, 3, _>(pixels.as_raw(), |value| value)),
        DynamicImage::ImageLuma16(pixels) => (1, narrow::<1, 1, _>(pixels.as_raw(), upper)),
        DynamicImage::ImageLumaA16(pixels) => (1, narrow::<2, 1, _>(pixels.as_raw(), upper)),
        DynamicImage::ImageRgb16(pixels) => (3, narrow::<3, 3, _>(pixels.as_raw(), upper)),
        DynamicImage::ImageRgba16(pixels) => (3, narrow::<4, 3, _>(pixels.as_raw(), upper)),
        other => (3, other.into_rgb8().into_raw()),
    }
}

/// The upper half of 16 bits, as Pillow reads RGB of 16 bits.
fn upper(value: u16) -> u8 {
    (value >> 8) as u8
}

/// The first `TO` of every `FROM` values.
fn narrow<const FROM: usize, const TO: usize, T: Copy>(values: &[T], byte: impl Fn(T) -> u8) -> Vec<u8> {
    let (pixels, _) = values.as_chunks::<FROM>();
    let mut out = Vec::with_capacity(pixels.len() * TO);
    for pixel in pixels {
        out.extend(pixel.iter().take(TO).map(|&value| byte(value)));
    }
    out
}
