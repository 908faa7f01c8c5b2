//! The splits of the data set at a path.

use std::collections::BTreeSet;
use std::mem;
use std::path::{Path, PathBuf};

use smalti_models::folder::{Split, Tree};

use super::dataset::Dataset;
use super::layout::Layout;
use super::listing::Listing;
use super::{cifar, folder, idx, table, tar};
use crate::error::{Error, Result};

/// A data set whose splits can be opened.
pub struct Splits {
    path: PathBuf,
    images: Images,
    present: Vec<Split>,
    notes: Vec<String>,
}

/// The images of all splits.
enum Images {
    /// Listed, each with its split.
    Listed(Dataset, Vec<Split>),
    /// Read into memory when a split is opened: CIFAR-10's batches in this folder.
    Cifar(PathBuf),
    /// IDX files, read likewise.
    Idx(Vec<idx::Pair>),
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
        let (images, present, notes) = match Layout::detect(path)? {
            Layout::Folder(tree) => {
                let mut listing = folder::read(path, &tree)?;
                listing.notes.extend(note_table(&listing, &tree));
                listed(listing)?
            }
            Layout::Table(path) => listed(table::read(&path, None)?)?,
            Layout::Tar(shards) => listed(tar::read(path, shards)?)?,
            Layout::Cifar(folder) => {
                let present = cifar::splits(&folder);
                (Images::Cifar(folder), present, Vec::new())
            }
            Layout::Idx(pairs) => {
                let present = distinct(pairs.iter().map(|pair| pair.split));
                (Images::Idx(pairs), present, Vec::new())
            }
        };
        Ok(Splits { path: path.into(), images, present, notes })
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
        &self.notes
    }

    /// The images of a split. The classes are the same in every split: those of the train split if it has any.
    ///
    /// # Errors
    /// A split that there is not; damaged files.
    pub fn dataset(&self, split: Split) -> Result<Dataset> {
        if split != Split::All && !self.has(split) {
            let (kind, present) = (self.kind(), &self.present);
            let names = present.iter().map(Split::to_string).collect::<Vec<_>>().join(", ");
            let problem = format!("there is no `{split}` split in this data set ({kind}), only {names}");
            return Err(Error::data(self.path.display().to_string(), problem));
        }
        match &self.images {
            Images::Listed(all, splits) => {
                let is_wanted = |i: &usize| split == Split::All || splits.get(*i) == Some(&split);
                Ok(all.select(&(0..all.len()).filter(is_wanted).collect::<Vec<_>>()))
            }
            Images::Cifar(folder) => Dataset::from_listing(cifar::read(folder, split)?),
            Images::Idx(pairs) => Dataset::from_listing(idx::read(&self.path, pairs, split)?),
        }
    }

    fn kind(&self) -> &'static str {
        match &self.images {
            Images::Listed(all, _) => all.kind(),
            Images::Cifar(_) => "CIFAR-10 batches",
            Images::Idx(_) => "IDX files",
        }
    }
}

/// Images that a reader listed, the splits among them, and its notes.
fn listed(mut listing: Listing) -> Result<(Images, Vec<Split>, Vec<String>)> {
    let (splits, notes) = (mem::take(&mut listing.splits), mem::take(&mut listing.notes));
    let present = distinct(splits.iter().copied());
    Ok((Images::Listed(Dataset::from_listing(listing)?, splits), present, notes))
}

/// A sentence about a table that may hold the labels of a folder without any.
fn note_table(listing: &Listing, tree: &Tree) -> Option<String> {
    if !listing.classes.is_empty() {
        return None;
    }
    let tables = tree.others(table::is_table);
    let table = tables.first()?.display();
    Some(format!("there are no class folders; if {table} holds the labels, name it in place of the folder"))
}

/// Each split once, in order.
fn distinct(splits: impl Iterator<Item = Split>) -> Vec<Split> {
    splits.collect::<BTreeSet<Split>>().into_iter().collect()
}

impl Dataset {
    /// Opens one split of the data set at `path`: [`Splits::open`], then [`Splits::dataset`].
    ///
    /// # Errors
    /// See there.
    pub fn open(path: &Path, split: Split) -> Result<Dataset> {
        Splits::open(path)?.dataset(split)
    }

    /// The images of a CSV table whose paths begin in `folder`, for a table that lies elsewhere.
    ///
    /// # Errors
    /// As [`Splits::open`].
    pub fn from_table(table: &Path, folder: &Path) -> Result<Dataset> {
        let listing = table::read(table, Some(folder))?;
        listing.notes.iter().for_each(|note| log::warn!("{note}"));
        Dataset::from_listing(listing)
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
        path.is_dir() || (path.is_file() && Layout::of_file(path).is_some())
    }
}
