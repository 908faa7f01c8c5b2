//! JPEG files: their markers one after the other, in as many pieces as the bytes come in ([`Markers`]), and the pixels of a
//! whole file.

use memchr::memchr;

use super::complete;
use crate::error::{Error, Result};

mod decode;
mod frame;
mod huffman;
mod idct;
mod planes;
mod progressive;
mod scan;
mod standard;

pub(super) use decode::decode;

/// The mark at either end of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Start of image, which every file begins with. A second one says that the image before was cut off.
    Start,
    /// End of image.
    End,
}

/// Walks from marker to marker. What looks like a mark inside a segment (a thumbnail's) is passed over.
#[derive(Clone, Debug, Default)]
pub struct Markers {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// In entropy-coded data or between markers; in data FF is followed by 00, or repeated as filling.
    #[default]
    Data,
    /// Behind FF.
    Marker,
    /// At the upper byte of a segment's length.
    Length,
    /// At the lower one.
    LowLength(u8),
    /// So many bytes of a segment are still to come.
    Segment(usize),
}

impl Markers {
    /// Reads on up to the next mark: the mark, and how many of these bytes it took to get behind it. `None` if all were
    /// read without meeting one; the next bytes then go on where these end.
    pub fn find(&mut self, bytes: &[u8]) -> Option<(Mark, usize)> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Data => {
                    at += memchr(0xff, &bytes[at..])?;
                    self.state = State::Marker;
                }
                State::Marker => {
                    self.state = match byte {
                        0xff => State::Marker,
                        // Stuffing and restarts have no content, nor have the marks themselves.
                        0 | 0x01 | 0xd0..=0xd9 => State::Data,
                        _ => State::Length,
                    };
                    match byte {
                        0xd8 => return Some((Mark::Start, at + 1)),
                        0xd9 => return Some((Mark::End, at + 1)),
                        _ => {}
                    }
                }
                State::Length => self.state = State::LowLength(byte),
                State::LowLength(upper) => {
                    // The length counts its own two bytes.
                    let rest = usize::from(u16::from_be_bytes([upper, byte])).saturating_sub(2);
                    self.state = if rest == 0 { State::Data } else { State::Segment(rest) };
                }
                State::Segment(rest) => {
                    let here = rest.min(bytes.len() - at);
                    self.state = if here == rest { State::Data } else { State::Segment(rest - here) };
                    at += here;
                    continue;
                }
            }
            at += 1;
        }
        None
    }
}

/// Start of image.
const SOI: u8 = 0xd8;
/// End of image.
const EOI: u8 = 0xd9;

/// A marker and what follows it.
pub(super) struct Segment<'a> {
    /// The byte behind FF.
    pub(super) marker: u8,
    /// The content behind the length; empty for markers that have none.
    pub(super) body: &'a [u8],
    /// Entropy-coded data up to the next segment, restarts among it.
    data: &'a [u8],
}

/// The segments of a whole file in order, the end mark not among them.
///
/// # Errors
/// For a file that ends before its end mark, and for one that is no sequence of segments.
pub(super) fn segments(bytes: &[u8]) -> Result<Vec<Segment<'_>>> {
    let mut segments: Vec<Segment<'_>> = Vec::new();
    let (mut behind, mut at) = (0, 0);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        at += memchr(0xff, rest).ok_or_else(|| complete::truncated(bytes))?;
        let marker = *bytes.get(at + 1).ok_or_else(|| complete::truncated(bytes))?;
        match marker {
            // Repeated as filling.
            0xff => at += 1,
            // Stuffed data, and what has no content.
            0 | 0x01 | 0xd0..=0xd7 => at += 2,
            _ => {
                if let Some(segment) = segments.last_mut() {
                    segment.data = &bytes[behind..at];
                }
                if marker == EOI {
                    return Ok(segments);
                }
                at += 2;
                let mut body: &[u8] = &[];
                if marker != SOI {
                    let length = bytes.get(at..).and_then(<[u8]>::first_chunk);
                    let length = length.map(|length| usize::from(u16::from_be_bytes(*length)));
                    let length = length.ok_or_else(|| complete::truncated(bytes))?;
                    if length < 2 {
                        return Err(damaged("a segment without a length"));
                    }
                    body = bytes.get(at + 2..at + length).ok_or_else(|| complete::truncated(bytes))?;
                    at += length;
                }
                segments.push(Segment { marker, body, data: &[] });
                behind = at;
            }
        }
    }
}

fn damaged(problem: &str) -> Error {
    Error::Image(format!("damaged JPEG: {problem}"))
}

fn unsupported(what: &str) -> Error {
    Error::Image(format!(
        "unsupported JPEG: {what}; expected Huffman codes and 8 bits, save it again as an ordinary JPEG"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All marks and where they end, of bytes that come in pieces of that size.
    fn marks(bytes: &[u8], piece: usize) -> Vec<(Mark, usize)> {
        let (mut markers, mut found, mut start) = (Markers::default(), Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            let mut at = 0;
            while let Some((mark, length)) = markers.find(&piece[at..]) {
                at += length;
                found.push((mark, start + at));
            }
            start += piece.len();
        }
        found
    }

    #[test]
    fn marks_are_found_in_pieces_of_any_size() {
        // A thumbnail's marks inside a segment, an empty segment, a stuffed FF, a restart and filling in the data.
        let segment = [0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9, 0xff, 0xee, 0, 2];
        let scan = [0xff, 0xda, 0, 4, 1, 2, 7, 0xff, 0, 0xff, 0xd0, 9, 0xff, 0xff, 0xff];
        let image = [&[0xff, 0xd8][..], &segment, &scan, &[0xd9]].concat();
        let length = image.len();
        let bytes = [&image[..], &image[..length - 2], &image].concat();
        let expected = [
            (Mark::Start, 2),
            (Mark::End, length),
            (Mark::Start, length + 2),
            // Cut off in filling: FF stays FF.
            (Mark::Start, 2 * length),
            (Mark::End, 3 * length - 2),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(marks(&bytes, piece), expected, "{piece}");
        }
    }

    #[test]
    fn impossible_lengths_do_not_stop_the_walk() {
        for length in [[0, 0], [0, 1], [0, 2]] {
            let bytes = [&[0xff, 0xd8, 0xff, 0xe0][..], &length, &[0xff, 0xd9]].concat();
            assert_eq!(marks(&bytes, 3).last(), Some(&(Mark::End, 8)));
        }
    }

    #[test]
    fn a_file_ends_at_its_own_end_mark() {
        // A thumbnail's end mark inside a segment, a stuffed FF and a restart in the data, filling before the end.
        let segment = [0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
        let scan = [0xff, 0xda, 0, 4, 1, 2, 7, 0xff, 0, 0xff, 0xd0, 9, 0xff, 0xff];
        let mut bytes = [&[0xff, 0xd8][..], &segment, &scan, &[0xd9]].concat();
        for length in 0..bytes.len() {
            let error = segments(&bytes[..length]).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("truncated")), "{length}");
        }
        bytes.extend([0xff, 0xd8, 0xff, 0xd9, 0]);
        let found: Vec<_> = segments(&bytes).unwrap().iter().map(|s| (s.marker, s.body, s.data)).collect();
        let expected: [(u8, &[u8], &[u8]); 3] = [
            (0xd8, &[], &[]),
            (0xe1, &[0xff, 0xd8, 0xff, 0xd9], &[]),
            (0xda, &[1, 2], &[7, 0xff, 0, 0xff, 0xd0, 9, 0xff]),
        ];
        assert_eq!(found, expected);
        for length in [[0, 1], [0xff, 0xff]] {
            assert!(segments(&[&[0xff, 0xd8, 0xff, 0xe0][..], &length, &[0xff, 0xd9]].concat()).is_err());
        }
    }
}
