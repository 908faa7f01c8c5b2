//! Multi-head self-attention (arXiv 1706.03762) between the `qkv` and `proj` layers.
//!
//! `qkv` is `[batch · tokens, 3 · dim]`: queries, keys and values side by side, each split into heads. For each
//! picture and head, `P = softmax(Q Kᵀ / √head_dim)` and `out = P V`. Rows of `P` are padded to a multiple of 8.

use smalti_kernels::matmul::Shape;

use super::{Float, fit};
use crate::clock::{self, Op};

/// The sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Width of a token.
    pub dim: usize,
    /// Number of heads; divides `dim`.
    pub heads: usize,
}

/// Buffers of one head, reused.
#[derive(Clone, Debug, Default)]
pub struct Scratch<R> {
    transposed: Vec<R>,
    scores: Vec<R>,
}

impl Attention {
    fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Length of a row of `P`.
    fn stride(tokens: usize) -> usize {
        tokens.next_multiple_of(8)
    }

    /// Number of values of all `P` of a batch.
    pub fn probabilities(&self, batch: usize, tokens: usize) -> usize {
        batch * self.heads * tokens * Self::stride(tokens)
    }

    /// `c (+)= α a b`, `m` x `k` times `k` x `n`, all with the row lengths given; a negative-free wrapper that
    /// names what [`Shape`] spells out.
    fn shape(m: usize, k: usize, n: usize, a: (usize, usize), b_row: usize, c_row: usize) -> Shape {
        Shape { m, k, n, a_row: a.0, a_col: a.1, b_row, c_row, accumulate: false }
    }

    /// Places of the queries, keys and values of one head in `qkv`.
    fn places(&self, picture: usize, head: usize, tokens: usize) -> [usize; 3] {
        let query = picture * tokens * 3 * self.dim + head * self.head_dim();
        [query, query + self.dim, query + 2 * self.dim]
    }

    /// Writes `probs` and `out` `[batch · tokens, dim]`.
    pub fn forward<R: Float>(
        &self,
        tokens: usize,
        qkv: &[R],
        probs: &mut [R],
        out: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let _timer = clock::time(Op::Attention);
        let (width, row, stride) = (self.head_dim(), 3 * self.dim, Self::stride(tokens));
        let scale = R::of(1.0 / (width as f64).sqrt());
        fit(&mut scratch.transposed, width * stride);
        for (i, p) in probs.chunks_exact_mut(tokens * stride).enumerate() {
            let (picture, head) = (i / self.heads, i % self.heads);
            let [q, k, v] = self.places(picture, head, tokens);
            R::transpose(&qkv[k..], row, tokens, width, &mut scratch.transposed, stride);
            let scores = Self::shape(tokens, width, stride, (row, 1), stride, stride);
            R::product(scores, scale, &qkv[q..], &scratch.transposed, p);
            R::softmax(p, tokens, stride);
            let mix = Self::shape(tokens, tokens, width, (stride, 1), row, self.dim);
            R::product(mix, R::ONE, p, &qkv[v..], &mut out[picture * tokens * self.dim + head * width..]);
        }
    }

    /// Writes `dqkv` from `dout`.
    pub fn backward<R: Float>(
        &self,
        tokens: usize,
        qkv: &[R],
        probs: &[R],
        dout: &[R],
        dqkv: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let _timer = clock::time(Op::Attention);
        let (width, row, stride) = (self.head_dim(), 3 * self.dim, Self::stride(tokens));
        let scale = R::of(1.0 / (width as f64).sqrt());
        fit(&mut scratch.transposed, width * stride);
        fit(&mut scratch.scores, tokens * stride);
        for (i, p) in probs.chunks_exact(tokens * stride).enumerate() {
            let (picture, head) = (i / self.heads, i % self.heads);
            let [q, k, v] = self.places(picture, head, tokens);
            let dout = &dout[picture * tokens * self.dim + head * width..];
            let ds = &mut scratch.scores;
            R::transpose(&qkv[v..], row, tokens, width, &mut scratch.transposed, stride);
            let dp = Self::shape(tokens, width, stride, (self.dim, 1), stride, stride);
            R::product(dp, R::ONE, dout, &scratch.transposed, ds);
            let dv = Self::shape(tokens, tokens, width, (1, stride), self.dim, row);
            R::product(dv, R::ONE, p, dout, &mut dqkv[v..]);
            R::softmax_backward(p, ds, stride);
            let dq = Self::shape(tokens, tokens, width, (stride, 1), row, row);
            R::product(dq, scale, ds, &qkv[k..], &mut dqkv[q..]);
            let dk = Self::shape(tokens, tokens, width, (1, stride), row, row);
            R::product(dk, scale, ds, &qkv[q..], &mut dqkv[k..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, layout, values};

    #[test]
    fn gradients_match_finite_differences() {
        let (batch, tokens, dim) = (2, 5, 12);
        let attention = Attention { dim, heads: 3 };
        let layout = layout(&[("qkv", &[batch * tokens, 3 * dim])]);
        let pull = values(batch * tokens * dim, 9);
        let run = |p: &[f64]| {
            let mut probs = vec![0.0; attention.probabilities(batch, tokens)];
            let mut out = vec![0.0; batch * tokens * dim];
            attention.forward(tokens, p, &mut probs, &mut out, &mut Scratch::default());
            (out, probs)
        };
        Check::new(&layout).run(
            |p| run(p).0.iter().zip(&pull).map(|(y, w)| y * w).sum(),
            |p, grads| attention.backward(tokens, p, &run(p).1, &pull, grads, &mut Scratch::default()),
        );
    }

    #[test]
    fn equal_keys_average_the_values() {
        let (tokens, dim) = (4, 2);
        let qkv: Vec<f64> = (0..tokens).flat_map(|t| [1.0, 2.0, 0.5, 0.5, t as f64, 1.0]).collect();
        let attention = Attention { dim, heads: 1 };
        let (mut probs, mut out) = (vec![0.0; attention.probabilities(1, tokens)], vec![0.0; 8]);
        attention.forward(tokens, &qkv, &mut probs, &mut out, &mut Scratch::default());
        for row in out.chunks(2) {
            assert!((row[0] - 1.5).abs() < 1e-12 && (row[1] - 1.0).abs() < 1e-12);
        }
    }
}
