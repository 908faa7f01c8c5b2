//! GELU (arXiv 1606.08415), `y = x · Φ(x)` with the exact Φ; the arithmetic is the kernels'.

use super::Float;
use crate::clock::{self, Op};

/// `y = gelu(x)`.
pub fn gelu<R: Float>(x: &[R], y: &mut [R]) {
    let _timer = clock::time(Op::Gelu);
    R::gelu(x, y);
}

/// Turns `dy`, the gradient of GELU's output, into that of its input `x`.
pub fn gelu_backward<R: Float>(x: &[R], dy: &mut [R]) {
    let _timer = clock::time(Op::Gelu);
    R::gelu_backward(x, dy);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, layout, values};

    #[test]
    fn gradients_match_finite_differences() {
        let layout = layout(&[("x", &[64])]);
        let pull = values(64, 9);
        Check::new(&layout).run(
            |x| {
                let mut y = vec![0.0; 64];
                gelu(x, &mut y);
                y.iter().zip(&pull).map(|(y, w)| y * w).sum()
            },
            |x, grads| {
                grads.copy_from_slice(&pull);
                gelu_backward(x, grads);
            },
        );
    }
}
