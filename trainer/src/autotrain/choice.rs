//! What was chosen. It is kept, so that a command that continues makes no other choice.

use serde::{Deserialize, Serialize};

use super::candidate::{Candidate, Origin};
use super::ensemble::Ensemble;
use super::report::Scored;

/// The way to the classifier that is exported.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Choice {
    /// What it is called.
    pub(super) candidate: String,
    /// [`Candidate::origin`].
    pub(super) origin: Origin,
    /// [`Candidate::interpolate`].
    pub(super) interpolate: f64,
    /// What its logits are divided by, so that it is as sure of held-out images as it is right (arXiv 1706.04599).
    pub(super) temperature: f64,
    /// The fraction of held-out images that it gets right; none where nothing was compared.
    pub(super) validation: Option<f64>,
    /// All that competed.
    #[serde(default)]
    pub(super) candidates: Vec<Scored>,
    /// Optimizer steps that the training on all labels takes.
    pub(super) steps: u64,
    /// The training on an ensemble's answers that takes its place where the ensemble is better than each candidate.
    pub(super) self_training: Option<SelfTraining>,
}

/// Learning what an ensemble says of images without labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SelfTraining {
    pub(super) ensemble: Ensemble,
    /// How many images are learned from.
    pub(super) images: usize,
    /// Optimizer steps.
    pub(super) steps: u64,
}

impl Choice {
    /// A candidate, to be trained on all labels for so many steps.
    pub(super) fn new(candidate: Candidate, validation: Option<f64>, steps: u64) -> Choice {
        let Candidate { name, origin, interpolate } = candidate;
        // The frozen encoder is its start, whatever the steps.
        let steps = if interpolate == 1.0 { 1 } else { steps };
        Choice {
            candidate: name.into(),
            origin,
            interpolate,
            temperature: 1.0,
            validation,
            candidates: Vec::new(),
            steps,
            self_training: None,
        }
    }

    /// Self-training in place of the candidate's. Soft labels are as sure as they are right, and so is who learns them.
    pub(super) fn with(self, training: SelfTraining) -> Choice {
        let members = training.ensemble.members();
        let candidate = format!("self-trained on the mean answer of {members} classifiers");
        let validation = Some(training.ensemble.validation);
        Choice { candidate, temperature: 1.0, validation, self_training: Some(training), ..self }
    }
}
