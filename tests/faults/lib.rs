//! File systems that fail, and power that is lost, for tests of programs that write.
//!
//! A small library stands before libc in a program ([`Faults`]): it makes chosen calls fail with an error of the file system, or
//! records every call that changes a file. A [`Disk`] plays a record back, and shows what may be on the disk if the power
//! fails after any of the calls. Needs glibc; [`IS_AVAILABLE`] says whether it is there.

mod disk;
mod record;
mod writer;

use std::path::Path;
use std::process::Command;

pub use disk::{Crash, Disk};
pub use record::{Call, read};
pub use writer::{Tally, Writer};

/// Whether calls can fail and be recorded here.
pub const IS_AVAILABLE: bool = cfg!(faults);

/// Input/output error.
pub const EIO: i32 = 5;
/// No space left on device.
pub const ENOSPC: i32 = 28;
/// Read-only file system.
pub const EROFS: i32 = 30;
/// Disk quota exceeded.
pub const EDQUOT: i32 = 122;

/// Which calls that change files below a folder fail.
#[derive(Clone, Copy, Debug)]
pub struct Faults<'a> {
    /// The folder: an absolute path, without links. Calls on files elsewhere pass.
    pub folder: &'a Path,
    /// The number of the first call that fails, from 1; 0 for none.
    pub first: usize,
    /// How many calls fail from there.
    pub count: usize,
    /// With which error.
    pub errno: i32,
    /// Where calls are recorded that succeed.
    pub record: Option<&'a Path>,
}

impl<'a> Faults<'a> {
    /// None: the calls are recorded.
    pub fn recorded(folder: &'a Path, record: &'a Path) -> Faults<'a> {
        Faults { folder, first: 0, count: 0, errno: 0, record: Some(record) }
    }

    /// All calls from this one on.
    pub fn from(folder: &'a Path, first: usize, errno: i32) -> Faults<'a> {
        Faults { folder, first, count: isize::MAX as usize, errno, record: None }
    }

    /// This call alone.
    pub fn once(folder: &'a Path, first: usize, errno: i32) -> Faults<'a> {
        Faults { count: 1, ..Faults::from(folder, first, errno) }
    }

    /// What a command that makes so many calls is to meet one after the other: a read-only disk, then at every `stride`-th call
    /// each kind of failure, alone or with all that follow.
    pub fn one_by_one(folder: &'a Path, calls: usize, stride: usize) -> impl Iterator<Item = Faults<'a>> {
        let at = move |first| {
            [
                Faults::from(folder, first, EIO),
                Faults::once(folder, first, EIO),
                Faults::from(folder, first, ENOSPC),
                Faults::once(folder, first, EDQUOT),
            ]
        };
        std::iter::once(Faults::from(folder, 1, EROFS)).chain((1..=calls).step_by(stride).flat_map(at))
    }

    /// Makes the program meet them.
    pub fn meet<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let numbers = [("FROM", self.first), ("COUNT", self.count), ("ERRNO", self.errno as usize)];
        numbers
            .iter()
            .for_each(|(name, value)| _ = command.env(format!("SMALTI_FAULTS_{name}"), value.to_string()));
        if let Some(record) = self.record {
            command.env("SMALTI_FAULTS_RECORD", record);
        }
        command
            .env("SMALTI_FAULTS_UNDER", self.folder)
            .env("LD_PRELOAD", option_env!("FAULTS").unwrap_or_default())
    }
}
