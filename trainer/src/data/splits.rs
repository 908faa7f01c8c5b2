//! The splits of the data set at a path.

use std::path::{Path, PathBuf};

use smalti_models::folder::Split;

use super::dataset::Dataset;
use super::layout::Layout;
use super::{cifar, folder, idx};
use crate::error::{Error, Result};

/// A data set, looked at and not yet opened. Of folders, tables and shards the list of images is read once, for all
/// splits.
pub struct Splits {
    path: PathBuf,
    layout: Layout,
    present: Vec<Split>,
}

impl Splits {
    /// Looks at the data set at `path`, whatever its kind, and logs what was left out or may be meant otherwise: a folder
    /// of class folders or of loose images, with or without splits; a CSV table; a folder of IDX files, of CIFAR-10's
    /// binary batches, or of tar shards; one shard.
    ///
    /// # Errors
    /// What is not there or is no data set.
    pub fn open(path: &Path) -> Result<Splits> {
        let splits = Splits::read(path)?;
        splits.notes().iter().for_each(|note| log::warn!("{note}"));
        Ok(splits)
    }

    /// [`Splits::open`] without the log.
    ///
    /// # Errors
    /// See [`Splits::open`].
    pub fn read(path: &Path) -> Result<Splits> {
        let layout = Layout::detect(path)?;
        let present = layout.splits();
        Ok(Splits { path: path.into(), layout, present })
    }

    /// Where the data set lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The splits that there are, in order.
    pub fn present(&self) -> &[Split] {
        &self.present
    }

    /// Whether there is this split.
    pub fn has(&self, split: Split) -> bool {
        self.present.contains(&split)
    }

    /// What was left out or may be meant otherwise, each in one sentence.
    pub fn notes(&self) -> &[String] {
        self.layout.notes()
    }

    /// The images of a split. The classes are the same in every split: those of the train split if it has any.
    ///
    /// # Errors
    /// A split that there is not; damaged files.
    pub fn dataset(&self, split: Split) -> Result<Dataset> {
        if split != Split::All && !self.has(split) {
            let names: Vec<String> = self.present.iter().map(Split::to_string).collect();
            let (kind, names) = (self.layout.kind(), names.join(", "));
            return Err(Error::data(
                self.path.display().to_string(),
                format!("there is no `{split}` split in these {kind}, only {names}"),
            ));
        }
        Dataset::from_listing(match &self.layout {
            Layout::Folder(found) => folder::read(&self.path, found, split),
            Layout::Cifar(folder) => cifar::read(folder, split)?,
            Layout::Idx(pairs) => idx::read(&self.path, pairs, split)?,
            Layout::Table(table) => table.of_split(split),
            Layout::Tar(index) => index.of_split(split),
        })
    }
}

impl Dataset {
    /// Opens one split of the data set at `path`: [`Splits::open`], then [`Splits::dataset`].
    ///
    /// # Errors
    /// See there.
    pub fn open(path: &Path, split: Split) -> Result<Dataset> {
        Splits::open(path)?.dataset(split)
    }

    /// The splits of the data set at `path`.
    ///
    /// # Errors
    /// See [`Splits::open`].
    pub fn splits(path: &Path) -> Result<Vec<Split>> {
        Ok(Splits::read(path)?.present)
    }

    /// Whether `path` is a folder, or a file that is called like a data set.
    pub fn is_data_set(path: &Path) -> bool {
        path.is_dir() || (path.is_file() && Layout::is_file_name(path))
    }
}
