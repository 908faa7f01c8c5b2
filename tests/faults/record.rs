//! What the library before libc has recorded: see the head of `faults.c`.

use std::path::{Path, PathBuf};

/// The number of a file.
type Inode = u64;

/// A call that changed a file or a folder. Files are known by their inodes, paths are relative to the folder that was watched.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// A file was made.
    Make(Inode, PathBuf),
    /// A file was cut or grown to a length.
    Cut(Inode, u64),
    /// Bytes were written at an offset.
    Write(Inode, u64, Vec<u8>),
    /// A file was synced.
    Sync(Inode),
    /// What a folder lists was synced.
    SyncFolder(PathBuf),
    /// A name, the first, took another's place.
    Rename(PathBuf, PathBuf),
    /// The file with the first name got a second one.
    Link(PathBuf, PathBuf),
    /// A name of a file was removed.
    Remove(PathBuf),
    /// A folder was made.
    MakeFolder(PathBuf),
    /// A folder was removed.
    RemoveFolder(PathBuf),
}

/// Reads a record. An entry that the process did not live to write whole ends it.
///
/// # Panics
/// If it cannot be read or was not written by this version.
pub fn read(path: &Path) -> Vec<Call> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut rest, mut calls) = (Reader(&bytes), Vec::new());
    while let Some(call) = rest.call() {
        calls.push(call);
    }
    calls
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.number()?;
        self.take(length as usize).map(<[u8]>::to_vec)
    }

    fn path(&mut self) -> Option<PathBuf> {
        self.bytes().map(|bytes| PathBuf::from(String::from_utf8(bytes).expect("names of tests are text")))
    }

    fn call(&mut self) -> Option<Call> {
        let kind = self.take(1)?[0];
        Some(match kind {
            b'c' => Call::Make(self.number()?, self.path()?),
            b't' => Call::Cut(self.number()?, self.number()?),
            b'w' => Call::Write(self.number()?, self.number()?, self.bytes()?),
            b's' => Call::Sync(self.number()?),
            b'd' => Call::SyncFolder(self.path()?),
            b'r' => Call::Rename(self.path()?, self.path()?),
            b'l' => Call::Link(self.path()?, self.path()?),
            b'u' => Call::Remove(self.path()?),
            b'm' => Call::MakeFolder(self.path()?),
            b'x' => Call::RemoveFolder(self.path()?),
            other => panic!("a record with the letter {other}"),
        })
    }
}
