//! Files that are whole or not there: written in the same folder under another name, synced, renamed. Both programs write all
//! their results this way.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

/// The names of files on their way: this, 16 hexadecimal digits, [`END`].
const START: &str = ".smalti-";
const END: &str = ".part";
/// How many names of a folder are looked through for files that a killed process left.
const LOOKS: usize = 10_000;

/// A file on its way to its place. Dropped, it leaves nothing behind; what a killed process leaves goes when the next file is
/// written to the folder.
#[derive(Debug)]
pub struct Staged {
    place: PathBuf,
    temporary: PathBuf,
    /// Locked, which tells others that somebody is at it.
    file: File,
}

impl Staged {
    /// Writes the bytes to a new file in the folder of `place` and syncs them.
    pub fn write(place: &Path, bytes: &[u8]) -> Result<Staged> {
        remove_stale(folder(place));
        let mut staged = Staged::create(place)?;
        staged.file.write_all(bytes)?;
        staged.file.sync_all()?;
        Ok(staged)
    }

    /// A new file under a name that nobody can have guessed, and put a link at.
    fn create(place: &Path) -> Result<Staged> {
        let mut attempts = 0;
        loop {
            // Seeded by the system, for each process and each call.
            let number = RandomState::new().build_hasher().finish();
            let temporary = folder(place).join(format!("{START}{number:016x}{END}"));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) if is_taken(&file) => attempts += 1,
                Ok(file) => return Ok(Staged { place: place.to_owned(), temporary, file }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => attempts += 1,
                Err(error) => return Err(error),
            }
            if attempts > 16 {
                return Err(ErrorKind::AlreadyExists.into());
            }
        }
    }

    /// Where the file goes.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Where the bytes are until they are in their place.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts the file into its place; whatever was there is replaced at once.
    pub fn commit(self) -> Result<()> {
        fs::rename(&self.temporary, &self.place)?;
        // The rename itself is safe only once the folder is.
        sync_folder(folder(&self.place))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing is left of it after a rename, and nobody to tell otherwise.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Locks a new file; whether another process took it for one that was left, before it was locked.
#[cfg(unix)]
fn is_taken(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match file.try_lock() {
        Ok(()) => file.metadata().is_ok_and(|about| about.nlink() == 0),
        Err(TryLockError::WouldBlock) => true,
        // A file system without locks, where nothing is removed either.
        Err(TryLockError::Error(_)) => false,
    }
}

#[cfg(not(unix))]
fn is_taken(_: &File) -> bool {
    false
}

/// The folder that a file is in.
fn folder(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder and those above it, so that they survive a power failure.
pub fn make_folder(path: &Path) -> Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(path)?;
    missing.into_iter().try_for_each(|made| sync_folder(folder(made)))
}

/// Syncs what a folder lists: new names, and those that went.
pub fn sync_folder(folder: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder that may be written and not read, or a file system that syncs no folders.
        Err(error)
            if [ErrorKind::PermissionDenied, ErrorKind::InvalidInput, ErrorKind::Unsupported]
                .contains(&error.kind()) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Removes what killed processes left half written in a folder. Files that somebody is at are locked, and stay.
pub fn remove_stale(folder: &Path) {
    if !cfg!(unix) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(LOOKS) {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(START)?.strip_suffix(END));
        let is_ours = digits
            .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // Where there are no locks nobody can tell, and it stays. One that cannot be removed is in nobody's way.
        let path = entry.path();
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

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
        assert_eq!((fs::read(&place).unwrap(), count(root.path())), (b"old".to_vec(), 1));
        Staged::write(&place, b"new").unwrap().commit().unwrap();
        assert_eq!((fs::read(&place).unwrap(), count(root.path())), (b"new".to_vec(), 1));
    }

    #[test]
    fn names_on_the_way_cannot_be_foreseen() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("a.onnx");
        let staged: Vec<_> = (0..20).map(|_| Staged::write(&place, b"x").unwrap()).collect();
        let names: std::collections::HashSet<_> = staged.iter().map(Staged::path).collect();
        assert_eq!((names.len(), count(root.path())), (20, 20));
        assert!(names.iter().all(|name| !name.to_string_lossy().contains(&std::process::id().to_string())));
    }

    #[cfg(unix)]
    #[test]
    fn what_a_killed_process_left_goes_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("a.onnx");
        let at_work = Staged::write(&place, b"x").unwrap();
        let left = root.path().join(".smalti-0123456789abcdef.part");
        let others = [".smalti-0123.part", ".smalti-0123456789abcdeg.part", "smalti-0123456789abcdef.part"];
        fs::write(&left, "half").unwrap();
        others.iter().for_each(|name| fs::write(root.path().join(name), "of a user").unwrap());
        Staged::write(&place, b"y").unwrap().commit().unwrap();
        assert!(!left.exists() && at_work.path().exists());
        assert!(others.iter().all(|name| root.path().join(name).exists()));
    }

    #[test]
    fn folders_are_made_with_those_above() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        make_folder(&path).unwrap();
        make_folder(&path).unwrap();
        assert!(path.is_dir());
        fs::write(root.path().join("file"), "").unwrap();
        assert!(make_folder(&root.path().join("file/a")).is_err());
    }
}
