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
    /// Held-out labelled images, and which split they are; none where the data set has no such split.
    pub(super) test: Option<(Dataset, Split)>,
}

/// Opens what the arguments name.
///
/// # Errors
/// A data set that cannot be read, fewer than two classes.
pub(super) fn open(args: &mut TrainArgs) -> Result<Images> {
    let path = required(&args.data, "DIR", "a folder of images")?;
    let data = Splits::open(&path)?;
    let own = data.dataset(Split::Train)?;
    let spec = fill(&mut args.labels, "all".into());
    let labels = if is_table(&spec) {
        Dataset::from_table(Path::new(&spec), &path)?.labelled()
    } else {
        let seed = fill(&mut args.label_seed, 0);
        own.select(&pick_labels(&own, &spec.parse::<LabelSpec>()?, seed)?)
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
    let mut test = None;
    for split in [Split::Test, Split::Val].into_iter().filter(|split| data.has(*split)) {
        let images = labelled(&data.dataset(split)?, split, "accuracy is not measured on them");
        if !images.is_empty() {
            test = Some((images.with_classes(labels.classes())?, split));
            break;
        }
    }
    Ok(Images { labelled: all.labelled(), all, test })
}

/// Whether `--labels` names a table.
fn is_table(spec: &str) -> bool {
    Path::new(spec)
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("csv") || e.eq_ignore_ascii_case("tsv"))
}
