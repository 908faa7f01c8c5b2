//! What an ensemble says of images without labels, and the labels themselves where there are some.
//!
//! The ensemble knows more than the classifier that goes to the device: it is several, and may have the teacher in it, which is
//! too large for that.

use std::path::Path;

use smalti_trainer::data::Dataset;
use smalti_trainer::model::weights;
use smalti_trainer::stages::finetune;
use smalti_trainer::{Error, Result};

use super::candidate::FROZEN;
use super::compare::{Comparison, Entrants, predictions};
use super::ensemble::Ensemble;
use super::images::{Images, LEAST, part};
use super::{Autotrain, SOFT_LABELS, cpu_seconds};

/// Share of the time that is left in which images are asked about, at most: of very many images a part is enough.
const OF_THE_TIME: f64 = 0.25;
/// The tensor in the file.
const TARGETS: &str = "targets";

/// Images with a distribution over the classes for each.
pub(super) struct SoftLabels {
    pub(super) images: Dataset,
    /// `[images, classes]`.
    pub(super) targets: Vec<f32>,
}

impl SoftLabels {
    /// For [`finetune::finetune`].
    pub(super) fn images(&self) -> finetune::Images<'_> {
        finetune::Images { train: &self.images, val: None, targets: Some(&self.targets) }
    }

    /// Asks the members about as many images as fit into the time.
    pub(super) fn ask(
        job: &Autotrain<'_>,
        images: &Images,
        entrants: &mut Entrants,
        comparison: &Comparison,
        ensemble: &Ensemble,
    ) -> Result<SoftLabels> {
        let Comparison { candidates, trained, per_answer, .. } = comparison;
        let answers: usize =
            candidates.iter().map(|candidate| if *candidate == FROZEN { 1 } else { trained.len() }).sum();
        let seconds = OF_THE_TIME * (job.until() - cpu_seconds()) / answers.max(1) as f64;
        let numbers = part(&images.all, ((seconds / per_answer.max(1e-9)) as usize).max(LEAST));
        if numbers.len() < images.all.len() {
            job.tell(&format!("  asking about {} images, as the budget allows", numbers.len()));
        }
        let (images, classes) = (images.all.select(&numbers), images.all.classes().len());
        let mut targets = vec![0.0; images.len() * classes];
        for (i, candidate) in candidates.iter().enumerate() {
            let classifiers = match *candidate == FROZEN {
                // With its head of all labels.
                true => vec![entrants.frozen.classifier.clone()],
                false => trained.iter().filter_map(|models| models.classifier(candidate)).collect(),
            };
            for classifier in &classifiers {
                // Images that cannot be read say nothing, and are not learned from.
                let found = predictions(job, classifier, &images)?;
                let mut logits = vec![0.0; targets.len()];
                for (id, row) in found.ids.iter().zip(found.logits.chunks_exact(classes)) {
                    logits[*id as usize * classes..][..classes].copy_from_slice(row);
                }
                ensemble.add(i, &logits, 1.0 / classifiers.len() as f64, classes, &mut targets);
            }
        }
        if let Some(teacher) = &mut entrants.teacher {
            ensemble.add(candidates.len(), &teacher.of(&numbers)?, 1.0, classes, &mut targets);
        }
        for (i, row) in targets.chunks_exact_mut(classes).enumerate() {
            if let Some(label) = images.label(i) {
                row.fill(0.0);
                row[label as usize] = 1.0;
            }
        }
        Ok(SoftLabels { images, targets })
    }

    /// Keeps them for a command that continues.
    pub(super) fn keep(&self, job: &Autotrain<'_>) -> Result<()> {
        job.owner.add([Path::new(SOFT_LABELS)])?;
        let shape = [self.images.len(), self.targets.len() / self.images.len().max(1)];
        let tensors = [(TARGETS, &shape[..], &self.targets[..])];
        weights::save(&job.out.join(SOFT_LABELS), tensors, &serde_json::Value::Null)
    }

    /// Those that [`SoftLabels::keep`] kept, of so many images.
    ///
    /// # Errors
    /// A file that is gone, damaged or of other images.
    pub(super) fn kept(job: &Autotrain<'_>, images: &Images, count: usize) -> Result<SoftLabels> {
        let path = job.out.join(SOFT_LABELS);
        let (mut tensors, _) = weights::file::load(&path)?;
        let images = images.all.select(&part(&images.all, count));
        let targets = tensors.remove(TARGETS).filter(|t| t.shape == [images.len(), images.classes().len()]);
        match targets {
            Some(targets) => Ok(SoftLabels { images, targets: targets.values }),
            None => {
                Err(Error::Checkpoint { path, problem: "it holds no soft labels of these images".into() })
            }
        }
    }
}
