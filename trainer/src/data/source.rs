//! Where the images of a data set lie: files, raw bytes in memory, or members of tar shards.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use smalti_models::image::{self, Image, Limits};

use super::shards::Shards;
use crate::error::{Error, Result};

/// The images of one data set, each reached by its number.
pub(crate) struct Source {
    root: PathBuf,
    /// The folder that names within the data set begin in.
    folder: PathBuf,
    kind: &'static str,
    store: Store,
    /// Images found unusable, with the reason: each is named to the user once, however often it is met.
    bad: Mutex<BTreeMap<usize, String>>,
}

/// How the images are stored.
pub(crate) enum Store {
    /// One file each.
    Files(Vec<PathBuf>),
    /// Raw pixels of one size, one image after the other.
    Raw(Raw),
    /// Members of tar shards.
    Shards(Shards),
    /// Decoded images.
    Memory(Vec<Image>),
}

/// Raw images of one size: rows from top to bottom, channels interleaved.
pub(crate) struct Raw {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
    /// The files they came from, each with the number of its first image, in rising order.
    pub(crate) files: Vec<(usize, PathBuf)>,
}

impl Raw {
    fn record(&self) -> usize {
        self.width * self.height * self.channels
    }

    /// The file that image `i` came from, and its number there.
    fn file_of(&self, i: usize) -> Option<(&Path, usize)> {
        let (first, file) = self.files.iter().rev().find(|(first, _)| *first <= i)?;
        Some((file, i - first))
    }
}

impl Source {
    /// The images of `store`, found at `root`.
    pub(crate) fn new(root: &Path, kind: &'static str, store: Store) -> Source {
        let folder = if root.is_file() { root.parent().unwrap_or(root) } else { root };
        Source { root: root.into(), folder: folder.into(), kind, store, bad: Mutex::default() }
    }

    /// Images in memory.
    pub(crate) fn memory(images: Vec<Image>) -> Source {
        Source::new(Path::new("images in memory"), "images in memory", Store::Memory(images))
    }

    pub(crate) fn len(&self) -> usize {
        match &self.store {
            Store::Files(files) => files.len(),
            Store::Raw(raw) => raw.pixels.len() / raw.record().max(1),
            Store::Shards(shards) => shards.len(),
            Store::Memory(images) => images.len(),
        }
    }

    pub(crate) fn root(&self) -> String {
        self.root.display().to_string()
    }

    /// The file that image `i` is, where each image is one.
    pub(crate) fn file(&self, i: usize) -> Option<&Path> {
        match &self.store {
            Store::Files(files) => files.get(i).map(PathBuf::as_path),
            Store::Raw(_) | Store::Shards(_) | Store::Memory(_) => None,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn shape(&self) -> Option<(usize, usize, usize)> {
        match &self.store {
            Store::Raw(raw) => Some((raw.width, raw.height, raw.channels)),
            Store::Memory(images) => {
                let shape = |p: &Image| (p.width(), p.height(), p.channels());
                let first = shape(images.first()?);
                images.iter().all(|p| shape(p) == first).then_some(first)
            }
            Store::Files(_) | Store::Shards(_) => None,
        }
    }

    /// Where image `i` is, for messages.
    pub(crate) fn place(&self, i: usize) -> String {
        match &self.store {
            Store::Files(files) => files.get(i).map_or_else(|| self.root(), |f| f.display().to_string()),
            Store::Raw(raw) => match raw.file_of(i) {
                Some((file, place)) => format!("{}[{place}]", file.display()),
                None => self.root(),
            },
            Store::Shards(shards) => match shards.place(i) {
                Some((shard, member)) => format!("{}:{member}", shard.display()),
                None => self.root(),
            },
            Store::Memory(_) => format!("image {i} in memory"),
        }
    }

    /// What image `i` is called within its data set, the same wherever the data set lies.
    pub(crate) fn key(&self, i: usize) -> String {
        let relative = |path: &Path| {
            let path = path.strip_prefix(&self.folder).unwrap_or(path);
            // `./a.png` is `a.png`.
            let names = path.components().filter(|part| *part != Component::CurDir);
            names.map(|name| name.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
        };
        match &self.store {
            Store::Files(files) => files.get(i).map_or_else(String::new, |path| relative(path)),
            Store::Raw(raw) => raw.file_of(i).map_or_else(String::new, |(file, place)| {
                format!("{}[{place}]", file.file_name().unwrap_or_default().to_string_lossy())
            }),
            Store::Shards(shards) => match shards.place(i) {
                Some((shard, member)) => format!("{}:{member}", relative(shard)),
                None => String::new(),
            },
            Store::Memory(_) => i.to_string(),
        }
    }

    /// Image `i`, decoded, for a resize to that side if one is given. Panics of a decoder are caught: one bad file must
    /// not end a run.
    pub(crate) fn image(&self, i: usize, side: Option<usize>) -> Result<Image> {
        catch_unwind(AssertUnwindSafe(|| self.decode(i, side))).unwrap_or_else(|_| {
            Err(Error::data(self.place(i), "the decoder failed on it; leave the file out"))
        })
    }

    fn decode(&self, i: usize, side: Option<usize>) -> Result<Image> {
        let missing = || Error::data(self.root(), format!("no image {i}, there are {}", self.len()));
        match &self.store {
            Store::Files(files) => open(files.get(i).ok_or_else(missing)?, side),
            Store::Raw(raw) => {
                let start = i.checked_mul(raw.record()).ok_or_else(missing)?;
                let pixels =
                    raw.pixels.get(start..).and_then(|rest| rest.get(..raw.record())).ok_or_else(missing)?;
                Ok(Image::new(raw.width, raw.height, raw.channels, pixels.to_vec())?)
            }
            Store::Shards(shards) => {
                let bytes = shards.bytes(i).map_err(|problem| Error::data(self.place(i), problem))?;
                image::decode_for(&bytes, &Limits::default(), side)
                    .map_err(|e| Error::data(self.place(i), e.to_string()))
            }
            Store::Memory(images) => images.get(i).cloned().ok_or_else(missing),
        }
    }

    /// Marks image `i` as unusable; the first time the user is told.
    pub(crate) fn note_bad(&self, i: usize, why: &Error) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        bad.entry(i).or_insert_with(|| {
            let why = why.to_string();
            log::warn!("{why}; the image is left out");
            why
        });
    }

    /// Why image `i` is unusable, if it was found to be.
    pub(crate) fn known_bad(&self, i: usize) -> Option<String> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).get(&i).cloned()
    }
}

/// Opens an image file. What is no ordinary file is refused first: opening a pipe would wait forever.
fn open(path: &Path, side: Option<usize>) -> Result<Image> {
    let place = || path.display().to_string();
    let found = std::fs::metadata(path).map_err(|e| Error::data(place(), format!("cannot be read: {e}")))?;
    if !found.is_file() {
        return Err(Error::data(place(), "not an ordinary file, expected an image"));
    }
    if found.len() == 0 {
        return Err(Error::data(place(), "the file is empty, expected an image"));
    }
    // The reader names the file itself.
    let bytes = std::fs::read(path).map_err(|e| Error::data(place(), format!("cannot be read: {e}")))?;
    image::decode_for(&bytes, &Limits::default(), side).map_err(|e| Error::data(place(), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_depend_on_how_a_path_is_written() {
        let key =
            |root: &str, file: &str| Source::new(Path::new(root), "", Store::Files(vec![file.into()])).key(0);
        assert_eq!(key("/data/set", "/data/set/cat/1.png"), "cat/1.png");
        assert_eq!(key("set/", "set/cat//1.png"), "cat/1.png");
        assert_eq!(key(".", "./cat/1.png"), "cat/1.png");
        assert_eq!(key("t.csv", "./1.png"), "1.png");
    }
}
