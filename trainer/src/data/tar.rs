//! Tar shards as WebDataset writes them: `0001.jpg` beside `0001.cls`, read where they lie without unpacking.
//!
//! A member's key is its path up to the first dot of its file name. `.cls` holds a whole number, or the name of a
//! class; a `labels.txt` or `classes.txt` beside the shards names the numbers. Shards whose names begin with
//! `train`, `val` or `test`, or that lie in folders of these names, are parts. Compressed shards are not read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use smalti_models::image::{Limits, is_image_name};

use super::source::{Source, Store};
use super::{Listing, Split, folder, labels, layout};
use crate::error::{Error, Result};

/// The most bytes of a `.cls` member.
const MAX_LABEL: u64 = 4096;

/// Whether this is the name of a shard.
pub(crate) fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tar"))
}

/// The part that a shard's name begins with.
pub(crate) fn split_of_shard(path: &Path) -> Split {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let word = name.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    folder::split_of_name(word).unwrap_or(Split::Train)
}

/// Images inside shards.
pub(crate) struct Shards {
    paths: Vec<PathBuf>,
    members: Vec<Member>,
}

struct Member {
    shard: u32,
    offset: u64,
    size: u64,
    name: Box<str>,
}

impl Shards {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Shard and member, for messages.
    pub(crate) fn place(&self, i: usize) -> Option<String> {
        let member = self.members.get(i)?;
        Some(format!("{}:{}", self.paths.get(member.shard as usize)?.display(), member.name))
    }

    /// The bytes of a member; the size that the shard states is not trusted.
    pub(crate) fn bytes(&self, i: usize) -> Result<Vec<u8>, String> {
        let member = self.members.get(i).ok_or("no such member")?;
        let path = self.paths.get(member.shard as usize).ok_or("no such shard")?;
        let limit = Limits::default().max_bytes;
        if member.size > limit {
            return Err(format!("{} bytes, the limit is {limit}", member.size));
        }
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(member.offset))?;
            let mut bytes = Vec::new();
            file.take(member.size).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e| format!("cannot be read: {e}"))?;
        if bytes.len() as u64 != member.size {
            return Err(format!("the shard ends after {} of {} bytes", bytes.len(), member.size));
        }
        Ok(bytes)
    }
}

/// Images and label texts of a shard, in the shard's order.
type Indexed = Vec<(Member, Option<String>)>;

/// Reads the index of all shards; the classes are those of all parts together.
pub(crate) fn read(root: &Path, shards: &[(Split, PathBuf)], split: Split) -> Result<Listing> {
    let mut found = Vec::new();
    for (i, (part, path)) in shards.iter().enumerate() {
        found.extend(index(path, i as u32)?.into_iter().map(|pair| (*part, pair)));
    }
    let folder = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
    let texts = found.iter_mut().map(|(_, (_, text))| text.take()).collect();
    let (classes, labels) = labels::number(texts, layout::names_file(folder)?)
        .map_err(|problem| Error::data(root.display().to_string(), problem))?;
    let kept = found.into_iter().zip(labels).filter(|((part, _), _)| split == Split::All || split == *part);
    let (members, labels) = kept.map(|((_, (member, _)), label)| (member, label)).unzip();
    let shards = Shards { paths: shards.iter().map(|(_, path)| path.clone()).collect(), members };
    Ok(Listing { source: Source::new(root, "tar shards", Store::Shards(shards)), labels, classes })
}

fn index(path: &Path, shard: u32) -> Result<Indexed> {
    let file = File::open(path).map_err(Error::file("read", path))?;
    if !file.metadata().map_err(Error::file("read", path))?.is_file() {
        return Err(Error::data(path.display().to_string(), "not an ordinary file, expected a tar shard"));
    }
    let damaged =
        |e: std::io::Error| Error::data(path.display().to_string(), format!("not a sound tar file: {e}"));
    let mut images: Vec<(String, Member)> = Vec::new();
    let mut texts: HashMap<String, String> = HashMap::new();
    let mut archive = ::tar::Archive::new(BufReader::new(file));
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, extension)) = key_of(&name) else { continue };
        if extension.eq_ignore_ascii_case("cls") {
            let mut text = String::new();
            entry.take(MAX_LABEL).read_to_string(&mut text).map_err(damaged)?;
            texts.insert(key.to_owned(), text.trim().to_owned());
        } else if !extension.contains('.') && is_image_name(Path::new(&name)) {
            let (offset, size) = (entry.raw_file_position(), entry.size());
            images.push((key.to_owned(), Member { shard, offset, size, name: name.into() }));
        }
    }
    Ok(images.into_iter().map(|(key, member)| (member, texts.get(&key).cloned())).collect())
}

/// A member's name up to the first dot of its last part, and what follows that dot. Hidden files have no key.
fn key_of(name: &str) -> Option<(&str, &str)> {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + name.get(start..)?.find('.')?;
    if dot == start {
        return None;
    }
    Some((name.get(..dot)?, name.get(dot + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn png(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::GrayImage::from_pixel(3, 3, image::Luma([value]))
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        bytes.into_inner()
    }

    fn shard(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn pairs_are_found_without_unpacking() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{}/0003.png", "d".repeat(150));
        let members: &[(&str, &[u8])] = &[
            ("a/0001.png", &png(1)),
            ("a/0001.cls", b"2\n"),
            ("a/0001.seg.png", &png(99)),
            ("b/0002.cls", b"0"),
            ("b/0002.png", &png(2)),
            (&long, &png(3)),
            ("a/._0001.png", b"junk"),
            ("readme.txt", b"hello"),
        ];
        std::fs::write(dir.path().join("train-000.tar"), shard(members)).unwrap();
        std::fs::write(dir.path().join("test-000.tar"), shard(&[("9.png", &png(9)), ("9.cls", b"4")]))
            .unwrap();
        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((data.len(), data.classes().len()), (3, 5));
        assert_eq!((data.label(0), data.label(1), data.label(2)), (Some(2), Some(0), None));
        let values: Vec<u8> = (0..3).map(|i| data.image(i).unwrap().data()[0]).collect();
        assert_eq!(values, [1, 2, 3]);
        assert!(data.place(1).ends_with("train-000.tar:b/0002.png"), "{}", data.place(1));
        let test = Dataset::open(dir.path(), Split::Test).unwrap();
        assert_eq!((test.len(), test.label(0)), (1, Some(4)));
        assert_eq!(Dataset::open(&dir.path().join("test-000.tar"), Split::All).unwrap().len(), 1);
    }

    #[test]
    fn labels_may_be_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        let (one, two) = (png(1), png(2));
        let members: &[(&str, &[u8])] =
            &[("1.png", &one), ("1.cls", b"dog"), ("2.png", &two), ("2.cls", b"cat")];
        std::fs::write(&path, shard(members)).unwrap();
        let data = Dataset::open(&path, Split::Train).unwrap();
        assert_eq!((data.classes(), data.label(0)), (&["cat".to_owned(), "dog".to_owned()][..], Some(1)));
    }

    #[test]
    fn each_lie_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        let whole = shard(&[("1.png", &png(1)), ("2.png", &[7; 3000])]);
        // The shard ends inside its last member.
        std::fs::write(&path, &whole[..3000]).unwrap();
        let data = Dataset::open(&path, Split::Train).unwrap();
        assert!(data.image(0).is_ok());
        let error = data.image(1).unwrap_err();
        assert!(error.to_string().contains("2.png: the shard ends after"), "{error}");
        // A member that claims to be huge.
        let mut header = ::tar::Header::new_gnu();
        header.set_path("3.png").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        std::fs::write(&path, header.as_bytes()).unwrap();
        let error = Dataset::open(&path, Split::Train).unwrap().image(0).unwrap_err();
        assert!(error.to_string().contains("the limit is"), "{error}");
        for (bytes, expected) in [
            (vec![b'x'; 2048], "not a sound tar file"),
            (whole[..100].to_vec(), "not a sound tar file"),
            (vec![], "no images"),
            (shard(&[("1.png", &png(1)), ("1.cls", b"4000000000")]), "4000000000"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Dataset::open(&path, Split::Train).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} / {expected}");
            assert_eq!(error.exit_code(), 5);
        }
    }
}
