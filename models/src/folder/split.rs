//! Which split a name stands for, and which of several folders are the splits of a data set.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A split of a data set. A data set without splits has only `Train`, which is then the same as `All`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The images to learn from: `train/`, CIFAR's `data_batch_*.bin`, MNIST's `train-*`.
    Train,
    /// The images to choose settings by: `val/`.
    Val,
    /// The images to measure on: `test/`, CIFAR's `test_batch.bin`, MNIST's `t10k-*`.
    Test,
    /// Every image of every split: what may be asked for, never what an image belongs to.
    All,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
            Split::All => "all",
        })
    }
}

/// Words that say which split a name means.
const WORDS: [(&str, Split); 14] = [
    ("train", Split::Train),
    ("training", Split::Train),
    ("trainval", Split::Train),
    ("val", Split::Val),
    ("valid", Split::Val),
    ("validate", Split::Val),
    ("validation", Split::Val),
    ("dev", Split::Val),
    ("eval", Split::Val),
    ("evaluation", Split::Val),
    ("test", Split::Test),
    ("testing", Split::Test),
    ("holdout", Split::Test),
    ("heldout", Split::Test),
];

/// Words that say nothing more than that these are images or a split: `train_set`, `test images`.
const FILLERS: [&str; 17] = [
    "set", "sets", "data", "dataset", "split", "image", "images", "img", "imgs", "photo", "photos",
    "picture", "pictures", "sample", "samples", "folder", "dir",
];

/// A name that means a split: `seg_train` is `Train` with the rest `seg`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    split: Split,
    /// The words that are left, none for a plain name such as `train` or `Test Set`.
    rest: String,
}

/// The split that a plain name means, in any case: `train`, `Training`, `val_set`, `test images`, `train2017`.
pub fn split_of_name(name: &str) -> Option<Split> {
    parse(name).filter(|name| name.rest.is_empty()).map(|name| name.split)
}

/// The split that a name means, whatever other words are in it: `seg_train`, `cat-test`.
pub fn split_in_name(name: &str) -> Option<Split> {
    parse(name).map(|name| name.split)
}

fn parse(name: &str) -> Option<Name> {
    let (mut found, mut rest) = (None, Vec::new());
    for word in words(name) {
        match split_of_word(&word) {
            Some(split) => match found.replace(split) {
                None => {}
                // `train_val` is what to learn from after all settings are chosen.
                Some(Split::Train) if split == Split::Val => found = Some(Split::Train),
                Some(_) => return None,
            },
            None if FILLERS.contains(&word.as_str()) || word.bytes().all(|b| b.is_ascii_digit()) => {}
            None => rest.push(word),
        }
    }
    Some(Name { split: found?, rest: rest.join(" ") })
}

/// The split that one word means: `test`, `testset`.
fn split_of_word(word: &str) -> Option<Split> {
    let known = |word: &str| WORDS.iter().find(|(known, _)| *known == word).map(|(_, split)| *split);
    known(word).or_else(|| FILLERS.iter().find_map(|filler| known(word.strip_suffix(filler)?)))
}

/// The words of a name in lower case; they end at signs, at digits and before capitals: `TrainSet_2017`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        let ends =
            c.is_ascii_digit() != before.is_ascii_digit() || (c.is_uppercase() && before.is_lowercase());
        if ends || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What the folders of one place are to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Siblings {
    /// These are splits, by their places in the list; the others are none.
    Splits(Vec<(usize, Split)>),
    /// None of them is a split; the names in these places look like one.
    Classes(Vec<usize>),
    /// Several groups of splits: `cat_train cat_test dog_train dog_test`.
    Ambiguous(Vec<usize>),
}

/// Which of these folders of one place are splits: the names `train` and `val` or `test` in any spelling, with the same
/// words around them (`seg_train`, `seg_test`), or nothing but plain names. A class may be called `train` too: alone
/// among other names it is no split.
pub(super) fn siblings(names: &[&str]) -> Siblings {
    let mut groups: BTreeMap<String, Vec<(usize, Split)>> = BTreeMap::new();
    for (place, name) in names.iter().enumerate() {
        if let Some(name) = parse(name) {
            groups.entry(name.rest).or_default().push((place, name.split));
        }
    }
    let like_splits = places(groups.values().flatten());
    groups.retain(|rest, group| {
        has_train_and_another(group) || (rest.is_empty() && group.len() == names.len())
    });
    let plain = groups.remove("");
    match (plain, groups.len()) {
        (Some(plain), _) => Siblings::Splits(plain),
        (None, 0) => Siblings::Classes(like_splits),
        (None, 1) => Siblings::Splits(groups.into_values().flatten().collect()),
        (None, _) => Siblings::Ambiguous(places(groups.values().flatten())),
    }
}

/// Whether a group holds images to learn from and others to measure on.
pub(super) fn has_train_and_another(group: &[(usize, Split)]) -> bool {
    let is_train = |(_, split): &(usize, Split)| *split == Split::Train;
    group.iter().any(is_train) && !group.iter().all(is_train)
}

fn places<'a>(of: impl Iterator<Item = &'a (usize, Split)>) -> Vec<usize> {
    let mut places: Vec<usize> = of.map(|(place, _)| *place).collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_mean_splits_in_any_spelling() {
        for (split, names) in [
            (
                Split::Train,
                &[
                    "train",
                    "TRAIN",
                    "Training",
                    "train_set",
                    "train-set",
                    "Train Set",
                    "trainset",
                    "TrainSet",
                ][..],
            ),
            (
                Split::Train,
                &["training_set", "train_images", "imgs_train", "train2017", "trainval", "train+val"],
            ),
            (
                Split::Val,
                &["val", "Valid", "validation", "dev", "eval", "val_set", "ValidationSet", "set-val"],
            ),
            (Split::Test, &["test", "Testing", "test_set", "test1", "testset", "test images", "test-data"]),
        ] {
            for name in names {
                assert_eq!(split_of_name(name), Some(split), "{name}");
            }
        }
        for name in
            ["trains", "seg_train", "bullet train", "invalid", "contest", "latest", "device", "values", ""]
        {
            assert_eq!(split_of_name(name), None, "{name}");
        }
        assert_eq!(split_of_name("train_test_split"), None);
        assert_eq!((split_in_name("seg_train"), split_in_name("latest")), (Some(Split::Train), None));
    }

    #[test]
    fn splits_are_told_from_classes_by_their_company() {
        let splits = |names: &[&str]| match siblings(names) {
            Siblings::Splits(found) => found.into_iter().map(|(place, _)| names[place].to_owned()).collect(),
            _ => Vec::new(),
        };
        for names in [
            &["test", "train"][..],
            &["seg_test", "seg_train"],
            &["test_set", "train_set"],
            &["train_a", "val_a"],
            &["TEST", "Train", "dev"],
            &["Testing"],
            &["train", "train2"],
        ] {
            assert_eq!(splits(names), names, "{names:?}");
        }
        assert_eq!(splits(&["notes", "seg_pred", "test", "train"]), ["test", "train"]);
        assert_eq!(siblings(&["bus", "car", "train"]), Siblings::Classes(vec![2]));
        assert_eq!(siblings(&["invalid", "valid"]), Siblings::Classes(vec![1]));
        assert_eq!(siblings(&["bullet_train", "steam_train", "test_tube"]), Siblings::Classes(vec![0, 1, 2]));
        let both = ["cat_test", "cat_train", "dog_test", "dog_train"];
        assert_eq!(siblings(&both), Siblings::Ambiguous(vec![0, 1, 2, 3]));
        assert_eq!(siblings(&[]), Siblings::Classes(vec![]));
    }
}
