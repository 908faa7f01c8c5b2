//! A tree of images as a data set: each image with its split and its class.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::left_out::{list, quoted, shown, some};
use super::split::{Siblings, Split, has_train_and_another, siblings, split_in_name, split_of_name};
use super::tree::{Node, Tree};
use crate::error::{Error, Result};

/// Names that a message lists.
const NAMED: usize = 5;
const EXPECTED: &str = "train, val and test folders with a folder for each class in them";
const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// A folder of images as a data set.
///
/// A class is a folder directly below the root, or below a split; the images below it at any depth belong to it. Loose
/// images next to class folders, and those in a folder called `unlabelled`, have no class. Splits are folders with the
/// names of splits ([`split_of_name`]), in the root or in every class folder.
///
/// [`split_of_name`]: super::split_of_name
#[derive(Clone, Debug, Default)]
pub struct ImageFolder {
    /// The classes, sorted by the bytes of their names: those of the train split if it has any, else those of all.
    pub classes: Vec<String>,
    /// The images: split by split, class by class, then those without a class.
    pub images: Vec<FolderImage>,
    /// Whether folders of splits were found; else every image is in `Train`.
    pub has_splits: bool,
    /// What was left out and what may be meant otherwise, each in one sentence.
    pub notes: Vec<String>,
}

/// An image of an [`ImageFolder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderImage {
    /// The file.
    pub path: PathBuf,
    /// Its split, never `All`.
    pub split: Split,
    /// Its place in [`ImageFolder::classes`].
    pub class: Option<u32>,
}

/// The images of one class in one split, or those without a class.
struct Group {
    split: Split,
    class: Option<String>,
    folder: PathBuf,
    images: Vec<PathBuf>,
}

impl ImageFolder {
    /// Reads a folder.
    ///
    /// # Errors
    /// A folder that cannot be read, or splits that cannot be told apart: in some class folders and not in others, or
    /// several groups of them.
    pub fn read(root: &Path) -> Result<ImageFolder> {
        ImageFolder::arrange(&Tree::read(root)?, &[])
    }

    /// Arranges what was listed. Folders whose names are all among `known`, a model's labels, are class folders whatever
    /// they are called.
    ///
    /// # Errors
    /// See [`ImageFolder::read`].
    pub fn arrange(tree: &Tree, known: &[String]) -> Result<ImageFolder> {
        let mut arranging = Arranging { notes: tree.notes(), ..Arranging::default() };
        let root = unwrapped(&tree.root);
        let folders: Vec<&Node> =
            holding_images(root).into_iter().filter(|folder| !is_unlabelled(folder)).collect();
        let names = names(&folders);
        let all_known = names.iter().all(|name| known.iter().any(|label| label == name));
        let kind = match siblings(&names) {
            _ if all_known => Siblings::Classes(Vec::new()),
            Siblings::Classes(suspects) => splits_by_content(&folders).unwrap_or(Siblings::Classes(suspects)),
            other => other,
        };
        let has_splits = match kind {
            Siblings::Splits(found) => {
                arranging.splits(root, &folders, &found);
                true
            }
            Siblings::Ambiguous(places) => {
                let names = some(places.iter().map(|&place| names[place]), 2 * NAMED);
                let problem =
                    format!("{names} look like the splits of several data sets: expected {EXPECTED}");
                return Err(Error::Folder { path: root.path.clone(), problem });
            }
            Siblings::Classes(suspects) => match splits_in_classes(&root.path, &folders)? {
                Some(found) => {
                    arranging.split_classes(root, &found);
                    true
                }
                None => {
                    arranging.suspects(suspects.iter().map(|&place| names[place]));
                    arranging.classes(root, Split::Train);
                    false
                }
            },
        };
        Ok(arranging.finish(has_splits))
    }

    /// The splits that hold images, in order.
    pub fn splits(&self) -> Vec<Split> {
        let splits: BTreeSet<Split> = self.images.iter().map(|image| image.split).collect();
        splits.into_iter().collect()
    }

    /// The images of a split.
    pub fn of_split(&self, split: Split) -> impl Iterator<Item = &FolderImage> {
        self.images.iter().filter(move |image| split == Split::All || image.split == split)
    }
}

/// The folder that the data set lies in: where the root holds one folder and that holds the splits, the latter.
fn unwrapped(root: &Node) -> &Node {
    let mut node = root;
    while let ([folder], None) = (&holding_images(node)[..], node.loose().next()) {
        node = folder;
        let folders = holding_images(node);
        let has_classes = |(place, _): &(usize, Split)| !holding_images(folders[*place]).is_empty();
        if let Siblings::Splits(found) = siblings(&names(&folders))
            && has_train_and_another(&found)
            && found.iter().any(has_classes)
        {
            return node;
        }
    }
    root
}

/// A train folder that alone holds class folders is a split, whatever is next to it: `train/cat`, `samples/1.png`.
fn splits_by_content(folders: &[&Node]) -> Option<Siblings> {
    let plain = |folder: &Node| split_of_name(&folder.name);
    let of_classes = |folder: &&Node| folder.loose().next().is_none() && !holding_images(folder).is_empty();
    let has_train = folders.iter().any(|folder| plain(folder) == Some(Split::Train) && of_classes(folder));
    let alone = folders.iter().all(|folder| plain(folder).is_some() || holding_images(folder).is_empty());
    let found = folders.iter().enumerate().filter_map(|(place, folder)| Some((place, plain(folder)?)));
    (has_train && alone).then(|| Siblings::Splits(found.collect()))
}

/// A class folder's folders of splits.
type SplitClass<'a> = (&'a Node, Vec<(Split, &'a Node)>);

/// The class folders with the splits inside them, if that is where the splits are.
fn splits_in_classes<'a>(root: &Path, classes: &[&'a Node]) -> Result<Option<Vec<SplitClass<'a>>>> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut measured = false;
    for class in classes {
        let folders = holding_images(class);
        match siblings(&names(&folders)) {
            Siblings::Splits(found) => {
                measured |= has_train_and_another(&found);
                let is_whole = found.len() == folders.len() && class.loose().next().is_none();
                if !is_whole {
                    without.push(name(class));
                }
                with.push((*class, found.iter().map(|(place, split)| (*split, folders[*place])).collect()));
            }
            _ => without.push(name(class)),
        }
    }
    if !measured {
        return Ok(None);
    }
    if let (Some(first), false) = (with.first(), without.is_empty()) {
        let (class, splits): &SplitClass<'_> = first;
        let splits = some(splits.iter().map(|(_, folder)| name(folder)), NAMED);
        let problem = format!(
            "the class folder {} holds the splits {splits}, but {} holds other images: expected splits and nothing else in \
             every class folder, or {EXPECTED}",
            quoted(&class.name),
            some(without.iter().copied(), NAMED)
        );
        return Err(Error::Folder { path: root.to_owned(), problem });
    }
    Ok(Some(with))
}

/// What is being put together.
#[derive(Default)]
struct Arranging {
    groups: Vec<Group>,
    notes: Vec<String>,
    /// How many class folders have splits somewhere below, and a sentence about the first.
    nested: usize,
    first_nested: Option<String>,
}

impl Arranging {
    /// Split folders next to each other.
    fn splits(&mut self, root: &Node, folders: &[&Node], found: &[(usize, Split)]) {
        for split in SPLITS {
            let same: Vec<&str> =
                found.iter().filter(|of| of.1 == split).map(|of| name(folders[of.0])).collect();
            if same.len() > 1 {
                let (same, place) = (some(same.iter().copied(), NAMED), shown(&root.path));
                self.notes.push(format!("{same} in {place} are read as one split, `{split}`"));
            }
        }
        let is_split = |place: &usize| found.iter().any(|(of, _)| of == place);
        let others = (0..folders.len()).filter(|place| !is_split(place));
        let mut left_out: Vec<String> = others.map(|place| quoted(name(folders[place]))).collect();
        match root.loose().count() {
            0 => {}
            1 => left_out.push("1 loose image".into()),
            n => left_out.push(format!("{n} loose images")),
        }
        if !left_out.is_empty() {
            let splits = some(found.iter().map(|(place, _)| name(folders[*place])), NAMED);
            let (left_out, place) = (list(&left_out), shown(&root.path));
            self.notes
                .push(format!("only the splits {splits} of {place} are read, not {left_out} next to them"));
        }
        for (place, split) in found {
            self.classes(innermost(folders[*place], *split), *split);
        }
        self.unlabelled(root, Split::Train);
    }

    /// Split folders in every class folder.
    fn split_classes(&mut self, root: &Node, classes: &[SplitClass<'_>]) {
        let mut first = None;
        for split in SPLITS {
            for (class, splits) in classes {
                for (_, folder) in splits.iter().filter(|(of, _)| *of == split) {
                    first.get_or_insert_with(|| shown(&folder.path));
                    self.group(folder, split, Some(name(class)));
                }
            }
        }
        self.unlabelled(root, Split::Train);
        self.loose(root, Split::Train);
        let first = first.unwrap_or_default();
        self.notes.push(format!("the splits were found inside the class folders; the first is {first}"));
    }

    /// Class folders and loose images.
    fn classes(&mut self, node: &Node, split: Split) {
        let mut empty = Vec::new();
        for folder in node.folders().filter(|folder| !is_unlabelled(folder)) {
            if folder.has_images() {
                self.group(folder, split, Some(name(folder)));
            } else {
                empty.push(name(folder));
            }
        }
        if !empty.is_empty() {
            let (empty, place) = (some(empty.iter().copied(), NAMED), shown(&node.path));
            self.notes.push(format!("no images in {empty} of {place}: a folder without images is no class"));
        }
        self.unlabelled(node, split);
        self.loose(node, split);
    }

    fn group(&mut self, folder: &Node, split: Split, class: Option<&str>) {
        if let (Some(class), Some(inner)) = (class, holding_splits(folder)) {
            self.nested += 1;
            let names: Vec<String> = inner.folders().map(|folder| quoted(name(folder))).collect();
            let (names, place, class) = (list(&names), shown(&inner.path), quoted(class));
            self.first_nested.get_or_insert_with(|| {
                format!(
                    "{names} in {place} look like splits, but all images below belong to the class {class}"
                )
            });
        }
        self.groups.push(Group {
            split,
            class: class.map(str::to_owned),
            folder: folder.path.clone(),
            images: folder.images(),
        });
    }

    fn unlabelled(&mut self, node: &Node, split: Split) {
        node.folders()
            .filter(|folder| is_unlabelled(folder))
            .for_each(|folder| self.group(folder, split, None));
    }

    fn loose(&mut self, node: &Node, split: Split) {
        let images = node.loose().collect();
        self.groups.push(Group { split, class: None, folder: node.path.clone(), images });
    }

    /// Names that look like splits among classes.
    fn suspects<'a>(&mut self, names: impl ExactSizeIterator<Item = &'a str>) {
        if names.len() > 0 {
            self.notes.push(format!(
                "{} may look like a split, but is taken for a class: a train folder and a val or test folder would be splits",
                some(names, NAMED)
            ));
        }
    }

    fn finish(mut self, has_splits: bool) -> ImageFolder {
        let names = |split: Split| -> BTreeSet<&String> {
            let groups = self.groups.iter().filter(|group| split == Split::All || group.split == split);
            groups.filter_map(|group| group.class.as_ref()).collect()
        };
        let of_train = names(Split::Train);
        let classes = if of_train.is_empty() { names(Split::All) } else { of_train };
        let classes: Vec<String> = classes.into_iter().cloned().collect();
        let (mut images, mut unknown) = (Vec::new(), Vec::new());
        for group in self.groups {
            let class = group.class.as_ref().and_then(|class| classes.binary_search(class).ok());
            if class.is_none() && group.class.is_some() {
                unknown.push((group.folder, group.images.len()));
            }
            let (split, class) = (group.split, class.map(|place| place as u32));
            images.extend(group.images.into_iter().map(|path| FolderImage { path, split, class }));
        }
        if let Some((first, _)) = unknown.first() {
            let (n, first): (usize, _) = (unknown.iter().map(|(_, n)| n).sum(), shown(first));
            let more = if unknown.len() > 1 {
                format!(" (and {} more folders)", unknown.len() - 1)
            } else {
                String::new()
            };
            self.notes.push(format!(
                "{first}{more} is no class of the train split: its {n} images count as images without labels"
            ));
        }
        if let Some(first) = self.first_nested {
            let more =
                if self.nested > 1 { format!(" (and {} more)", self.nested - 1) } else { String::new() };
            self.notes.push(format!("{first}{more}"));
        }
        ImageFolder { classes, images, has_splits, notes: self.notes }
    }
}

/// The folder inside folders of the same split: archives hold `seg_train/seg_train/`.
fn innermost(folder: &Node, split: Split) -> &Node {
    let mut node = folder;
    while let ([inner], None) = (&holding_images(node)[..], node.loose().next())
        && split_in_name(name(inner)) == Some(split)
    {
        node = inner;
    }
    node
}

/// The first folder in or below `node` whose folders look like splits.
fn holding_splits(node: &Node) -> Option<&Node> {
    let folders = holding_images(node);
    match siblings(&names(&folders)) {
        Siblings::Splits(found) if has_train_and_another(&found) => Some(node),
        Siblings::Ambiguous(_) => Some(node),
        _ => folders.into_iter().find_map(holding_splits),
    }
}

/// Whether a folder holds images without labels next to class folders.
fn is_unlabelled(node: &Node) -> bool {
    ["unlabelled", "unlabeled"].iter().any(|name| name.eq_ignore_ascii_case(&node.name))
}

fn holding_images(node: &Node) -> Vec<&Node> {
    node.folders().filter(|folder| folder.has_images()).collect()
}

fn name(node: &Node) -> &str {
    &node.name
}

fn names<'a>(folders: &[&'a Node]) -> Vec<&'a str> {
    folders.iter().map(|folder| name(folder)).collect()
}
