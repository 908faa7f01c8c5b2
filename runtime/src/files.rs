//! Files that are whole or not there, with this crate's errors.

use std::path::Path;

use smalti_models::files;

use crate::error::{Error, Result};

/// A file on its way to its place: [`files::Staged`].
#[derive(Debug)]
pub struct Staged(files::Staged);

impl Staged {
    /// Writes the bytes to a new file in the folder of `place` and syncs them.
    pub fn write(place: &Path, bytes: &[u8]) -> Result<Staged> {
        files::Staged::write(place, bytes).map(Staged).map_err(Error::io("write", place))
    }

    /// Fails now, rather than after the work, if nothing can be written to `place`.
    pub fn probe(place: &Path) -> Result<()> {
        if place.is_dir() || place.file_name().is_none() {
            return Err(Error::Usage(format!("{} is a folder, expected a file to write", place.display())));
        }
        Staged::write(place, &[]).map(drop)
    }

    /// Where the bytes are until they are in their place.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts the file into its place; whatever was there is replaced at once.
    pub fn commit(self) -> Result<()> {
        let place = self.0.place().to_owned();
        self.0.commit().map_err(Error::io("write", &place))
    }
}

/// Whether two paths stand for the same file that exists.
pub fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_probe_leaves_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("a.onnx");
        Staged::write(&place, b"old").unwrap().commit().unwrap();
        Staged::probe(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"old");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(same(&place, &root.path().join("./a.onnx")) && !same(&place, &root.path().join("b.onnx")));
    }

    #[test]
    fn places_that_cannot_be_written_are_named() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Staged::probe(root.path()).unwrap_err().exit_code(), 2);
        let error = Staged::probe(&root.path().join("none/a.onnx")).unwrap_err();
        assert_eq!(error.exit_code(), 6);
        assert!(error.to_string().contains("none/a.onnx"), "{error}");
    }
}
