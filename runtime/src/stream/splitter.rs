//! Cuts a stream's bytes into frames, in whatever pieces they come.

use std::fmt;

use smalti_models::image::jpeg::{Mark, Markers};

use super::Format;
use crate::error::{Error, Result};

/// What every JPEG file begins with: start of image, and the first byte of another marker.
const BEGIN: [u8; 3] = [0xff, 0xd8, 0xff];

/// What stands in the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame is complete: [`Splitter::frame`] has it until more is read.
    Frame,
    /// A frame was left out.
    Fault(Fault),
}

/// Why a frame was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next frame began before this one had ended.
    CutOff,
    /// It has more bytes than the limit, which this is, or than there is memory.
    TooLarge(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::CutOff => f.write_str("cut off: the next frame begins before its end"),
            Fault::TooLarge(limit) => write!(f, "more than {limit} bytes, the limit of a frame"),
        }
    }
}

/// Cuts bytes into frames. Holds one frame at most, and never more than the limit.
#[derive(Debug)]
pub struct Splitter {
    format: Format,
    limit: usize,
    frame: Vec<u8>,
    state: State,
    /// Bytes of a raw frame; 0 for JPEG.
    size: usize,
    /// Bytes of it so far.
    filled: usize,
    outside: u64,
}

#[derive(Debug)]
enum State {
    /// Between frames; so many of the last bytes may begin one.
    Between(usize),
    /// In a frame that is kept.
    Within(Markers),
    /// In a frame that is left out.
    Passing(Markers),
}

impl Splitter {
    /// A splitter for frames of at most so many bytes. [`Error::Usage`] for raw frames that are larger, or of a size that
    /// their pixels cannot have.
    pub fn new(format: Format, limit: usize) -> Result<Splitter> {
        let size = match format {
            Format::Mjpeg => 0,
            Format::Raw { width, height, pixels } => {
                let bytes = pixels.frame_bytes(width, height);
                let bytes = bytes.map_err(|error| Error::Usage(error.to_string()))?;
                if bytes > limit {
                    let found = format!("{pixels} frames of {width} x {height} pixels have {bytes} bytes");
                    return Err(Error::Usage(format!("{found}: expected at most {limit} bytes a frame")));
                }
                bytes
            }
        };
        Ok(Splitter {
            format,
            limit,
            frame: Vec::new(),
            state: State::Between(0),
            size,
            filled: 0,
            outside: 0,
        })
    }

    /// Reads up to the end of a frame, or up to where one turns out bad, and leaves in `bytes` what comes behind.
    /// `None` when all bytes were read; the next ones then go on where these end.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        match self.format {
            Format::Mjpeg => self.push_jpeg(bytes),
            Format::Raw { .. } => self.push_raw(bytes),
        }
    }

    /// The frame that [`Event::Frame`] tells of. Its memory may be exchanged for another's.
    pub fn frame(&mut self) -> &mut Vec<u8> {
        &mut self.frame
    }

    /// Whether a frame has begun and not ended.
    pub fn is_within(&self) -> bool {
        !matches!(self.state, State::Between(_))
    }

    /// Bytes so far that belong to no frame.
    pub fn outside(&self) -> u64 {
        self.outside
    }

    fn push_raw(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        if bytes.is_empty() {
            return None;
        }
        if !self.is_within() {
            (self.state, self.filled) = (State::Within(Markers::default()), 0);
            self.frame.clear();
        }
        let (piece, rest) = bytes.split_at(bytes.len().min(self.size - self.filled));
        *bytes = rest;
        self.filled += piece.len();
        // Without memory for a frame its bytes are counted all the same: where the next begins depends on it.
        if matches!(self.state, State::Within(_)) && !append(&mut self.frame, piece, self.limit) {
            (self.state, self.frame) = (State::Passing(Markers::default()), Vec::new());
        }
        if self.filled < self.size {
            return None;
        }
        let kept = matches!(self.state, State::Within(_));
        self.state = State::Between(0);
        Some(if kept { Event::Frame } else { Event::Fault(Fault::TooLarge(self.limit)) })
    }

    fn push_jpeg(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        while !bytes.is_empty() {
            let (markers, passing) = match &mut self.state {
                State::Between(matched) => {
                    let matched = *matched;
                    self.seek(matched, bytes);
                    continue;
                }
                State::Within(markers) => (markers, false),
                State::Passing(markers) => (markers, true),
            };
            let found = markers.find(bytes);
            let mark = found.map(|(mark, _)| mark);
            let (piece, rest) = bytes.split_at(found.map_or(bytes.len(), |(_, length)| length));
            *bytes = rest;
            if mark == Some(Mark::Start) {
                // Too large without the new mark: so it is said even if the mark comes in the same piece.
                let too_large = self.frame.len() + piece.len() - 1 > self.limit;
                self.frame.clear();
                self.frame.extend_from_slice(&BEGIN[..2]);
                self.state = State::Within(std::mem::take(markers));
                if passing {
                    continue;
                }
                return Some(Event::Fault(if too_large {
                    Fault::TooLarge(self.limit)
                } else {
                    Fault::CutOff
                }));
            }
            let kept = !passing && append(&mut self.frame, piece, self.limit);
            match mark {
                Some(_) => self.state = State::Between(0),
                None if !kept && !passing => self.state = State::Passing(std::mem::take(markers)),
                None => {}
            }
            if !kept && !passing {
                self.frame.clear();
                return Some(Event::Fault(Fault::TooLarge(self.limit)));
            }
            if kept && mark.is_some() {
                return Some(Event::Frame);
            }
        }
        None
    }

    /// Looks for the beginning of a frame, of which so many bytes were there already.
    fn seek(&mut self, mut matched: usize, bytes: &mut &[u8]) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if matched == 0 {
                match bytes[at..].iter().position(|&byte| byte == BEGIN[0]) {
                    Some(skipped) => (at, matched) = (at + skipped + 1, 1),
                    None => at = bytes.len(),
                }
                continue;
            }
            at += 1;
            if byte == BEGIN[matched] {
                matched += 1;
            } else {
                matched = usize::from(byte == BEGIN[0]);
            }
            if matched == BEGIN.len() {
                break;
            }
        }
        *bytes = &bytes[at..];
        self.outside += at as u64;
        self.state = State::Between(matched);
        if matched == BEGIN.len() {
            self.outside -= BEGIN.len() as u64;
            self.frame.clear();
            self.frame.extend_from_slice(&BEGIN);
            let mut markers = Markers::default();
            markers.find(&BEGIN);
            markers.find(&BEGIN[2..]);
            self.state = State::Within(markers);
        }
    }
}

/// Appends bytes if there is room within the limit. Memory doubles as it grows, but not beyond the limit.
fn append(frame: &mut Vec<u8>, piece: &[u8], limit: usize) -> bool {
    let wanted = frame.len().saturating_add(piece.len());
    if wanted > limit {
        return false;
    }
    if wanted > frame.capacity() {
        let capacity = frame.capacity().saturating_mul(2).min(limit).max(wanted);
        if frame.try_reserve_exact(capacity - frame.len()).is_err() {
            return false;
        }
    }
    frame.extend_from_slice(piece);
    true
}
