//! A JPEG file's pixels, to the last bit those of libjpeg-turbo, also at a half, a quarter or an eighth of its size.
//!
//! Sequential and progressive files with Huffman codes and 8 bits are read, in any number of scans and of any sampling. What
//! is not whole is an error: nothing is made up for data that are missing.

use super::frame::{Frame, Tables};
use super::planes::{Colours, Plane};
use super::{Segment, damaged};
use crate::error::Result;
use crate::image::{Image, Limits};

/// The image of a file's segments, reduced for a resize to `side`
/// ([`reduction`](crate::image::reduce::reduction)).
pub(in crate::image) fn decode(
    segments: &[Segment<'_>],
    limits: &Limits,
    side: Option<usize>,
) -> Result<Image> {
    let coded = segments.iter().map(|segment| segment.data.len()).sum();
    let (mut tables, mut frame, mut colours) = (Tables::default(), None::<Frame>, ColourMarkers::default());
    for (index, &Segment { marker, body, data }) in segments.iter().enumerate() {
        let (read, what) = match marker {
            0xd8 if index == 0 => continue,
            0xc4 => (tables.read_codes(body), "a Huffman table"),
            0xdb => (tables.read_quantisation(body), "a quantization table"),
            0xdd => (tables.read_interval(body), "the restart interval"),
            0xda => {
                let Some(frame) = &mut frame else { return Err(damaged("a scan before the frame's header")) };
                frame.scan(&tables, body, data)?;
                continue;
            }
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                if frame.is_some() {
                    return Err(damaged("a second frame"));
                }
                frame = Some(Frame::read(marker, body, coded, limits, side)?);
                continue;
            }
            // Applications' own, comments, and what only other codes need.
            0xe0..=0xef | 0xfe | 0xcc | 0xdc => {
                colours.note(marker, body);
                continue;
            }
            0xd8 => return Err(damaged("it begins anew before its end")),
            _ => return Err(damaged(&format!("a marker FF {marker:02X} where none can be"))),
        };
        read.ok_or_else(|| damaged(&format!("{what} that cannot be")))?;
    }
    let mut frame = frame.ok_or_else(|| damaged("it has no frame"))?;
    for component in &mut frame.components {
        if !component.was_scanned || frame.is_progressive && component.finish_progress().is_none() {
            return Err(damaged("some of its scans are missing"));
        }
        if component.plane.is_impossible() {
            return Err(damaged("brightness that no image has"));
        }
        component.plane.transform();
    }
    let planes: Vec<&Plane> = frame.components.iter().map(|component| &component.plane).collect();
    let colours = colours.colours(&frame);
    let data = colours.convert(&planes, frame.width, frame.height);
    Image::new(frame.width, frame.height, if colours == Colours::Grey { 1 } else { 3 }, data)
}

/// What applications say of the colours.
#[derive(Default)]
struct ColourMarkers {
    is_jfif: bool,
    /// Adobe's number of the transform.
    adobe: Option<u8>,
}

impl ColourMarkers {
    fn note(&mut self, marker: u8, body: &[u8]) {
        match marker {
            0xe0 => self.is_jfif |= body.starts_with(b"JFIF\0") && body.len() >= 14,
            0xee if body.starts_with(b"Adobe") => self.adobe = body.get(11).copied().or(self.adobe),
            _ => {}
        }
    }

    /// As libjpeg guesses.
    fn colours(&self, frame: &Frame) -> Colours {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (ids.len(), self.adobe) {
            (1, _) => Colours::Grey,
            (3, _) if self.is_jfif => Colours::YCbCr,
            (3, Some(0)) => Colours::Rgb,
            (3, None) if ids == *b"RGB" => Colours::Rgb,
            (3, _) => Colours::YCbCr,
            (_, None | Some(0)) => Colours::Cmyk,
            _ => Colours::Ycck,
        }
    }
}
