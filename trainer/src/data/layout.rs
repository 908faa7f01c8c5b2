//! What kind of data set a path holds, told by file names alone.

use std::path::{Path, PathBuf};

use super::{Split, cifar, folder, idx, table, tar};
use crate::error::{Error, Result};

/// A kind of data set, with the files of each part.
pub(crate) enum Layout {
    /// Class folders or loose images.
    Folder(Vec<(Split, PathBuf)>),
    /// CIFAR-10's binary batches in this folder.
    Cifar(PathBuf),
    /// MNIST-style IDX files.
    Idx(Vec<idx::Pair>),
    /// A CSV table.
    Table(PathBuf),
    /// Tar shards.
    Tar(Vec<(Split, PathBuf)>),
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
        if table::is_table(path) {
            return Ok(Layout::Table(path.to_path_buf()));
        }
        if tar::is_shard(path) {
            return Ok(Layout::Tar(vec![(tar::split_of_shard(path), path.to_path_buf())]));
        }
        Err(Error::data(
            path.display().to_string(),
            "not a data set; expected a folder of images, a .csv table `path,label`, a .tar shard, or an IDX file",
        ))
    }

    fn detect_folder(path: &Path) -> Result<Layout> {
        let entries = folder::list(path)?;
        let files = || entries.iter().filter(|e| !e.is_dir);
        if files().any(|e| cifar::is_batch(&e.name)) {
            return Ok(Layout::Cifar(path.to_path_buf()));
        }
        // The archive unpacks into a folder of its own.
        if let Some(inner) = entries.iter().find(|e| e.is_dir && e.name == cifar::FOLDER)
            && folder::list(&inner.path)?.iter().any(|e| cifar::is_batch(&e.name))
        {
            return Ok(Layout::Cifar(inner.path.clone()));
        }
        let pairs: Vec<idx::Pair> = files().filter_map(|e| idx::Pair::of_images(&e.path)).collect();
        if !pairs.is_empty() {
            return Ok(Layout::Idx(pairs));
        }
        let parts = folder::parts(path, &entries);
        let mut shards: Vec<(Split, PathBuf)> = files()
            .filter(|e| tar::is_shard(&e.path))
            .map(|e| (tar::split_of_shard(&e.path), e.path.clone()))
            .collect();
        for (split, folder) in parts.iter().filter(|(_, folder)| folder != path) {
            let inside = folder::list(folder)?.into_iter().filter(|e| !e.is_dir && tar::is_shard(&e.path));
            shards.extend(inside.map(|e| (*split, e.path)));
        }
        Ok(if shards.is_empty() { Layout::Folder(parts) } else { Layout::Tar(shards) })
    }

    /// The parts that can be opened.
    pub(crate) fn parts(&self) -> Result<Vec<Split>> {
        let mut parts: Vec<Split> = match self {
            Layout::Folder(parts) | Layout::Tar(parts) => parts.iter().map(|(split, _)| *split).collect(),
            Layout::Cifar(folder) => cifar::parts(folder),
            Layout::Idx(pairs) => pairs.iter().map(|p| p.split).collect(),
            Layout::Table(path) => table::parts(path)?,
        };
        parts.sort_unstable();
        parts.dedup();
        Ok(parts)
    }

    /// The kind's name, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Layout::Folder(_) => "image folders",
            Layout::Cifar(_) => "CIFAR-10 batches",
            Layout::Idx(_) => "IDX files",
            Layout::Table(_) => "lines of a CSV table",
            Layout::Tar(_) => "tar shards",
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
