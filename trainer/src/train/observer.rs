//! What a training loop reports, and who watches it.

use serde::Serialize;

use super::task::Validation;

/// One step, as `metrics.jsonl` and progress bars report it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    #[serde(skip)]
    pub steps: u64,
    /// Epochs done, with a fraction.
    pub epoch: f64,
    /// The step's loss, before its update.
    pub loss: f64,
    /// The step's learning rate.
    pub lr: f64,
    /// The gradient norm, before clipping.
    pub grad_norm: f64,
    /// Images of the step, of all ranks.
    #[serde(skip)]
    pub images: usize,
    /// Images a second in this step.
    pub images_per_s: f64,
    /// Seconds of training so far, over all sessions of the run.
    pub seconds: f64,
    /// Seconds of this step that it waited for its images to be loaded.
    pub loading: f64,
    /// With several ranks: seconds of this step that the first one waited for the sum of all gradients, once its own
    /// were computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited: Option<f64>,
}

/// The validation after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Fraction of the validation images that the model gets right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_accuracy: Option<f64>,
    /// Of a stage without labels: fraction of the labelled images whose neighbours vote for their class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_accuracy: Option<f64>,
}

impl Score {
    pub(super) fn new(step: u64, epoch: u64, found: Validation) -> Score {
        let (val_accuracy, knn_accuracy) = match found {
            Validation::Accuracy(score) => (Some(score), None),
            Validation::Neighbours(score) => (None, Some(score)),
        };
        Score { step, epoch, val_accuracy, knn_accuracy }
    }
}

/// Watches a run, and may stop it.
pub trait Observer {
    /// After each step.
    fn step(&mut self, _progress: &Progress) {}
    /// After each validation.
    fn score(&mut self, _score: &Score) {}
    /// The exit code to stop with, if the run is to save and end now.
    fn stop(&self) -> Option<u8> {
        None
    }
}

/// Watches nothing.
impl Observer for () {}
