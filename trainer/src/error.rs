//! The trainer's errors, each with the exit code that the binary ends with.

use std::path::PathBuf;

/// Any failure of the trainer: what was found, what was expected, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that cannot be carried out (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// A configuration that no model can have (exit code 2).
    #[error(transparent)]
    Config(#[from] smalti_models::Error),
    /// Input data that cannot be used (exit code 5).
    #[error("{place}: {problem}")]
    Data {
        /// The file, folder or record.
        place: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A checkpoint or run that cannot be used (exit code 5).
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A teacher that the runtime refuses or cannot run (the runtime's exit code).
    #[error("{place}: {problem}")]
    Teacher {
        /// The file.
        place: String,
        /// What is wrong with it, and what to do.
        problem: String,
        /// The exit code.
        code: u8,
    },
    /// The file system said no (exit code 6).
    #[error("cannot {action} {}: {cause}", path.display())]
    File {
        /// What was tried: "read", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// Another process works in the folder (exit code 1).
    #[error("{} is locked: another smalti process is writing to this folder; wait for it, or stop it", path.display())]
    Locked {
        /// The file that is locked.
        path: PathBuf,
    },
    /// Training diverged (exit code 1): the loss is not a number, or far above where it started.
    #[error("{0}")]
    Diverged(String),
    /// The user stopped the run; the last checkpoint holds everything (exit code 130 or 143).
    #[error("stopped by a signal at step {step}; continue with --resume")]
    Interrupted {
        /// The step that was saved.
        step: u64,
        /// 128 + the signal's number.
        code: u8,
    },
    /// One of several ranks was told to end at once (exit code 130 or 143).
    #[error(
        "the job was ended by a signal at step {step}: by you, or because a rank was lost, of which mpirun's own message \
         tells; continue with --resume"
    )]
    JobEnded {
        /// The step that was saved.
        step: u64,
        /// 128 + the signal's number.
        code: u8,
    },
}

impl Error {
    /// The exit code of the binary.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Config(_) => 2,
            Error::Data { .. } | Error::Checkpoint { .. } => 5,
            Error::File { .. } => 6,
            Error::Diverged(_) | Error::Locked { .. } => 1,
            Error::Interrupted { code, .. } | Error::JobEnded { code, .. } | Error::Teacher { code, .. } => {
                *code
            }
        }
    }

    /// An error about input data.
    pub fn data(place: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Data { place: place.into(), problem: problem.into() }
    }

    /// An error of the file system: `.map_err(Error::file("read", path))`.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |cause| Error::File { action, path, cause }
    }
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
