//! How parameters move: AdamW over the flat vector, or Muon for the matrices of the blocks and AdamW for the rest, and
//! the learning rate's way over the run.

pub mod adamw;
mod config;
pub mod muon;
mod orthogonal;
pub mod schedule;

use serde::{Deserialize, Serialize};
use smalti_models::names::TensorSpec;

pub use adamw::AdamW;
pub use config::OptimConfig;
pub use muon::Muon;
pub use schedule::{LrDecay, Schedule};

use crate::model::params::Layout;

/// What moves the matrices of the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatrixOptimizer {
    /// AdamW, as everything else.
    #[default]
    AdamW,
    /// Muon, at a highest learning rate of its own.
    Muon(f64),
}

impl MatrixOptimizer {
    /// Whether they are moved as everything else.
    pub fn are_plain(&self) -> bool {
        *self == MatrixOptimizer::AdamW
    }
}

/// The optimizer of a run, with all that changes: the step and both moments, in [`Optimizer::adamw`].
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// Moves what Muon does not, and holds the state of both.
    pub adamw: AdamW,
    /// With its learning rate over AdamW's.
    muon: Option<(Muon, f64)>,
}

impl Optimizer {
    /// An optimizer at step 0.
    pub fn new(layout: &Layout, optim: &OptimConfig) -> Optimizer {
        let (decay, layer_decay) = (optim.weight_decay, optim.layer_decay);
        let adamw = |skip: &dyn Fn(&TensorSpec) -> bool| {
            AdamW::skipping(layout, optim.betas, decay, layer_decay, skip)
        };
        match optim.matrices {
            MatrixOptimizer::AdamW => Optimizer { adamw: adamw(&|_| false), muon: None },
            MatrixOptimizer::Muon(lr) => {
                let ratio = if optim.lr > 0.0 { lr / optim.lr } else { 0.0 };
                let muon = Muon::new(layout, decay, layer_decay);
                Optimizer { adamw: adamw(&muon::takes), muon: Some((muon, ratio)) }
            }
        }
    }

    /// Moves the parameters by one step at this learning rate; gradients are multiplied by `scale` (clipping). Runs on
    /// the current rayon pool.
    pub fn update(&mut self, lr: f64, scale: f64, grads: &[f32], params: &mut [f32]) {
        self.adamw.update(lr, scale, grads, params);
        if let Some((muon, ratio)) = &self.muon {
            muon.update(lr * ratio, scale, grads, params, &mut self.adamw.m);
        }
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.adamw.step
    }

    /// Goes on after so many steps.
    pub fn set_step(&mut self, step: u64) {
        self.adamw.step = step;
    }

    /// What changes from step to step, by name: for the state of a run.
    pub fn vectors(&self) -> Vec<(&'static str, &[f32])> {
        vec![("m", &self.adamw.m), ("v", &self.adamw.v)]
    }

    /// [`Optimizer::vectors`], to restore them.
    pub fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        vec![("m", &mut self.adamw.m), ("v", &mut self.adamw.v)]
    }
}
