//! A JPEG file's markers, one after the other, in as many pieces as its bytes come in.

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
}
