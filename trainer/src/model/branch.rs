//! The ends of a residual branch, `out = x + f · layer(...)`.
//!
//! `f` is 1, or the factor of stochastic depth (arXiv 1603.09382) of each image: 0 or 1 / keep.

use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};

/// `out = residual + f · layer(x)`: fused where no factors come between.
pub(super) fn close<R: Float>(
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

/// The gradient that enters the branch, out of that of its sum.
pub(super) fn open<'a, R: Float>(dx: &'a [R], factors: Option<&[R]>, buffer: &'a mut Vec<R>) -> &'a [R] {
    let Some(factors) = factors else { return dx };
    resize_buffer(buffer, dx.len());
    let each = dx.len() / factors.len().max(1);
    let images = buffer.chunks_exact_mut(each).zip(dx.chunks_exact(each)).zip(factors);
    for ((row, dx), &factor) in images {
        for (row, &dx) in row.iter_mut().zip(dx) {
            *row = dx * factor;
        }
    }
    buffer
}
