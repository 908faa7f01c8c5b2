//! Folders that Smalti writes to: which files in them are its own, and which process is at work there.
//!
//! The marker, [`MARKER`], says what wrote the folder and lists every file that Smalti wrote below it. `--overwrite`
//! removes the listed files and nothing else, so that a user's file is never lost, whatever its name. The marker is
//! also the folder's lock: the process that writes there holds an advisory lock on it until it ends.
//!
//! The list only grows. A name is appended before its file is written: after a crash the list may name a file that is
//! not there, which removing ignores.

use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use smalti_models::files::sync_folder;

use crate::error::{Error, Result};
use crate::files;

/// The marker's file name. Readers of data sets skip folders that hold one.
pub use smalti_models::folder::MARKER;

/// A folder that this process may write to.
#[derive(Debug)]
pub struct Owner {
    folder: PathBuf,
    /// Locked for as long as this lives.
    marker: File,
}

impl Owner {
    /// Takes a folder for what is `written_by` (a command's name). The folder may hold other files, but none of
    /// `names`, which are about to be written. One that Smalti already owns is refused unless `overwrite`; then its
    /// files are removed first, but for an error if one of `inputs` (a flag and its path) lies among them.
    pub fn claim(folder: &Path, claim: &Claim<'_>) -> Result<Owner> {
        claim.check(folder)?;
        files::make_folder(folder)?;
        let mut owner = Owner::lock(folder)?;
        let old = listed(folder)?;
        old.iter().chain(claim.legacy).try_for_each(|name| remove(folder, name))?;
        owner.restart(claim.written_by)?;
        Ok(owner)
    }

    /// Goes on in a folder that Smalti owns; `legacy` files of a version without a marker become listed.
    pub fn resume(folder: &Path, written_by: &str, legacy: &[PathBuf]) -> Result<Owner> {
        let known = folder.join(MARKER).exists();
        let mut owner = Owner::lock(folder)?;
        if !known {
            owner.restart(written_by)?;
            owner.add(legacy.iter().map(PathBuf::as_path))?;
        }
        Ok(owner)
    }

    fn lock(folder: &Path) -> Result<Owner> {
        let path = folder.join(MARKER);
        let opened = File::options().create(true).read(true).append(true).open(&path);
        let marker = opened.map_err(Error::file("write", &path))?;
        match marker.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path }),
            // Some network file systems have no locks.
            Err(TryLockError::Error(why)) => log::warn!("{} cannot be locked: {why}", path.display()),
        }
        Ok(Owner { folder: folder.into(), marker })
    }

    /// Begins the list anew.
    fn restart(&mut self, written_by: &str) -> Result<()> {
        let head = format!(
            "# Written by smalti {} ({written_by}). --overwrite removes the files listed here and no others.\n",
            env!("CARGO_PKG_VERSION")
        );
        let write = |marker: &mut File| {
            marker.set_len(0)?;
            marker.rewind()?;
            marker.write_all(head.as_bytes())?;
            // Without it nobody would know what is in the folder, whatever else survives a power failure.
            marker.sync_all()?;
            sync_folder(&self.folder)
        };
        write(&mut self.marker).map_err(Error::file("write", self.folder.join(MARKER)))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lists files, named relative to the folder, as Smalti's own; call it before they are written.
    pub fn add<'a>(&self, names: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        append(&self.folder, names)
    }

    /// Writes the file `name`, relative to the folder, whole or not at all, listed as Smalti's. Returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        self.add([Path::new(name)])?;
        let path = self.folder.join(name);
        files::write(&path, bytes)?;
        Ok(path)
    }

    /// [`Owner::write`] of a value as JSON that people can read, too.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<PathBuf> {
        let value = serde_json::to_value(value)
            .map_err(|why| Error::Usage(format!("{name} cannot be written as JSON: {why}")))?;
        self.write(name, format!("{value:#}\n").as_bytes())
    }
}

/// What a folder is taken for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The command, for the marker and for messages.
    pub written_by: &'static str,
    /// Files and folders that will be written.
    pub names: &'a [&'a str],
    /// Whether an owned folder is cleared.
    pub overwrite: bool,
    /// Paths that are read, each with the flag that names it.
    pub inputs: &'a [(&'a str, PathBuf)],
    /// Smalti's files in a folder without a marker, as earlier versions left it.
    pub legacy: &'a [PathBuf],
    /// Whether the command can continue an owned folder with `--resume`.
    pub resumable: bool,
}

impl Claim<'_> {
    /// Whether [`Owner::claim`] would take the folder, but for its lock; changes nothing.
    pub fn check(&self, folder: &Path) -> Result<()> {
        if !is_owned(folder) && self.legacy.is_empty() {
            return self.refuse_foreign(folder, None);
        }
        if !self.overwrite {
            return Err(Error::Usage(format!(
                "{} already holds what `smalti {}` wrote: replace it with --overwrite, or name another folder with \
                 --out{}",
                folder.display(),
                self.written_by,
                if self.resumable { "; --resume continues a run" } else { "" }
            )));
        }
        let mut owned = listed(folder)?;
        owned.extend(self.legacy.iter().cloned());
        self.refuse_inputs(folder, &owned)?;
        self.refuse_foreign(folder, Some(&owned))
    }

    /// Refuses to write over files of others. In a folder of ours (`owned`) a subfolder may hold some.
    fn refuse_foreign(&self, folder: &Path, owned: Option<&[PathBuf]>) -> Result<()> {
        let is_foreign = |name: &&&str| {
            let path = folder.join(name);
            match owned {
                None => path.symlink_metadata().is_ok(),
                Some(owned) => path.is_file() && !owned.iter().any(|ours| ours == Path::new(name)),
            }
        };
        match self.names.iter().find(is_foreign) {
            Some(name) => Err(Error::Usage(format!(
                "{} is there and was not written by smalti: name another folder with --out; --overwrite removes \
                 only files that smalti wrote",
                folder.join(name).display()
            ))),
            None => Ok(()),
        }
    }

    /// Refuses to remove what is about to be read.
    fn refuse_inputs(&self, folder: &Path, owned: &[PathBuf]) -> Result<()> {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let Some(root) = real(folder) else { return Ok(()) };
        let owned: Vec<PathBuf> = owned.iter().map(|name| root.join(name)).collect();
        for (flag, path) in self.inputs {
            let Some(input) = real(path) else { continue };
            let removed = input.starts_with(&root) && owned.iter().any(|file| file.starts_with(&input));
            if removed {
                return Err(Error::Usage(format!(
                    "{flag} {} lies in what --overwrite would remove ({}): name another folder with --out",
                    path.display(),
                    folder.display()
                )));
            }
        }
        Ok(())
    }
}

/// Whether Smalti owns the folder.
pub fn is_owned(folder: &Path) -> bool {
    folder.join(MARKER).is_file()
}

/// Whether another process works in a folder now. Where the file system has no locks, none does.
pub fn is_locked(folder: &Path) -> bool {
    let marker = File::open(folder.join(MARKER));
    // The lock is given back at once.
    marker.is_ok_and(|marker| matches!(marker.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The command that wrote a folder; none where there is no marker that tells.
pub fn written_by(folder: &Path) -> Option<String> {
    let mut line = Vec::new();
    // A damaged marker may be of any length.
    let first = File::open(folder.join(MARKER)).ok()?.take(200);
    BufReader::new(first).read_until(b'\n', &mut line).ok()?;
    let text = std::str::from_utf8(&line).ok()?;
    let (name, _) = text.strip_prefix("# Written by smalti ")?.split_once('(')?.1.split_once(')')?;
    Some(name.to_owned())
}

/// The files that Smalti owns in a folder, relative to it.
pub fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let marker = folder.join(MARKER);
    if marker.is_file() { list(&marker) } else { Ok(Vec::new()) }
}

/// Lists files of a folder that another command of Smalti owns; does nothing where there is no marker.
pub fn append<'a>(folder: &Path, names: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let path = folder.join(MARKER);
    if !path.is_file() {
        return Ok(());
    }
    let known = list(&path)?;
    let mut lines = String::new();
    for name in names.into_iter().filter(|name| !known.iter().any(|known| known == name)) {
        let Some(text) = name.to_str().filter(|_| is_inside(name)) else { continue };
        lines.push_str(text);
        lines.push('\n');
    }
    if lines.is_empty() {
        return Ok(());
    }
    let mut marker = File::options().append(true).open(&path).map_err(Error::file("write", &path))?;
    marker.write_all(lines.as_bytes()).and_then(|()| marker.sync_all()).map_err(Error::file("write", &path))
}

/// The files that a marker lists, relative to its folder. A last line that is not whole is left out.
fn list(marker: &Path) -> Result<Vec<PathBuf>> {
    let mut reader = BufReader::new(File::open(marker).map_err(Error::file("read", marker))?);
    let (mut names, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(Error::file("read", marker))?;
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(names) };
        let Ok(text) = std::str::from_utf8(text) else { continue };
        let name = PathBuf::from(text);
        if !text.starts_with('#') && is_inside(&name) {
            names.push(name);
        }
    }
}

/// Whether a listed name stays below its folder: a damaged or foreign list must not reach anything else.
fn is_inside(name: &Path) -> bool {
    let normal = name.components().all(|part| matches!(part, Component::Normal(_)));
    normal && name.components().next().is_some() && !name.as_os_str().as_encoded_bytes().contains(&b'\n')
}

/// Removes one file, and the folders around it that it leaves empty.
fn remove(folder: &Path, name: &Path) -> Result<()> {
    let path = folder.join(name);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::file("remove", path)(e)),
    }
    for parent in name.ancestors().skip(1).filter(|parent| *parent != Path::new("")) {
        // What still holds something stays.
        if std::fs::remove_dir(folder.join(parent)).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(overwrite: bool) -> Claim<'static> {
        Claim {
            written_by: "pretrain",
            names: &["config.toml", "checkpoints"],
            overwrite,
            inputs: &[],
            legacy: &[],
            resumable: true,
        }
    }

    fn write(folder: &Path, name: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }

    /// A folder that holds a run with one file of the user's.
    fn owned() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::claim(folder.path(), &claim(false)).unwrap();
        owner.add([Path::new("config.toml"), Path::new("checkpoints/last.state")]).unwrap();
        let files = ["config.toml", "checkpoints/last.state", "checkpoints/mine.pth"];
        files.iter().for_each(|name| write(folder.path(), name));
        folder
    }

    #[test]
    fn overwriting_removes_listed_files_and_nothing_else() {
        let folder = owned();
        let at = |name: &str| folder.path().join(name);
        let error = Owner::claim(folder.path(), &claim(false)).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("--resume"), "{error}");
        write(folder.path(), "report.html");
        Owner::claim(folder.path(), &claim(true)).unwrap();
        assert!(at("checkpoints/mine.pth").exists() && at("report.html").exists());
        assert!(!at("config.toml").exists() && !at("checkpoints/last.state").exists());
        assert!(list(&at(MARKER)).unwrap().is_empty());
        // A file of the user's under a name of ours is not written over, and nothing is removed.
        write(folder.path(), "config.toml");
        let error = Owner::claim(folder.path(), &claim(true)).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("config.toml"), "{error}");
    }

    #[test]
    fn a_folder_of_others_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "checkpoints/model_best.pth.tar");
        for overwrite in [false, true] {
            let error = Owner::claim(folder.path(), &claim(overwrite)).unwrap_err();
            assert!(
                error.to_string().contains("--overwrite removes only files that smalti wrote"),
                "{error}"
            );
        }
        assert!(!folder.path().join(MARKER).exists());
        assert!(folder.path().join("checkpoints/model_best.pth.tar").exists());
    }

    #[test]
    fn inputs_are_never_removed() {
        for input in [".", "checkpoints", "checkpoints/last.state", "../{}/checkpoints"] {
            let folder = owned();
            let name = folder.path().file_name().unwrap().to_str().unwrap();
            let inputs = [("--init", folder.path().join(input.replace("{}", name)))];
            let error = Owner::claim(folder.path(), &Claim { inputs: &inputs, ..claim(true) }).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("--init"), "{error}");
            assert!(folder.path().join("checkpoints/last.state").exists());
        }
        let folder = owned();
        std::fs::remove_file(folder.path().join("checkpoints/mine.pth")).unwrap();
        write(folder.path(), "photos/a.png");
        let inputs = [("--data", folder.path().join("photos"))];
        Owner::claim(folder.path(), &Claim { inputs: &inputs, ..claim(true) }).unwrap();
        assert!(folder.path().join("photos/a.png").exists());
    }

    #[test]
    fn a_second_process_is_locked_out() {
        let folder = owned();
        assert!(!is_locked(folder.path()) && !is_locked(Path::new("/no/such/folder")));
        let first = Owner::resume(folder.path(), "pretrain", &[]).unwrap();
        assert!(is_locked(folder.path()));
        for second in
            [Owner::resume(folder.path(), "pretrain", &[]), Owner::claim(folder.path(), &claim(true))]
        {
            let error = second.unwrap_err();
            assert!(error.exit_code() == 1 && error.to_string().contains(MARKER), "{error}");
        }
        drop(first);
        Owner::resume(folder.path(), "pretrain", &[]).unwrap();
    }

    #[test]
    fn a_hostile_list_reaches_nothing_outside() {
        let outer = tempfile::tempdir().unwrap();
        write(outer.path(), "precious.txt");
        let folder = outer.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        let precious = outer.path().join("precious.txt");
        let text = format!("# head\n../precious.txt\n{}\n\n.\nconfig.tom", precious.display());
        std::fs::write(folder.join(MARKER), text).unwrap();
        write(&folder, "config.tom");
        Owner::claim(&folder, &claim(true)).unwrap();
        assert!(precious.exists() && folder.join("config.tom").exists());
    }
}
