//! A JPEG file's markers: one after the other, in as many pieces as its bytes come in ([`Markers`]), or the segments of a
//! whole file.

use std::borrow::Cow;
use std::iter::from_fn;

use crate::error::{Error, Result};

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
                    at += bytes[at..].iter().position(|&byte| byte == 0xff)?;
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

/// Huffman tables.
const DHT: u8 = 0xc4;
/// Start of a scan.
const SOS: u8 = 0xda;
/// How many blocks lie between two restarts.
const DRI: u8 = 0xdd;

/// A marker and what follows it.
pub(super) struct Segment<'a> {
    /// The byte behind FF.
    pub(super) marker: u8,
    /// The content behind the length; empty for markers that have none.
    pub(super) body: &'a [u8],
    /// Where in the file what follows it begins.
    pub(super) end: usize,
}

/// A file's segments in order; entropy-coded data is passed over, but for the restarts in it. Ends at a segment that does
/// not lie in the file.
pub(super) fn segments(bytes: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = bytes;
    from_fn(move || {
        loop {
            // In data FF is followed by 00, or repeated as filling.
            let at = rest.iter().position(|&byte| byte == 0xff)?;
            let marker = *rest.get(at + 1)?;
            if marker == 0xff {
                rest = &rest[at + 1..];
                continue;
            }
            rest = &rest[at + 2..];
            if marker == 0 {
                continue;
            }
            if matches!(marker, 0x01 | 0xd0..=0xd9) {
                return Some(Segment { marker, body: &[], end: bytes.len() - rest.len() });
            }
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?)).max(2);
            let body = rest.get(2..length)?;
            rest = &rest[length..];
            return Some(Segment { marker, body, end: bytes.len() - rest.len() });
        }
    })
}

/// The width and height that a file says.
pub(super) fn size(bytes: &[u8]) -> Option<[usize; 2]> {
    // Frames of any kind; between their markers lie those of tables.
    let is_frame = |marker: u8| matches!(marker, 0xc0..=0xcf) && !matches!(marker, DHT | 0xc8 | 0xcc);
    let frame = segments(bytes).find(|segment| is_frame(segment.marker))?;
    let [height, low_height, width, low_width] = *frame.body.get(1..)?.first_chunk()?;
    Some([[width, low_width], [height, low_height]].map(|side| u16::from_be_bytes(side).into()))
}

/// A whole file as the decoder needs it: with the standard's Huffman tables where a camera leaves them out (as Motion JPEG
/// does).
///
/// # Errors
/// Files that the decoder would answer with other pixels than there are: scans of single components in a file that is not
/// progressive, and restarts where none belongs.
pub(super) fn prepare(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    let damaged = |problem: &str| Err(Error::Image(format!("damaged or unsupported JPEG: {problem}")));
    let (mut components, mut has_tables, mut restarts, mut next, mut in_scan) =
        (None, false, false, 0, false);
    for Segment { marker, body, .. } in segments(bytes) {
        match marker {
            // Baseline and extended, by Huffman codes.
            0xc0 | 0xc1 => components = body.get(5).copied(),
            DHT => has_tables = true,
            DRI => restarts = body.get(..2).is_some_and(|interval| interval != [0; 2]),
            SOS => {
                (next, in_scan) = (0, true);
                if components.is_some_and(|count| body.first().is_some_and(|scanned| *scanned < count)) {
                    return damaged("it has a scan for each component; write it again with one scan for all");
                }
            }
            0xd0..=0xd7 if in_scan => {
                if !restarts {
                    return damaged("a restart marker in a scan without restarts");
                }
                if marker != 0xd0 + next {
                    return damaged("restart markers out of order");
                }
                next = (next + 1) % 8;
            }
            _ => {}
        }
    }
    if has_tables || components.is_none() || !bytes.starts_with(&[0xff, 0xd8]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut whole = bytes[..2].to_vec();
    for (class, counts, values) in STANDARD {
        whole.extend([0xff, DHT]);
        whole.extend((2 + 1 + 16 + values.len() as u16).to_be_bytes());
        whole.push(class);
        whole.extend(counts);
        whole.extend(values);
    }
    whole.extend(&bytes[2..]);
    Ok(Cow::Owned(whole))
}

/// The typical Huffman tables (ITU-T T.81, annex K.3): class and number, how many codes there are of each length, values.
const STANDARD: [(u8, [u8; 16], &[u8]); 4] = [
    (0x00, [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &DC_VALUES),
    (0x01, [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &DC_VALUES),
    (0x10, [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d], &LUMINANCE_AC),
    (0x11, [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77], &CHROMINANCE_AC),
];

const DC_VALUES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

#[rustfmt::skip]
const LUMINANCE_AC: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

#[rustfmt::skip]
const CHROMINANCE_AC: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
    0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
    0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

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

    /// A file of a frame of three components, a scan and what stands in it.
    fn file(frame: u8, before: &[&[u8]], scanned: u8, data: &[u8]) -> Vec<u8> {
        let header = [0xff, frame, 0, 17, 8, 0, 8, 0, 8, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
        let scan =
            [&[0xff, SOS, 0, 6 + 2 * scanned, scanned][..], &vec![0; 2 * usize::from(scanned)], &[0, 63, 0]];
        [&[0xff, 0xd8][..], &before.concat(), &header, &scan.concat(), data, &[0xff, 0xd9]].concat()
    }

    #[test]
    fn the_standard_s_tables_take_the_place_of_none() {
        let without = file(0xc0, &[], 3, &[1, 2, 0xff, 0, 3]);
        let with = prepare(&without).unwrap();
        assert!(matches!(with, Cow::Owned(_)) && with.len() == without.len() + 432);
        let found: Vec<u8> = segments(&with).map(|segment| segment.marker).collect();
        assert_eq!(found, [0xd8, DHT, DHT, DHT, DHT, 0xc0, SOS, 0xd9]);
        for (_, counts, values) in STANDARD {
            assert_eq!(counts.iter().map(|count| usize::from(*count)).sum::<usize>(), values.len());
        }
        // Whole already; and a progressive file brings its own.
        assert!(matches!(prepare(&with).unwrap(), Cow::Borrowed(_)));
        assert!(matches!(prepare(&file(0xc2, &[], 1, &[7])).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn what_the_decoder_would_get_wrong_is_refused() {
        let interval: &[u8] = &[0xff, DRI, 0, 4, 0, 2];
        let refused = |bytes: &[u8]| prepare(bytes).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused(&file(0xc0, &[], 1, &[7])).contains("scan for each"));
        assert!(refused(&file(0xc0, &[], 3, &[7, 0xff, 0xd0, 7])).contains("without restarts"));
        assert!(refused(&file(0xc0, &[interval], 3, &[7, 0xff, 0xd1, 7])).contains("out of order"));
        let restarts: Vec<u8> = (0..20).flat_map(|i| [7, 0xff, 0xd0 + i % 8]).collect();
        assert_eq!(refused(&file(0xc0, &[interval], 3, &restarts)), "");
        // Bytes that end anywhere, or lie, are no trouble.
        let whole = file(0xc0, &[interval], 3, &restarts);
        for length in 0..whole.len() {
            let _ = prepare(&whole[..length]);
        }
        assert_eq!(refused(&[0xff, 0xd8, 0xff, 0xc0, 0, 0, 0xff, 0xd9]), "");
    }
}
