//! The readers by what they read.

pub mod data;
pub mod image;
pub mod learned;
pub mod model;
pub mod run;

use std::path::PathBuf;

use smalti_runtime::Error;
use tempfile::TempDir;

/// Whether an error is one that the runtime calls a bug of its own.
fn judge<T>(answer: Result<T, Error>) -> Result<(), String> {
    match answer {
        Err(error @ Error::Internal { .. }) => Err(error.to_string()),
        _ => Ok(()),
    }
}

thread_local! {
    /// Where files are written for readers that take a path; one for each thread.
    static FOLDER: TempDir = TempDir::new().expect("a folder for temporary files");
}

/// Writes a file, and gives its path; the next one of that name in this thread takes its place.
fn written(name: &str, bytes: &[u8]) -> PathBuf {
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("within the folder")).expect("a folder");
        std::fs::write(&path, bytes).expect("room for a temporary file");
        path
    })
}

/// Two inputs out of one: its first two bytes say how many belong to the first.
fn two(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes {
        [low, high, rest @ ..] => {
            rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()))
        }
        _ => (&[], &[]),
    }
}

/// The inverse of [`two`].
fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u16::try_from(first.len()).expect("a small seed").to_le_bytes();
    [&length[..], first, second].concat()
}
