//! The settings of the optimizer and of the learning rate's schedule.

use serde::{Deserialize, Serialize};

use super::{LrDecay, MatrixOptimizer, Rates, Schedule};
use crate::error::{Error, Result};
use crate::model::precision::Precision;

/// How a run updates the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OptimConfig {
    /// Passes over the data, times [`OptimConfig::repeat`].
    pub epochs: u64,
    /// Steps of the run where they decide instead of `epochs`; the last epoch may then be a part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Passes over the data that make an epoch: more than one where a pass has few steps.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeat: usize,
    /// Images of one step, over all micro-batches and ranks.
    pub batch_size: usize,
    /// The peak learning rate.
    pub lr: f64,
    /// AdamW's decay rates of both moments.
    pub betas: [f64; 2],
    /// The weight decay.
    pub weight_decay: f64,
    /// The learning rate of a layer over that of the layer above it.
    pub layer_decay: f64,
    /// The learning rate of the encoder's blocks over that of the other tensors.
    #[serde(default = "alike", skip_serializing_if = "is_alike")]
    pub block_lr: f64,
    /// Epochs of the linear warm-up.
    pub warmup_epochs: f64,
    /// The decay of the learning rate after the warm-up.
    pub schedule: LrDecay,
    /// The maximum gradient norm; larger gradients are scaled down to it.
    pub clip_grad: Option<f64>,
    /// The optimizer of the blocks' matrices.
    #[serde(default, skip_serializing_if = "MatrixOptimizer::is_adamw")]
    pub matrices: MatrixOptimizer,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The precision of matrix products.
    #[serde(default)]
    pub precision: Precision,
}

fn once() -> usize {
    1
}

fn is_once(repeat: &usize) -> bool {
    *repeat == once()
}

fn alike() -> f64 {
    1.0
}

fn is_alike(rate: &f64) -> bool {
    *rate == alike()
}

impl OptimConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for the first setting out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Usage(what.into()));
        let positive = |x: f64| x.is_finite() && x >= 0.0;
        if self.epochs == 0 || self.epochs > 1_000_000 {
            return refuse("epochs: expected 1 to 1000000");
        }
        if self.steps.is_some_and(|steps| steps == 0 || steps > 1 << 40) {
            return refuse("steps: expected 1 or more");
        }
        if self.repeat == 0 || self.repeat > 1_000_000 {
            return refuse("repeat: expected 1 to 1000000");
        }
        if self.batch_size == 0 || self.batch_size > 1 << 20 {
            return refuse("batch-size times accum-iter: expected 1 to 1048576");
        }
        if !positive(self.lr) || self.lr > 100.0 {
            return refuse("lr: expected 0 to 100");
        }
        if let MatrixOptimizer::Muon(lr) = self.matrices
            && !(positive(lr) && lr <= 100.0)
        {
            return refuse("muon-lr: expected 0 to 100");
        }
        if !self.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return refuse("betas: expected 0 to below 1");
        }
        if !positive(self.weight_decay) || !positive(self.warmup_epochs) {
            return refuse("weight-decay and warmup-epochs: expected 0 or more");
        }
        if !(self.layer_decay > 0.0 && self.layer_decay <= 1.0) {
            return refuse("layer-decay: expected above 0, at most 1");
        }
        if !(self.block_lr >= 0.0 && self.block_lr <= 1.0) {
            return refuse("block-lr: expected 0 to 1");
        }
        if self.clip_grad.is_some_and(|clip| !(clip.is_finite() && clip > 0.0)) {
            return refuse("clip-grad: expected above 0");
        }
        Ok(())
    }

    /// The learning rates of tensors.
    pub fn rates(&self) -> Rates {
        Rates { layer_decay: self.layer_decay, blocks: self.block_lr }
    }

    /// The learning rate over a run with `steps` steps an epoch.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            peak: self.lr,
            warmup: (self.warmup_epochs * steps as f64).round() as u64,
            total: self.steps.unwrap_or(self.epochs * steps),
            decay: self.schedule,
        }
    }
}
