//! How parameters move over a run: the settings of the optimizer and of its schedule.

use serde::{Deserialize, Serialize};

use super::{LrDecay, MatrixOptimizer, Schedule};
use crate::error::{Error, Result};
use crate::model::precision::Precision;

/// How parameters are moved over a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OptimConfig {
    /// Passes over the data.
    pub epochs: u64,
    /// Images that one step averages over.
    pub batch_size: usize,
    /// The highest learning rate.
    pub lr: f64,
    /// AdamW's decays of the two moments.
    pub betas: [f64; 2],
    /// The weight decay.
    pub weight_decay: f64,
    /// A layer's rate over that of the layer above.
    pub layer_decay: f64,
    /// Epochs of the linear warm-up.
    pub warmup_epochs: f64,
    /// The way down after it.
    pub schedule: LrDecay,
    /// The largest length of all gradients together.
    pub clip_grad: Option<f64>,
    /// What moves the matrices of the blocks.
    #[serde(default, skip_serializing_if = "MatrixOptimizer::are_plain")]
    pub matrices: MatrixOptimizer,
    /// The seed of everything random.
    pub seed: u64,
    /// What linear layers multiply in.
    #[serde(default)]
    pub precision: Precision,
}

impl OptimConfig {
    /// Refuses what cannot be carried out.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Usage(what.into()));
        let positive = |x: f64| x.is_finite() && x >= 0.0;
        if self.epochs == 0 || self.epochs > 1_000_000 {
            return refuse("epochs: expected 1 to 1000000");
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
        if self.clip_grad.is_some_and(|clip| !(clip.is_finite() && clip > 0.0)) {
            return refuse("clip-grad: expected above 0");
        }
        Ok(())
    }

    /// The learning rate over `steps` an epoch.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            peak: self.lr,
            warmup: (self.warmup_epochs * steps as f64).round() as u64,
            total: self.epochs * steps,
            decay: self.schedule,
        }
    }
}
