//! The operations, one a file: forward pass, backward pass, gradient test.
//!
//! Backward passes overwrite the gradients of activations. They add to the gradients of parameters and to those on the
//! residual stream. Everything is generic over f32 (fast kernels) and f64 (the reference, for gradient checks).

use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar};
use smalti_kernels::Real;

pub mod attention;
pub mod batch_norm;
#[cfg(test)]
pub(crate) mod check;
pub mod conv;
pub mod gelu;
pub mod layer_norm;
pub mod layer_scale;
pub mod linear;
pub mod qk_norm;
pub mod swiglu;
pub mod winograd;

/// A type that models can be trained in: f32, or f64 for gradient checks.
pub trait Float: Real + LinalgScalar {}
impl<T: Real + LinalgScalar> Float for T {}

/// A slice as a matrix `[rows, len / rows]`.
pub(crate) fn matrix<R>(x: &[R], rows: usize) -> ArrayView2<'_, R> {
    let cols = x.len() / rows.max(1);
    ArrayView2::from_shape((rows, cols), &x[..rows * cols]).unwrap_or_else(|e| unreachable!("{e}"))
}

/// A mutable slice as a matrix `[rows, len / rows]`.
pub(crate) fn matrix_mut<R>(x: &mut [R], rows: usize) -> ArrayViewMut2<'_, R> {
    let cols = x.len() / rows.max(1);
    ArrayViewMut2::from_shape((rows, cols), &mut x[..rows * cols]).unwrap_or_else(|e| unreachable!("{e}"))
}

/// Makes a buffer exactly this long. It allocates only to grow beyond its largest length so far.
pub(crate) fn resize_buffer<R: Clone + Default>(buffer: &mut Vec<R>, len: usize) {
    // `resize` alone would reserve up to twice the length.
    buffer.reserve_exact(len.saturating_sub(buffer.len()));
    buffer.resize(len, R::default());
}
