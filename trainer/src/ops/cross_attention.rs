//! Multi-head attention of some tokens to others (arXiv 1706.03762): queries from one set, keys and values from another.
//!
//! `q` is `[batch · queries, dim]`, `kv` `[batch · keys, 2 · dim]`: keys and values side by side, each split into heads.
//! For each picture and head, `P = softmax(Q Kᵀ / √head_dim)` and `out = P V`. Rows of `P` are padded to a multiple of 8.

use smalti_kernels::matmul::Shape;

use super::{Float, fit};
use crate::clock::{self, Op};

/// The sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub struct CrossAttention {
    /// Width of a token.
    pub dim: usize,
    /// Number of heads; divides `dim`.
    pub heads: usize,
}

/// Tokens of a picture on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Those that ask.
    pub queries: usize,
    /// Those that are asked.
    pub keys: usize,
}

/// Buffers of one head, reused.
#[derive(Clone, Debug, Default)]
pub struct Scratch<R> {
    transposed: Vec<R>,
    scores: Vec<R>,
}

/// Where one head of one picture begins in each tensor.
struct Places {
    q: usize,
    k: usize,
    v: usize,
}

impl CrossAttention {
    fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Length of a row of `P`.
    fn stride(tokens: Tokens) -> usize {
        tokens.keys.next_multiple_of(8)
    }

    /// Number of values of all `P` of a batch.
    pub fn probabilities(&self, batch: usize, tokens: Tokens) -> usize {
        batch * self.heads * tokens.queries * Self::stride(tokens)
    }

    fn places(&self, i: usize, tokens: Tokens) -> Places {
        let (picture, head) = (i / self.heads, i % self.heads);
        let k = picture * tokens.keys * 2 * self.dim + head * self.head_dim();
        Places { q: picture * tokens.queries * self.dim + head * self.head_dim(), k, v: k + self.dim }
    }

    /// `m` x `k` times `k` x `n`, with the lengths of rows given.
    fn shape(m: usize, k: usize, n: usize, a: (usize, usize), b_row: usize, c_row: usize) -> Shape {
        Shape { m, k, n, a_row: a.0, a_col: a.1, b_row, c_row, accumulate: false }
    }

    /// Writes `probs` and `out` `[batch · queries, dim]`.
    pub fn forward<R: Float>(
        &self,
        tokens: Tokens,
        q: &[R],
        kv: &[R],
        probs: &mut [R],
        out: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let _timer = clock::time(Op::Attention);
        let Tokens { queries, keys } = tokens;
        let (width, row, stride) = (self.head_dim(), 2 * self.dim, Self::stride(tokens));
        let scale = R::of(1.0 / (width as f64).sqrt());
        fit(&mut scratch.transposed, width * stride);
        for (i, p) in probs.chunks_exact_mut(queries * stride).enumerate() {
            let at = self.places(i, tokens);
            R::transpose(&kv[at.k..], row, keys, width, &mut scratch.transposed, stride);
            let scores = Self::shape(queries, width, stride, (self.dim, 1), stride, stride);
            R::product(scores, scale, &q[at.q..], &scratch.transposed, p);
            R::softmax(p, keys, stride);
            let mix = Self::shape(queries, keys, width, (stride, 1), row, self.dim);
            R::product(mix, R::ONE, p, &kv[at.v..], &mut out[at.q..]);
        }
    }

    /// Writes `dq` and `dkv` from `dout`.
    pub fn backward<R: Float>(
        &self,
        tokens: Tokens,
        q: &[R],
        kv: &[R],
        probs: &[R],
        dout: &[R],
        dq: &mut [R],
        dkv: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let _timer = clock::time(Op::Attention);
        let Tokens { queries, keys } = tokens;
        let (width, row, stride) = (self.head_dim(), 2 * self.dim, Self::stride(tokens));
        let scale = R::of(1.0 / (width as f64).sqrt());
        fit(&mut scratch.transposed, width * stride);
        fit(&mut scratch.scores, queries * stride);
        for (i, p) in probs.chunks_exact(queries * stride).enumerate() {
            let at = self.places(i, tokens);
            let (dout, ds) = (&dout[at.q..], &mut scratch.scores);
            R::transpose(&kv[at.v..], row, keys, width, &mut scratch.transposed, stride);
            let dp = Self::shape(queries, width, stride, (self.dim, 1), stride, stride);
            R::product(dp, R::ONE, dout, &scratch.transposed, ds);
            let dv = Self::shape(keys, queries, width, (1, stride), self.dim, row);
            R::product(dv, R::ONE, p, dout, &mut dkv[at.v..]);
            R::softmax_backward(p, ds, stride);
            let to_q = Self::shape(queries, keys, width, (stride, 1), row, self.dim);
            R::product(to_q, scale, ds, &kv[at.k..], &mut dq[at.q..]);
            let to_k = Self::shape(keys, queries, width, (1, stride), self.dim, row);
            R::product(to_k, scale, ds, &q[at.q..], &mut dkv[at.k..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, layout, values};

    #[test]
    fn gradients_match_finite_differences() {
        let (batch, dim) = (2, 12);
        let attention = CrossAttention { dim, heads: 3 };
        for tokens in [Tokens { queries: 3, keys: 5 }, Tokens { queries: 9, keys: 1 }] {
            let shapes: [&[usize]; 2] = [&[batch * tokens.queries, dim], &[batch * tokens.keys, 2 * dim]];
            let layout = layout(&[("q", shapes[0]), ("kv", shapes[1])]);
            let split = batch * tokens.queries * dim;
            let pull = values(split, 9);
            let run = |p: &[f64]| {
                let mut probs = vec![0.0; attention.probabilities(batch, tokens)];
                let mut out = vec![0.0; split];
                let (q, kv) = p.split_at(split);
                attention.forward(tokens, q, kv, &mut probs, &mut out, &mut Scratch::default());
                (out, probs)
            };
            Check::new(&layout).run(
                |p| run(p).0.iter().zip(&pull).map(|(y, w)| y * w).sum(),
                |p, grads| {
                    let ((q, kv), (dq, dkv)) = (p.split_at(split), grads.split_at_mut(split));
                    attention.backward(tokens, q, kv, &run(p).1, &pull, dq, dkv, &mut Scratch::default());
                },
            );
        }
    }

    #[test]
    fn one_key_is_copied_to_every_query() {
        let (tokens, dim) = (Tokens { queries: 3, keys: 1 }, 2);
        let attention = CrossAttention { dim, heads: 1 };
        let (mut probs, mut out) = (vec![0.0; attention.probabilities(1, tokens)], vec![0.0; 6]);
        attention.forward(
            tokens,
            &[1.0; 6],
            &[3.0, 4.0, 7.0, 8.0],
            &mut probs,
            &mut out,
            &mut Scratch::default(),
        );
        assert_eq!(out, [7.0, 8.0, 7.0, 8.0, 7.0, 8.0]);
    }
}
