//! Multi-head attention (arXiv 1706.03762) without its linear layers.
//!
//! Queries, keys and values lie in one buffer, `qkv`, where [`Tokens`] says, each split into heads. For each image and
//! head, `P = softmax(Q Kᵀ / √head_dim)` and `out = P V`. Rows of `P` are padded to a multiple of 8.

use std::ops::Range;

use smalti_kernels::matmul::Shape;

use super::{Float, resize_buffer};
use crate::clock::{self, Op};

/// The sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Width of a token.
    pub dim: usize,
    /// Number of heads; divides `dim`.
    pub heads: usize,
}

/// The queries and keys of each image, and where they lie in `qkv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    queries: usize,
    keys: usize,
    q: Rows,
    k: Rows,
}

/// Where rows lie: the first, and the strides between rows and between images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows {
    start: usize,
    row_stride: usize,
    image_stride: usize,
}

impl Tokens {
    /// Self-attention: `qkv` is `[batch · tokens, 3 · dim]`, a row holds query, key and value. The tokens `queries` of each
    /// image attend to all of its tokens.
    pub fn own(dim: usize, tokens: usize, queries: Range<usize>) -> Tokens {
        let (row_stride, image_stride) = (3 * dim, tokens * 3 * dim);
        Tokens {
            queries: queries.len(),
            keys: tokens,
            q: Rows { start: queries.start * row_stride, row_stride, image_stride },
            k: Rows { start: dim, row_stride, image_stride },
        }
    }

    /// Cross-attention: `qkv` is `[batch · queries, dim]` of queries, then `[batch · keys, 2 · dim]`, a row of which holds
    /// key and value.
    pub fn cross(dim: usize, batch: usize, queries: usize, keys: usize) -> Tokens {
        Tokens {
            queries,
            keys,
            q: Rows { start: 0, row_stride: dim, image_stride: queries * dim },
            k: Rows { start: batch * queries * dim, row_stride: 2 * dim, image_stride: keys * 2 * dim },
        }
    }

    /// Length of a padded row of `P`.
    fn stride(&self) -> usize {
        self.keys.next_multiple_of(8)
    }
}

/// Where one head of one image begins in `qkv` and in the output.
struct Offsets {
    q: usize,
    k: usize,
    v: usize,
    out: usize,
}

/// Buffers of one head; all heads reuse them.
#[derive(Clone, Debug, Default)]
pub struct Scratch<R> {
    transposed: Vec<R>,
    scores: Vec<R>,
}

impl Attention {
    fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Number of values of all `P` of a batch, padding included.
    pub fn probabilities(&self, batch: usize, tokens: Tokens) -> usize {
        batch * self.heads * tokens.queries * tokens.stride()
    }

    /// The offsets of the `i`-th head of a batch.
    fn offsets(&self, i: usize, tokens: Tokens) -> Offsets {
        let (image, first) = (i / self.heads, i % self.heads * self.head_dim());
        let at = |rows: Rows| rows.start + image * rows.image_stride + first;
        let (q, k) = (at(tokens.q), at(tokens.k));
        Offsets { q, k, v: k + self.dim, out: image * tokens.queries * self.dim + first }
    }

    /// The matrix product `[m, k] · [k, n]` with these strides.
    fn shape(m: usize, k: usize, n: usize, a: (usize, usize), b_row: usize, c_row: usize) -> Shape {
        Shape { m, k, n, a_row: a.0, a_col: a.1, b_row, c_row, accumulate: false }
    }

    /// Writes `probs` and `out` `[batch · queries, dim]`.
    pub fn forward<R: Float>(
        &self,
        tokens: Tokens,
        qkv: &[R],
        probs: &mut [R],
        out: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let _timer = clock::time(Op::Attention);
        let Tokens { queries, keys, q: Rows { row_stride: q_row, .. }, k: Rows { row_stride: k_row, .. } } =
            tokens;
        let (width, stride) = (self.head_dim(), tokens.stride());
        let scale = R::of(1.0 / (width as f64).sqrt());
        resize_buffer(&mut scratch.transposed, width * stride);
        for (i, p) in probs.chunks_exact_mut(queries * stride).enumerate() {
            let at = self.offsets(i, tokens);
            R::transpose(&qkv[at.k..], k_row, keys, width, &mut scratch.transposed, stride);
            let scores = Self::shape(queries, width, stride, (q_row, 1), stride, stride);
            R::product(scores, scale, &qkv[at.q..], &scratch.transposed, p);
            R::softmax(p, keys, stride);
            let mix = Self::shape(queries, keys, width, (stride, 1), k_row, self.dim);
            R::product(mix, R::ONE, p, &qkv[at.v..], &mut out[at.out..]);
        }
    }

    /// Writes `dqkv` from `dout`. The queries of tokens outside [`Tokens`]' queries stay as they are.
    pub fn backward<R: Float>(
        &self,
        tokens: Tokens,
        qkv: &[R],
        probs: &[R],
        dout: &[R],
        dqkv: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let _timer = clock::time(Op::Attention);
        let Tokens { queries, keys, q: Rows { row_stride: q_row, .. }, k: Rows { row_stride: k_row, .. } } =
            tokens;
        let (width, stride) = (self.head_dim(), tokens.stride());
        let scale = R::of(1.0 / (width as f64).sqrt());
        resize_buffer(&mut scratch.transposed, width * stride);
        resize_buffer(&mut scratch.scores, queries * stride);
        for (i, p) in probs.chunks_exact(queries * stride).enumerate() {
            let at = self.offsets(i, tokens);
            let (dout, ds) = (&dout[at.out..], &mut scratch.scores);
            R::transpose(&qkv[at.v..], k_row, keys, width, &mut scratch.transposed, stride);
            let dp = Self::shape(queries, width, stride, (self.dim, 1), stride, stride);
            R::product(dp, R::ONE, dout, &scratch.transposed, ds);
            let dv = Self::shape(keys, queries, width, (1, stride), self.dim, k_row);
            R::product(dv, R::ONE, p, dout, &mut dqkv[at.v..]);
            R::softmax_backward(p, ds, stride);
            let dq = Self::shape(queries, keys, width, (stride, 1), k_row, q_row);
            R::product(dq, scale, ds, &qkv[at.k..], &mut dqkv[at.q..]);
            let dk = Self::shape(keys, queries, width, (1, stride), q_row, k_row);
            R::product(dk, scale, ds, &qkv[at.q..], &mut dqkv[at.k..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, layout, values};

    const BATCH: usize = 2;
    const DIM: usize = 12;

    /// The output, and `P`.
    fn run(attention: Attention, tokens: Tokens, qkv: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let mut probs = vec![0.0; attention.probabilities(BATCH, tokens)];
        let mut out = vec![0.0; BATCH * tokens.queries * attention.dim];
        attention.forward(tokens, qkv, &mut probs, &mut out, &mut Scratch::default());
        (out, probs)
    }

    #[test]
    fn gradients_match_finite_differences() {
        let attention = Attention { dim: DIM, heads: 3 };
        let own = |queries| (BATCH * 5 * 3 * DIM, Tokens::own(DIM, 5, queries));
        let cross = |queries: usize, keys: usize| {
            (BATCH * (queries + 2 * keys) * DIM, Tokens::cross(DIM, BATCH, queries, keys))
        };
        for (len, tokens) in [own(0..5), own(2..5), own(0..1), cross(3, 5), cross(9, 1)] {
            let pull = values(BATCH * tokens.queries * DIM, 9);
            Check::new(&layout(&[("qkv", &[len])])).run(
                |p| run(attention, tokens, p).0.iter().zip(&pull).map(|(y, w)| y * w).sum(),
                |p, grads| {
                    let (_, probs) = run(attention, tokens, p);
                    attention.backward(tokens, p, &probs, &pull, grads, &mut Scratch::default());
                },
            );
        }
    }

    #[test]
    fn fewer_queries_change_no_output() {
        let attention = Attention { dim: DIM, heads: 3 };
        let qkv = values(BATCH * 5 * 3 * DIM, 3);
        let all = run(attention, Tokens::own(DIM, 5, 0..5), &qkv).0;
        let some = run(attention, Tokens::own(DIM, 5, 2..4), &qkv).0;
        for (all, some) in all.chunks(5 * DIM).zip(some.chunks(2 * DIM)) {
            assert_eq!(all[2 * DIM..4 * DIM], *some);
        }
    }

    #[test]
    fn equal_keys_average_the_values() {
        let one = (0..4).flat_map(|t| [1.0, 2.0, 0.5, 0.5, f64::from(t), 1.0]);
        let qkv: Vec<f64> = one.clone().chain(one).collect();
        let (out, _) = run(Attention { dim: 2, heads: 1 }, Tokens::own(2, 4, 0..4), &qkv);
        for row in out.chunks(2) {
            assert!((row[0] - 1.5).abs() < 1e-12 && (row[1] - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn one_key_is_copied_to_every_query() {
        let q = [1.0; 12];
        let qkv = [&q[..], &[3.0, 4.0, 7.0, 8.0], &[5.0, 6.0, 9.0, 10.0]].concat();
        let (out, _) = run(Attention { dim: 2, heads: 1 }, Tokens::cross(2, BATCH, 3, 1), &qkv);
        assert_eq!(out, [7.0, 8.0, 7.0, 8.0, 7.0, 8.0, 9.0, 10.0, 9.0, 10.0, 9.0, 10.0]);
    }
}
