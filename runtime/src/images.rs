//! Images on disk: which files a path stands for, and which class folders.

use std::fs;
use std::path::{Path, PathBuf};

use smalti_models::Image;
use smalti_models::image::{self, Limits};

use crate::error::{Error, Result};

/// How deep folders may be nested, which also ends loops of links.
const MAX_DEPTH: usize = 32;

/// The images that a path stands for: a file itself, whatever its name; all images below a folder, sorted.
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let kind = fs::metadata(path).map_err(|error| Error::data(path.display().to_string(), error))?;
    if !kind.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    collect(path, 0, &mut found)?;
    if found.is_empty() {
        return Err(Error::data(
            path.display().to_string(),
            "no .jpg, .png, .webp or .bmp files in this folder",
        ));
    }
    Ok(found)
}

/// Adds the images below a folder in order; hidden files are left out.
fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::data(folder.display().to_string(), format!("folders more than {MAX_DEPTH} deep")));
    }
    for path in entries(folder)? {
        if path.is_dir() {
            collect(&path, depth + 1, found)?;
        } else if image::is_image_name(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// What is in a folder, sorted by name, hidden files left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads and decodes one image; any failure names the file.
pub fn open(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    image::open(path, &Limits::default()).map_err(|error| {
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

/// The images of a folder of class folders, each with its class among `labels`.
///
/// Folders are matched to labels by name; where no name matches but there are as many folders as labels, by
/// order. A folder with `test/` or `val/` in it stands for that.
pub fn labelled(folder: &Path, labels: &[String]) -> Result<Vec<(PathBuf, usize)>> {
    let mut folders: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    for part in ["test", "val"] {
        let is_class = labels.iter().any(|label| label == part);
        if let Some(part) = folders.iter().find(|path| name(path) == part && !is_class) {
            return labelled(part, labels);
        }
    }
    if folders.is_empty() {
        return Err(Error::data(folder.display().to_string(), "no class folders in this folder"));
    }
    let class = |path: &Path| labels.iter().position(|label| *label == name(path));
    let none_match = folders.iter().all(|path| class(path).is_none());
    let by_order = none_match && folders.len() == labels.len();
    let mut found = Vec::new();
    for (i, path) in folders.drain(..).enumerate() {
        let class = match class(&path) {
            Some(class) => class,
            None if by_order => i,
            None => return Err(Error::data(path.display().to_string(), unknown(labels))),
        };
        let mut images = Vec::new();
        collect(&path, 1, &mut images)?;
        found.extend(images.into_iter().map(|image| (image, class)));
    }
    if found.is_empty() {
        return Err(Error::data(folder.display().to_string(), "no images in the class folders"));
    }
    Ok(found)
}

/// The message for a class folder whose name the model does not know.
fn unknown(labels: &[String]) -> String {
    let some: Vec<_> = labels.iter().take(8).map(|label| format!("`{label}`")).collect();
    let more = if labels.len() > some.len() { ", ..." } else { "" };
    format!("the folder's name is none of the model's labels ({}{more})", some.join(", "))
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
        labelled(root, &labels(names)).unwrap().iter().map(|(_, class)| *class).collect()
    }

    #[test]
    fn folders_are_listed_deep_sorted_and_without_other_files() {
        let root = tree(&["b/2.PNG", "b/1.jpg", "a.webp", "notes.txt", ".hidden.png"]);
        let found = list(root.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|p| p.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.webp", "b/1.jpg", "b/2.PNG"]);
        assert_eq!(list(&root.path().join("notes.txt")).unwrap().len(), 1);
        assert_eq!(list(&root.path().join("missing")).unwrap_err().exit_code(), 5);
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
    fn the_test_part_of_a_data_set_is_taken() {
        let root = tree(&["train/cat/1.png", "test/cat/1.png", "test/cat/2.png", "test/ant/1.png"]);
        assert_eq!(classes(root.path(), &["cat", "ant"]), [1, 0, 0]);
    }
}
