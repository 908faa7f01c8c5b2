//! Weights from files: safetensors under the names of timm or of Hugging Face, read strictly.
//!
//! [`Weights::open`] reads a file, translates its names to timm's, which are ours, and gives what stands in front of the
//! patches one form (`prefix.rs`). [`Weights::sizes`] reads the
//! encoder's sizes off the shapes. [`Weights::load`] copies the tensors into a model's parameters. Every tensor of the
//! file is used, or left out for a reason that the report [`Loaded`] states, or refused by name. Every tensor of the
//! model is found, or allowed to start fresh, or refused by name. So a file of another network never loads as ours.
//!
//! What a file does not say about its network, a [`Beside`] `config.json` may.
//!
//! All errors about a file are [`Error::Checkpoint`], exit code 5.

mod beside;
pub mod file;
mod foreign;
mod load;
mod names;
pub mod positions;
mod prefix;
mod report;
mod rules;
mod sizes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use beside::Beside;
pub use file::{Tensor, Tensors, save, save_model};
pub use report::{LeftOut, Loaded};
pub use rules::Take;
pub use sizes::Sizes;

use crate::error::{Error, Result};
use file::unusable;
use names::{Dialect, Name, Part};
use positions::Filter;

/// The tensors of a file, by timm's names.
#[derive(Clone, Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: Tensors,
    entries: BTreeMap<String, Entry>,
    dialect: Dialect,
    filter: Filter,
    prefix: String,
    details: Value,
}

/// Where a tensor of timm's comes from.
#[derive(Clone, Debug)]
struct Entry {
    part: Part,
    source: Source,
}

/// The file's names for a tensor of timm's.
#[derive(Clone, Debug)]
enum Source {
    /// One tensor.
    Whole(String),
    /// Pieces that we have joined, such as query, key and value, as far as the file has them.
    Pieces(Vec<Option<String>>),
}

impl Source {
    fn names(&self) -> Vec<&str> {
        match self {
            Source::Whole(name) => vec![name],
            Source::Pieces(pieces) => pieces.iter().flatten().map(String::as_str).collect(),
        }
    }
}

impl Weights {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// As [`file::load`], and as [`Weights::new`].
    pub fn open(path: &Path) -> Result<Weights> {
        let (tensors, details) = file::load(path)?;
        Weights::new(path, tensors, details)
    }

    /// Translates the tensors of the file at `path`; `details` is its metadata.
    ///
    /// # Errors
    /// Names of another network, parts of two networks, two tensors that are the same one.
    pub fn new(path: &Path, mut tensors: Tensors, details: Value) -> Result<Weights> {
        let (mut understood, mut unknown) = (Vec::new(), Vec::new());
        for name in tensors.keys() {
            match names::translate(name) {
                Some(found) => understood.push((name.as_str(), found)),
                None => unknown.push(name.as_str()),
            }
        }
        let encoder: Vec<&(&str, Name<'_>)> =
            understood.iter().filter(|(_, name)| matches!(name.part, Part::Encoder | Part::Norm)).collect();
        let Some((first, of_first)) = encoder.first() else {
            let all: Vec<&str> = tensors.keys().map(String::as_str).collect();
            return Err(foreign::refuse_all(path, &all));
        };
        if !unknown.is_empty() {
            return Err(foreign::refuse(path, &unknown));
        }
        for (name, of_name) in &encoder {
            if (of_name.prefix, of_name.dialect) != (of_first.prefix, of_first.dialect) {
                let problem = format!(
                    "holds parts of two networks, `{first}` and `{name}`: expected one encoder under one prefix"
                );
                return Err(unusable(path, problem));
            }
        }
        if let Some((name, tensor)) = tensors.iter().find(|(_, tensor)| !tensor.is_whole()) {
            let problem =
                format!("tensor `{name}` is {:?}, but has {} values", tensor.shape, tensor.values.len());
            return Err(unusable(path, problem));
        }
        let (dialect, prefix) = (of_first.dialect, of_first.prefix.to_string());
        let mut entries = entries(path, understood)?;
        // As the program that saved the file would do it: Hugging Face smooths positions where there are registers alone.
        let is_smooth = dialect == Dialect::Timm || entries.contains_key("reg_token");
        let filter = if is_smooth { Filter::Antialiased } else { Filter::Interpolated };
        prefix::unify(dialect, &mut tensors, &mut entries);
        Ok(Weights { path: path.into(), tensors, entries, dialect, filter, prefix, details })
    }

    /// A tensor, by timm's name, that a plain vision transformer has not: of LayerScale, registers, a distillation token or
    /// norms of queries and keys.
    pub fn beyond_plain(&self) -> Option<&str> {
        const PARTS: [&str; 7] =
            [".ls1.", ".ls2.", "reg_token", "dist_token", ".q_norm.", ".k_norm.", ".fc1_g."];
        let is_beyond = |name: &&str| PARTS.iter().any(|part| name.contains(part));
        self.entries.keys().map(String::as_str).find(is_beyond)
    }

    /// Our metadata, null in files of others.
    pub fn details(&self) -> &Value {
        &self.details
    }

    /// The error that something is wrong with this file.
    fn unusable(&self, problem: impl Into<String>) -> Error {
        unusable(&self.path, problem)
    }

    /// Whether the file's names are Hugging Face's, not timm's.
    pub fn is_of_hugging_face(&self) -> bool {
        self.dialect == Dialect::HuggingFace
    }

    /// What the file would call a tensor of timm's that it lacks, or one piece of it.
    fn missing_name(&self, timm: &str, piece: Option<usize>) -> String {
        let prefix = &self.prefix;
        let theirs = names::to_hugging_face(timm, piece).filter(|_| self.dialect == Dialect::HuggingFace);
        match theirs {
            // Wrappers of an encoder do not hold the head.
            Some(theirs) if theirs.starts_with("classifier.") => format!("`{theirs}` (in timm `{timm}`)"),
            Some(theirs) => format!("`{prefix}{theirs}` (in timm `{timm}`)"),
            None => format!("`{prefix}{timm}`"),
        }
    }
}

/// Sorts the file's names by timm's.
fn entries(path: &Path, understood: Vec<(&str, Name<'_>)>) -> Result<BTreeMap<String, Entry>> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for (theirs, Name { part, timm, piece, .. }) in understood {
        let other = match (entries.get_mut(&timm).map(|entry| &mut entry.source), piece) {
            (None, None) => {
                entries.insert(timm, Entry { part, source: Source::Whole(theirs.into()) });
                continue;
            }
            (None, Some(piece)) => {
                let mut pieces = vec![None; names::pieces(&timm)];
                pieces[piece] = Some(theirs.into());
                entries.insert(timm, Entry { part, source: Source::Pieces(pieces) });
                continue;
            }
            (Some(Source::Pieces(pieces)), Some(piece)) => match pieces[piece].replace(theirs.into()) {
                None => continue,
                Some(other) => other,
            },
            (Some(source), _) => source.names().first().copied().unwrap_or_default().to_string(),
        };
        let problem = format!("`{other}` and `{theirs}` are the same tensor, `{timm}`: expected one of them");
        return Err(unusable(path, problem));
    }
    Ok(entries)
}
