//! The classes of a data set whose labels are texts, and what may be the name of a class.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use smalti_models::folder::Split;

use crate::error::{Error, Result};

/// Maximum number of classes of a data set: a wrong label must not make a table of billions of names.
pub const MAX_CLASSES: usize = 65_536;

/// Maximum bytes of a class's name, as an exported model allows.
const MAX_NAME: usize = 1000;

/// What [`number`] makes of labels given as text.
#[derive(Debug, PartialEq)]
pub(crate) struct Numbered {
    pub(crate) classes: Vec<String>,
    pub(crate) labels: Vec<Option<u32>>,
    /// The first label of another split that the train split does not have, and how many images have such labels: they
    /// count as images without labels.
    pub(crate) unknown: Option<(String, usize)>,
}

/// Classes and numbers of labels given as text, each with its image's split. The classes are the names of a list if
/// there is one; whole numbers stand for themselves; else they are the distinct texts in order, of the train split if
/// it has labels.
///
/// # Errors
/// A label that is not in the list; more than [`MAX_CLASSES`] classes. The error is the problem alone.
pub(crate) fn number(
    texts: &[(Split, Option<String>)],
    names: Option<Vec<String>>,
) -> Result<Numbered, String> {
    let labelled = || texts.iter().filter_map(|(split, text)| Some((*split, text.as_deref()?)));
    let whole = labelled().map(|(_, text)| text.parse::<u32>().ok()).collect::<Option<Vec<u32>>>();
    let has_train = labelled().any(|(split, _)| split == Split::Train);
    let counts = |split: Split| !has_train || split == Split::Train;
    let is_listed = names.is_some();
    let classes: Vec<String> = match (names, &whole) {
        (Some(names), _) => names,
        (None, Some(numbers)) => {
            let of_train = labelled().zip(numbers).filter(|((split, _), _)| counts(*split));
            let largest = of_train.map(|(_, number)| *number).max();
            let classes = largest.map_or(0, |largest| largest as usize + 1);
            if classes > MAX_CLASSES {
                return Err(format!("label {}, at most {MAX_CLASSES} classes are supported", classes - 1));
            }
            (0..classes).map(|i| i.to_string()).collect()
        }
        (None, None) => {
            let of_train = labelled().filter(|(split, _)| counts(*split)).map(|(_, text)| text);
            let distinct: BTreeSet<&str> = of_train.collect();
            distinct.into_iter().map(str::to_owned).collect()
        }
    };
    if classes.len() > MAX_CLASSES {
        return Err(format!("{} different labels, at most {MAX_CLASSES} are supported", classes.len()));
    }
    let places: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let (mut labels, mut unknown) = (Vec::with_capacity(texts.len()), None);
    for (_, text) in texts {
        let place = text.as_deref().and_then(|text| match whole {
            // Whether the number is in a list's range is checked with every other data set's.
            Some(_) if is_listed => text.parse().ok(),
            // `07` is 7.
            Some(_) => text.parse().ok().filter(|number: &u32| (*number as usize) < classes.len()),
            None => places.get(text).copied(),
        });
        if let (None, Some(text)) = (place, text) {
            if is_listed {
                return Err(format!("label `{text}` is not among the named classes"));
            }
            unknown.get_or_insert_with(|| (text.clone(), 0)).1 += 1;
        }
        labels.push(place);
    }
    Ok(Numbered { classes, labels, unknown })
}

impl Numbered {
    /// A sentence about labels that count as none.
    pub(crate) fn note(&self) -> Option<String> {
        let (first, n) = self.unknown.as_ref()?;
        Some(format!(
            "{n} images of other splits have labels that the train split does not have (`{first}` is the first): they \
             count as images without labels"
        ))
    }
}

/// The class names in a `labels.txt` or `classes.txt` of this folder, one a line.
pub(crate) fn names_file(folder: &Path) -> Result<Option<Vec<String>>> {
    for name in ["labels.txt", "classes.txt"] {
        let path = folder.join(name);
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            return Ok(Some(lines.take(MAX_CLASSES + 1).map(str::to_owned).collect()));
        }
    }
    Ok(None)
}

/// What keeps a name from being a class's, if anything: an exported model stores names, and `labels.txt` has one a line.
pub(crate) fn unusable_name(name: &str) -> Option<String> {
    let problem = if name.trim().is_empty() {
        "is blank"
    } else if name.chars().any(char::is_control) {
        "holds a line break or another control character"
    } else if name.contains(char::REPLACEMENT_CHARACTER) {
        "is not UTF-8"
    } else if name.len() > MAX_NAME {
        let start: String = name.chars().take(40).collect();
        return Some(format!("the class name {start:?}... has {} bytes, at most {MAX_NAME}", name.len()));
    } else {
        return None;
    };
    Some(format!("the class name {name:?} {problem}: rename the folder or the label"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<(Split, Option<String>)> {
        list.iter().map(|t| (Split::Train, (!t.is_empty()).then(|| (*t).to_owned()))).collect()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| (*t).to_owned()).collect()
    }

    fn found(list: &[&str], listed: Option<&[&str]>) -> (Vec<String>, Vec<Option<u32>>) {
        let found = number(&texts(list), listed.map(names)).unwrap();
        assert_eq!(found.unknown, None);
        (found.classes, found.labels)
    }

    #[test]
    fn texts_get_numbers() {
        let expected = (names(&["a", "b"]), vec![Some(1), None, Some(0), Some(1)]);
        assert_eq!(found(&["b", "", "a", "b"], None), expected);
        assert_eq!(found(&["2", "0"], None), (names(&["0", "1", "2"]), vec![Some(2), Some(0)]));
        assert_eq!(found(&["2", "x"], None), (names(&["2", "x"]), vec![Some(0), Some(1)]));
        assert_eq!(found(&["", ""], None), (vec![], vec![None, None]));
        assert_eq!(found(&["b"], Some(&["a", "b"])).1, [Some(1)]);
        assert_eq!(found(&["1"], Some(&["a", "b"])).1, [Some(1)]);
        assert!(number(&texts(&["c"]), Some(names(&["a"]))).unwrap_err().contains("`c`"));
        assert!(number(&texts(&["65536"]), None).unwrap_err().contains("at most 65536"));
    }

    #[test]
    fn the_train_split_decides_what_is_a_class() {
        for (label, others) in [("cat", ["cat", "unknown"]), ("0", ["0", "7"])] {
            let mut list = texts(&[label]);
            list.extend(others.map(|text| (Split::Test, Some(text.to_owned()))));
            let found = number(&list, None).unwrap();
            assert_eq!((found.classes.len(), &found.labels[..]), (1, &[Some(0), Some(0), None][..]));
            assert_eq!(found.unknown, Some((others[1].to_owned(), 1)));
            assert!(found.note().unwrap().contains(others[1]));
        }
        let test = [(Split::Train, None), (Split::Test, Some("b".to_owned()))];
        assert_eq!(number(&test, None).unwrap().classes, ["b"]);
    }

    #[test]
    fn names_that_cannot_be_exported_are_unusable() {
        for (name, problem) in [
            ("ca\nt", "line break"),
            ("a\tb", "control character"),
            ("caf\u{fffd}", "not UTF-8"),
            (" ", "blank"),
            (&"x".repeat(1001), "1001 bytes"),
        ] {
            let said = unusable_name(name).unwrap();
            assert!(said.contains(problem) && !said.contains('\n'), "{said}");
        }
        for name in ["cat", "it's", "猫 2", "a/b"] {
            assert_eq!(unusable_name(name), None);
        }
    }
}
