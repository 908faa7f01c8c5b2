//! Folders of images, as [`smalti_models::folder`] reads them.

use std::path::Path;

use smalti_models::folder::{ImageFolder, Tree};

use super::listing::Listing;
use super::source::{Source, Store};
use crate::error::{Error, Result};

/// The images of the tree at `root`.
///
/// # Errors
/// No images; splits that cannot be told apart.
pub(crate) fn read(root: &Path, tree: &Tree) -> Result<Listing> {
    let ImageFolder { classes, images, notes, .. } = ImageFolder::arrange(tree, &[]).map_err(unreadable)?;
    if images.is_empty() {
        let problem = "no images (.jpg .jpeg .png .webp .bmp); expected a folder for each class, loose images \
                       (unlabelled), or train/ val/ test/ with either";
        let problems: Vec<&str> = std::iter::once(problem).chain(notes.iter().map(String::as_str)).collect();
        return Err(Error::data(root.display().to_string(), problems.join("; ")));
    }
    let kind = if classes.is_empty() { "loose images" } else { "class folders" };
    let (mut files, mut labels, mut splits) = (Vec::new(), Vec::new(), Vec::new());
    for image in images {
        files.push(image.path);
        labels.push(image.class);
        splits.push(image.split);
    }
    Ok(Listing { source: Source::new(root, kind, Store::Files(files)), labels, classes, splits, notes })
}

/// A failure of the reader of folders that both programs share.
pub(crate) fn unreadable(error: smalti_models::Error) -> Error {
    match error {
        smalti_models::Error::Read { path, source } => Error::file("read", path)(source),
        smalti_models::Error::Folder { path, problem } => Error::data(path.display().to_string(), problem),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Dataset, Split};

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
    fn images_come_in_order_with_their_labels() {
        let dir = tree(&["b/2.png", "b/10.png", "a/x/y/deep.PNG", "B/1.jpg", "loose.bmp"]);
        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!(data.classes(), ["B", "a", "b"]);
        assert_eq!(values(&data)[1..], [2, 1, 0, 4]);
        let labels: Vec<Option<u32>> = (0..data.len()).map(|i| data.label(i)).collect();
        assert_eq!(labels, [Some(0), Some(1), Some(2), Some(2), None]);
        assert_eq!((data.class_counts(), data.kind()), (vec![1, 1, 2], "class folders"));
    }

    #[test]
    fn splits_share_the_classes_of_train() {
        let dir = tree(&["train/a/1.png", "train/c/1.png", "val/b/1.png", "test/c/1.png", "test/a/1.png"]);
        assert_eq!(Dataset::splits(dir.path()).unwrap(), [Split::Train, Split::Val, Split::Test]);
        let open = |split| Dataset::open(dir.path(), split).unwrap();
        for split in [Split::Train, Split::Val, Split::Test, Split::All] {
            assert_eq!(open(split).classes(), ["a", "c"]);
        }
        assert_eq!((open(Split::Val).label(0), open(Split::Test).label(1)), (None, Some(1)));
        assert_eq!((values(&open(Split::Test)), open(Split::All).len()), (vec![4, 3], 5));
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
        std::fs::write(dir.path().join("a.heic"), "x").unwrap();
        let error = Dataset::open(dir.path(), Split::Train).unwrap_err();
        assert!(error.to_string().contains("1 HEIC file is left out"), "{error}");
    }

    #[test]
    fn broken_links_are_named_when_they_are_opened() {
        let dir = tree(&["a/1.png"]);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("a/broken.png")).unwrap();
            let data = Dataset::open(dir.path(), Split::Train).unwrap();
            assert!(data.image(1).unwrap_err().to_string().contains("broken.png"));
        }
    }
}
