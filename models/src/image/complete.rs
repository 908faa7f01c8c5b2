//! Whether an image file is all there, and where it ends.
//!
//! Decoders accept files that end early and fill the missing part with grey. Each format says in its own way
//! where a file ends. Bytes behind that end are cut off: cameras write some, and no decoder needs to see them.

use image::ImageFormat;

use super::webp;
use crate::error::{Error, Result};

/// The bytes of the image proper; refuses a file that ends before its format says so.
pub fn trim(format: ImageFormat, bytes: &[u8]) -> Result<&[u8]> {
    let end = match format {
        ImageFormat::Png => png(bytes),
        ImageFormat::WebP => webp::end(bytes),
        // A bitmap has no end mark: its decoder reads every row from the file or fails. Nor does a JPEG's read beyond it.
        _ => Some(bytes.len()),
    };
    end.and_then(|end| bytes.get(..end)).ok_or_else(|| truncated(bytes))
}

/// These bytes are the beginning of a file.
pub(super) fn truncated(bytes: &[u8]) -> Error {
    Error::Image(format!("truncated: the file ends too early, after {} bytes", bytes.len()))
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
    }
}
