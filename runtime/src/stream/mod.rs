//! Images from a camera: a stream of bytes, cut into frames, of which the newest is classified.
//!
//! A [`Spec`] says what a stream holds and where it comes from (`mjpeg:-`, `raw:640x480:yuyv:/run/camera`). [`Stream`]
//! reads it on a thread of its own and keeps one frame: while the model is busy, newer frames take its place and the
//! older ones are counted as dropped. So what is classified is never older than one frame and one run, and memory is
//! three frames at most (for a moment four, while one grows), whatever comes in. [`Splitter`] does the cutting alone,
//! for programs with a reader of their own.

mod frame;
mod slot;
mod spec;
mod splitter;

#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use frame::{Frame, Pixels};
pub use slot::Counts;
pub use spec::{Format, Place, Spec};
pub use splitter::{Event, Fault, Splitter};

use crate::error::{Error, Result};
use slot::{Slot, Taken};

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// What happens to a frame that comes while the one before still waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It takes the other's place: for cameras.
    Newest,
    /// Reading waits: for recordings.
    Every,
}

/// How a stream is read.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What happens to a frame that comes while the one before still waits.
    pub keep: Keep,
    /// The most bytes of a frame; larger ones are passed over. Memory is three times as much at most.
    pub max_frame_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { keep: Keep::Newest, max_frame_bytes: 32 << 20 }
    }
}

/// What waiting for a frame gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame,
    /// None within the time.
    Idle,
    /// None, and none will come.
    End,
}

/// A stream that is being read.
///
/// Dropping it ends the reading after at most one more frame; until then a thread may wait for the source.
#[derive(Debug)]
pub struct Stream {
    slot: Arc<Slot>,
    format: Format,
}

impl Stream {
    /// Reads a stream from where its [`Spec`] says. That is opened on the reading thread, because a named pipe waits for
    /// its writer: if it cannot be opened, the first [`Stream::next`] says so.
    pub fn open(spec: &Spec, settings: &Settings) -> Result<Stream> {
        let place = spec.place.clone();
        Stream::spawn(spec.format, move || place.open(), &spec.place.to_string(), settings)
    }

    /// Reads a stream from anything. `name` is for messages.
    pub fn start(
        format: Format,
        source: impl Read + Send + 'static,
        name: &str,
        settings: &Settings,
    ) -> Result<Stream> {
        Stream::spawn(format, move || Ok(source), name, settings)
    }

    fn spawn<R: Read>(
        format: Format,
        open: impl FnOnce() -> Result<R> + Send + 'static,
        name: &str,
        settings: &Settings,
    ) -> Result<Stream> {
        let splitter = Splitter::new(format, settings.max_frame_bytes)?;
        let slot = Arc::new(Slot::default());
        let (theirs, keep, place) = (Arc::clone(&slot), settings.keep, name.to_owned());
        let work = move || {
            // Whoever waits must be woken, whatever a source does.
            let reading = AssertUnwindSafe(|| read(open()?, splitter, keep, &theirs, Path::new(&place)));
            theirs.end(catch_unwind(reading).unwrap_or_else(|_| {
                let problem = "the source panicked".into();
                Err(Error::Internal { step: "read the stream", problem })
            }));
        };
        let spawned = std::thread::Builder::new().name("frames".into()).spawn(work);
        spawned.map_err(Error::io("start a thread for", Path::new(name)))?;
        Ok(Stream { slot, format })
    }

    /// Waits for a frame, no longer than that, and puts it into `frame`, whose memory is used again. An error if the
    /// source failed; it comes once, behind the last frame.
    pub fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Next> {
        frame.format = self.format;
        match self.slot.take(&mut frame.bytes, wait)? {
            Taken::Frame(number) => {
                frame.number = number;
                Ok(Next::Frame)
            }
            Taken::Nothing => Ok(Next::Idle),
            Taken::End => Ok(Next::End),
        }
    }

    /// What has come in so far.
    pub fn counts(&self) -> Counts {
        self.slot.counts()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.slot.close();
    }
}

/// Reads until the end, or until nobody wants more.
fn read(mut source: impl Read, mut splitter: Splitter, keep: Keep, slot: &Slot, place: &Path) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match source.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", place)(error)),
        };
        if length == 0 {
            slot.note(&splitter, splitter.is_within());
            return Ok(());
        }
        let mut bytes = buffer.get(..length).unwrap_or_default();
        while let Some(event) = splitter.push(&mut bytes) {
            let wanted = match event {
                Event::Frame => slot.put(splitter.frame(), keep),
                Event::Fault(fault) => slot.fault(fault),
            };
            if !wanted {
                return Ok(());
            }
        }
        slot.note(&splitter, false);
    }
}
