//! Parts of the labelled images, and the classifiers that are trained without each.

use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned};

use super::Autotrain;
use super::candidate::{Candidate, Origin};
use super::frozen::Frozen;
use crate::console::progress::Watch;

/// Numbers of labelled images to learn from and to hold out, both rising.
pub(super) struct Fold {
    pub(super) kept: Vec<usize>,
    pub(super) held: Vec<usize>,
}

/// Folds over which classes are dealt out evenly. A single fold holds a fifth out.
pub(super) fn folds(labelled: &Dataset, count: usize) -> Vec<Fold> {
    let mut order: Vec<usize> = (0..labelled.len()).collect();
    order.sort_by_key(|&i| labelled.label(i));
    let parts = if count == 1 { 5 } else { count };
    let fold = |fold: usize| {
        let pick = |is_held: bool| {
            let places = order.iter().enumerate().filter(|(place, _)| (place % parts == fold) == is_held);
            let mut picked: Vec<usize> = places.map(|(_, i)| *i).collect();
            picked.sort_unstable();
            picked
        };
        Fold { kept: pick(false), held: pick(true) }
    };
    (0..count).map(fold).filter(|fold| !fold.kept.is_empty() && !fold.held.is_empty()).collect()
}

/// The classifiers that learned from the images of one fold.
pub(super) struct Trained {
    /// The frozen encoder's parameters, with a head of these images.
    frozen: Vec<f32>,
    tuned: Finetuned,
    scratch: Option<Finetuned>,
}

impl Trained {
    /// Fine-tunes from the frozen encoder and, with settings for it, trains from scratch.
    pub(super) fn new(
        job: &Autotrain<'_>,
        labelled: &Dataset,
        fold: &Fold,
        frozen: &Frozen,
        settings: &FinetuneSettings,
        scratch: Option<&FinetuneSettings>,
    ) -> Result<Trained> {
        let kept = labelled.select(&fold.kept);
        let images = finetune::Images::labelled(&kept);
        let frozen = frozen.params_of(&fold.kept)?;
        let mut watch = Watch::new(job.global, "compare", job.stop.clone());
        let (tuned, _) = finetune::finetune_from(&frozen, settings, &job.exec, &images, None, &mut watch)?;
        let train = |settings| finetune::finetune(settings, &job.exec, &images, None, None, &mut watch);
        let scratch = scratch.map(train).transpose()?.map(|(model, _)| model);
        Ok(Trained { frozen, tuned, scratch })
    }

    /// A candidate's classifier, if it is one of these.
    pub(super) fn classifier(&self, candidate: &Candidate) -> Option<Finetuned> {
        match candidate.origin {
            Origin::Scratch => self.scratch.clone(),
            Origin::Start => {
                let params = finetune::interpolate(&self.tuned.params, &self.frozen, candidate.interpolate);
                Some(Finetuned { params, ..self.tuned.clone() })
            }
        }
    }
}
