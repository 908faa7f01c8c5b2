//! What kind of data set a path holds, told by file names alone.

use std::path::{Path, PathBuf};

use super::{Split, cifar, folder, idx};
use crate::error::{Error, Result};

/// A kind of data set, with the files of each part.
pub(crate) enum Layout {
    /// Class folders or loose pictures.
    Folder(Vec<(Split, PathBuf)>),
    /// CIFAR-10's binary batches in this folder.
    Cifar(PathBuf),
    /// MNIST-style IDX files.
    Idx(Vec<idx::Pair>),
}

impl Layout {
    /// Looks at `path`, which must exist.
    pub(crate) fn detect(path: &Path) -> Result<Layout> {
        let meta = std::fs::metadata(path).map_err(Error::file("read", path))?;
        if meta.is_dir() { Layout::detect_folder(path) } else { Layout::detect_file(path) }
    }

    fn detect_file(path: &Path) -> Result<Layout> {
        if let Some(pair) = idx::Pair::of_images(path) {
            return Ok(Layout::Idx(vec![pair]));
        }
        Err(Error::data(
            path.display().to_string(),
            "not a data set; expected a folder of pictures, a .csv table `path,label`, a .tar shard, or an IDX file",
        ))
    }

    fn detect_folder(path: &Path) -> Result<Layout> {
        let entries = folder::list(path)?;
        let files = || entries.iter().filter(|e| !e.is_dir);
        if files().any(|e| cifar::is_batch(&e.name)) {
            return Ok(Layout::Cifar(path.to_path_buf()));
        }
        // The archive unpacks into a folder of its own.
        if let Some(inner) = entries.iter().find(|e| e.is_dir && e.name == cifar::FOLDER) {
            if folder::list(&inner.path)?.iter().any(|e| cifar::is_batch(&e.name)) {
                return Ok(Layout::Cifar(inner.path.clone()));
            }
        }
        let pairs: Vec<idx::Pair> = files().filter_map(|e| idx::Pair::of_images(&e.path)).collect();
        if !pairs.is_empty() {
            return Ok(Layout::Idx(pairs));
        }
        Ok(Layout::Folder(folder::parts(path, &entries)))
    }

    /// The parts that can be opened.
    pub(crate) fn parts(&self) -> Vec<Split> {
        let mut parts = match self {
            Layout::Folder(parts) => parts.iter().map(|(split, _)| *split).collect(),
            Layout::Cifar(folder) => cifar::parts(folder),
            Layout::Idx(pairs) => pairs.iter().map(|p| p.split).collect(),
        };
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// The kind's name, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Layout::Folder(_) => "picture folders",
            Layout::Cifar(_) => "CIFAR-10 batches",
            Layout::Idx(_) => "IDX files",
        }
    }
}

/// The class names in a `labels.txt` or `classes.txt` of this folder, one a line.
pub(crate) fn names_file(folder: &Path) -> Result<Option<Vec<String>>> {
    for name in ["labels.txt", "classes.txt"] {
        let path = folder.join(name);
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            return Ok(Some(lines.take(super::MAX_CLASSES + 1).map(str::to_owned).collect()));
        }
    }
    Ok(None)
}
