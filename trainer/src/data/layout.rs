//! What kind of data set a path holds, told by the names of files.

use std::path::{Path, PathBuf};

use smalti_models::folder::Tree;

use super::{cifar, folder, idx, table, tar};
use crate::error::{Error, Result};

/// Extensions of archives that are not read.
const ARCHIVES: [&str; 6] = ["zip", "7z", "rar", "gz", "tgz", "xz"];

/// A kind of data set, with its files.
pub(crate) enum Layout {
    /// Class folders or loose images.
    Folder(Box<Tree>),
    /// CIFAR-10's binary batches in this folder.
    Cifar(PathBuf),
    /// MNIST-style IDX files.
    Idx(Vec<idx::Pair>),
    /// A CSV table.
    Table(PathBuf),
    /// Tar shards.
    Tar(Vec<PathBuf>),
}

impl Layout {
    /// Looks at `path`.
    ///
    /// # Errors
    /// A path that is not there or cannot be read; a file that is no data set.
    pub(crate) fn detect(path: &Path) -> Result<Layout> {
        let meta = std::fs::metadata(path).map_err(Error::file("read", path))?;
        if meta.is_dir() {
            return Ok(Layout::of_tree(path, Tree::read(path).map_err(folder::unreadable)?));
        }
        Layout::of_file(path).ok_or_else(|| {
            let problem = "not a data set; expected a folder of images, a .csv table `path,label`, a .tar shard, or \
                           an IDX file";
            let packed = path.extension().is_some_and(|of| ARCHIVES.iter().any(|name| of.eq_ignore_ascii_case(name)));
            let advice = if packed { "; unpack the archive, and name its folder" } else { "" };
            Error::data(path.display().to_string(), format!("{problem}{advice}"))
        })
    }

    /// The kind that a file has by its name.
    pub(crate) fn of_file(path: &Path) -> Option<Layout> {
        if table::is_table(path) {
            return Some(Layout::Table(path.into()));
        }
        if tar::is_shard(path) {
            return Some(Layout::Tar(vec![path.into()]));
        }
        idx::Pair::of_images(path).map(|pair| Layout::Idx(vec![pair]))
    }

    fn of_tree(path: &Path, tree: Tree) -> Layout {
        let batches = tree.others(|file| file.file_name().is_some_and(cifar::is_batch));
        // The archive unpacks into a folder of its own.
        let is_place = |folder: &&Path| *folder == path || folder.ends_with(cifar::FOLDER);
        if let Some(folder) = batches.iter().filter_map(|file| file.parent()).find(is_place) {
            return Layout::Cifar(folder.into());
        }
        let files = tree.others(|file| file.parent() == Some(path));
        let pairs: Vec<idx::Pair> = files.iter().filter_map(|file| idx::Pair::of_images(file)).collect();
        if !pairs.is_empty() {
            return Layout::Idx(pairs);
        }
        let shards = tree.others(tar::is_shard);
        if shards.is_empty() || tree.has_images() {
            Layout::Folder(Box::new(tree))
        } else {
            Layout::Tar(shards)
        }
    }
}
