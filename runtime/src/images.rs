//! Images on disk: which files a path stands for, and which splits and classes a folder holds.

use std::fs;
use std::path::{Path, PathBuf};

use smalti_models::folder::{ImageFolder, Split, Tree};
use smalti_models::image::{self, Limits};
use smalti_models::{Image, Preprocess};

use crate::error::{Error, Result};
use crate::load::{Model, listed};

/// The images that a path stands for: a file itself, whatever its name; all images below a folder, sorted.
///
/// # Errors
/// A path that is not there, a folder without images ([`Error::Data`]), a folder that cannot be read ([`Error::Io`]).
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let kind = fs::metadata(path).map_err(|error| Error::data(path.display().to_string(), error))?;
    if !kind.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let tree = Tree::read(path).map_err(unreadable)?;
    let (found, notes) = (tree.images(), tree.notes());
    if found.is_empty() {
        return Err(no_images(path, &notes));
    }
    notes.iter().for_each(|note| log::warn!("{note}"));
    Ok(found)
}

/// A failure to read a folder.
fn unreadable(error: smalti_models::Error) -> Error {
    match error {
        smalti_models::Error::Read { path, source } => Error::io("list", &path)(source),
        smalti_models::Error::Folder { path, problem } => Error::data(path.display().to_string(), problem),
        other => Error::data("folder", other),
    }
}

fn no_images(folder: &Path, notes: &[String]) -> Error {
    let problem = "no .jpg, .png, .webp or .bmp files in this folder: name one with images".to_owned();
    let problems: Vec<String> = std::iter::once(problem).chain(notes.iter().cloned()).collect();
    Error::data(folder.display().to_string(), problems.join("; "))
}

/// Reads and decodes one image; any failure names the file.
pub fn open(path: impl AsRef<Path>) -> Result<Image> {
    open_at(path.as_ref(), None)
}

/// As [`open`], for a model: of a JPEG that is much larger than what the model sees a smaller picture is decoded
/// ([`image::decode_for`]). `smalti` and `smalti-run` read images so.
pub fn open_for(path: impl AsRef<Path>, model: &Model) -> Result<Image> {
    open_at(path.as_ref(), model.preprocess().map(Preprocess::side))
}

fn open_at(path: &Path, side: Option<usize>) -> Result<Image> {
    image::open_for(path, &Limits::default(), side).map_err(|error| {
        let (place, problem) = (path.display().to_string(), error.to_string());
        // Some messages name the file already.
        let problem =
            problem.strip_prefix(&place).map_or(problem.as_str(), |rest| rest.trim_start_matches([':', ' ']));
        Error::data(place.clone(), problem)
    })
}

/// Decodes an image in memory.
pub fn decode(place: &str, bytes: &[u8]) -> Result<Image> {
    image::decode(bytes, &Limits::default()).map_err(|error| Error::data(place, error))
}

/// As [`decode`], for a model; see [`open_for`].
pub fn decode_for(place: &str, bytes: &[u8], model: &Model) -> Result<Image> {
    let side = model.preprocess().map(Preprocess::side);
    image::decode_for(bytes, &Limits::default(), side).map_err(|error| Error::data(place, error))
}

/// A folder of images to measure on or to calibrate with, as the trainer reads it: with or without splits and classes.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
    set: ImageFolder,
}

/// Images with their classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Each image with the place of its class among the model's labels.
    pub images: Vec<(PathBuf, usize)>,
    /// The split that they are; none of a folder without splits.
    pub split: Option<Split>,
}

impl DataFolder {
    /// Reads a folder for a model with these labels; folders that are called like labels are classes and no splits.
    ///
    /// # Errors
    /// A folder without images or with splits that cannot be told apart ([`Error::Data`]); one that cannot be read
    /// ([`Error::Io`]).
    pub fn read(path: &Path, labels: &[String]) -> Result<DataFolder> {
        let tree = Tree::read(path).map_err(unreadable)?;
        let set = ImageFolder::arrange(&tree, labels).map_err(unreadable)?;
        if set.images.is_empty() {
            return Err(no_images(path, &set.notes));
        }
        set.notes.iter().for_each(|note| log::warn!("{note}"));
        Ok(DataFolder { path: path.into(), set })
    }

    /// The labelled images of the held-out split: test, else val, the first that has labels; every labelled image of a
    /// folder without splits.
    ///
    /// Class folders are matched to labels by name; where no name matches but there are as many classes as labels, by
    /// order.
    ///
    /// # Errors
    /// No class folders to measure on, or a class that the model does not know.
    pub fn labelled(&self, labels: &[String]) -> Result<Labelled> {
        let split = self.held_out(true);
        let classes = self.classes(labels);
        let (mut images, mut unlabelled) = (Vec::new(), 0);
        for image in self.set.of_split(split.unwrap_or(Split::All)) {
            let Some(class) = image.class.map(|class| class as usize) else {
                unlabelled += 1;
                continue;
            };
            match classes.get(class) {
                Some(Some(label)) => images.push((image.path.clone(), *label)),
                _ => {
                    let name = self.set.classes.get(class).map_or("?", String::as_str);
                    return Err(Error::data(self.path.display().to_string(), unknown(name, labels)));
                }
            }
        }
        let place = split.map_or(String::new(), |split| format!(" of the {split} split"));
        if images.is_empty() {
            let problem =
                format!("no class folders in this folder: none of {unlabelled} images{place} has a label");
            return Err(Error::data(self.path.display().to_string(), problem));
        }
        if unlabelled > 0 {
            log::warn!("{}: {unlabelled} images{place} have no label and are left out", self.path.display());
        }
        Ok(Labelled { images, split })
    }

    /// The images to measure on: those of the held-out split, with or without labels; all of a folder without splits.
    pub fn measuring(&self) -> Vec<PathBuf> {
        self.paths(self.held_out(false).unwrap_or(Split::All))
    }

    /// The images to calibrate with: those of the train split, which is not measured on; all of a folder without splits.
    pub fn calibration(&self) -> Vec<PathBuf> {
        let has_train = self.set.splits().contains(&Split::Train);
        self.paths(if has_train { Split::Train } else { Split::All })
    }

    fn paths(&self, split: Split) -> Vec<PathBuf> {
        self.set.of_split(split).map(|image| image.path.clone()).collect()
    }

    /// The split to measure on: test, else val, else what there is.
    fn held_out(&self, needs_labels: bool) -> Option<Split> {
        if !self.set.has_splits {
            return None;
        }
        let is_usable =
            |split: &Split| self.set.of_split(*split).any(|image| !needs_labels || image.class.is_some());
        let best = [Split::Test, Split::Val].into_iter().find(is_usable);
        best.or_else(|| self.set.splits().last().copied())
    }

    /// For each class of the folder its place among the labels.
    fn classes(&self, labels: &[String]) -> Vec<Option<usize>> {
        let place = |class: &String| labels.iter().position(|label| label == class);
        let places: Vec<Option<usize>> = self.set.classes.iter().map(place).collect();
        let none_match = places.iter().all(Option::is_none);
        if none_match && places.len() == labels.len() {
            (0..labels.len()).map(Some).collect()
        } else {
            places
        }
    }
}

/// [`DataFolder::read`], then [`DataFolder::labelled`].
///
/// # Errors
/// See there.
pub fn labelled(folder: &Path, labels: &[String]) -> Result<Labelled> {
    DataFolder::read(folder, labels)?.labelled(labels)
}

/// The message for a class whose name the model does not know.
fn unknown(class: &str, labels: &[String]) -> String {
    format!("the class folder `{class}` is none of the model's labels ({})", listed(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        root
    }

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn classes(root: &Path, names: &[&str]) -> Vec<usize> {
        labelled(root, &labels(names)).unwrap().images.iter().map(|(_, class)| *class).collect()
    }

    #[test]
    fn folders_are_listed_deep_sorted_and_without_other_files() {
        let root =
            tree(&["b/2.PNG", "b/1.jpg", "a.webp", "notes.txt", ".hidden.png", "@eaDir/1.jpg", "c/x.heic"]);
        let found = list(root.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|p| p.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.webp", "b/1.jpg", "b/2.PNG"]);
        assert_eq!(list(&root.path().join("notes.txt")).unwrap().len(), 1);
        assert_eq!(list(&root.path().join("missing")).unwrap_err().exit_code(), 5);
        let error = list(&root.path().join("c")).unwrap_err();
        assert!(error.exit_code() == 5 && error.to_string().contains("1 HEIC file is left out"), "{error}");
    }

    #[test]
    fn class_folders_match_by_name_then_by_order() {
        let root = tree(&["cat/1.png", "ant/1.png"]);
        assert_eq!(classes(root.path(), &["cat", "dog", "ant"]), [2, 0]);
        assert_eq!(classes(root.path(), &["0", "1"]), [0, 1]);
        let error = labelled(root.path(), &labels(&["cat", "dog"])).unwrap_err();
        assert!(error.to_string().contains("ant"), "{error}");
        assert_eq!(labelled(root.path(), &labels(&["x", "y", "z"])).unwrap_err().exit_code(), 5);
    }

    #[test]
    fn the_held_out_split_is_measured_on() {
        for [train, test] in
            [["train", "test"], ["Train", "valid"], ["seg_train", "seg_test"], ["training", "dev"]]
        {
            let at = |split: &str, rest: &str| format!("{split}/{rest}");
            let files =
                [at(train, "cat/1.png"), at(test, "cat/1.png"), at(test, "cat/2.png"), at(test, "ant/1.png")];
            let root = tree(&files.each_ref().map(String::as_str));
            let names = labels(&["cat", "ant"]);
            // `ant` is no class of the train split.
            let found = labelled(root.path(), &names).unwrap();
            assert_eq!(found.images.iter().map(|(_, class)| *class).collect::<Vec<_>>(), [0, 0], "{test}");
            assert!(matches!(found.split, Some(Split::Test | Split::Val)));
            let data = DataFolder::read(root.path(), &names).unwrap();
            assert_eq!((data.calibration().len(), data.measuring().len()), (1, 3));
        }
        let root = tree(&["train/a/1.png", "val/a/1.png", "test/a/1.png", "test/b/1.png", "train/b/1.png"]);
        assert_eq!(labelled(root.path(), &labels(&["a", "b"])).unwrap().split, Some(Split::Test));
        assert_eq!(classes(root.path(), &["b", "a"]), [1, 0]);
        // Without splits everything is measured on.
        let root = tree(&["a/1.png", "b/1.png", "loose.png"]);
        assert_eq!(labelled(root.path(), &labels(&["a", "b"])).unwrap().split, None);
        assert_eq!(classes(root.path(), &["a", "b"]), [0, 1]);
        let root = tree(&["train/a/1.png"]);
        assert_eq!(labelled(root.path(), &labels(&["a", "b"])).unwrap().split, Some(Split::Train));
    }

    #[test]
    fn a_split_without_labels_is_passed_over() {
        let root = tree(&["train/a/1.png", "test/1.png", "val/a/1.png"]);
        assert_eq!(labelled(root.path(), &labels(&["a"])).unwrap().split, Some(Split::Val));
        let root = tree(&["train/a/1.png", "test/1.png"]);
        let error = labelled(root.path(), &labels(&["a"])).unwrap_err();
        assert!(error.exit_code() == 5 && error.to_string().contains("test"), "{error}");
        assert_eq!(DataFolder::read(root.path(), &[]).unwrap().measuring().len(), 1);
    }

    #[test]
    fn labels_may_be_called_like_splits() {
        let root = tree(&["train/1.png", "test/1.png"]);
        assert_eq!(classes(root.path(), &["bus", "test", "train"]), [1, 2]);
    }
}
