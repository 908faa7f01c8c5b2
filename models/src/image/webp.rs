//! The outline of a WebP file: RIFF chunks, and the sizes that its frames give.
//!
//! The decoder trusts chunk lengths before it allocates, and a frame's size over the canvas; both are checked
//! here before it runs.

use super::{Limits, check_pixels};
use crate::error::{Error, Result};

/// Bytes of a chunk's name and length.
const HEADER: usize = 8;
/// Bytes of an animation frame before its own chunks.
const FRAME: usize = 16;

/// Where the RIFF container ends.
pub fn end(bytes: &[u8]) -> Option<usize> {
    let size = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    (size as usize).checked_add(HEADER)
}

/// Refuses chunks that do not lie in the file, and frames that are too large or not of the size announced.
pub fn check(bytes: &[u8], limits: &Limits) -> Result<()> {
    let body = bytes.get(HEADER + 4..).unwrap_or_default();
    for chunk in Chunks(body) {
        let Chunk { kind, data } = chunk?;
        if kind != b"ANMF" {
            check_frame(kind, data, None, limits)?;
            continue;
        }
        let (Some(width), Some(height), Some(inner)) = (small(data, 6), small(data, 9), data.get(FRAME..))
        else {
            return Err(damaged("an animation frame without a size"));
        };
        for chunk in Chunks(inner) {
            let Chunk { kind, data } = chunk?;
            check_frame(kind, data, Some((width + 1, height + 1)), limits)?;
        }
    }
    Ok(())
}

/// Kinds and contents of the outer chunks, up to one that does not lie in the file.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let body = bytes.get(HEADER + 4..).unwrap_or_default();
    Chunks(body).map_while(|chunk| chunk.ok().map(|Chunk { kind, data }| (kind, data)))
}

fn damaged(problem: &str) -> Error {
    Error::Image(format!("damaged WebP: {problem}"))
}

/// Three bytes, little-endian.
fn small(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk::<3>()?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]))
}

/// The size in the first bytes of an image chunk, of whatever kind.
fn frame_size(kind: &[u8], data: &[u8]) -> Option<(u32, u32)> {
    if kind == b"VP8L" {
        let bits = u32::from_le_bytes(*data.get(1..)?.first_chunk()?);
        return Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1));
    }
    let bytes = data.get(6..)?.first_chunk::<4>()?;
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Some((side(bytes[0], bytes[1]), side(bytes[2], bytes[3])))
}

fn check_frame(kind: &[u8], data: &[u8], announced: Option<(u32, u32)>, limits: &Limits) -> Result<()> {
    if kind != b"VP8 " && kind != b"VP8L" {
        return Ok(());
    }
    let (width, height) = frame_size(kind, data).ok_or_else(|| damaged("a frame without a size"))?;
    if announced.is_some_and(|announced| announced != (width, height)) {
        return Err(damaged("a frame of another size than announced"));
    }
    check_pixels(width.into(), height.into(), limits)
}

/// A chunk's name and content.
struct Chunk<'a> {
    kind: &'a [u8],
    data: &'a [u8],
}

/// The chunks one after the other; an error for one that does not fit, then nothing more.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (chunk, rest) = split(self.0).unzip();
        self.0 = rest.unwrap_or_default();
        Some(chunk.ok_or_else(|| damaged("a chunk does not lie in the file")))
    }
}

/// The first chunk, and the bytes behind it and its padding.
fn split(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let kind = bytes.get(..4)?;
    let length = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    let end = HEADER.checked_add(length)?;
    let data = bytes.get(HEADER..end)?;
    // Some writers leave out the last padding byte.
    Some((Chunk { kind, data }, bytes.get(end + length % 2..).unwrap_or_default()))
}
