//! Whether a picture file is all there.
//!
//! Decoders accept files that end early and fill the missing part with grey. Each format says in its own way
//! where a file ends; bytes after that end are tolerated, cameras write some.

use image::ImageFormat;

use crate::error::{Error, Result};

/// Refuses a file that ends before its format says so.
pub fn check(format: ImageFormat, bytes: &[u8]) -> Result<()> {
    let complete = match format {
        ImageFormat::Png => png(bytes),
        ImageFormat::WebP => webp(bytes),
        _ => Some(()),
    };
    complete.ok_or_else(|| Error::Picture(format!("truncated: the file ends after {} bytes", bytes.len())))
}

/// PNG: chunks of length, type, data and checksum, up to IEND.
fn png(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.get(8..)?;
    loop {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let kind = rest.get(4..8)?;
        let next = rest.get(length.checked_add(12)?..)?;
        if kind == b"IEND" {
            return Some(());
        }
        rest = next;
    }
}

/// WebP: the RIFF header counts the bytes after itself.
fn webp(bytes: &[u8]) -> Option<()> {
    let size = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    bytes.get(..size.checked_add(8)?).map(drop)
}
