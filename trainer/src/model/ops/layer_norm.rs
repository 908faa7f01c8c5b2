//! Layer norm (arXiv 1607.06450): `y = (x - mean) / std · scale + shift` over each row; the arithmetic is the kernels'.

use smalti_models::vit::LAYER_NORM_EPS;

use super::Float;
use crate::clock::{self, Op};
use crate::error::Result;
use crate::model::params::{Layout, Slot};

/// The slots of one layer norm.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    scale: Slot,
    shift: Slot,
    eps: f32,
}

impl LayerNorm {
    /// Finds `name.weight` and `name.bias`.
    pub fn find(layout: &Layout, name: &str) -> Result<LayerNorm> {
        let (scale, shift) = (layout.slot(&format!("{name}.weight"))?, layout.slot(&format!("{name}.bias"))?);
        Ok(LayerNorm { scale, shift, eps: LAYER_NORM_EPS })
    }

    /// The same norm with another epsilon than [`LAYER_NORM_EPS`].
    pub fn with_eps(self, eps: f32) -> LayerNorm {
        LayerNorm { eps, ..self }
    }

    /// `y = norm(x)` for `x` `[n, dim]`. Writes mean and 1 / std of each row to `stats` `[n]`, for the backward pass.
    pub fn forward<R: Float>(&self, params: &[R], x: &[R], y: &mut [R], stats: &mut [[R; 2]]) {
        let _timer = clock::time(Op::Norms);
        let eps = R::of(f64::from(self.eps));
        R::layer_norm(x, self.scale.of(params), self.shift.of(params), eps, y, stats);
    }

    /// Adds to `dx` `[n, dim]` (the residual stream) and to the gradients of scale and shift.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        x: &[R],
        stats: &[[R; 2]],
        dy: &[R],
        dx: &mut [R],
        grads: &mut [R],
    ) {
        let _timer = clock::time(Op::Norms);
        // Scale and shift are adjacent in the flat vector.
        let both = &mut grads[self.scale.range().start..self.shift.range().end];
        let (dscale, dshift) = both.split_at_mut(self.scale.len());
        R::layer_norm_backward(x, self.scale.of(params), stats, dy, dx, dscale, dshift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, layout, values};

    #[test]
    fn gradients_match_finite_differences() {
        let layout = layout(&[("x", &[5, 12]), ("norm.weight", &[12]), ("norm.bias", &[12])]);
        let (norm, x) = (LayerNorm::find(&layout, "norm").unwrap(), layout.slot("x").unwrap());
        let pull = values(60, 9);
        let run = |p: &[f64]| {
            let (mut y, mut stats) = (vec![0.0; 60], vec![[0.0; 2]; 5]);
            norm.forward(p, x.of(p), &mut y, &mut stats);
            (y, stats)
        };
        Check::new(&layout).run(
            |p| run(p).0.iter().zip(&pull).map(|(y, w)| y * w).sum(),
            |p, grads| {
                let mut dx = vec![0.0; 60];
                norm.backward(p, x.of(p), &run(p).1, &pull, &mut dx, grads);
                x.of_mut(grads).copy_from_slice(&dx);
            },
        );
    }
}
