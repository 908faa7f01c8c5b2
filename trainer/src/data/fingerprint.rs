//! What a data set was like, to notice that it changed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::dataset::Dataset;

/// Names that a message lists.
const NAMED: usize = 5;

/// Numbers, class names and a digest of the list of images. Pixels play no part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fingerprint {
    /// How many images there are.
    pub images: usize,
    /// How many of them have a label.
    pub labelled: usize,
    /// The names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// SHA-256 over the place of each image in the data set and the name of its class, in hexadecimal digits. A data set
    /// that moves keeps it.
    pub digest: String,
}

impl Dataset {
    /// The data set's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        let (mut digest, mut labelled) = (Sha256::new(), 0);
        let mut field = |text: &str| {
            // With lengths, so that no two lists give the same bytes.
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        for i in 0..self.len() {
            let class = self.label(i).and_then(|label| self.classes().get(label as usize));
            labelled += usize::from(class.is_some());
            field(&self.key(i));
            field(class.map_or("", String::as_str));
        }
        let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Fingerprint { images: self.len(), labelled, classes: self.classes().to_vec(), digest }
    }
}

impl Fingerprint {
    /// What differs `now` from this earlier fingerprint, in one sentence: classes by name, numbers of images and labels,
    /// else that the files are others. None if nothing does.
    pub fn difference(&self, now: &Fingerprint) -> Option<String> {
        if self == now {
            return None;
        }
        let mut differences: Vec<String> = self.classes_difference(now).into_iter().collect();
        let images = (self.images != now.images, "images", self.images, now.images);
        let labels = (
            self.images == now.images && self.labelled != now.labelled,
            "labels",
            self.labelled,
            now.labelled,
        );
        for (differ, what, then, now) in [images, labels] {
            if differ {
                differences.push(format!("{then} {what} then, {now} now"));
            }
        }
        if differences.is_empty() {
            return Some("the same number of images, but other files or labels".into());
        }
        Some(differences.join("; "))
    }

    fn classes_difference(&self, now: &Fingerprint) -> Option<String> {
        if self.classes == now.classes {
            return None;
        }
        let gone = without(&self.classes, &now.classes);
        let new = without(&now.classes, &self.classes);
        let verb = |names: &[&str]| if names.len() == 1 { "is" } else { "are" };
        let said = |names: &[&str], what: &str| format!("{} {} {what}", listed(names), verb(names));
        Some(match (gone.is_empty(), new.is_empty()) {
            (true, true) => "the same classes in another order".into(),
            (true, false) => said(&new, "new"),
            (false, true) => said(&gone, "gone"),
            (false, false) => format!("{}, {}", said(&gone, "gone"), said(&new, "new")),
        })
    }
}

/// The names that are not among the others.
fn without<'a>(names: &'a [String], others: &[String]) -> Vec<&'a str> {
    let others: std::collections::HashSet<&String> = others.iter().collect();
    names.iter().filter(|name| !others.contains(name)).map(String::as_str).collect()
}

/// The first names, and how many more there are.
fn listed(names: &[&str]) -> String {
    let shown: Vec<String> =
        names.iter().take(NAMED).map(|name| format!("`{}`", name.escape_debug())).collect();
    match names.len().saturating_sub(NAMED) {
        0 => match &shown[..] {
            [most @ .., last] if !most.is_empty() => format!("{} and {last}", most.join(", ")),
            _ => shown.concat(),
        },
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::Split;

    fn tree(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
    }

    fn of(files: &[&str]) -> Fingerprint {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path(), files);
        Dataset::open(dir.path(), Split::Train).unwrap().fingerprint()
    }

    #[test]
    fn a_data_set_that_moves_keeps_its_fingerprint() {
        let files = ["cat/1.png", "dog/2.png", "3.png"];
        let found = of(&files);
        assert_eq!(found, of(&files));
        assert_eq!((found.images, found.labelled, found.classes.len(), found.digest.len()), (3, 2, 2, 64));
        // The same by another way to write its path.
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path(), &files);
        let odd = dir.path().join("cat/..");
        assert_eq!(Dataset::open(&odd, Split::Train).unwrap().fingerprint(), found);
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let then = of(&["cat/1.png", "dog/2.png"]);
        for (files, expected) in [
            (&["cat/1.png", "dog/2.png"][..], None),
            (&["zebra/1.png", "dog/2.png"], Some("`cat` is gone, `zebra` is new")),
            (&["dog/2.png"], Some("`cat` is gone; 2 images then, 1 now")),
            (
                &["cat/1.png", "dog/2.png", "ant/3.png", "bee/4.png"],
                Some("`ant` and `bee` are new; 2 images then, 4 now"),
            ),
            (&["cat/1.png", "dog/2.png", "dog/3.png"], Some("2 images then, 3 now")),
            (&["cat/1.png", "dog/3.png"], Some("the same number of images, but other files or labels")),
        ] {
            assert_eq!(then.difference(&of(files)).as_deref(), expected, "{files:?}");
        }
        let other = Fingerprint { labelled: 1, ..then.clone() };
        assert_eq!(then.difference(&other).as_deref(), Some("2 labels then, 1 now"));
        let classes: Vec<String> = (0..9).map(|i| i.to_string()).collect();
        let other = Fingerprint { classes, ..then.clone() };
        let said = then.difference(&other).unwrap();
        assert!(
            said.contains("`cat` and `dog` are gone, `0`, `1`, `2`, `3`, `4` and 4 more are new"),
            "{said}"
        );
        let other = Fingerprint { classes: vec!["dog".into(), "cat".into()], ..then.clone() };
        assert_eq!(then.difference(&other).as_deref(), Some("the same classes in another order"));
    }

    #[test]
    fn tables_and_raw_files_have_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let at = |root: &Path, text: &str| {
            tree(root, &["a.png", "b.png"]);
            std::fs::write(root.join("t.csv"), text).unwrap();
            Dataset::open(&root.join("t.csv"), Split::Train).unwrap().fingerprint()
        };
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let found = at(&one, "a.png,cat\nb.png,dog\n");
        assert_eq!(found, at(&other, "a.png,cat\nb.png,dog\n"));
        assert_ne!(found.digest, at(&other, "b.png,cat\na.png,dog\n").digest);

        let idx = |bytes: &[u8]| [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1][..], bytes].concat();
        let raw = |labels: [u8; 2]| {
            let root = tempfile::tempdir().unwrap();
            std::fs::write(root.path().join("train-images-idx3-ubyte"), idx(&[7, 8])).unwrap();
            let labels = [&[0, 0, 8, 1, 0, 0, 0, 2][..], &labels].concat();
            std::fs::write(root.path().join("train-labels-idx1-ubyte"), labels).unwrap();
            Dataset::open(root.path(), Split::Train).unwrap().fingerprint()
        };
        assert_eq!(raw([0, 1]), raw([0, 1]));
        assert_ne!(raw([0, 1]).digest, raw([1, 0]).digest);
    }

    #[test]
    fn it_is_stored_as_text() {
        let found = of(&["cat/1.png"]);
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.contains("\"classes\":[\"cat\"]"), "{text}");
        assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), found);
    }
}
