//! What kind of data set a path holds, told by the names of files.

use std::path::{Path, PathBuf};

use smalti_models::folder::{ImageFolder, Split, Tree};

use super::table::{self, Table};
use super::{cifar, idx, tar};
use crate::error::{Error, Result};

/// A kind of data set, with the files of each split.
pub(crate) enum Layout {
    /// Class folders or loose images.
    Folder(ImageFolder),
    /// CIFAR-10's binary batches in this folder.
    Cifar(PathBuf),
    /// MNIST-style IDX files.
    Idx(Vec<idx::Pair>),
    /// A CSV table.
    Table(Table),
    /// Tar shards.
    Tar(tar::Index),
}

impl Layout {
    /// Looks at `path`, which must exist.
    pub(crate) fn detect(path: &Path) -> Result<Layout> {
        let meta = std::fs::metadata(path).map_err(Error::file("read", path))?;
        if meta.is_dir() { Layout::detect_folder(path) } else { Layout::detect_file(path) }
    }

    /// Whether a path that is no folder is called like a data set.
    pub(crate) fn is_file_name(path: &Path) -> bool {
        table::is_table(path) || tar::is_shard(path) || idx::Pair::of_images(path).is_some()
    }

    fn detect_file(path: &Path) -> Result<Layout> {
        if let Some(pair) = idx::Pair::of_images(path) {
            return Ok(Layout::Idx(vec![pair]));
        }
        if table::is_table(path) {
            return Ok(Layout::Table(Table::read(path)?));
        }
        if tar::is_shard(path) {
            return Ok(Layout::Tar(tar::Index::read(path, vec![path.to_path_buf()])?));
        }
        Err(Error::data(
            path.display().to_string(),
            "not a data set; expected a folder of images, a .csv table `path,label`, a .tar shard, or an IDX file",
        ))
    }

    fn detect_folder(path: &Path) -> Result<Layout> {
        let tree = Tree::read(path).map_err(of_folder)?;
        let name = |file: &Path| file.file_name().unwrap_or_default().to_owned();
        let batches = tree.others(|file| cifar::is_batch(&name(file)));
        // The archive unpacks into a folder of its own.
        let is_place = |folder: &&Path| *folder == path || folder.ends_with(cifar::FOLDER);
        if let Some(folder) = batches.iter().filter_map(|file| file.parent()).find(is_place) {
            return Ok(Layout::Cifar(folder.into()));
        }
        let files = tree.others(|file| file.parent() == Some(path));
        let pairs: Vec<idx::Pair> = files.iter().filter_map(|file| idx::Pair::of_images(file)).collect();
        if !pairs.is_empty() {
            return Ok(Layout::Idx(pairs));
        }
        let folder = ImageFolder::arrange(&tree, &[]).map_err(of_folder)?;
        let shards = tree.others(tar::is_shard);
        if !folder.images.is_empty() || shards.is_empty() {
            return Layout::folder(path, folder, &tree);
        }
        Ok(Layout::Tar(tar::Index::read(path, shards)?))
    }

    /// A folder of images, unless there are none.
    fn folder(path: &Path, mut folder: ImageFolder, tree: &Tree) -> Result<Layout> {
        if folder.images.is_empty() {
            let problem = "no images (.jpg .jpeg .png .webp .bmp); expected a folder for each class, loose images \
                           (unlabelled), or train/ val/ test/ with either";
            let problem =
                std::iter::once(problem.to_owned()).chain(folder.notes).collect::<Vec<_>>().join("; ");
            return Err(Error::data(path.display().to_string(), problem));
        }
        let tables = tree.others(table::is_table);
        if let (true, Some(table)) = (folder.classes.is_empty(), tables.first()) {
            let table = table.display();
            folder.notes.push(format!(
                "there are no class folders; if {table} says the labels, name it in place of the folder"
            ));
        }
        Ok(Layout::Folder(folder))
    }

    /// The splits that can be opened, in order.
    pub(crate) fn splits(&self) -> Vec<Split> {
        let mut splits = match self {
            Layout::Folder(folder) => folder.splits(),
            Layout::Cifar(folder) => cifar::splits(folder),
            Layout::Idx(pairs) => pairs.iter().map(|pair| pair.split).collect(),
            Layout::Table(table) => table.splits(),
            Layout::Tar(index) => index.splits(),
        };
        splits.sort_unstable();
        splits.dedup();
        splits
    }

    /// What was left out or may be meant otherwise, each in one sentence.
    pub(crate) fn notes(&self) -> &[String] {
        match self {
            Layout::Folder(folder) => &folder.notes,
            Layout::Table(table) => &table.notes,
            Layout::Tar(index) => &index.notes,
            Layout::Cifar(_) | Layout::Idx(_) => &[],
        }
    }

    /// The kind's name, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Layout::Folder(_) => "image folders",
            Layout::Cifar(_) => "CIFAR-10 batches",
            Layout::Idx(_) => "IDX files",
            Layout::Table(_) => "rows of a CSV table",
            Layout::Tar(_) => "tar shards",
        }
    }
}

/// A failure of the reader of folders.
fn of_folder(error: smalti_models::Error) -> Error {
    match error {
        smalti_models::Error::Read { path, source } => Error::file("read", path)(source),
        smalti_models::Error::Folder { path, problem } => Error::data(path.display().to_string(), problem),
        other => other.into(),
    }
}
