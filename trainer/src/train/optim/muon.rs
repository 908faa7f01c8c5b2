//! Muon (Jordan et al. 2024, github.com/KellerJordan/Muon): updates a matrix by its orthogonalized momentum.
//!
//! ```text
//! m ← β m + (1 − β) g          u = β m + (1 − β) g            (Nesterov)
//! w ← (1 − lr · decay) w − lr · √max(1, rows / columns) · orthogonal(u)
//! ```
//! Its first moments `m` lie in the layout of the parameters. It has no second moments.

use std::ops::Range;

use rayon::prelude::*;
use smalti_models::names::{Role, TensorSpec};

use super::Rates;
use super::orthogonal::Orthogonal;
use crate::model::ops::resize_buffer;
use crate::model::params::Layout;

const MOMENTUM: f32 = 0.95;

/// One matrix in the flat vector.
#[derive(Clone, Debug, PartialEq)]
struct Matrix {
    range: Range<usize>,
    rows: usize,
    /// Its learning rate over that of the last layer.
    rate: f32,
}

/// The matrices that it updates, and their weight decay.
#[derive(Clone, Debug)]
pub struct Muon {
    matrices: Vec<Matrix>,
    decay: f32,
}

/// Whether Muon updates this tensor: the matrices of blocks. Embeddings and heads are left to the other optimizer.
pub fn updates(spec: &TensorSpec) -> bool {
    let block = ["blocks.", "decoder_blocks."].iter().any(|start| spec.name.starts_with(start));
    block && matches!(spec.role, Role::Weight | Role::ZeroWeight) && spec.shape.len() == 2
}

/// Number of matrices in a tensor: those of queries, keys and values are orthogonalized separately.
fn stacked(name: &str) -> usize {
    if name.ends_with(".qkv.weight") {
        return 3;
    }
    if name.ends_with(".kv.weight") { 2 } else { 1 }
}

impl Muon {
    /// Muon for the matrices that it [`updates`], with AdamW's rates of tensors.
    pub fn new(layout: &Layout, decay: f64, rates: Rates) -> Muon {
        let rate_of = rates.of(layout);
        let matrices = layout.iter().filter(|(spec, _)| updates(spec)).flat_map(|(spec, slot)| {
            let (count, range) = (stacked(&spec.name), slot.range());
            let (len, rows) = (range.len() / count, spec.shape[0] / count);
            let rate = rate_of(spec);
            (0..count).map(move |i| {
                let start = range.start + i * len;
                Matrix { range: start..start + len, rows, rate }
            })
        });
        Muon { matrices: matrices.collect(), decay: decay as f32 }
    }

    /// Updates its matrices by one step at learning rate `lr`, from gradients times `scale` (clipping). Runs on the current
    /// rayon pool, one matrix on one thread.
    pub fn update(&self, lr: f64, scale: f64, grads: &[f32], params: &mut [f32], m: &mut [f32]) {
        let mut parts = Vec::with_capacity(self.matrices.len());
        let (mut params, mut m, mut at) = (params, m, 0);
        for matrix in &self.matrices {
            // Matrices are in the order of the flat vector: skip what lies before, then split off the matrix.
            let (skip, len) = (matrix.range.start - at, matrix.range.len());
            let (weight, rest) = std::mem::take(&mut params)[skip..].split_at_mut(len);
            let (moment, rest_m) = std::mem::take(&mut m)[skip..].split_at_mut(len);
            (params, m, at) = (rest, rest_m, matrix.range.end);
            parts.push((matrix, &grads[matrix.range.clone()], weight, moment));
        }
        let buffers = <(Vec<f32>, Orthogonal)>::default;
        parts.into_par_iter().for_each_init(
            buffers,
            |(direction, orthogonal), (matrix, grads, weight, moment)| {
                let (lr, scale) = (lr as f32 * matrix.rate, scale as f32);
                let columns = weight.len() / matrix.rows;
                resize_buffer(direction, weight.len());
                for ((u, m), &g) in direction.iter_mut().zip(&mut *moment).zip(grads) {
                    *m += (1.0 - MOMENTUM) * (g * scale - *m);
                    *u = MOMENTUM * *m + (1.0 - MOMENTUM) * g * scale;
                }
                orthogonal.orthogonalize(direction, matrix.rows);
                let step = lr * (matrix.rows as f32 / columns as f32).max(1.0).sqrt();
                let keep = 1.0 - lr * self.decay;
                weight.iter_mut().zip(&*direction).for_each(|(w, u)| *w = keep * *w - step * u);
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use smalti_models::presets::Preset;
    use smalti_models::{Pooling, names};

    #[test]
    fn only_matrices_of_blocks_change_and_by_the_learning_rate() {
        let layout = Layout::new(
            names::classifier(&Preset::Nano.encoder(32, 4, 3), 10, Pooling::Mean),
            crate::model::precision::Precision::F32,
        );
        let muon = Muon::new(&layout, 0.0, Rates::default());
        assert_eq!(muon.matrices.len(), 6 * (3 + 1 + 1 + 1));
        let mut rng = Rng::new(1, 100, []);
        let grads: Vec<f32> = (0..layout.len()).map(|_| rng.normal() as f32).collect();
        let (mut params, mut m) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
        muon.update(0.02, 1.0, &grads, &mut params, &mut m);
        for (spec, slot) in layout.iter() {
            let values = slot.of(&params);
            let size = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
            // The values of an orthogonal matrix with n columns have a mean square of 1 / n.
            let want = match updates(spec) {
                true => 0.02 / (spec.shape[1] as f32).sqrt(),
                false => 0.0,
            };
            assert!((size - want).abs() <= 0.35 * want, "{}: {size} instead of {want}", spec.name);
            assert_eq!(slot.of(&m).iter().all(|m| *m == 0.0), !updates(spec));
        }
    }

    #[test]
    fn decay_shrinks_matrices_without_gradient() {
        let layout = Layout::new(
            names::classifier(&Preset::Nano.encoder(32, 4, 3), 10, Pooling::Mean),
            crate::model::precision::Precision::F32,
        );
        let (mut params, mut m) = (vec![1.0; layout.len()], vec![0.0; layout.len()]);
        Muon::new(&layout, 0.5, Rates { layer_decay: 0.5, ..Rates::default() }).update(
            0.1,
            1.0,
            &vec![0.0; layout.len()],
            &mut params,
            &mut m,
        );
        for (spec, slot) in layout.iter() {
            let rate = 0.1 * 0.5f32.powi(7 - spec.layer as i32);
            let want = if updates(spec) { 1.0 - rate * 0.5 } else { 1.0 };
            assert!(slot.of(&params).iter().all(|p| (p - want).abs() < 1e-6), "{}", spec.name);
        }
    }
}
