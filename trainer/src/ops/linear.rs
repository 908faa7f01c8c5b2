//! Linear layer: `y = x Wᵀ + b` with `x` `[n, in]`, `W` `[out, in]`, `b` `[out]`, `y` `[n, out]`.

use ndarray::linalg::general_mat_mul;

use super::{Float, matrix, matrix_mut};
use crate::clock::{self, Op};
use crate::error::Result;
use crate::params::{Layout, Slot};

/// The slots of one linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    weight: Slot,
    bias: Slot,
}

impl Linear {
    /// Finds `name.weight` and `name.bias`.
    pub fn find(layout: &Layout, name: &str) -> Result<Linear> {
        Ok(Linear {
            weight: layout.slot(&format!("{name}.weight"))?,
            bias: layout.slot(&format!("{name}.bias"))?,
        })
    }

    /// Output width.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Input width.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }

    /// `y = x Wᵀ + b`.
    pub fn forward<R: Float>(&self, params: &[R], x: &[R], y: &mut [R]) {
        let _timer = clock::time(Op::Products);
        let bias = self.bias.of(params);
        y.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
        self.add_product(params, x, y);
    }

    /// `y = residual + x Wᵀ + b`.
    pub fn forward_residual<R: Float>(&self, params: &[R], x: &[R], residual: &[R], y: &mut [R]) {
        let _timer = clock::time(Op::Products);
        R::add_rows(residual, self.bias.of(params), y);
        self.add_product(params, x, y);
    }

    fn add_product<R: Float>(&self, params: &[R], x: &[R], y: &mut [R]) {
        let rows = y.len() / self.outputs();
        let weight = matrix(self.weight.of(params), self.outputs());
        general_mat_mul(R::ONE, &matrix(x, rows), &weight.t(), R::ONE, &mut matrix_mut(y, rows));
    }

    /// `dW += dyᵀ x`, `db += Σ dy`.
    pub fn backward_params<R: Float>(&self, x: &[R], dy: &[R], grads: &mut [R]) {
        let _timer = clock::time(Op::Products);
        let rows = dy.len() / self.outputs();
        R::column_sums(dy, self.bias.of_mut(grads));
        let dweight = self.weight.of_mut(grads);
        let mut dweight = matrix_mut(dweight, self.outputs());
        general_mat_mul(R::ONE, &matrix(dy, rows).t(), &matrix(x, rows), R::ONE, &mut dweight);
    }

    /// `dx = dy W`.
    pub fn backward_input<R: Float>(&self, params: &[R], dy: &[R], dx: &mut [R]) {
        let _timer = clock::time(Op::Products);
        let rows = dy.len() / self.outputs();
        let weight = matrix(self.weight.of(params), self.outputs());
        general_mat_mul(R::ONE, &matrix(dy, rows), &weight, R::ZERO, &mut matrix_mut(dx, rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, layout, values};

    #[test]
    fn gradients_match_finite_differences() {
        let layout = layout(&[("x", &[5, 12]), ("fc.weight", &[7, 12]), ("fc.bias", &[7])]);
        let (linear, x) = (Linear::find(&layout, "fc").unwrap(), layout.slot("x").unwrap());
        let pull = values(5 * 7, 9);
        Check::new(&layout).run(
            |p| {
                let mut y = vec![0.0; 35];
                linear.forward(p, x.of(p), &mut y);
                y.iter().zip(&pull).map(|(y, w)| y * w).sum()
            },
            |p, grads| {
                linear.backward_params(x.of(p), &pull, grads);
                linear.backward_input(p, &pull, x.of_mut(grads));
            },
        );
    }

    #[test]
    fn a_residual_is_added_before() {
        let layout = layout(&[("fc.weight", &[3, 4]), ("fc.bias", &[3])]);
        let linear = Linear::find(&layout, "fc").unwrap();
        let (params, x, residual) = (values(15, 1), values(8, 2), values(6, 3));
        let (mut plain, mut added) = (vec![0.0; 6], vec![0.0; 6]);
        linear.forward(&params, &x, &mut plain);
        linear.forward_residual(&params, &x, &residual, &mut added);
        for i in 0..6 {
            assert!((plain[i] + residual[i] - added[i]).abs() < 1e-12);
        }
    }
}
