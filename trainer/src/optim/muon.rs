//! Muon (Jordan et al. 2024, github.com/KellerJordan/Muon): a matrix moves along its momentum made orthogonal.
//!
//! ```text
//! m ← β m + (1 − β) g          u = β m + (1 − β) g            (Nesterov)
//! X = u / ‖u‖, five times X ← a X + (b A + c A²) X with A = X Xᵀ    (Newton and Schulz)
//! w ← (1 − lr · decay) w − lr · √max(1, rows / columns) · X
//! ```
//! Its first moment is the flat vector's `m`; it has no second.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use smalti_models::names::{Role, TensorSpec};

use crate::params::Layout;

const MOMENTUM: f32 = 0.95;
const STEPS: usize = 5;
/// The polynomial that brings singular values near 1 fastest: to 0.7 ... 1.2 and no closer.
const POLYNOMIAL: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// One matrix in the flat vector.
#[derive(Clone, Debug, PartialEq)]
struct Matrix {
    range: Range<usize>,
    rows: usize,
    /// Its rate over that of the last layer.
    rate: f32,
}

/// Which matrices it moves, and how.
#[derive(Clone, Debug)]
pub struct Muon {
    matrices: Vec<Matrix>,
    decay: f32,
}

/// Whether Muon moves this tensor: the matrices of blocks. Embeddings and heads are the other optimizer's.
pub fn takes(spec: &TensorSpec) -> bool {
    let block = ["blocks.", "decoder_blocks."].iter().any(|start| spec.name.starts_with(start));
    block && spec.role == Role::Weight && spec.shape.len() == 2
}

/// How many matrices a tensor is: queries, keys and values are made orthogonal each for itself.
fn stacked(name: &str) -> usize {
    if name.ends_with(".qkv.weight") {
        return 3;
    }
    if name.ends_with(".kv.weight") { 2 } else { 1 }
}

impl Muon {
    /// Over the matrices that it [`takes`]; rates fall with depth as AdamW's do.
    pub fn new(layout: &Layout, decay: f64, layer_decay: f64) -> Muon {
        let last = layout.iter().map(|(spec, _)| spec.layer).max().unwrap_or(0);
        let matrices = layout.iter().filter(|(spec, _)| takes(spec)).flat_map(|(spec, slot)| {
            let (count, range) = (stacked(&spec.name), slot.range());
            let (len, rows) = (range.len() / count, spec.shape[0] / count);
            let rate = layer_decay.powi((last - spec.layer) as i32) as f32;
            (0..count).map(move |i| {
                let start = range.start + i * len;
                Matrix { range: start..start + len, rows, rate }
            })
        });
        Muon { matrices: matrices.collect(), decay: decay as f32 }
    }

    /// Moves its matrices by one step at this learning rate; gradients are multiplied by `scale` (clipping). Runs on the
    /// current rayon pool, a matrix on one thread.
    pub fn update(&self, lr: f64, scale: f64, grads: &[f32], params: &mut [f32], m: &mut [f32]) {
        let mut parts = Vec::with_capacity(self.matrices.len());
        let (mut params, mut m, mut at) = (params, m, 0);
        for matrix in &self.matrices {
            // In the order of the flat vector: cut off what lies before, then the matrix.
            let (skip, len) = (matrix.range.start - at, matrix.range.len());
            let (weight, rest) = std::mem::take(&mut params)[skip..].split_at_mut(len);
            let (moment, rest_m) = std::mem::take(&mut m)[skip..].split_at_mut(len);
            (params, m, at) = (rest, rest_m, matrix.range.end);
            parts.push((matrix, &grads[matrix.range.clone()], weight, moment));
        }
        parts.into_par_iter().for_each(|(matrix, grads, weight, moment)| {
            let (lr, scale) = (lr as f32 * matrix.rate, scale as f32);
            let columns = weight.len() / matrix.rows;
            let mut direction = Array2::zeros((matrix.rows, columns));
            for ((u, m), &g) in direction.iter_mut().zip(&mut *moment).zip(grads) {
                *m += (1.0 - MOMENTUM) * (g * scale - *m);
                *u = MOMENTUM * *m + (1.0 - MOMENTUM) * g * scale;
            }
            let direction = orthogonal(direction);
            let step = lr * (matrix.rows as f32 / columns as f32).max(1.0).sqrt();
            let keep = 1.0 - lr * self.decay;
            weight.iter_mut().zip(&direction).for_each(|(w, u)| *w = keep * *w - step * u);
        });
    }
}

/// The matrix with all singular values near 1, by five steps of Newton and Schulz.
fn orthogonal(matrix: Array2<f32>) -> Array2<f32> {
    // The product with itself is the smaller one this way round.
    let tall = matrix.nrows() > matrix.ncols();
    let mut x = if tall { matrix.reversed_axes().as_standard_layout().into_owned() } else { matrix };
    let length = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let scale = (1.0 / (length + 1e-7)) as f32;
    x.mapv_inplace(|x| x * scale);
    let [a, b, c] = POLYNOMIAL;
    let n = x.nrows();
    let (mut gram, mut mixed) = (Array2::zeros((n, n)), Array2::zeros((n, n)));
    let mut next = Array2::zeros(x.raw_dim());
    for _ in 0..STEPS {
        let view: ArrayView2<'_, f32> = x.view();
        general_mat_mul(1.0, &view, &view.t(), 0.0, &mut gram);
        mixed.assign(&gram);
        general_mat_mul(c, &gram, &gram, b, &mut mixed);
        next.assign(&x);
        general_mat_mul(1.0, &mixed, &x, a, &mut next);
        std::mem::swap(&mut x, &mut next);
    }
    if tall { x.reversed_axes().as_standard_layout().into_owned() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use smalti_models::presets::Preset;
    use smalti_models::{Pool, names};

    fn random(rows: usize, columns: usize) -> Array2<f32> {
        let mut rng = Rng::new(3, 100, []);
        Array2::from_shape_fn((rows, columns), |_| rng.normal() as f32)
    }

    #[test]
    fn singular_values_come_near_one() {
        for (rows, columns) in [(24, 24), (48, 12), (12, 48)] {
            let x = orthogonal(random(rows, columns));
            assert_eq!(x.dim(), (rows, columns));
            let side = rows.min(columns) as f32;
            let length = x.iter().map(|x| x * x).sum::<f32>();
            assert!((0.45 * side..1.5 * side).contains(&length), "{length} for {side}");
        }
    }

    #[test]
    fn a_diagonal_goes_through_the_polynomial() {
        let values = [4.0f64, 2.0, 1.0, 0.25];
        let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let x = orthogonal(Array2::from_diag(&ndarray::arr1(&values.map(|x| x as f32))));
        let [a, b, c] = POLYNOMIAL.map(f64::from);
        for (i, value) in values.iter().enumerate() {
            let want = (0..STEPS).fold(value / length, |x, _| a * x + b * x.powi(3) + c * x.powi(5));
            assert!((f64::from(x[(i, i)]) - want).abs() < 1e-5, "{} instead of {want}", x[(i, i)]);
        }
    }

    #[test]
    fn only_matrices_of_blocks_move_and_by_the_rate() {
        let layout = Layout::new(
            names::classifier(&Preset::Nano.encoder(32, 4, 3), 10, Pool::Mean),
            crate::precision::Precision::F32,
        );
        let muon = Muon::new(&layout, 0.0, 1.0);
        assert_eq!(muon.matrices.len(), 6 * (3 + 1 + 1 + 1));
        let mut rng = Rng::new(1, 100, []);
        let grads: Vec<f32> = (0..layout.len()).map(|_| rng.normal() as f32).collect();
        let (mut params, mut m) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
        muon.update(0.02, 1.0, &grads, &mut params, &mut m);
        for (spec, slot) in layout.iter() {
            let values = slot.of(&params);
            let size = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
            // An orthogonal matrix of n columns has values of size 1 / √n.
            let want = match takes(spec) {
                true => 0.02 / (spec.shape[1] as f32).sqrt(),
                false => 0.0,
            };
            assert!((size - want).abs() <= 0.35 * want, "{}: {size} instead of {want}", spec.name);
            assert_eq!(slot.of(&m).iter().all(|m| *m == 0.0), !takes(spec));
        }
    }

    #[test]
    fn decay_shrinks_what_has_no_gradient() {
        let layout = Layout::new(
            names::classifier(&Preset::Nano.encoder(32, 4, 3), 10, Pool::Mean),
            crate::precision::Precision::F32,
        );
        let (mut params, mut m) = (vec![1.0; layout.len()], vec![0.0; layout.len()]);
        Muon::new(&layout, 0.5, 0.5).update(0.1, 1.0, &vec![0.0; layout.len()], &mut params, &mut m);
        for (spec, slot) in layout.iter() {
            let rate = 0.1 * 0.5f32.powi(7 - spec.layer as i32);
            let want = if takes(spec) { 1.0 - rate * 0.5 } else { 1.0 };
            assert!(slot.of(&params).iter().all(|p| (p - want).abs() < 1e-6), "{}", spec.name);
        }
    }
}
