//! Residual branches, `out = x + f · layer(...)`: their ends, and the buffers that they share.
//!
//! `f` is 1, or each image's factor of stochastic depth (arXiv 1603.09382): 0 or 1 / keep.

use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, attention, resize_buffer};

/// Temporary values and gradients of one block; all blocks of a stack reuse them.
#[derive(Clone, Debug, Default)]
pub(in crate::model) struct Scratch<R> {
    /// The MLP's hidden layer `[rows, 4 · dim]`, or queries, keys and values of distinct rows.
    pub(super) wide: Vec<R>,
    /// `[rows, dim]`.
    pub(super) narrow: Vec<R>,
    /// The gradient that enters a branch `[rows, dim]`.
    pub(super) branch: Vec<R>,
    /// Queries, keys and values, or their gradients.
    pub(super) qkv: Vec<R>,
    /// A block's part of the memory's gradient `[batch · keys, memory width]`.
    pub(super) memory: Vec<R>,
    /// Buffers of one attention head.
    pub(super) attention: attention::Scratch<R>,
}

/// `out = residual + f · layer(x)`, fused into the layer where there are no factors.
pub(super) fn add_residual<R: Float>(
    layer: &Linear,
    params: &[R],
    x: &[R],
    residual: &[R],
    factors: Option<&[R]>,
    out: &mut [R],
) {
    let Some(factors) = factors else { return layer.forward_residual(params, x, residual, out) };
    layer.forward(params, x, out);
    let each = out.len() / factors.len().max(1);
    let images = out.chunks_exact_mut(each).zip(residual.chunks_exact(each)).zip(factors);
    for ((out, residual), &factor) in images {
        for (out, &residual) in out.iter_mut().zip(residual) {
            *out = residual + factor * *out;
        }
    }
}

/// The gradient of `layer(x)` from `dout`: `f · dout`, in `buffer` where there are factors.
pub(super) fn branch_gradient<'a, R: Float>(
    dout: &'a [R],
    factors: Option<&[R]>,
    buffer: &'a mut Vec<R>,
) -> &'a [R] {
    let Some(factors) = factors else { return dout };
    resize_buffer(buffer, dout.len());
    let each = dout.len() / factors.len().max(1);
    let images = buffer.chunks_exact_mut(each).zip(dout.chunks_exact(each)).zip(factors);
    for ((row, dout), &factor) in images {
        for (row, &dout) in row.iter_mut().zip(dout) {
            *row = dout * factor;
        }
    }
    buffer
}
