//! What a stream holds and where it comes from, as users type it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, stdin};
use std::path::PathBuf;

use smalti_models::image::PixelFormat;

use super::Keep;
use crate::error::{Error, Result};

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// JPEG files, one after the other.
    #[default]
    Mjpeg,
    /// Frames of pixels, one after the other.
    Raw {
        /// Pixels of a row.
        width: usize,
        /// Rows.
        height: usize,
        /// How the pixels lie in a frame.
        pixels: PixelFormat,
    },
}

/// Where a stream comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The standard input, `-`.
    StandardInput,
    /// A file, a named pipe or a device.
    File(PathBuf),
}

/// A stream as users type it: `mjpeg:PLACE` or `raw:WIDTHxHEIGHT:PIXELS:PLACE`, where PIXELS is a [`PixelFormat`]'s name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What it holds.
    pub format: Format,
    /// Where it comes from.
    pub place: Place,
}

impl Spec {
    /// What an argument says; `None` if it names no stream, but a file.
    pub fn parse(argument: &OsStr) -> Option<Result<Spec>> {
        let text = argument.to_str()?;
        let (kind, rest) = text.split_once(':')?;
        let format_and_place = match kind {
            "mjpeg" => Some((Format::Mjpeg, rest)),
            "raw" => raw(rest),
            _ => return None,
        };
        let spec = format_and_place.filter(|(_, place)| !place.is_empty()).map(|(format, place)| {
            let place = if place == "-" { Place::StandardInput } else { Place::File(place.into()) };
            Spec { format, place }
        });
        Some(spec.ok_or_else(|| {
            let expected = "expected mjpeg:FILE or raw:WIDTHxHEIGHT:PIXELS:FILE, \
                            where FILE may be - and PIXELS is one of";
            Error::Usage(format!("the stream `{text}`: {expected} {}", PixelFormat::names()))
        }))
    }
}

/// `640x480:rgb8:PLACE`.
fn raw(text: &str) -> Option<(Format, &str)> {
    let (size, rest) = text.split_once(':')?;
    let (pixels, place) = rest.split_once(':')?;
    let (width, height) = size.split_once('x')?;
    let side = |text: &str| text.parse::<usize>().ok().filter(|&side| side > 0);
    let pixels = PixelFormat::named(pixels)?;
    Some((Format::Raw { width: side(width)?, height: side(height)?, pixels }, place))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::StandardInput => f.write_str("standard input"),
            Place::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Place {
    /// Opens it. A named pipe waits for its writer.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(match self {
            Place::StandardInput => Box::new(stdin()),
            Place::File(path) => Box::new(File::open(path).map_err(Error::io("open", path))?),
        })
    }

    /// What suits it: every frame of a regular file, which waits to be read, and else the newest.
    pub fn keep(&self) -> Keep {
        let kind = match self {
            Place::StandardInput => standard_input(),
            Place::File(path) => std::fs::metadata(path).ok(),
        };
        if kind.is_some_and(|kind| kind.is_file()) { Keep::Every } else { Keep::Newest }
    }
}

#[cfg(unix)]
fn standard_input() -> Option<std::fs::Metadata> {
    use std::os::fd::AsFd;
    File::from(stdin().as_fd().try_clone_to_owned().ok()?).metadata().ok()
}

#[cfg(not(unix))]
fn standard_input() -> Option<std::fs::Metadata> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Result<Spec>> {
        Spec::parse(OsStr::new(text))
    }

    #[test]
    fn streams_are_told_from_files() {
        let camera = parse("mjpeg:-").unwrap().unwrap();
        assert_eq!(camera, Spec { format: Format::Mjpeg, place: Place::StandardInput });
        let raw = parse("raw:640x480:rgb8:/tmp/a:b").unwrap().unwrap();
        assert_eq!(raw.format, Format::Raw { width: 640, height: 480, pixels: PixelFormat::Rgb8 });
        assert_eq!(raw.place, Place::File("/tmp/a:b".into()));
        let grey = parse("raw:1x2:gray8:-").unwrap().unwrap();
        assert_eq!(grey.format, Format::Raw { width: 1, height: 2, pixels: PixelFormat::Grey8 });
        for pixels in PixelFormat::ALL {
            let spec = parse(&format!("raw:4x2:{pixels}:-")).unwrap().unwrap();
            assert_eq!(spec.format, Format::Raw { width: 4, height: 2, pixels });
        }
        for file in ["a.jpg", "-", "./mjpeg:-", "c:/a.jpg", ""] {
            assert!(parse(file).is_none(), "{file}");
        }
    }

    #[test]
    fn half_said_streams_are_wrong_usage() {
        for text in [
            "mjpeg:",
            "raw:",
            "raw:-",
            "raw:4x4:-",
            "raw:4x4:rgb8:",
            "raw:4:rgb8:-",
            "raw:0x4:rgb8:-",
            "raw:4x-4:rgb8:-",
            "raw:4x4:yuv:-",
            "raw:99999999999999999999x4:rgb8:-",
        ] {
            let error = parse(text).unwrap().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(text), "{error}");
            assert!(error.to_string().ends_with(&PixelFormat::names()), "{error}");
        }
    }

    #[test]
    fn recordings_keep_every_frame() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Place::File(file.path().into()).keep(), Keep::Every);
        assert_eq!(Place::File("/dev/null".into()).keep(), Keep::Newest);
    }
}
