//! What a reader finds.

use super::source::Source;

/// The images of a data set, or of a split of it, with their labels.
pub(crate) struct Listing {
    pub(crate) source: Source,
    /// For each image its place among the classes, if it has a label.
    pub(crate) labels: Vec<Option<u32>>,
    pub(crate) classes: Vec<String>,
}
