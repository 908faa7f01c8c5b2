//! SwiGLU (arXiv 2002.05202), `y = silu(g) · u` for rows `[g, u]`; the arithmetic is the kernels'.

use super::Float;
use crate::clock::{self, Op};

/// `y` `[n, width]` from `x` `[n, 2 · width]`.
pub fn swiglu<R: Float>(x: &[R], width: usize, y: &mut [R]) {
    let _timer = clock::time(Op::Gelu);
    R::swiglu(x, width, y);
}

/// `dx` `[n, 2 · width]` from `dy` `[n, width]`.
pub fn swiglu_backward<R: Float>(x: &[R], width: usize, dy: &[R], dx: &mut [R]) {
    let _timer = clock::time(Op::Gelu);
    R::swiglu_backward(x, width, dy, dx);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, dot, layout, values};

    #[test]
    fn gradients_match_finite_differences() {
        let layout = layout(&[("x", &[5, 2, 7])]);
        let pull = values(35, 9);
        Check::new(&layout).run(
            |x| {
                let mut y = vec![0.0; 35];
                swiglu(x, 7, &mut y);
                dot(&y, &pull)
            },
            |x, grads| swiglu_backward(x, 7, &pull, grads),
        );
    }
}
