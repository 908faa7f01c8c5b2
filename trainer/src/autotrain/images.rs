//! The images of `smalti train`: all of them to learn from without labels, those with labels, those to measure on.

use std::path::Path;

use smalti_trainer::data::{Dataset, LabelSpec, Split, Splits, pick_labels};
use smalti_trainer::{Error, Result};

use crate::args::TrainArgs;
use crate::plan::{fill, labelled, required};

/// What is learned from and measured on.
pub(super) struct Images {
    /// Every image that may be learned from; labels are those that count.
    pub(super) all: Dataset,
    /// The labelled ones.
    pub(super) labelled: Dataset,
    /// Labelled images that are not learned from, and what they are called; none where the data set has no such split and
    /// all labels count.
    pub(super) test: Option<(Dataset, String)>,
}

/// The share of the labelled images whose labels do not count that is kept back where there is no split to measure on.
const KEPT_BACK: f64 = 0.2;

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

/// The numbers of images to measure on, rising: some of each class, of those whose labels do not count.
fn kept_back(own: &Dataset, picked: &[usize], seed: u64) -> Result<Vec<usize>> {
    let others = (0..own.len()).filter(|i| own.label(*i).is_some() && picked.binary_search(i).is_err());
    let others: Vec<usize> = others.collect();
    let rest = own.select(&others);
    let classes = rest.class_counts().iter().filter(|count| **count > 0).count();
    if KEPT_BACK * (others.len() as f64) < classes.max(1) as f64 {
        return Ok(Vec::new());
    }
    let held = pick_labels(&rest, &LabelSpec::Share(KEPT_BACK), seed)?;
    Ok(held.into_iter().map(|i| others[i]).collect())
}

/// Whether `--labels` names a table.
fn is_table(spec: &str) -> bool {
    Path::new(spec)
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("csv") || e.eq_ignore_ascii_case("tsv"))
}
