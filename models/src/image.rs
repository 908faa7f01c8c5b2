//! Images in memory: bytes of 8 bits, rows top to bottom, channels interleaved.
//!
//! With the feature `decode`, [`decode`] and [`open`] read JPEG, PNG, BMP and, with `webp`, WebP within [`Limits`];
//! [`decode_for`] and [`open_for`] do for a model, which wants few pixels of a large photo; [`Image::to_png`] writes.
//! [`PixelFormat`] says what a camera's frames hold.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::resize::{MAX_BYTES, room};

#[cfg(feature = "decode")]
mod complete;
#[cfg(feature = "decode")]
mod decode;
#[cfg(feature = "decode")]
mod encode;
#[cfg(feature = "decode")]
pub mod jpeg;
#[cfg(feature = "decode")]
mod orientation;
mod pixel_format;
#[cfg(feature = "decode")]
mod reduce;
#[cfg(feature = "decode")]
// Told apart where they are not read.
#[cfg_attr(not(feature = "webp"), allow(dead_code))]
mod webp;

pub use crate::foreign::foreign_name;
#[cfg(feature = "decode")]
pub use decode::{decode, decode_for, open, open_for};
pub use pixel_format::PixelFormat;

/// An image of 8-bit grey or RGB pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    data: Vec<u8>,
}

impl Image {
    /// An image from its bytes: `height` rows of `width` pixels of 1 (grey) or 3 (RGB) channels.
    pub fn new(width: usize, height: usize, channels: usize, data: Vec<u8>) -> Result<Image> {
        check_shape(width, height, channels)?;
        let wanted = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(channels));
        if wanted != Some(data.len()) {
            let found = data.len();
            let shape = format!("{width} x {height} x {channels}");
            return Err(Error::Image(format!("{found} bytes for {shape}: expected their product")));
        }
        Ok(Image { width, height, channels, data })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// 1 (grey) or 3 (RGB).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The bytes, height x width x channels.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes, height x width x channels.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The image without its memory.
    pub fn view(&self) -> View<'_> {
        let stride = self.width * self.channels;
        View { width: self.width, height: self.height, channels: self.channels, stride, data: &self.data }
    }

    /// The image in grey or RGB. Grey is Pillow's `convert("L")` (ITU-R 601-2 in 16-bit fixed point).
    pub fn into_channels(self, channels: usize) -> Result<Image> {
        if self.channels == channels {
            return Ok(self);
        }
        let mut data = Vec::new();
        self.view().convert(channels, &mut data)?;
        Image::new(self.width, self.height, channels, data)
    }
}

/// An image of 8-bit grey or RGB pixels in memory that belongs to someone else: rows of interleaved bytes, with any
/// gap between them.
#[derive(Clone, Copy)]
pub struct View<'a> {
    width: usize,
    height: usize,
    channels: usize,
    stride: usize,
    /// From the first pixel to the last.
    data: &'a [u8],
}

impl<'a> View<'a> {
    /// An image of `height` rows of `width` pixels of 1 (grey) or 3 (RGB) channels; each row begins `stride` bytes
    /// after the one before. What lies behind the last pixel is not looked at.
    pub fn new(
        width: usize,
        height: usize,
        channels: usize,
        stride: usize,
        data: &'a [u8],
    ) -> Result<View<'a>> {
        check_shape(width, height, channels)?;
        let problem = |what: String| Err(Error::Image(format!("{what} for {width} x {height} x {channels}")));
        let Some(row) = width.checked_mul(channels).filter(|&row| row <= stride) else {
            return problem(format!("a stride of {stride} bytes"));
        };
        let wanted = stride.checked_mul(height - 1).and_then(|rows| rows.checked_add(row));
        let Some(data) = wanted.and_then(|wanted| data.get(..wanted)) else {
            return problem(format!("{} bytes at a stride of {stride}", data.len()));
        };
        Ok(View { width, height, channels, stride, data })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// 1 (grey) or 3 (RGB).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The bytes from the first pixel to the last, gaps between rows among them.
    pub(crate) fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The rows, without gaps.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let row = self.width * self.channels;
        self.data.chunks(self.stride).map(move |bytes| &bytes[..row])
    }

    /// Writes the pixels in grey or RGB, as [`Image::into_channels`], without gaps; `out` is used again.
    ///
    /// # Errors
    /// For other channels than 1 and 3, and for more bytes than an image may have.
    pub fn convert(&self, channels: usize, out: &mut Vec<u8>) -> Result<()> {
        check_shape(self.width, self.height, channels)?;
        let bytes = self.width as u64 * self.height as u64 * channels as u64;
        if bytes > MAX_BYTES && bytes > self.data.len() as u64 {
            return Err(Error::Image(format!("{self:?} in {channels} channels takes too much memory")));
        }
        room(out, bytes as usize);
        for row in self.rows() {
            match (self.channels, channels) {
                (3, 1) => out.extend(row.chunks_exact(3).map(luma)),
                (1, 3) => out.extend(row.iter().flat_map(|&grey| [grey; 3])),
                _ => out.extend_from_slice(row),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} x {} x {})", self.width, self.height, self.channels)
    }
}

/// Refuses empty images and channels other than grey's and RGB's.
pub(crate) fn check_shape(width: usize, height: usize, channels: usize) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::Image(format!("{width} x {height} pixels: expected at least one")));
    }
    if channels != 1 && channels != 3 {
        return Err(Error::Image(format!("{channels} channels: expected 1 (grey) or 3 (RGB)")));
    }
    Ok(())
}

/// Pillow's grey of one RGB pixel.
fn luma(rgb: &[u8]) -> u8 {
    let weights = [19595, 38470, 7471];
    let sum: u32 = rgb.iter().zip(weights).map(|(&value, weight)| u32::from(value) * weight).sum();
    ((sum + 0x8000) >> 16) as u8
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} x {} x {})", self.width, self.height, self.channels)
    }
}

/// What an image file may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of pixels, width x height; of WebP four sevenths of that, as it takes so much more memory.
    pub max_pixels: u64,
    /// Maximum bytes of the file.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_pixels: 64 << 20, max_bytes: 256 << 20 }
    }
}

/// No limit goes beyond this, so that byte counts fit 32 bits in every decoder.
const MAX_PIXELS: u64 = 1 << 28;

/// Refuses an image that has too many pixels, before there is memory for them.
fn check_pixels(width: u64, height: u64, limits: &Limits) -> Result<()> {
    let limit = limits.max_pixels.min(MAX_PIXELS);
    if width.saturating_mul(height) <= limit {
        return Ok(());
    }
    Err(Error::ImageTooLarge { width, height, limit })
}

/// Whether a file's extension is one of the formats that are read: jpg, jpeg, png, webp, bmp in any case.
pub fn is_image_name(path: &Path) -> bool {
    let known = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib"];
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| known.iter().any(|name| name.eq_ignore_ascii_case(extension)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(Image::new(2, 2, 3, vec![0; 12]).is_ok());
        for (width, height, channels, bytes) in
            [(0, 2, 3, 0), (2, 0, 1, 0), (2, 2, 2, 8), (2, 2, 4, 16), (2, 2, 3, 11), (2, 2, 3, 13)]
        {
            assert!(Image::new(width, height, channels, vec![0; bytes]).is_err());
        }
        assert!(Image::new(usize::MAX, usize::MAX, 3, vec![0; 3]).is_err());
        for (width, height, channels, stride, bytes) in [
            (0, 2, 3, 8, 16),
            (2, 2, 2, 8, 16),
            (2, 2, 3, 5, 16),
            (2, 2, 3, 8, 13),
            (2, 3, 3, usize::MAX, 16),
        ] {
            assert!(View::new(width, height, channels, stride, &vec![0; bytes]).is_err());
        }
        assert!(View::new(usize::MAX, 1, 3, usize::MAX, &[0; 3]).is_err());
    }

    #[test]
    fn a_view_leaves_gaps_out() {
        let view = View::new(2, 2, 1, 5, &[1, 2, 0, 0, 0, 3, 4]).unwrap();
        assert_eq!(view.rows().collect::<Vec<_>>(), [[1, 2], [3, 4]]);
    }

    #[test]
    fn grey_is_pillows() {
        // Pillow: Image.new("RGB", (1, 1), rgb).convert("L").getpixel((0, 0)).
        for (rgb, grey) in [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([255, 255, 255], 255),
            ([12, 200, 77], 130),
        ] {
            let image = Image::new(1, 1, 3, rgb.to_vec()).unwrap();
            assert_eq!(image.into_channels(1).unwrap().data(), [grey]);
        }
    }

    #[test]
    fn grey_becomes_rgb_by_repeating() {
        let grey = Image::new(2, 1, 1, vec![3, 200]).unwrap();
        assert_eq!(grey.clone().into_channels(3).unwrap().data(), [3, 3, 3, 200, 200, 200]);
        assert_eq!(grey.clone().into_channels(3).unwrap().into_channels(1).unwrap(), grey);
        assert!(grey.into_channels(2).is_err());
    }

    #[test]
    fn names_are_known_by_extension() {
        for name in ["a.jpg", "b/c.JPEG", "d.Png", "e.webp", "f.bmp"] {
            assert!(is_image_name(Path::new(name)), "{name}");
        }
        for name in ["a.txt", "jpg", ".png", "a.png.part", "a"] {
            assert!(!is_image_name(Path::new(name)), "{name}");
        }
    }
}
