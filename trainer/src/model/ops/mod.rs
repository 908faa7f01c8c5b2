//! The operations: forward, backward and gradient test of each in one file.
//!
//! Activation gradients overwrite, parameter gradients and gradients on the residual stream accumulate.
//! Everything is generic over f32 (fast kernels) and f64 (the reference, for gradient checks).

use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar};
use smalti_kernels::Real;

use crate::clock::{self, Op};

pub mod attention;
#[cfg(test)]
pub(crate) mod check;
pub mod layer_norm;
pub mod linear;
pub mod loss;

/// A type that models can be trained in: f32, or f64 for gradient checks.
pub trait Float: Real + LinalgScalar {}
impl<T: Real + LinalgScalar> Float for T {}

/// `y = gelu(x)`.
pub(crate) fn gelu<R: Float>(x: &[R], y: &mut [R]) {
    let _timer = clock::time(Op::Gelu);
    R::gelu(x, y);
}

/// Turns `dy`, the gradient of GELU's output, into that of its input `x`.
pub(crate) fn gelu_backward<R: Float>(x: &[R], dy: &mut [R]) {
    let _timer = clock::time(Op::Gelu);
    R::gelu_backward(x, dy);
}

/// A slice as a matrix of `rows` rows; its length fixes the columns.
pub(crate) fn matrix<R>(x: &[R], rows: usize) -> ArrayView2<'_, R> {
    let cols = x.len() / rows.max(1);
    ArrayView2::from_shape((rows, cols), &x[..rows * cols]).unwrap_or_else(|e| unreachable!("{e}"))
}

/// [`matrix`], to write.
pub(crate) fn matrix_mut<R>(x: &mut [R], rows: usize) -> ArrayViewMut2<'_, R> {
    let cols = x.len() / rows.max(1);
    ArrayViewMut2::from_shape((rows, cols), &mut x[..rows * cols]).unwrap_or_else(|e| unreachable!("{e}"))
}

/// Makes a buffer exactly this long; it allocates only to grow beyond what it ever held.
pub(crate) fn resize_buffer<R: Clone + Default>(buffer: &mut Vec<R>, len: usize) {
    // Not twice as much as is needed, as a vector that grows would take.
    buffer.reserve_exact(len.saturating_sub(buffer.len()));
    buffer.resize(len, R::default());
}

#[cfg(test)]
mod tests {
    use super::check::{Check, layout, values};
    use smalti_kernels::Real;

    /// GELU has no file here: its kernel is all of it.
    #[test]
    fn gelu_gradient() {
        let layout = layout(&[("x", &[64])]);
        let pull = values(64, 9);
        Check::new(&layout).run(
            |x| {
                let mut y = vec![0.0; 64];
                f64::gelu(x, &mut y);
                y.iter().zip(&pull).map(|(y, w)| y * w).sum()
            },
            |x, grads| {
                grads.copy_from_slice(&pull);
                f64::gelu_backward(x, grads);
            },
        );
    }
}
