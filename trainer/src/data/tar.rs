//! Tar shards as WebDataset writes them: `0001.jpg` next to `0001.cls`.
//!
//! A member's key is its path up to the first dot of its file name. `.cls` holds a whole number, or the name of a
//! class; a `labels.txt` or `classes.txt` next to the shards names the numbers. The folder of a shard (`val/000.tar`) or
//! its name (`imagenet-val-000.tar`) says which split it belongs to. Compressed shards are not read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use smalti_models::folder::{ForeignFiles, Split, split_in_name, split_of_name};
use smalti_models::image::is_image_name;

use super::classes;
use super::listing::Listing;
use super::shards::{Member, Shards};
use super::source::{Source, Store};
use crate::error::{Error, Result};

/// Maximum bytes of a `.cls` member.
const MAX_LABEL: u64 = 4096;

/// Whether this is the name of a shard.
pub(crate) fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tar"))
}

/// The split that a shard belongs to; `root` is where the data set lies.
pub(crate) fn split_of_shard(root: &Path, path: &Path) -> Split {
    let text = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
    let folder = path.parent().filter(|folder| *folder != root).and_then(Path::file_name).map(text);
    let of_folder = folder.and_then(|name| split_of_name(&name));
    of_folder.or_else(|| split_in_name(&text(path.file_stem()?))).unwrap_or(Split::Train)
}

/// Reads the index of the shards of the data set at `root`.
///
/// # Errors
/// A shard that cannot be read; labels that are not among named classes; no images.
pub(crate) fn read(root: &Path, shards: Vec<PathBuf>) -> Result<Listing> {
    let (mut members, mut texts, mut foreign) = (Vec::new(), Vec::new(), ForeignFiles::default());
    for (i, path) in (0..).zip(&shards) {
        let split = split_of_shard(root, path);
        for (member, text) in index(path, i, &mut foreign)? {
            members.push(member);
            texts.push((split, text));
        }
    }
    let wrong = |problem: String| Error::data(root.display().to_string(), problem);
    let folder = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
    let numbered = classes::number(&texts, classes::names_file(folder)?).map_err(wrong)?;
    if members.is_empty() {
        return Err(wrong("no images in the shards, expected members such as 0001.jpg and 0001.cls".into()));
    }
    let notes = [numbered.note(), foreign.note()].into_iter().flatten();
    let notes = notes.map(|note| format!("{}: {note}", root.display())).collect();
    let source = Source::new(root, "tar shards", Store::Shards(Shards::new(shards, members)));
    let splits = texts.into_iter().map(|(split, _)| split).collect();
    Ok(Listing { source, labels: numbered.labels, classes: numbered.classes, splits, notes })
}

/// Images and label texts of a shard, in the shard's order.
type Indexed = Vec<(Member, Option<String>)>;

fn index(path: &Path, shard: u32, foreign: &mut ForeignFiles) -> Result<Indexed> {
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
        } else {
            foreign.count(Path::new(&name));
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
        std::fs::write(
            dir.path().join("test-000.tar"),
            shard(&[("9.png", &png(9)), ("9.cls", b"1"), ("8.png", &png(8)), ("8.cls", b"4")]),
        )
        .unwrap();
        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((data.len(), data.classes().len()), (3, 3));
        assert_eq!((data.label(0), data.label(1), data.label(2)), (Some(2), Some(0), None));
        let values: Vec<u8> = (0..3).map(|i| data.image(i).unwrap().data()[0]).collect();
        assert_eq!(values, [1, 2, 3]);
        assert!(data.place(1).ends_with("train-000.tar:b/0002.png"), "{}", data.place(1));
        let test = Dataset::open(dir.path(), Split::Test).unwrap();
        // The train shards have no class 4.
        assert_eq!((test.len(), test.label(0), test.label(1)), (2, Some(1), None));
        assert_eq!(Dataset::open(&dir.path().join("test-000.tar"), Split::All).unwrap().len(), 2);
    }

    #[test]
    fn shards_belong_to_splits() {
        let split = |path: &str| split_of_shard(Path::new("/data/train"), Path::new(path));
        for (path, expected) in [
            ("/data/train/000.tar", Split::Train),
            ("/data/train/val/000.tar", Split::Val),
            ("/data/train/imagenet-val-000000.tar", Split::Val),
            ("/data/train/Test_set-1.tar", Split::Test),
            ("/data/train/shards/dev-000.tar", Split::Val),
            ("/data/train/contest.tar", Split::Train),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }

    #[test]
    fn members_of_other_formats_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        std::fs::write(&path, shard(&[("1.png", &png(1)), ("2.heic", b"x"), ("3.json", b"{}")])).unwrap();
        let found = read(&path, vec![path.clone()]).unwrap();
        assert_eq!((found.labels.len(), found.notes.len()), (1, 1));
        assert!(found.notes[0].contains("1 HEIC file is left out"), "{:?}", found.notes);
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
