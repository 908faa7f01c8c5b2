//! What a run remembers of its data set, to notice that it changed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Dataset;

/// Counts, class names and a digest of the list of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fingerprint {
    /// Number of images.
    pub images: usize,
    /// Number of them that have a label.
    pub labelled: usize,
    /// Names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// SHA-256 over each image's place relative to the data set's root, with its class.
    pub digest: String,
}

impl Dataset {
    /// The data set's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        let (root, mut hash, mut labelled) = (self.root(), Sha256::new(), 0);
        for i in 0..self.len() {
            let place = self.place(i);
            hash.update(place.strip_prefix(&root).unwrap_or(&place));
            if let Some(class) = self.label(i).and_then(|label| self.classes().get(label as usize)) {
                labelled += 1;
                hash.update([0]);
                hash.update(class);
            }
            hash.update([1]);
        }
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Fingerprint { images: self.len(), labelled, classes: self.classes().to_vec(), digest }
    }
}

impl Fingerprint {
    /// What differs between this data set, seen earlier, and the one that is there `now`.
    pub fn difference(&self, now: &Fingerprint) -> Option<String> {
        let missing = |from: &[String], of: &[String]| {
            let names: Vec<String> =
                from.iter().filter(|name| !of.contains(name)).map(|name| format!("`{name}`")).collect();
            names.join(", ")
        };
        let (gone, new) = (missing(&self.classes, &now.classes), missing(&now.classes, &self.classes));
        match (gone.is_empty(), new.is_empty()) {
            (false, false) => return Some(format!("class {gone} is gone, {new} is new")),
            (false, true) => return Some(format!("class {gone} is gone")),
            (true, false) => return Some(format!("class {new} is new")),
            (true, true) => {}
        }
        if self.images != now.images || self.labelled != now.labelled {
            return Some(format!(
                "{} images ({} labelled) then, {} ({} labelled) now",
                self.images, self.labelled, now.images, now.labelled
            ));
        }
        (self != now).then(|| "the same number of images, but other files or labels".into())
    }
}
