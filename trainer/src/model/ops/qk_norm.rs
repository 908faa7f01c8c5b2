//! Layer norms of the queries and keys of each head (arXiv 2302.05442), within rows of query, key and value.

use super::layer_norm::LayerNorm;
use super::{Float, resize_buffer};
use crate::error::Result;
use crate::model::params::Layout;

/// The slots of both norms, which all heads share.
#[derive(Clone, Copy, Debug)]
pub struct QkNorm {
    norms: [LayerNorm; 2],
    dim: usize,
    heads: usize,
}

/// What the backward pass needs.
#[derive(Clone, Debug, Default)]
pub struct Activations<R> {
    /// Queries, then keys, as they were `[2, n, dim]`.
    before: Vec<R>,
    /// Mean and 1 / std of each head `[2, n, heads]`.
    stats: Vec<[R; 2]>,
}

/// Copies column block `part` of rows of three such blocks.
fn take<R: Float>(qkv: &[R], dim: usize, part: usize, to: &mut [R]) {
    for (to, row) in to.chunks_exact_mut(dim).zip(qkv.chunks_exact(3 * dim)) {
        to.copy_from_slice(&row[part * dim..][..dim]);
    }
}

/// The reverse of [`take`].
fn put<R: Float>(from: &[R], dim: usize, part: usize, qkv: &mut [R]) {
    for (from, row) in from.chunks_exact(dim).zip(qkv.chunks_exact_mut(3 * dim)) {
        row[part * dim..][..dim].copy_from_slice(from);
    }
}

impl QkNorm {
    /// Finds `name.q_norm` and `name.k_norm`, for rows of `heads` heads in `dim` values.
    pub fn find(layout: &Layout, name: &str, dim: usize, heads: usize, eps: f32) -> Result<QkNorm> {
        let norm = |part: &str| LayerNorm::find(layout, &format!("{name}.{part}"));
        Ok(QkNorm { norms: [norm("q_norm")?.with_eps(eps), norm("k_norm")?.with_eps(eps)], dim, heads })
    }

    /// Normalises queries and keys of `qkv` `[n, 3 · dim]` where they lie.
    pub fn forward<R: Float>(
        &self,
        params: &[R],
        qkv: &mut [R],
        acts: &mut Activations<R>,
        buffer: &mut Vec<R>,
    ) {
        let (dim, values) = (self.dim, qkv.len() / 3);
        resize_buffer(&mut acts.before, 2 * values);
        resize_buffer(&mut acts.stats, 2 * values / dim * self.heads);
        resize_buffer(buffer, values);
        let count = acts.stats.len() / 2;
        for (part, norm) in self.norms.iter().enumerate() {
            let before = &mut acts.before[part * values..][..values];
            take(qkv, dim, part, before);
            norm.forward(params, before, buffer, &mut acts.stats[part * count..][..count]);
            put(buffer, dim, part, qkv);
        }
    }

    /// Turns the gradients in `dqkv` `[n, 3 · dim]` of normalised queries and keys into those of what they were.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        acts: &Activations<R>,
        dqkv: &mut [R],
        grads: &mut [R],
        buffer: &mut Vec<R>,
    ) {
        let (dim, values, count) = (self.dim, dqkv.len() / 3, acts.stats.len() / 2);
        resize_buffer(buffer, 2 * values);
        let (dy, dx) = buffer.split_at_mut(values);
        for (part, norm) in self.norms.iter().enumerate() {
            take(dqkv, dim, part, dy);
            dx.fill(R::ZERO);
            let (before, stats) =
                (&acts.before[part * values..][..values], &acts.stats[part * count..][..count]);
            norm.backward(params, before, stats, dy, dx, grads);
            put(dx, dim, part, dqkv);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, dot, layout, values};

    const ROWS: usize = 5;

    /// Three heads of four values.
    fn norms() -> (Layout, QkNorm) {
        let norm = ["attn.q_norm.weight", "attn.q_norm.bias", "attn.k_norm.weight", "attn.k_norm.bias"];
        let layout = layout(&[
            ("qkv", &[ROWS, 36]),
            (norm[0], &[4]),
            (norm[1], &[4]),
            (norm[2], &[4]),
            (norm[3], &[4]),
        ]);
        let found = QkNorm::find(&layout, "attn", 12, 3, 1e-6).unwrap();
        (layout, found)
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (layout, norms) = norms();
        let (qkv, pull) = (layout.slot("qkv").unwrap(), values(ROWS * 36, 9));
        let run = |p: &[f64]| {
            let (mut y, mut acts) = (qkv.of(p).to_vec(), Activations::default());
            norms.forward(p, &mut y, &mut acts, &mut Vec::new());
            (y, acts)
        };
        Check::new(&layout).run(
            |p| dot(&run(p).0, &pull),
            |p, grads| {
                let mut dqkv = pull.clone();
                norms.backward(p, &run(p).1, &mut dqkv, grads, &mut Vec::new());
                qkv.of_mut(grads).copy_from_slice(&dqkv);
            },
        );
    }

    #[test]
    fn each_head_is_normalised_and_values_stay() {
        let (layout, norms) = norms();
        let mut params = values(layout.len(), 2);
        for norm in ["q_norm", "k_norm"] {
            let slot = |part: &str| layout.slot(&format!("attn.{norm}.{part}")).unwrap();
            slot("weight").of_mut(&mut params).fill(1.0);
            slot("bias").of_mut(&mut params).fill(0.0);
        }
        let before = layout.slot("qkv").unwrap().of(&params).to_vec();
        let mut after = before.clone();
        norms.forward(&params, &mut after, &mut Activations::default(), &mut Vec::new());
        for (before, after) in before.chunks(36).zip(after.chunks(36)) {
            assert_eq!(before[24..], after[24..]);
            for head in after[..24].chunks(4) {
                let (mean, square) = (head.iter().sum::<f64>() / 4.0, dot(head, head) / 4.0);
                assert!(mean.abs() < 1e-9 && (square - 1.0).abs() < 1e-4, "{head:?}");
            }
        }
    }
}
