//! What a block works on: tokens of images, some of which share a row of the input.

use std::ops::Range;

use crate::model::ops::{Float, resize_buffer};

/// The input of one block.
#[derive(Clone, Debug)]
pub(in crate::model) struct BlockInput<'a, R> {
    /// `[rows, dim]`.
    pub(in crate::model) x: &'a [R],
    /// Number of images.
    pub(in crate::model) batch: usize,
    /// Tokens of an image.
    pub(in crate::model) tokens: usize,
    /// The tokens of an image that leave the block. The others serve as keys and values only.
    pub(in crate::model) queries: Range<usize>,
    /// The row of `x` of each token `[batch · tokens]`. Empty where token `i` has row `i`.
    pub(in crate::model) rows: &'a [u32],
    /// `[batch · keys, memory width]`; empty with self-attention.
    pub(in crate::model) memory: &'a [R],
    /// The factors of stochastic depth of both branches, one an image.
    pub(in crate::model) drop: [Option<&'a [R]>; 2],
}

impl<'a, R: Float> BlockInput<'a, R> {
    /// Whether the output has the rows of the input.
    pub(super) fn keeps_rows(&self) -> bool {
        self.rows.is_empty() && self.queries == (0..self.tokens)
    }

    /// The row of `x` of each query.
    pub(super) fn query_rows(&self) -> impl Iterator<Item = usize> {
        (0..self.batch)
            .flat_map(move |image| self.queries.clone().map(move |token| image * self.tokens + token))
            .map(|token| self.rows.get(token).map_or(token, |&row| row as usize))
    }

    /// The row of `x` of each token, where tokens share rows.
    pub(super) fn shared_rows(&self) -> Option<impl Iterator<Item = usize>> {
        (!self.rows.is_empty()).then(|| self.rows.iter().map(|&row| row as usize))
    }

    /// The rows of the queries `[batch · queries, dim]`, in `buffer` where they are not `x` itself.
    pub(super) fn residual<'b>(&self, dim: usize, buffer: &'b mut Vec<R>) -> &'b [R]
    where
        'a: 'b,
    {
        if self.keeps_rows() {
            return self.x;
        }
        resize_buffer(buffer, self.batch * self.queries.len() * dim);
        gather(self.x, self.query_rows(), dim, buffer);
        buffer
    }
}

/// Copies `rows` of `x`, `width` values each, to `y`.
pub(super) fn gather<R: Float>(x: &[R], rows: impl Iterator<Item = usize>, width: usize, y: &mut [R]) {
    for (y, row) in y.chunks_exact_mut(width).zip(rows) {
        y.copy_from_slice(&x[row * width..][..width]);
    }
}

/// The backward pass of [`gather`]: each row of `dx` becomes the sum of its copies in `dy`, added in order.
pub(super) fn scatter<R: Float>(dy: &[R], rows: impl Iterator<Item = usize>, width: usize, dx: &mut [R]) {
    dx.fill(R::ZERO);
    for (dy, row) in dy.chunks_exact(width).zip(rows) {
        R::axpy(R::ONE, dy, &mut dx[row * width..][..width]);
    }
}
