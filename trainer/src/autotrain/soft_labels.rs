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
use super::look_alikes::{Embeddings, Spreading, certain};
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
        let Comparison { candidates, folds, trained, per_answer, .. } = comparison;
        let members = || candidates.iter().enumerate().filter(|(i, _)| ensemble.weight(*i) > 0.0);
        let answers: usize =
            members().map(|(_, candidate)| if *candidate == FROZEN { 1 } else { trained.len() }).sum();
        let seconds = OF_THE_TIME * (job.until() - cpu_seconds()) / answers.max(1) as f64;
        let numbers = part(&images.all, ((seconds / per_answer.max(1e-9)) as usize).max(LEAST));
        if numbers.len() < images.all.len() {
            job.tell(&format!("  asking about {} images, as the budget allows", numbers.len()));
        }
        let (images, classes) = (images.all.select(&numbers), images.all.classes().len());
        let mut targets = vec![0.0; images.len() * classes];
        let mut looks = None;
        for (i, candidate) in members() {
            let classifiers = match *candidate == FROZEN {
                // With its head of all labels.
                true => vec![entrants.frozen.classifier.clone()],
                false => trained.iter().filter_map(|models| models.classifier(candidate)).collect(),
            };
            for classifier in &classifiers {
                // Images that cannot be read say nothing, and are not learned from.
                let found = predictions(job, classifier, &images)?;
                let logits = placed(&found.ids, &found.logits, classes, images.len());
                ensemble.add(i, &logits, 1.0 / classifiers.len() as f64, classes, &mut targets);
                if *candidate == FROZEN {
                    let rows = placed(&found.ids, &found.embeddings, found.dim, images.len());
                    looks = Some(Embeddings { rows, dim: found.dim });
                }
            }
        }
        if let Some(teacher) = &mut entrants.teacher {
            let embeddings = teacher.embeddings(&numbers)?;
            let logits = teacher.head(None)?.logits(&embeddings.rows)?;
            ensemble.add(candidates.len(), &logits, 1.0, classes, &mut targets);
            looks = Some(embeddings);
        }
        let labels: Vec<(usize, u32)> =
            (0..images.len()).filter_map(|i| Some((i, images.label(i)?))).collect();
        labels.iter().for_each(|label| certain(&mut targets, *label, classes));
        let limit = OF_THE_TIME * (job.until() - cpu_seconds());
        if let Some(looks) = looks.filter(|looks| looks.seconds(classes, folds.len()) < limit) {
            let head = |kept: &[usize]| match &entrants.teacher {
                Some(teacher) => teacher.head(Some(kept)),
                None => entrants.frozen.head(Some(kept)),
            };
            let spreading = Spreading::choose(&looks, &labels, classes, folds, &ensemble.losses, head)?;
            let [with, without] = spreading.right.map(|right| 100.0 * right);
            if spreading.helps() {
                job.tell(&format!(
                    "  labels spread to images that look alike: {with:.1}% of held-out labels instead of {without:.1}%"
                ));
                targets = spreading.apply(&targets, classes);
                labels.iter().for_each(|label| certain(&mut targets, *label, classes));
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

/// Rows of width `dim` at the places of their images, of so many; zeros for the others.
fn placed(ids: &[u32], rows: &[f32], dim: usize, images: usize) -> Vec<f32> {
    let mut all = vec![0.0; images * dim];
    for (id, row) in ids.iter().zip(rows.chunks_exact(dim)) {
        all[*id as usize * dim..][..dim].copy_from_slice(row);
    }
    all
}
