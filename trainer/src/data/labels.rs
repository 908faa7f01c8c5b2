//! Which images may show their label.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::classes::unusable_name;
use super::dataset::Dataset;
use crate::error::{Error, Result};
use crate::rng::{Rng, stream};

/// How many of a data set's labels are used, as `--labels` says it.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum LabelSpec {
    /// Every label there is.
    #[default]
    All,
    /// This share of the labelled images, between 0 and 1: `10%`.
    Share(f64),
    /// This many labelled images in all: `500`.
    Count(usize),
    /// The images that a file lists, one number (from 0) a line; `#` starts a comment.
    File(PathBuf),
}

impl FromStr for LabelSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<LabelSpec> {
        let wrong = || {
            Error::Usage(format!("labels `{text}`, expected all, a share (10%), a number (500), or a file"))
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
            return match percent {
                100.0 => Ok(LabelSpec::All),
                p if p > 0.0 && p < 100.0 => Ok(LabelSpec::Share(p / 100.0)),
                _ => Err(wrong()),
            };
        }
        match text.parse::<usize>() {
            Ok(0) => Err(wrong()),
            Ok(count) => Ok(LabelSpec::Count(count)),
            Err(_) if text == "all" => Ok(LabelSpec::All),
            Err(_) if text.is_empty() || text.starts_with('-') => Err(wrong()),
            Err(_) => Ok(LabelSpec::File(text.into())),
        }
    }
}

/// The numbers of the images whose labels are used, rising. Draws are class-balanced: every class gives the same
/// number, a class with fewer gives all it has, and the others make up for it. With the same seed a smaller draw is
/// part of a larger one.
///
/// # Errors
/// A data set without labels, a class whose name no model file can hold, fewer labels than are asked for, or a file of
/// numbers that do not fit.
pub fn pick_labels(data: &Dataset, spec: &LabelSpec, seed: u64) -> Result<Vec<usize>> {
    if data.classes().is_empty() {
        // The error that says what a labelled data set looks like.
        data.labels()?;
    }
    if let Some(problem) = data.classes().iter().find_map(|name| unusable_name(name)) {
        return Err(Error::data(data.root(), problem));
    }
    let labelled: Vec<usize> = (0..data.len()).filter(|&i| data.label(i).is_some()).collect();
    let count = match spec {
        LabelSpec::All => return Ok(labelled),
        LabelSpec::File(path) => return read_indices(data, path),
        LabelSpec::Share(share) => libm::round(share * labelled.len() as f64) as usize,
        LabelSpec::Count(count) => *count,
    };
    if count > labelled.len() {
        let problem = format!(
            "{count} labels are asked for, {} images are labelled: ask for fewer, or label more",
            labelled.len()
        );
        return Err(Error::data(data.root(), problem));
    }
    let counts = data.class_counts();
    let present = counts.iter().filter(|&&n| n > 0).count();
    if count < present {
        let problem =
            format!("{count} labels are asked for, expected at least one for each of {present} classes");
        return Err(Error::data(data.root(), problem));
    }
    let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); counts.len()];
    for &i in &labelled {
        if let Some(list) = data.label(i).and_then(|l| of_class.get_mut(l as usize)) {
            list.push(i);
        }
    }
    let mut picked = Vec::with_capacity(count);
    for ((class, list), quota) in of_class.iter_mut().enumerate().zip(quotas(&counts, count, seed)) {
        Rng::new(seed, stream::LABELS, [class as u64]).shuffle(list);
        picked.extend(list.iter().take(quota));
    }
    picked.sort_unstable();
    Ok(picked)
}

/// How many each class gives: rounds in which each class that has images left gives one, classes taking their
/// turns in a random order so that no class is always the one that gives one more.
fn quotas(counts: &[usize], total: usize, seed: u64) -> Vec<usize> {
    let mut quotas = vec![0; counts.len()];
    let mut left = total;
    while left > 0 {
        let mut open: Vec<usize> = (0..counts.len()).filter(|&c| quotas[c] < counts[c]).collect();
        if open.is_empty() {
            break;
        }
        let each = (left / open.len()).min(open.iter().map(|&c| counts[c] - quotas[c]).min().unwrap_or(0));
        if each > 0 {
            open.iter().for_each(|&c| quotas[c] += each);
            left -= each * open.len();
            continue;
        }
        Rng::new(seed, stream::LABELS, [u64::MAX]).shuffle(&mut open);
        open.iter().take(left).for_each(|&c| quotas[c] += 1);
        left = 0;
    }
    quotas
}

fn read_indices(data: &Dataset, path: &Path) -> Result<Vec<usize>> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let mut picked = BTreeSet::new();
    for (line, text) in text.lines().enumerate() {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let wrong = |problem: String| Error::data(format!("{}:{}", path.display(), line + 1), problem);
        let index: usize = text.parse().map_err(|_| {
            wrong(format!("`{}`, expected the number of an image", text.chars().take(40).collect::<String>()))
        })?;
        if index >= data.len() {
            return Err(wrong(format!("image {index}, there are {} (numbered from 0)", data.len())));
        }
        if data.label(index).is_none() {
            return Err(wrong(format!("image {index} has no label: {}", data.place(index))));
        }
        if !picked.insert(index) {
            return Err(wrong(format!("image {index} is listed twice")));
        }
    }
    if picked.is_empty() {
        return Err(Error::data(path.display().to_string(), "no numbers of images, expected one a line"));
    }
    Ok(picked.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use smalti_models::Image;

    use super::*;

    fn data(counts: &[usize]) -> Dataset {
        let image = Image::new(1, 1, 1, vec![0]).unwrap();
        let mut images = vec![(image.clone(), None)];
        for (class, &n) in counts.iter().enumerate() {
            images.extend((0..n).map(|_| (image.clone(), Some(class as u32))));
        }
        Dataset::from_images(counts.iter().map(|n| n.to_string()).collect(), images).unwrap()
    }

    fn drawn(data: &Dataset, spec: &str, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let picked = pick_labels(data, &spec.parse().unwrap(), seed).unwrap();
        let counts = data.select(&picked).class_counts();
        (picked, counts)
    }

    #[test]
    fn specs_are_parsed() {
        let parse = |text: &str| text.parse::<LabelSpec>();
        assert_eq!(parse("1%").unwrap(), LabelSpec::Share(0.01));
        assert_eq!(parse("100%").unwrap(), LabelSpec::All);
        assert_eq!(parse("all").unwrap(), LabelSpec::All);
        assert_eq!(parse("500").unwrap(), LabelSpec::Count(500));
        assert_eq!(parse("splits/a.txt").unwrap(), LabelSpec::File("splits/a.txt".into()));
        for wrong in ["", "0", "0%", "101%", "-5", "NaN%", "x%"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn draws_are_balanced_nested_and_seeded() {
        let data = data(&[100, 100, 5, 0]);
        let (few, counts) = drawn(&data, "12", 1);
        assert_eq!(counts, [4, 4, 4, 0]);
        let (more, counts) = drawn(&data, "10%", 1);
        assert_eq!(counts.iter().sum::<usize>(), 21);
        assert_eq!(counts[2], 5);
        assert_eq!(counts[0], counts[1], "{counts:?}");
        assert!(few.iter().all(|i| more.contains(i)));
        assert_eq!(drawn(&data, "12", 1).0, few);
        assert_ne!(drawn(&data, "12", 2).0, few);
        assert_eq!(drawn(&data, "all", 1).0.len(), 205);
        assert_eq!(drawn(&data, "205", 1).1, [100, 100, 5, 0]);
        assert_eq!(drawn(&data, "7", 1).1.iter().sum::<usize>(), 7);
    }

    #[test]
    fn impossible_draws_are_refused() {
        let data = data(&[10, 10]);
        for (spec, expected) in
            [("1", "at least one for each of 2 classes"), ("21", "20 images are labelled")]
        {
            let error = pick_labels(&data, &spec.parse().unwrap(), 0).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let unlabelled =
            Dataset::from_images(vec![], vec![(Image::new(1, 1, 1, vec![0]).unwrap(), None)]).unwrap();
        let error = pick_labels(&unlabelled, &LabelSpec::All, 0).unwrap_err();
        assert!(error.to_string().contains("only be pretrained on"), "{error}");
    }

    #[test]
    fn class_names_are_checked_before_training() {
        let image = || Image::new(1, 1, 1, vec![0]).unwrap();
        let data = Dataset::from_images(vec!["a\nb".into()], vec![(image(), Some(0))]).unwrap();
        let error = pick_labels(&data, &LabelSpec::All, 0).unwrap_err();
        assert!(error.to_string().contains(r#""a\nb""#) && error.exit_code() == 5, "{error}");
    }

    #[test]
    fn a_file_lists_images() {
        let data = data(&[3, 3]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        let picked = |text: &str| {
            std::fs::write(&path, text).unwrap();
            pick_labels(&data, &LabelSpec::File(path.clone()), 0)
        };
        assert_eq!(picked("# mine\n5\n 2 # two\n\n").unwrap(), [2, 5]);
        for (text, expected) in [
            ("1\n7\n", "list.txt:2: image 7, there are 7"),
            ("0\n", "has no label"),
            ("1\n1\n", "listed twice"),
            ("1\nx\n", "`x`, expected the number"),
            ("-1\n", "expected the number"),
            ("\n", "no numbers of images"),
        ] {
            let error = picked(text).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let missing = pick_labels(&data, &LabelSpec::File(dir.path().join("none")), 0).unwrap_err();
        assert_eq!(missing.exit_code(), 6);
    }
}
