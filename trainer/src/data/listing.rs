//! What a reader finds.

use smalti_models::folder::Split;

use super::source::Source;

/// The images of a data set with their labels and splits.
pub(crate) struct Listing {
    pub(crate) source: Source,
    /// For each image its place among the classes, if it has a label.
    pub(crate) labels: Vec<Option<u32>>,
    pub(crate) classes: Vec<String>,
    /// For each image its split.
    pub(crate) splits: Vec<Split>,
    /// What was left out or may be meant otherwise, each in one sentence.
    pub(crate) notes: Vec<String>,
}
