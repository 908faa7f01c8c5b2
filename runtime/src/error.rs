//! The errors of this crate: what was found, what was expected, where, and which exit code says so.

use std::path::{Path, PathBuf};

use crate::text::one_line;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model file outside the profile of [`crate::gate`], or a file of what was learned beside a model that is damaged
    /// or of another one.
    #[error("{what} refused: {place}: found {found}; allowed: {allowed}")]
    Refused {
        /// What kind of file: `model`, `class bank`.
        what: &'static str,
        /// The node, tensor or part of the file.
        place: String,
        /// What was found there.
        found: String,
        /// What would be right.
        allowed: String,
    },
    /// A model inside the profile that the inference engine still cannot take.
    #[error("model refused: the engine cannot {step}: {problem}")]
    Engine {
        /// What the engine was doing.
        step: &'static str,
        /// Its words.
        problem: String,
    },
    /// A model whose own record (labels, preprocessing, golden vectors) is wrong.
    #[error("model refused: {0}")]
    Record(#[from] smalti_models::Error),
    /// An image or a data folder that cannot be used.
    #[error("{place}: {problem}")]
    Data {
        /// The file or folder.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system said no.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A check that the user asked for did not hold.
    #[error("{0}")]
    GateFailed(String),
    /// A call that does not fit the model: a wrong length, a missing record.
    #[error("{0}")]
    Usage(String),
    /// A bug, caught: the engine panicked.
    #[error("internal error while trying to {step}: {problem}; please report it with the model")]
    Internal {
        /// What was being done.
        step: &'static str,
        /// The panic's message.
        problem: String,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The exit code of `smalti-run` for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Refused { .. } | Error::Engine { .. } | Error::Record(_) => 3,
            Error::GateFailed(_) => 4,
            Error::Data { .. } => 5,
            Error::Io { .. } => 6,
            Error::Internal { .. } => 70,
        }
    }

    /// A refusal of a model: where, what was found there, and what would be right. Text from files is put on one line.
    pub fn refused(place: impl Into<String>, found: impl Into<String>, allowed: impl Into<String>) -> Error {
        let [place, found] = [place.into(), found.into()].map(|text| one_line(&text));
        Error::Refused { what: "model", place, found, allowed: allowed.into() }
    }

    /// A refusal of a file of another kind than a model.
    pub(crate) fn about(self, what: &'static str) -> Error {
        match self {
            Error::Refused { place, found, allowed, .. } => Error::Refused { what, place, found, allowed },
            other => other,
        }
    }

    /// The same refusal, with the file that it is about.
    pub fn in_file(self, path: &Path) -> Error {
        match self {
            Error::Refused { what, place, found, allowed } => {
                let path = path.display();
                let place = if place == "file" { path.to_string() } else { format!("{path}: {place}") };
                Error::Refused { what, place, found, allowed }
            }
            other => other,
        }
    }

    /// A file-system failure while trying to `action` (a verb) a file.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// An image or a data folder that cannot be used.
    pub fn data(place: impl Into<String>, problem: impl ToString) -> Error {
        Error::Data { place: place.into(), problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_exit_code() {
        let io = Error::io("read", Path::new("a"))(std::io::ErrorKind::NotFound.into());
        let codes = [
            (Error::Usage("x".into()), 2),
            (Error::refused("node `n`", "axis 9", "-3 to 2"), 3),
            (Error::GateFailed("x".into()), 4),
            (Error::data("a.png", "cut off"), 5),
            (io, 6),
            (Error::Internal { step: "run", problem: "x".into() }, 70),
        ];
        for (error, code) in codes {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
