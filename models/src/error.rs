//! The errors of this crate: what was found, what was expected, and where.

use std::path::PathBuf;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that no model can have.
    #[error("{field} is {found}: {expected}")]
    Config {
        /// The field's name as users write it.
        field: &'static str,
        /// The value found.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// Bytes that are no image that this crate reads.
    #[error("image: {0}")]
    Image(String),
    /// An image larger than the limits allow.
    #[error("image is {width} x {height}, the limit is {limit} pixels")]
    ImageTooLarge {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// The limit on width x height.
        limit: u64,
    },
    /// A file that cannot be used; the problem is in its content.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<Error>,
    },
    /// A file that cannot be read; the problem is with the file system.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A folder of images that cannot be read as a data set.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// A preprocessing record (`preprocessor_config.json`) that this crate cannot follow exactly.
    #[error("preprocessor config `{key}`: {problem}")]
    Preprocessor {
        /// The key, with dots for nesting.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Model metadata that does not say what the contract asks for.
    #[error("model metadata `{key}`: {problem}")]
    Metadata {
        /// The metadata key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
