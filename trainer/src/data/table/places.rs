//! Where the files are that a table names.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use smalti_models::folder::{Split, Tree, split_of_name};
use smalti_models::image::is_image_name;

use super::escape;

/// Names of folders that hold the images, rather than masks or thumbnails of the same names.
const IMAGES: [&str; 6] = ["images", "image", "imgs", "img", "photos", "pictures"];

/// What else a row says about its file.
#[derive(Default)]
pub(super) struct Hint<'a> {
    pub(super) folder: Option<&'a str>,
    pub(super) label: Option<&'a str>,
    pub(super) split: Option<Split>,
}

/// Where a file is.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    At(PathBuf),
    /// Nowhere; it would be here.
    Nowhere(PathBuf),
    /// In two places or more that are equally likely.
    Several(PathBuf, PathBuf),
}

/// The files near a table. A name is a path from the table's folder or from the one around it; else it is looked for in
/// all folders below: `0a1b` may be `train/0a1b.jpg`.
pub(super) struct Places {
    folder: PathBuf,
    /// The split that the table's own name means: `train.csv`.
    split: Option<Split>,
    /// The files of folders that were looked into.
    listed: HashMap<PathBuf, HashSet<OsString>>,
    below: Option<Below>,
}

/// Every image below the table's folder, by its name with and without extension.
#[derive(Default)]
struct Below {
    images: Vec<PathBuf>,
    by_name: HashMap<String, Vec<u32>>,
}

impl Places {
    /// The places of the table at `table`, whose paths begin in `folder`, else in its own.
    pub(super) fn new(table: &Path, folder: Option<&Path>) -> Places {
        let folder = match folder.or(table.parent()) {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let stem = table.file_stem().and_then(|stem| stem.to_str());
        Places {
            folder: folder.into(),
            split: stem.and_then(split_of_name),
            listed: HashMap::new(),
            below: None,
        }
    }

    /// Whether a name is the path of a file.
    pub(super) fn is_direct(&mut self, name: &str) -> bool {
        self.direct(name).is_some()
    }

    /// Whether a name stands for a file in any way.
    pub(super) fn is_known(&mut self, name: &str) -> bool {
        !matches!(self.find(name, &Hint::default()), Found::Nowhere(_))
    }

    /// Where the file is that a row names.
    pub(super) fn find(&mut self, name: &str, hint: &Hint<'_>) -> Found {
        let name = slashes(name);
        let in_folder = hint.folder.map(|folder| format!("{}/{name}", slashes(folder)));
        if let Some(found) = in_folder.as_deref().and_then(|name| self.direct(name)) {
            return Found::At(found);
        }
        if let Some(found) = self.direct(&name) {
            return Found::At(found);
        }
        let (wanted, folder) = (hint.split.or(self.split), self.folder.clone());
        let below = self.below();
        let mut matches = in_folder.map_or_else(Vec::new, |name| below.matches(&name));
        if matches.is_empty() {
            matches = below.matches(&name);
        }
        let mut ranked: Vec<(usize, &PathBuf)> = matches
            .into_iter()
            .filter_map(|path| Some((rank(path.strip_prefix(&folder).ok()?, wanted, hint.label)?, path)))
            .collect();
        ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        match ranked[..] {
            [] => Found::Nowhere(folder.join(&name)),
            [(best, one), (next, other), ..] if best == next => Found::Several(one.clone(), other.clone()),
            [(_, one), ..] => Found::At(one.clone()),
        }
    }

    /// The file with this path from the table's folder, or the image with it from the folder around that; the path may be
    /// encoded. A file without an image's extension outside is more likely something else.
    fn direct(&mut self, name: &str) -> Option<PathBuf> {
        let (folder, around) = (self.folder.clone(), self.folder.join(".."));
        let names = [Some(PathBuf::from(slashes(name))), escape::path(name)];
        names.into_iter().flatten().find_map(|name| {
            let outside = is_image_name(&name).then(|| around.join(&name));
            [Some(folder.join(&name)), outside].into_iter().flatten().find(|path| self.is_file(path))
        })
    }

    fn is_file(&mut self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        if !self.listed.contains_key(folder) {
            self.listed.insert(folder.into(), files(folder));
        }
        // File systems that ignore case know more names than they list.
        let ignores_case = cfg!(any(windows, target_os = "macos"));
        self.listed.get(folder).is_some_and(|names| names.contains(name)) || (ignores_case && path.is_file())
    }

    fn below(&mut self) -> &Below {
        self.below.get_or_insert_with(|| Below::read(&self.folder))
    }
}

impl Below {
    /// A folder that cannot be read holds nothing.
    fn read(folder: &Path) -> Below {
        let mut below = Below::default();
        for (i, path) in (0..).zip(Tree::read(folder).map(|tree| tree.images()).unwrap_or_default()) {
            let names = [path.file_name(), path.file_stem()].into_iter().flatten();
            for name in names.map(|name| name.to_string_lossy().into_owned()) {
                below.by_name.entry(name).or_default().push(i);
            }
            below.images.push(path);
        }
        below
    }

    /// The images whose paths end with this name; it may lack the extension.
    fn matches(&self, name: &str) -> Vec<&PathBuf> {
        let name = Path::new(name);
        let key = name.file_name().unwrap_or_default().to_string_lossy();
        let with_extension = is_image_name(name);
        let places = self.by_name.get(&*key).map_or(&[][..], Vec::as_slice);
        let images = places.iter().filter_map(|&i| self.images.get(i as usize));
        let ends = |path: &Path| match with_extension {
            true => path.ends_with(name),
            false => path.with_extension("").ends_with(name),
        };
        images.filter(|path| ends(path)).collect()
    }
}

/// How likely it is that a row means this file, its path from the table's folder; none if it belongs to another split.
fn rank(path: &Path, split: Option<Split>, label: Option<&str>) -> Option<usize> {
    let folders = path.parent().into_iter().flat_map(Path::components);
    let folders: Vec<_> = folders.filter_map(|part| part.as_os_str().to_str()).collect();
    let of_path = folders.iter().rev().find_map(|folder| split_of_name(folder));
    if let (Some(wanted), Some(found)) = (split, of_path)
        && wanted != found
    {
        return None;
    }
    let in_split = split.is_some() && of_path == split;
    let in_class = label.is_some_and(|label| folders.contains(&label));
    let in_images = folders.last().is_some_and(|folder| IMAGES.contains(&&*folder.to_lowercase()));
    Some(4 * usize::from(in_split) + 2 * usize::from(in_class) + usize::from(in_images))
}

/// A path as tables from Windows write it too.
fn slashes(name: &str) -> String {
    let name = name.replace('\\', "/");
    name.strip_prefix("./").map_or(name.clone(), str::to_owned)
}

/// The names of the files in a folder; none if it cannot be read.
fn files(folder: &Path) -> HashSet<OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_file = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_dir());
    entries.filter(is_file).map(|entry| entry.file_name()).collect()
}
