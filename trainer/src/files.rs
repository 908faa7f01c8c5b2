//! Files that are whole or not there, with this crate's errors and, for checkpoints, the one before.

use std::io::ErrorKind;
use std::path::Path;

use smalti_models::files::{self, Staged};

use crate::error::{Error, Result};

/// Replaces `path` by these bytes. A crash at any moment leaves the old file or the new one, never a part.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_keeping(path, None, bytes)
}

/// As [`write()`]; what was there before goes to `previous`. A crash leaves it in one of both places. On a full disk the file
/// at `previous` makes room.
pub fn write_keeping(path: &Path, previous: Option<&Path>, bytes: &[u8]) -> Result<()> {
    let attempt = || {
        let staged = Staged::write(path, bytes)?;
        if let Some(previous) = previous.filter(|_| path.exists()) {
            let _ = std::fs::remove_file(previous);
            // A link leaves the file where it is until the new one takes its place; not every file system has them.
            std::fs::hard_link(path, previous).or_else(|_| std::fs::rename(path, previous))?;
        }
        staged.commit()
    };
    let made_room = || previous.is_some_and(|previous| std::fs::remove_file(previous).is_ok());
    let written = match attempt() {
        Err(cause) if is_full(&cause) && made_room() => attempt(),
        written => written,
    };
    written.map_err(Error::file("write", path))
}

/// Whether a disk or a user's share of it is full.
fn is_full(cause: &std::io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Makes a folder and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    files::make_folder(path).map_err(Error::file("make the folder", path))
}

/// A file's bytes, at most `limit` of them.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(Error::file("read", path))?.len();
    if length > limit {
        return Err(Error::data(
            path.display().to_string(),
            format!("has {length} bytes, at most {limit} are read"),
        ));
    }
    std::fs::read(path).map_err(Error::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, b"old").unwrap();
        write(&path, b"new and longer").unwrap();
        assert_eq!(read(&path, 100).unwrap(), b"new and longer");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(read(&path, 3).unwrap_err().to_string().contains("14 bytes"));
        let before = folder.path().join("before.bin");
        write_keeping(&path, Some(&before), b"third").unwrap();
        assert_eq!(
            (read(&path, 9).unwrap(), read(&before, 99).unwrap()),
            (b"third".into(), b"new and longer".into())
        );
    }

    #[test]
    fn a_missing_folder_is_a_file_error() {
        let error = write(Path::new("/no/such/folder/x"), b"").unwrap_err();
        assert_eq!(error.exit_code(), 6);
        assert!(error.to_string().contains("No such file"), "the cause is said too: {error}");
    }
}
