//! The images of `smalti train`: all of them to learn from without labels, those with labels, those to measure on.

use std::path::Path;

use smalti_trainer::data::{Dataset, LabelSpec, Split, Splits, pick_labels};
use smalti_trainer::{Error, Result};

use crate::args::TrainArgs;
use crate::plan::{fill, labelled, required};

/// What is learned from and measured on.
pub(crate) struct Images {
    /// Every image that may be learned from; labels are those that count.
    pub(crate) all: Dataset,
    /// The labelled ones.
    pub(super) labelled: Dataset,
    /// Labelled images that are not learned from, and what they are called; none where the data set has no such split and
    /// all labels count.
    pub(crate) test: Option<(Dataset, String)>,
}

/// The share of the labelled images whose labels do not count that is kept back where there is no split to measure on.
const KEPT_BACK: f64 = 0.2;

/// Images that are learned from, however few the time allows.
pub(super) const LEAST: usize = 200;

impl Images {
    /// These, but about `most` to learn from.
    pub(super) fn at_most(self, most: usize) -> Images {
        Images { all: self.all.select(&part(&self.all, most)), ..self }
    }
}

/// What arguments that are complete name: as many images as a training took.
///
/// # Errors
/// A data set that cannot be read, fewer than two classes.
pub(crate) fn chosen(args: &mut TrainArgs) -> Result<Images> {
    let images = open(args)?;
    Ok(match args.most_images {
        Some(most) => images.at_most(most),
        None => images,
    })
}

/// Opens what the arguments name.
///
/// # Errors
/// A data set that cannot be read, fewer than two classes.
pub(super) fn open(args: &mut TrainArgs) -> Result<Images> {
    let path = required(&args.data, "DIR", "a folder of images")?;
    let data = Splits::open(&path)?;
    let mut own = data.dataset(Split::Train)?;
    let measured = [Split::Test, Split::Val].into_iter().find(|split| data.has(*split));
    let spec = fill(&mut args.labels, "all".into());
    let mut test = None;
    let labels = if is_table(&spec) {
        Dataset::from_table(Path::new(&spec), &path)?.labelled()
    } else {
        let (spec, seed) = (spec.parse::<LabelSpec>()?, fill(&mut args.label_seed, 0));
        let picked = pick_labels(&own, &spec, seed)?;
        let labels = own.select(&picked);
        if let (None, LabelSpec::Count(_) | LabelSpec::Share(_)) = (measured, spec) {
            let held = kept_back(&own, &picked, seed)?;
            if !held.is_empty() {
                test = Some((own.select(&held), "held-out".into()));
                let kept: Vec<usize> = (0..own.len()).filter(|i| held.binary_search(i).is_err()).collect();
                own = own.select(&kept);
            }
        }
        labels
    };
    let present = labels.class_counts().iter().filter(|count| **count > 0).count();
    if present == 0 {
        let problem = "no image has a label: expected one folder for each class, or --labels FILE.csv with lines \
                       `path,label`; `smalti select` says which images to label first, `smalti label` takes the labels";
        return Err(Error::data(labels.root(), problem));
    }
    if present < 2 {
        return Err(Error::data(
            labels.root(),
            format!(
                "the labelled images are of {present} class: expected two classes or more, one folder for each, or \
                 --labels FILE.csv with lines `path,label`"
            ),
        ));
    }
    let all = match &args.unlabelled {
        Some(more) => own.with_images_of(&Dataset::open(more, Split::All)?)?,
        None => own,
    };
    let mut all = all.with_labels_of(&labels);
    if all.labelled().len() < labels.len() {
        all = all.with_images_of(&labels)?.with_labels_of(&labels);
    }
    for split in [Split::Test, Split::Val].into_iter().filter(|split| data.has(*split)) {
        let images = labelled(&data.dataset(split)?, split, "accuracy is not measured on them");
        if !images.is_empty() {
            test = Some((images.with_classes(labels.classes())?, split.to_string()));
            break;
        }
    }
    Ok(Images { labelled: all.labelled(), all, test })
}

/// The numbers of images to measure on, rising: of those whose labels do not count, at least one of each class.
fn kept_back(own: &Dataset, picked: &[usize], seed: u64) -> Result<Vec<usize>> {
    let others = (0..own.len()).filter(|i| own.label(*i).is_some() && picked.binary_search(i).is_err());
    let others: Vec<usize> = others.collect();
    let rest = own.select(&others);
    let classes = rest.class_counts().iter().filter(|count| **count > 0).count();
    let count = classes.max((KEPT_BACK * others.len() as f64) as usize);
    if count == 0 || 2 * count > others.len() {
        return Ok(Vec::new());
    }
    let held = pick_labels(&rest, &LabelSpec::Count(count), seed)?;
    Ok(held.into_iter().map(|i| others[i]).collect())
}

/// Whether `--labels` names a table.
fn is_table(spec: &str) -> bool {
    Path::new(spec)
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("csv") || e.eq_ignore_ascii_case("tsv"))
}

/// The numbers of about `most` images, rising: all labelled ones, and others from everywhere.
pub(super) fn part(all: &Dataset, most: usize) -> Vec<usize> {
    let (mut numbers, others): (Vec<usize>, Vec<usize>) =
        (0..all.len()).partition(|i| all.label(*i).is_some());
    let count = most.saturating_sub(numbers.len()).min(others.len());
    numbers.extend((0..count).map(|i| others[i * others.len() / count]));
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::image::Image;

    #[test]
    fn a_part_has_all_labelled_images_and_others_from_everywhere() {
        let image = |label| (Image::new(1, 1, 1, vec![0]).unwrap(), label);
        let images = (0..1000).map(|i| image((i % 10 == 3).then_some(0))).collect();
        let all = Dataset::from_images(vec!["a".into()], images).unwrap();
        let numbers = part(&all, 550);
        assert_eq!(numbers.len(), 550);
        assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.last() > Some(&990));
        assert_eq!(numbers.iter().filter(|i| *i % 10 == 3).count(), 100);
        // What was taken is found again by its number.
        assert_eq!(part(&all, numbers.len()), numbers);
        assert_eq!((part(&all, 0).len(), part(&all, 9999).len()), (100, 1000));
    }
}
