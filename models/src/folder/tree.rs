//! The files below a folder: what is an image, what is left out, and where links lead.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

use super::left_out::ForeignFiles;
use crate::error::{Error, Result};
use crate::image::is_image_name;

/// Folders below the root deeper than this are left out.
pub(super) const MAX_DEPTH: usize = 32;
/// Folders that are reached by links are left out beyond this number: links can multiply a few folders without end.
const MAX_LINKS: usize = 100_000;
/// The marker in every folder that Smalti writes to: it lists the files that are Smalti's, one a line.
pub const MARKER: &str = "smalti-files.txt";

/// Names that file managers, archives and file systems leave behind.
const CLUTTER: [&str; 10] = [
    "@eadir",
    "@recycle",
    "#recycle",
    "$recycle.bin",
    "__macosx",
    "__pycache__",
    "lost+found",
    "system volume information",
    "thumbs.db",
    "desktop.ini",
];

/// The images below a folder, sorted by the bytes of their names.
#[derive(Debug)]
pub struct Tree {
    pub(super) root: Node,
    pub(super) left_out: LeftOut,
}

/// One folder.
#[derive(Debug)]
pub(super) struct Node {
    /// Its name; what is not UTF-8 is replaced by U+FFFD.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Where it is without links.
    real: PathBuf,
    entries: Vec<Entry>,
    /// Other visible files, for data sets of other kinds.
    pub(super) others: Vec<OsString>,
}

#[derive(Debug)]
enum Entry {
    Folder(Node),
    Image(OsString),
}

/// What is not read, to be named once.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    pub(super) foreign: ForeignFiles,
    /// Folders that hold [`MARKER`].
    pub(super) runs: Vec<PathBuf>,
    pub(super) broken_links: Vec<PathBuf>,
    /// Pipes, sockets and devices that are called like images.
    pub(super) specials: Vec<PathBuf>,
    pub(super) too_deep: Vec<PathBuf>,
}

impl Tree {
    /// Lists a folder. Links are followed, but not into a folder that they lie in; hidden files, what file managers
    /// leave behind, pipes, sockets and devices are left out, and so are folders that Smalti wrote ([`MARKER`]; of the
    /// root itself, the files that its marker lists). A broken link that is called like an image stays: opening it
    /// names it.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn read(root: &Path) -> Result<Tree> {
        let real = fs::canonicalize(root).map_err(failed(root))?;
        let mut reader = Reader { ours: listed(root)?, ..Reader::default() };
        let root = reader.folder(root.to_path_buf(), real, 0)?;
        Ok(Tree { root, left_out: reader.left_out })
    }

    /// Every image, in order. A folder that several links lead to counts once.
    pub fn images(&self) -> Vec<PathBuf> {
        self.root.images()
    }

    /// Whether there are any images.
    pub fn has_images(&self) -> bool {
        self.root.has_images()
    }

    /// What was left out, each in one sentence.
    pub fn notes(&self) -> Vec<String> {
        self.left_out.notes()
    }

    /// Files of the root and of its folders that are no images, whose names this function wants.
    pub fn others(&self, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let nodes = std::iter::once(&self.root).chain(self.root.folders());
        let files = nodes.flat_map(|node| node.others.iter().map(|name| node.path.join(name)));
        files.filter(|path| wanted(path)).collect()
    }
}

/// The files that the marker in this folder lists.
fn listed(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let marker = folder.join(MARKER);
    if !marker.is_file() {
        return Ok(BTreeSet::new());
    }
    let bytes = fs::read(&marker).map_err(failed(&marker))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| folder.join(line)).collect())
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}

#[derive(Default)]
struct Reader {
    left_out: LeftOut,
    /// Files of a run in the root itself.
    ours: BTreeSet<PathBuf>,
    /// The folders that are being read, from the root down, without links.
    above: Vec<PathBuf>,
    links: usize,
}

impl Reader {
    fn folder(&mut self, path: PathBuf, real: PathBuf, depth: usize) -> Result<Node> {
        self.above.push(real.clone());
        let (mut entries, mut others) = (Vec::new(), Vec::new());
        for (name, kind) in visible(&path)? {
            let path = path.join(&name);
            let (kind, is_link) = if kind.is_symlink() {
                match fs::metadata(&path) {
                    Ok(target) => (target.file_type(), true),
                    Err(_) if is_image_name(&path) => {
                        entries.push(Entry::Image(name));
                        continue;
                    }
                    Err(_) => {
                        self.left_out.broken_links.push(path);
                        continue;
                    }
                }
            } else {
                (kind, false)
            };
            if kind.is_dir() {
                let real =
                    if is_link { fs::canonicalize(&path).map_err(failed(&path))? } else { real.join(&name) };
                if let Some(node) = self.subfolder(path, real, is_link, depth + 1)? {
                    entries.push(Entry::Folder(node));
                }
            } else if self.file(&path, kind) {
                entries.push(Entry::Image(name));
            } else if kind.is_file() && depth < 2 {
                others.push(name);
            }
        }
        self.above.pop();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Node { name, path, real, entries, others })
    }

    /// A folder below the root; none if it is left out.
    fn subfolder(
        &mut self,
        path: PathBuf,
        real: PathBuf,
        is_link: bool,
        depth: usize,
    ) -> Result<Option<Node>> {
        self.links += usize::from(is_link);
        // A link led into a folder that it lies in.
        if self.above.contains(&real) {
            return Ok(None);
        }
        if path.join(MARKER).is_file() {
            self.left_out.runs.push(path);
            return Ok(None);
        }
        if depth > MAX_DEPTH || self.links > MAX_LINKS {
            self.left_out.too_deep.push(path);
            return Ok(None);
        }
        self.folder(path, real, depth).map(Some)
    }

    /// Whether a file is an image to read; notes what is left out.
    fn file(&mut self, path: &Path, kind: FileType) -> bool {
        if !kind.is_file() {
            if is_image_name(path) {
                self.left_out.specials.push(path.to_owned());
            }
            return false;
        }
        if !is_image_name(path) {
            self.left_out.foreign.count(path);
            return false;
        }
        !self.ours.contains(path)
    }
}

/// The visible names in a folder, sorted by their bytes.
fn visible(folder: &Path) -> Result<Vec<(OsString, FileType)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let name = entry.file_name();
        if !is_hidden(&name) {
            names.push((name, entry.file_type().map_err(failed(&entry.path()))?));
        }
    }
    names.sort_unstable_by(|(a, _), (b, _)| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
    Ok(names)
}

fn is_hidden(name: &OsStr) -> bool {
    let is_clutter = |name: &str| CLUTTER.iter().any(|clutter| clutter.eq_ignore_ascii_case(name));
    name.as_encoded_bytes().starts_with(b".") || name.to_str().is_some_and(is_clutter)
}

impl Node {
    /// The folders directly in this one.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Node> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Folder(node) => Some(node),
            Entry::Image(_) => None,
        })
    }

    /// The images directly in this folder.
    pub(super) fn loose(&self) -> impl Iterator<Item = PathBuf> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Folder(_) => None,
            Entry::Image(name) => Some(self.path.join(name)),
        })
    }

    /// Whether any image lies below.
    pub(super) fn has_images(&self) -> bool {
        self.entries.iter().any(|entry| match entry {
            Entry::Folder(node) => node.has_images(),
            Entry::Image(_) => true,
        })
    }

    /// Every image below, in order. A folder that several links lead to counts once.
    pub(super) fn images(&self) -> Vec<PathBuf> {
        let mut images = Vec::new();
        self.collect(&mut HashSet::new(), &mut images);
        images
    }

    fn collect<'a>(&'a self, seen: &mut HashSet<&'a Path>, images: &mut Vec<PathBuf>) {
        if !seen.insert(&self.real) {
            return;
        }
        for entry in &self.entries {
            match entry {
                Entry::Folder(node) => node.collect(seen, images),
                Entry::Image(name) => images.push(self.path.join(name)),
            }
        }
    }
}
