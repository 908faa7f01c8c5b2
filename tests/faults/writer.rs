//! Commands that write one file, on a file system that fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{EROFS, Faults, read};

/// Exit code of both programs where the file system refuses.
const FILE_SYSTEM: i32 = 6;

/// A command that replaces one file.
pub struct Writer<'a> {
    /// What to call it.
    pub name: &'a str,
    /// The folder of the file, absolute and without links, with nothing else in it.
    pub folder: &'a Path,
    /// The file's name.
    pub file: &'a str,
    /// What is there before; no file where that is empty.
    pub old: &'a [u8],
    /// The command.
    pub command: &'a dyn Fn() -> Command,
    /// Whether two runs write the same bytes.
    pub is_repeatable: bool,
}

/// How many runs met a fault, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Runs in all.
    pub runs: usize,
    /// Runs that ended with an error, what was there being there still.
    pub refused: usize,
}

impl Writer<'_> {
    fn place(&self) -> PathBuf {
        self.folder.join(self.file)
    }

    /// Back to what was there, with an empty folder around it.
    fn reset(&self) {
        for entry in std::fs::read_dir(self.folder).expect("the folder") {
            std::fs::remove_file(entry.expect("an entry").path()).expect("a file");
        }
        self.put_old();
    }

    fn put_old(&self) {
        match self.old {
            [] => _ = std::fs::remove_file(self.place()),
            old => std::fs::write(self.place(), old).expect("the old file"),
        }
    }

    /// What is in the folder besides the file.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder).expect("the folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name != self.file).collect()
    }

    /// Lets every `stride`-th call that changes a file fail: alone, and with all that follow.
    ///
    /// # Panics
    /// If anything but the old file or the new one is there afterwards, or the command ends otherwise than with success and
    /// the new file, or with [`FILE_SYSTEM`] and the reason.
    pub fn meets_faults(&self, stride: usize) -> Tally {
        self.reset();
        let records = self.folder.with_extension("record");
        let _ = std::fs::remove_file(&records);
        let healthy = self.run(&Faults::recorded(self.folder, &records));
        assert!(healthy.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&healthy.stderr));
        let new = std::fs::read(self.place()).expect("the new file");
        assert!(new != self.old && self.left().is_empty(), "{}: left {:?}", self.name, self.left());
        let calls = read(&records).len();
        assert!(calls >= 4, "{}: {calls} calls: is the library before libc?", self.name);

        let mut tally = Tally::default();
        for faults in Faults::one_by_one(self.folder, calls, stride) {
            self.reset();
            let output = self.run(&faults);
            tally.runs += 1;
            tally.refused += usize::from(self.judge(&output, &faults, &new));
        }
        // What the last one left half written goes.
        self.put_old();
        assert!(self.run(&Faults::once(self.folder, 0, 0)).status.success());
        assert!(self.left().is_empty(), "{}: the next run leaves {:?}", self.name, self.left());
        tally
    }

    fn run(&self, faults: &Faults<'_>) -> Output {
        faults.meet(&mut (self.command)()).output().expect("the program")
    }

    /// Whether the command refused.
    fn judge(&self, output: &Output, faults: &Faults<'_>, new: &[u8]) -> bool {
        let found = std::fs::read(self.place()).ok();
        let said = String::from_utf8_lossy(&output.stderr);
        let about = format!("{}, {faults:?}: {:?}: {said}", self.name, output.status.code());
        let is_old = found.as_deref().unwrap_or_default() == self.old;
        let is_new = !is_old && found.as_deref().is_some_and(|bytes| !self.is_repeatable || bytes == new);
        assert!(is_old || is_new, "{about}: neither the old file nor the new one is there");
        match output.status.code() {
            Some(0) => assert!(is_new, "{about}: success without the new file"),
            Some(FILE_SYSTEM) => {
                let reasons =
                    ["Input/output error", "No space left", "Read-only file system", "quota exceeded"];
                assert!(reasons.iter().any(|reason| said.contains(reason)), "{about}: no reason");
                assert!(said.trim_end().lines().count() <= 2, "{about}: more than an error and a hint");
            }
            _ => panic!("{about}"),
        }
        if faults.errno == EROFS {
            assert!(is_old && output.status.code() == Some(FILE_SYSTEM) && self.left().is_empty(), "{about}");
        }
        output.status.code() == Some(FILE_SYSTEM)
    }
}
