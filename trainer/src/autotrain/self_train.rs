//! Self-training: the encoder learns an ensemble's answers on all images, as soft labels, next to the true ones.
//!
//! The ensemble knows more than the classifier that goes to the device: it has the teacher in it, which is too large for that.

use std::path::PathBuf;

use smalti_trainer::Result;
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned};

use super::Autotrain;
use super::classify::{Frozen, LEAST, candidates, cost, cpu_seconds, predictions};
use super::ensemble::Ensemble;
use super::images::Images;
use super::teacher_head::TeacherHead;
use crate::args::TrainArgs;
use crate::console::progress::Watch;

/// Passes over all images beyond which soft labels bring nothing more.
const PASSES: usize = 30;

impl Autotrain<'_> {
    /// The mean of the members' probabilities `[images, classes]`, and the label itself where there is one.
    pub(super) fn soft_labels(
        &self,
        images: &Images,
        [frozen, tuned]: [&Finetuned; 2],
        teacher: Option<&mut TeacherHead>,
        ensemble: &Ensemble,
    ) -> Result<Vec<f32>> {
        let (all, classes) = (&images.all, images.all.classes().len());
        let mut answers = Vec::new();
        for (i, classifier) in candidates(frozen, tuned).enumerate() {
            // Images that cannot be read say nothing, and are not learned from. Nobody asks who is no member.
            let mut logits = vec![0.0; all.len() * classes];
            if !ensemble.has(i) {
                answers.push(logits);
                continue;
            }
            let found = predictions(self, &classifier, all)?;
            for (id, row) in found.ids.iter().zip(found.logits.chunks_exact(classes)) {
                logits[*id as usize * classes..][..classes].copy_from_slice(row);
            }
            answers.push(logits);
        }
        if let Some(teacher) = teacher.filter(|_| ensemble.has(answers.len())) {
            answers.push(teacher.all()?);
        }
        let mut targets = ensemble.mean(&answers, classes);
        for (i, row) in targets.chunks_exact_mut(classes).enumerate() {
            if let Some(label) = all.label(i) {
                row.fill(0.0);
                row[label as usize] = 1.0;
            }
        }
        Ok(targets)
    }

    /// Steps of self-training that end at this CPU time.
    pub(super) fn self_training_steps(
        &self,
        settings: &FinetuneSettings,
        images: &Images,
        targets: &[f32],
        until: f64,
    ) -> Result<u64> {
        let data = finetune::Images { train: &images.all, val: None, targets: Some(targets) };
        let per_step = cost(settings, &data, &self.exec)?;
        let most = (PASSES * images.all.len() / settings.optim.batch_size.max(1)) as u64;
        Ok((((until - cpu_seconds()) / per_step) as u64).clamp(LEAST, most.max(500)))
    }

    /// Learns soft labels of all images, into a run.
    pub(super) fn self_train(
        &self,
        args: &TrainArgs,
        settings: &FinetuneSettings,
        images: &Images,
        frozen: &Frozen,
        targets: &[f32],
    ) -> anyhow::Result<(Finetuned, PathBuf)> {
        let data = finetune::Images { train: &images.all, val: None, targets: Some(targets) };
        let (dir, exec) = self.run_dir(args, "self-train", settings)?;
        let mut watch = Watch::new(self.global, "self-train", self.stop.clone());
        let start = &frozen.classifier.params;
        let (model, _) = finetune::finetune_from(start, settings, &exec, &data, Some(&dir), &mut watch)?;
        Ok((model, dir.path().to_owned()))
    }
}
