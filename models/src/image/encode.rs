//! From an [`Image`] to the bytes of a file.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::Image;
use crate::error::{Error, Result};

impl Image {
    /// The image as a PNG file.
    ///
    /// # Errors
    /// [`Error::Image`] for an image that a PNG cannot hold.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let colour = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(&self.data, self.width as u32, self.height as u32, colour)
            .map_err(|error| Error::Image(format!("cannot be written as PNG: {error}")))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Limits, decode};

    #[test]
    fn what_is_written_is_read_again() {
        for (width, height, channels) in [(1, 1, 1), (7, 5, 3), (300, 2, 1), (2, 300, 3)] {
            let data = (0..width * height * channels).map(|i| (i * 31 % 251) as u8).collect();
            let image = Image::new(width, height, channels, data).unwrap();
            assert_eq!(decode(&image.to_png().unwrap(), &Limits::default()).unwrap(), image);
        }
    }
}
