//! Optimizers over the flat parameter vector, and the learning rate's schedule.
//!
//! AdamW updates all tensors, or Muon the matrices of the blocks and AdamW the others. Running statistics of batch norms are
//! moving averages ([`statistics`]).

pub mod adamw;
mod config;
pub mod muon;
mod orthogonal;
mod rates;
pub mod schedule;
pub mod statistics;

use serde::{Deserialize, Serialize};
use smalti_models::names::TensorSpec;

pub use adamw::AdamW;
pub use config::OptimConfig;
pub use muon::Muon;
pub use rates::Rates;
pub use schedule::{LrDecay, Schedule};
pub use statistics::RunningStatistics;

use crate::model::params::Layout;

/// The optimizer of the blocks' matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatrixOptimizer {
    /// AdamW, as for all other tensors.
    #[default]
    AdamW,
    /// Muon, with this peak learning rate.
    Muon(f64),
}

impl MatrixOptimizer {
    /// Whether AdamW updates all tensors.
    pub fn is_adamw(&self) -> bool {
        *self == MatrixOptimizer::AdamW
    }
}

/// The optimizer of a run. Its whole state is [`Optimizer::step`] and [`Optimizer::vectors`].
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// Updates the tensors that Muon skips. Muon shares its first moments.
    pub(in crate::train) adamw: AdamW,
    /// Muon, and its learning rate over AdamW's.
    muon: Option<(Muon, f64)>,
}

impl Optimizer {
    /// An optimizer at step 0.
    pub fn new(layout: &Layout, optim: &OptimConfig) -> Optimizer {
        let (decay, rates) = (optim.weight_decay, optim.rates());
        let adamw =
            |skip: &dyn Fn(&TensorSpec) -> bool| AdamW::skipping(layout, optim.betas, decay, rates, skip);
        match optim.matrices {
            MatrixOptimizer::AdamW => Optimizer { adamw: adamw(&|_| false), muon: None },
            MatrixOptimizer::Muon(lr) => {
                let ratio = if optim.lr > 0.0 { lr / optim.lr } else { 0.0 };
                let muon = Muon::new(layout, decay, rates);
                Optimizer { adamw: adamw(&muon::updates), muon: Some((muon, ratio)) }
            }
        }
    }

    /// Updates the parameters by one step at learning rate `lr`, from gradients times `scale` (clipping). Runs on the current
    /// rayon pool.
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

    /// Continues after `step` steps.
    pub fn set_step(&mut self, step: u64) {
        self.adamw.step = step;
    }

    /// The vectors of its state by name, each as long as the parameters: `m` and `v`, the first and second moments.
    pub fn vectors(&self) -> Vec<(&'static str, &[f32])> {
        vec![("m", &self.adamw.m), ("v", &self.adamw.v)]
    }

    /// [`Optimizer::vectors`], to restore a state.
    pub fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        vec![("m", &mut self.adamw.m), ("v", &mut self.adamw.v)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::precision::Precision;
    use crate::rng::Rng;
    use smalti_models::{Pooling, VitConfig, names};

    fn config(matrices: MatrixOptimizer) -> OptimConfig {
        OptimConfig {
            epochs: 1,
            steps: None,
            repeat: 1,
            batch_size: 1,
            lr: 1e-3,
            betas: [0.9, 0.95],
            weight_decay: 0.05,
            layer_decay: 0.75,
            block_lr: 1.0,
            warmup_epochs: 0.0,
            schedule: LrDecay::Cosine,
            clip_grad: None,
            matrices,
            seed: 0,
            precision: Precision::F32,
        }
    }

    #[test]
    fn step_and_vectors_are_the_whole_state() {
        let vit = VitConfig {
            img_size: 8,
            patch_size: 4,
            channels: 3,
            dim: 24,
            depth: 2,
            heads: 2,
            stem: Default::default(),
            variant: Default::default(),
        };
        let layout = Layout::new(names::classifier(&vit, 10, Pooling::Mean), Precision::F32);
        let mut rng = Rng::new(1, 100, []);
        let grads: Vec<f32> = (0..layout.len()).map(|_| rng.normal() as f32).collect();
        for matrices in [MatrixOptimizer::AdamW, MatrixOptimizer::Muon(0.02)] {
            let (mut optimizer, mut params) =
                (Optimizer::new(&layout, &config(matrices)), layout.init::<f32>(0));
            (0..3).for_each(|_| optimizer.update(1e-3, 0.5, &grads, &mut params));

            let (mut restored, mut restored_params) =
                (Optimizer::new(&layout, &config(matrices)), params.clone());
            restored.set_step(optimizer.step());
            for ((name, to), (same, from)) in restored.vectors_mut().into_iter().zip(optimizer.vectors()) {
                assert_eq!(name, same);
                *to = from.to_vec();
            }
            optimizer.update(1e-3, 0.5, &grads, &mut params);
            restored.update(1e-3, 0.5, &grads, &mut restored_params);
            assert_eq!((restored.step(), restored_params), (4, params));
        }
    }
}
