//! Whether an image file is all there, and where it ends.
//!
//! Decoders accept files that end early and fill the missing part with grey. Each format says in its own way
//! where a file ends. Bytes behind that end are cut off: cameras write some, and no decoder needs to see them.

use image::ImageFormat;

use super::jpeg::{Mark, Markers};
use super::webp;
use crate::error::{Error, Result};

/// The bytes of the image proper; refuses a file that ends before its format says so.
pub fn trim(format: ImageFormat, bytes: &[u8]) -> Result<&[u8]> {
    let end = match format {
        ImageFormat::Jpeg => jpeg(bytes),
        ImageFormat::Png => png(bytes),
        ImageFormat::WebP => webp::end(bytes),
        // A bitmap has no end mark; its decoder reads every row from the file or fails.
        _ => Some(bytes.len()),
    };
    let problem = || Error::Image(format!("truncated: the file ends too early, after {} bytes", bytes.len()));
    end.and_then(|end| bytes.get(..end)).ok_or_else(problem)
}

/// JPEG: from marker to marker, up to end-of-image.
fn jpeg(bytes: &[u8]) -> Option<usize> {
    let (mut markers, mut at) = (Markers::default(), 0);
    loop {
        let (mark, length) = markers.find(bytes.get(at..)?)?;
        at += length;
        if mark == Mark::End {
            return Some(at);
        }
    }
}

/// PNG: chunks of length, type, data and checksum, up to IEND.
fn png(bytes: &[u8]) -> Option<usize> {
    let mut at = 8usize;
    loop {
        let chunk = bytes.get(at..)?;
        let length = u32::from_be_bytes(*chunk.first_chunk()?) as usize;
        let kind = chunk.get(4..8)?;
        at = at.checked_add(length)?.checked_add(12)?;
        if kind == b"IEND" {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_ends_at_its_own_end_mark() {
        // A thumbnail's end mark inside a segment, a stuffed FF and a restart in the data, bytes behind the end.
        let segment = [0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
        let scan = [0xff, 0xda, 0, 4, 1, 2, 7, 0xff, 0, 0xff, 0xd0, 9, 0xff, 0xff];
        let mut bytes = [&[0xff, 0xd8][..], &segment, &scan, &[0xd9]].concat();
        assert_eq!(jpeg(&bytes), Some(bytes.len()));
        for length in 0..bytes.len() {
            assert_eq!(jpeg(&bytes[..length]), None, "{length}");
        }
        let end = bytes.len();
        bytes.extend([0xff, 0xd8, 0xff, 0xd9, 0]);
        assert_eq!(jpeg(&bytes), Some(end));
    }

    #[test]
    fn a_png_ends_with_iend() {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x03IDATabc0000\0\0\0\0IEND0000".to_vec();
        let end = bytes.len();
        assert_eq!(png(&bytes), Some(end));
        for length in 0..end - 4 {
            assert!(trim(ImageFormat::Png, &bytes[..length]).is_err(), "{length}");
        }
        bytes.extend(b"more");
        assert_eq!(trim(ImageFormat::Png, &bytes).unwrap().len(), end);
    }

    #[test]
    fn huge_lengths_are_a_truncation() {
        assert!(trim(ImageFormat::Png, b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT").is_err());
        assert!(trim(ImageFormat::Jpeg, &[0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0]).is_err());
    }
}
