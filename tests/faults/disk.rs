//! A disk that calls are played back on, and what is on it if the power fails.
//!
//! The model is stricter than common file systems. What was written to a file is safe once the file is synced; before that it
//! may be there, be gone, be there in part, or be zeros. A name that was made, removed or replaced is safe once its folder is synced;
//! before that, of all such changes that are not safe the first few have happened, any number of them.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::record::Call;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    /// The number of a file.
    File(usize),
    Folder,
}

type Names = BTreeMap<PathBuf, Entry>;

/// Names and what they stand for now, if anything: all of it happens, or none. The first lies in the folder whose sync makes it safe.
type Change = Vec<(PathBuf, Option<Entry>)>;

/// A file's bytes as they are, and as they were when it was last synced.
#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    safe: Vec<u8>,
}

/// What becomes of bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Kept,
    Lost,
    /// The first half of a file is new.
    Torn,
    /// As long as they were, and zeros.
    Zeros,
}

const FATES: [Fate; 4] = [Fate::Kept, Fate::Lost, Fate::Torn, Fate::Zeros];

impl Content {
    fn after(&self, fate: Fate) -> Vec<u8> {
        let middle = self.now.len() / 2;
        match fate {
            _ if self.now == self.safe => self.now.clone(),
            Fate::Kept => self.now.clone(),
            Fate::Lost => self.safe.clone(),
            Fate::Torn => [&self.now[..middle], self.safe.get(middle..).unwrap_or_default()].concat(),
            Fate::Zeros => {
                let mut bytes = self.safe.clone();
                bytes.resize(self.now.len(), 0);
                bytes
            }
        }
    }
}

/// What is on the disk after the power failed.
#[derive(Clone, Debug)]
pub struct Crash {
    /// The files by their paths.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The folders.
    pub folders: Vec<PathBuf>,
}

impl Crash {
    /// Writes all of it to an empty folder.
    ///
    /// # Panics
    /// If that fails.
    pub fn restore(&self, folder: &Path) {
        self.folders.iter().for_each(|path| std::fs::create_dir_all(folder.join(path)).expect("a folder"));
        for (path, bytes) in &self.files {
            std::fs::write(folder.join(path), bytes)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// The files below a folder.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    contents: Vec<Content>,
    /// Which file an inode is now.
    inodes: HashMap<u64, usize>,
    /// All names, whether they are safe or not.
    now: Names,
    safe: Names,
    pending: Vec<Change>,
    /// Digests of what has been shown.
    shown: HashSet<u64>,
}

impl Disk {
    /// With what is in a folder, all of it safe.
    ///
    /// # Panics
    /// If it cannot be read.
    #[cfg(unix)]
    pub fn of(folder: &Path) -> Disk {
        use std::os::unix::fs::MetadataExt;
        let (mut disk, mut rest) = (Disk::default(), vec![folder.to_path_buf()]);
        while let Some(next) = rest.pop() {
            for entry in std::fs::read_dir(next).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(folder).expect("it is below").to_path_buf();
                if path.is_dir() {
                    disk.now.insert(name, Entry::Folder);
                    rest.push(path);
                } else {
                    let inode = path.metadata().expect("a file").ino();
                    let file = disk.add(inode);
                    let bytes = std::fs::read(path).expect("a file");
                    disk.contents[file] = Content { safe: bytes.clone(), now: bytes };
                    disk.now.insert(name, Entry::File(file));
                }
            }
        }
        disk.safe = disk.now.clone();
        disk
    }

    fn add(&mut self, inode: u64) -> usize {
        self.contents.push(Content::default());
        self.inodes.insert(inode, self.contents.len() - 1);
        self.contents.len() - 1
    }

    fn content(&mut self, inode: u64) -> &mut Content {
        let file =
            *self.inodes.get(&inode).unwrap_or_else(|| panic!("inode {inode} was not there at the start"));
        &mut self.contents[file]
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.pending.push(change);
    }

    fn named(&self, path: &Path) -> Entry {
        *self.now.get(path).unwrap_or_else(|| panic!("{} was not there", path.display()))
    }

    /// The bytes of a file as a program reads them now.
    pub fn read(&self, path: &Path) -> Option<&[u8]> {
        match self.now.get(path)? {
            Entry::File(file) => Some(&self.contents[*file].now),
            Entry::Folder => None,
        }
    }

    /// Plays a call back.
    ///
    /// # Panics
    /// If the record does not fit what is there.
    pub fn play(&mut self, call: &Call) {
        match call {
            Call::Make(inode, path) => {
                let file = self.add(*inode);
                self.change(vec![(path.clone(), Some(Entry::File(file)))]);
            }
            Call::Cut(inode, length) => self.content(*inode).now.resize(*length as usize, 0),
            Call::Write(inode, offset, bytes) => {
                let now = &mut self.content(*inode).now;
                let end = *offset as usize + bytes.len();
                now.resize(now.len().max(end), 0);
                now[*offset as usize..end].copy_from_slice(bytes);
            }
            Call::Sync(inode) => {
                let content = self.content(*inode);
                content.safe.clone_from(&content.now);
            }
            Call::SyncFolder(folder) => {
                for change in std::mem::take(&mut self.pending) {
                    if change[0].0.parent() == Some(folder) {
                        apply(&mut self.safe, &change);
                    } else {
                        self.pending.push(change);
                    }
                }
            }
            Call::Rename(from, to) => {
                let mut change = vec![(to.clone(), Some(self.named(from))), (from.clone(), None)];
                // What lies below a folder goes with it.
                let below =
                    self.now.iter().filter_map(|(path, entry)| Some((path.strip_prefix(from).ok()?, *entry)));
                change.extend(
                    below
                        .filter(|(rest, _)| *rest != Path::new(""))
                        .map(|(rest, entry)| (to.join(rest), Some(entry))),
                );
                self.change(change);
            }
            Call::Link(from, to) => self.change(vec![(to.clone(), Some(self.named(from)))]),
            Call::Remove(path) | Call::RemoveFolder(path) => self.change(vec![(path.clone(), None)]),
            Call::MakeFolder(path) => self.change(vec![(path.clone(), Some(Entry::Folder))]),
        }
    }

    /// Shows all that may be there if the power fails now, but for what this has shown before.
    pub fn crashes(&mut self, mut show: impl FnMut(&Crash)) {
        let mut names = self.safe.clone();
        for happened in 0..=self.pending.len() {
            if let Some(last) = happened.checked_sub(1) {
                apply(&mut names, &self.pending[last]);
            }
            for fate in FATES {
                if let Some(crash) = self.crash(&names, fate) {
                    show(&crash);
                }
            }
        }
    }

    /// Lets [`Disk::crashes`] show again what it has shown.
    pub fn forget(&mut self) -> &mut Disk {
        self.shown.clear();
        self
    }

    /// One of them, unless it has been shown.
    fn crash(&mut self, names: &Names, fate: Fate) -> Option<Crash> {
        let mut crash = Crash { files: BTreeMap::new(), folders: Vec::new() };
        let mut digest = DefaultHasher::new();
        for (path, entry) in names {
            let is_reachable = path
                .ancestors()
                .skip(1)
                .all(|folder| folder == Path::new("") || names.get(folder) == Some(&Entry::Folder));
            if !is_reachable {
                continue;
            }
            path.hash(&mut digest);
            match entry {
                Entry::Folder => crash.folders.push(path.clone()),
                Entry::File(file) => {
                    let bytes = self.contents[*file].after(fate);
                    bytes.hash(&mut digest);
                    crash.files.insert(path.clone(), bytes);
                }
            }
        }
        self.shown.insert(digest.finish()).then_some(crash)
    }
}

fn apply(names: &mut Names, change: &Change) {
    for (path, entry) in change {
        match entry {
            Some(entry) => names.insert(path.clone(), *entry),
            None => names.remove(path),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        name.into()
    }

    /// Contents of `a` that are possible after these calls, `None` where it is missing.
    fn possible(calls: &[Call]) -> Vec<Option<Vec<u8>>> {
        let mut disk = Disk::default();
        calls.iter().for_each(|call| disk.play(call));
        let mut found = Vec::new();
        disk.crashes(|crash| found.push(crash.files.get(Path::new("a")).cloned()));
        found.sort();
        found.dedup();
        found
    }

    fn make(inode: u64, name: &str, bytes: &[u8]) -> [Call; 2] {
        [Call::Make(inode, path(name)), Call::Write(inode, 0, bytes.into())]
    }

    #[test]
    fn what_is_not_synced_may_be_lost() {
        let [made, written] = make(1, "a", b"new!");
        let all = [None, Some(vec![]), Some(vec![0; 4]), Some(b"ne".to_vec()), Some(b"new!".to_vec())];
        assert_eq!(possible(&[made.clone(), written.clone()]), all);
        let (synced, listed) = (Call::Sync(1), Call::SyncFolder(path("")));
        let whole = Some(b"new!".to_vec());
        assert_eq!(possible(&[made.clone(), written.clone(), synced.clone()]), [None, whole.clone()]);
        assert_eq!(possible(&[made, written, synced, listed]), [whole]);
    }

    #[test]
    fn a_rename_has_happened_or_not() {
        let old = [&make(1, "a", b"old")[..], &[Call::Sync(1), Call::SyncFolder(path(""))]].concat();
        let new = make(2, "b", b"new");
        let rename = Call::Rename(path("b"), path("a"));
        let [before, after] = [b"old", b"new"].map(|bytes| Some(bytes.to_vec()));
        let safe = [&old[..], &new, &[Call::Sync(2), rename.clone()]].concat();
        assert_eq!(possible(&safe), [after.clone(), before.clone()]);
        assert_eq!(possible(&[&safe[..], &[Call::SyncFolder(path(""))]].concat()), [after]);
        // Without a sync before the rename neither of both may be there.
        assert!(possible(&[&old[..], &new, &[rename]].concat()).contains(&Some(vec![])));
    }

    #[test]
    fn a_file_in_a_folder_that_is_lost_is_lost() {
        let calls =
            [&[Call::MakeFolder(path("f"))], &make(1, "f/a", b"x")[..], &[Call::SyncFolder(path("f"))]]
                .concat();
        let mut disk = Disk::default();
        calls.iter().for_each(|call| disk.play(call));
        let mut counts = Vec::new();
        disk.crashes(|crash| counts.push((crash.folders.len(), crash.files.len())));
        assert!(counts.contains(&(0, 0)) && counts.contains(&(1, 1)), "{counts:?}");
    }
}
