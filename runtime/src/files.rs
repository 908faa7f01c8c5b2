//! Files that are whole or not there: written in the same folder under another name, synced, renamed.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file on its way to its place. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    place: PathBuf,
    temporary: PathBuf,
}

impl Staged {
    /// Writes the bytes to a new file in the folder of `place` and syncs them.
    pub fn write(place: &Path, bytes: &[u8]) -> Result<Staged> {
        let (staged, mut file) = Staged::create(place).map_err(Error::io("write", place))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", place))?;
        Ok(staged)
    }

    /// A new file under a name that nobody can have guessed, and put a link at.
    fn create(place: &Path) -> std::io::Result<(Staged, File)> {
        let mut attempts = 0;
        loop {
            // Seeded by the system, for each process and each call.
            let number = RandomState::new().build_hasher().finish();
            let temporary = folder(place).join(format!(".smalti-{number:016x}.part"));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempts < 16 => attempts += 1,
                opened => return opened.map(|file| (Staged { place: place.to_owned(), temporary }, file)),
            }
        }
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
        &self.temporary
    }

    /// Puts the file into its place; whatever was there is replaced at once.
    pub fn commit(self) -> Result<()> {
        fs::rename(&self.temporary, &self.place).map_err(Error::io("write", &self.place))?;
        // The rename itself is safe only once the folder is.
        if cfg!(unix) {
            let folder = folder(&self.place);
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing is left of it after a rename, and nobody to tell otherwise.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// The folder that a file is in.
fn folder(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether two paths stand for the same file that exists.
pub fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("a.onnx");
        Staged::write(&place, b"old").unwrap().commit().unwrap();
        let staged = Staged::write(&place, b"new").unwrap();
        assert_eq!(
            (fs::read(&place).unwrap(), fs::read(staged.path()).unwrap()),
            (b"old".to_vec(), b"new".to_vec())
        );
        drop(staged);
        Staged::probe(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"old");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(same(&place, &root.path().join("./a.onnx")) && !same(&place, &root.path().join("b.onnx")));
    }

    #[test]
    fn names_on_the_way_cannot_be_foreseen() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("a.onnx");
        let staged: Vec<_> = (0..20).map(|_| Staged::write(&place, b"x").unwrap()).collect();
        let names: std::collections::HashSet<_> = staged.iter().map(Staged::path).collect();
        assert_eq!((names.len(), fs::read_dir(root.path()).unwrap().count()), (20, 20));
        assert!(names.iter().all(|name| !name.to_string_lossy().contains(&std::process::id().to_string())));
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
