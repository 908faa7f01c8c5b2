//! Folders of images: class folders, or loose images without labels, with or without `train/`, `val/`, `test/`.
//!
//! A class is a folder directly below the part; images below it at any depth belong to it. Loose images beside
//! class folders have no label. Names are sorted byte by byte, so that numbers do not depend on the file system;
//! hidden files and folders are left out.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use smalti_models::image::is_image_name;

use super::source::{Source, Store};
use super::{Listing, Split};
use crate::error::{Error, Result};

/// Folders below a class folder deeper than this are left out.
const MAX_DEPTH: usize = 32;

/// One name in a folder.
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) path: PathBuf,
    pub(crate) is_dir: bool,
}

/// What a folder holds, sorted by the bytes of the names, without hidden files. Links are followed; what is neither
/// a folder nor a file (a pipe, a device) is left out, but a broken link stays, to be named as unreadable.
pub(crate) fn list(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::file("read", folder))? {
        let entry = entry.map_err(Error::file("read", folder))?;
        let (name, path) = (entry.file_name(), entry.path());
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let mut kind = entry.file_type().map_err(Error::file("read", &path))?;
        if kind.is_symlink() {
            match std::fs::metadata(&path) {
                Ok(target) => kind = target.file_type(),
                Err(_) => {
                    entries.push(Entry { name, path, is_dir: false });
                    continue;
                }
            }
        }
        if kind.is_dir() || kind.is_file() {
            entries.push(Entry { name, path, is_dir: kind.is_dir() });
        }
    }
    entries.sort_unstable_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
    Ok(entries)
}

/// The part that a folder or file of this name holds.
pub(crate) fn split_of_name(name: &str) -> Option<Split> {
    match name.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Val),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

/// The parts of a folder: its `train/`, `val/` and `test/`, or the whole folder as `Train`. A class may be called
/// "train" too: alone among other folders it is taken for one.
pub(crate) fn parts(folder: &Path, entries: &[Entry]) -> Vec<(Split, PathBuf)> {
    let folders: Vec<&Entry> = entries.iter().filter(|e| e.is_dir).collect();
    let parts: Vec<(Split, PathBuf)> =
        folders.iter().filter_map(|e| Some((split_of_name(e.name.to_str()?)?, e.path.clone()))).collect();
    let has_train = parts.iter().any(|(split, _)| *split == Split::Train);
    if !parts.is_empty() && (parts.len() == folders.len() || (has_train && parts.len() > 1)) {
        return parts;
    }
    vec![(Split::Train, folder.to_path_buf())]
}

/// The images of one part: each file with the name of its class.
type Listed = Vec<(PathBuf, Option<String>)>;

/// Reads the images of a part; the classes are those of all parts together, so that labels agree between them.
pub(crate) fn read(root: &Path, parts: &[(Split, PathBuf)], split: Split) -> Result<Listing> {
    let mut classes = BTreeSet::new();
    let mut listed = Listed::new();
    for (part, folder) in parts {
        let images = list_part(folder)?;
        classes.extend(images.iter().filter_map(|(_, class)| class.clone()));
        if split == Split::All || split == *part {
            listed.extend(images);
        }
    }
    if listed.is_empty() {
        return Err(Error::data(
            root.display().to_string(),
            format!(
                "no images (.jpg .jpeg .png .webp .bmp) in the `{split}` part; expected a folder for each class, \
                 loose images (unlabelled), or train/ val/ test/ with either"
            ),
        ));
    }
    let classes: Vec<String> = classes.into_iter().collect();
    let number = |class: &String| classes.binary_search(class).ok().map(|p| p as u32);
    let labels = listed.iter().map(|(_, class)| class.as_ref().and_then(number)).collect();
    let files = listed.into_iter().map(|(path, _)| path).collect();
    let kind = if classes.is_empty() { "loose images" } else { "class folders" };
    Ok(Listing { source: Source::new(root, kind, Store::Files(files)), labels, classes })
}

fn list_part(folder: &Path) -> Result<Listed> {
    let mut listed = Listed::new();
    let mut loose = Listed::new();
    for entry in list(folder)? {
        if entry.is_dir {
            let class = entry.name.to_string_lossy().into_owned();
            let before = listed.len();
            let mut seen = HashSet::new();
            walk(&entry.path, &class, 0, &mut seen, &mut listed)?;
            if listed.len() == before {
                log::warn!(
                    "{}: no images in this folder, so it is not taken for a class",
                    entry.path.display()
                );
            }
        } else if is_image_name(&entry.path) {
            loose.push((entry.path, None));
        }
    }
    listed.append(&mut loose);
    Ok(listed)
}

/// Adds all images below a class folder. No folder is entered twice, so links in circles end.
fn walk(
    folder: &Path,
    class: &str,
    depth: usize,
    seen: &mut HashSet<PathBuf>,
    listed: &mut Listed,
) -> Result<()> {
    let real = std::fs::canonicalize(folder).map_err(Error::file("read", folder))?;
    if !seen.insert(real) {
        return Ok(());
    }
    if depth > MAX_DEPTH {
        log::warn!("{}: left out, it lies more than {MAX_DEPTH} folders deep", folder.display());
        return Ok(());
    }
    for entry in list(folder)? {
        if entry.is_dir {
            walk(&entry.path, class, depth + 1, seen, listed)?;
        } else if is_image_name(&entry.path) {
            listed.push((entry.path, Some(class.to_owned())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    /// A folder with a grey image at each of these paths, its value the path's number.
    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, path) in paths.iter().enumerate() {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::GrayImage::from_pixel(2, 2, image::Luma([i as u8])).save(path).unwrap();
        }
        dir
    }

    fn values(data: &Dataset) -> Vec<u8> {
        (0..data.len()).map(|i| data.image(i).unwrap().data()[0]).collect()
    }

    #[test]
    fn class_folders_are_sorted_by_bytes() {
        let dir = tree(&[
            "b/2.png",
            "b/10.png",
            "a/x/y/deep.PNG",
            "B/1.jpg",
            "loose.bmp",
            ".hidden/1.png",
            "b/.1.png",
        ]);
        std::fs::write(dir.path().join("b/notes.txt"), "no image").unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!(data.classes(), ["B", "a", "b"]);
        assert_eq!(values(&data)[1..], [2, 1, 0, 4]);
        let labels: Vec<Option<u32>> = (0..data.len()).map(|i| data.label(i)).collect();
        assert_eq!(labels, [Some(0), Some(1), Some(2), Some(2), None]);
        assert_eq!(data.class_counts(), [1, 1, 2]);
        assert_eq!(data.kind(), "class folders");
    }

    #[test]
    fn parts_share_their_classes() {
        let dir = tree(&["train/a/1.png", "train/c/1.png", "val/b/1.png", "test/c/1.png", "test/a/1.png"]);
        assert_eq!(Dataset::parts(dir.path()).unwrap(), [Split::Train, Split::Val, Split::Test]);
        let open = |split| Dataset::open(dir.path(), split).unwrap();
        for split in [Split::Train, Split::Val, Split::Test, Split::All] {
            assert_eq!(open(split).classes(), ["a", "b", "c"]);
        }
        assert_eq!((open(Split::Val).label(0), open(Split::Test).label(1)), (Some(1), Some(2)));
        assert_eq!((values(&open(Split::Test)), open(Split::All).len()), (vec![4, 3], 5));
    }

    #[test]
    fn a_class_may_be_called_train() {
        let dir = tree(&["bus/1.png", "car/1.png", "train/1.png"]);
        assert_eq!(Dataset::open(dir.path(), Split::All).unwrap().classes(), ["bus", "car", "train"]);
        let dir = tree(&["train/a/1.png", "Testing/a/1.png", "notes/a.png"]);
        assert_eq!(Dataset::parts(dir.path()).unwrap(), [Split::Train, Split::Test]);
    }

    #[test]
    fn loose_images_are_unlabelled() {
        let dir = tree(&["2.png", "1.png"]);
        let data = Dataset::open(dir.path(), Split::All).unwrap();
        assert_eq!((data.classes().len(), data.label(0), values(&data)), (0, None, vec![1, 0]));
        assert_eq!(data.labels().unwrap_err().exit_code(), 5);
    }

    #[test]
    fn nothing_to_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = Dataset::open(dir.path(), Split::Train).unwrap_err();
        assert!(error.to_string().contains("expected a folder for each class"), "{error}");
        assert_eq!(error.exit_code(), 5);
        let error = Dataset::open(&dir.path().join("none"), Split::Train).unwrap_err();
        assert_eq!(error.exit_code(), 6);
        std::fs::write(dir.path().join("a.zip"), "x").unwrap();
        let error = Dataset::open(&dir.path().join("a.zip"), Split::Train).unwrap_err();
        assert!(error.to_string().contains("not a data set"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_in_circles_end_and_pipes_are_left_out() {
        use std::os::unix::fs::symlink;
        let dir = tree(&["a/1.png", "b/1.png"]);
        let at = |name: &str| dir.path().join(name);
        symlink(at("a"), at("a/again")).unwrap();
        symlink(dir.path(), at("a/up")).unwrap();
        symlink(at("b"), at("a/b")).unwrap();
        symlink(at("a/1.png"), at("b/link.png")).unwrap();
        symlink(at("nowhere"), at("b/broken.png")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("b/pipe.png")).status().unwrap().success());
        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        let names: Vec<String> = (0..data.len())
            .map(|i| data.place(i).split_off(dir.path().display().to_string().len()))
            .collect();
        assert_eq!(
            names,
            [
                "/a/1.png",
                "/a/b/1.png",
                "/a/b/broken.png",
                "/a/b/link.png",
                "/b/1.png",
                "/b/broken.png",
                "/b/link.png"
            ]
        );
        assert!(data.image(5).unwrap_err().to_string().contains("broken.png"));
        assert!(data.image(6).is_ok());
    }
}
