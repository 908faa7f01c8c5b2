//! Linear layer: `y = x Wᵀ + b` with `x` `[n, in]`, `W` `[out, in]`, `b` `[out]`, `y` `[n, out]`.

use std::cell::RefCell;

use ndarray::ArrayView2;
use ndarray::linalg::general_mat_mul;
use smalti_kernels::bf16::{Buffers, Matrix};

use super::{Float, matrix, matrix_mut};
use crate::clock::{self, Op};
use crate::error::Result;
use crate::model::params::{Layout, Slot};
use crate::model::precision::Precision;

thread_local! {
    /// Where each thread packs the operands of its matrix products.
    static PACKED: RefCell<Buffers> = RefCell::default();
}

/// A matrix as ndarray's view.
fn view<R>(x: Matrix<'_, R>) -> ArrayView2<'_, R> {
    if x.col == 1 { matrix(x.data, x.size[0]) } else { matrix(x.data, x.size[1]).reversed_axes() }
}

/// The slots of one linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    weight: Slot,
    bias: Slot,
    precision: Precision,
}

impl Linear {
    /// Finds `name.weight` and `name.bias`.
    pub fn find(layout: &Layout, name: &str) -> Result<Linear> {
        Ok(Linear {
            weight: layout.slot(&format!("{name}.weight"))?,
            bias: layout.slot(&format!("{name}.bias"))?,
            precision: layout.precision(),
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
        self.add_matrix_product(params, x, y);
    }

    /// `y = residual + x Wᵀ + b`.
    pub fn forward_residual<R: Float>(&self, params: &[R], x: &[R], residual: &[R], y: &mut [R]) {
        let _timer = clock::time(Op::Products);
        R::add_rows(residual, self.bias.of(params), y);
        self.add_matrix_product(params, x, y);
    }

    /// `y += x Wᵀ`.
    fn add_matrix_product<R: Float>(&self, params: &[R], x: &[R], y: &mut [R]) {
        let weight = Matrix::new(self.weight.of(params), self.inputs());
        self.multiply(Matrix::new(x, self.inputs()), weight.t(), true, y);
    }

    /// `dW += dyᵀ x`, `db += Σ dy`.
    pub fn backward_params<R: Float>(&self, x: &[R], dy: &[R], grads: &mut [R]) {
        let _timer = clock::time(Op::Products);
        R::column_sums(dy, self.bias.of_mut(grads));
        let dweight = self.weight.of_mut(grads);
        self.multiply(Matrix::new(dy, self.outputs()).t(), Matrix::new(x, self.inputs()), true, dweight);
    }

    /// `dx = dy W`.
    pub fn backward_input<R: Float>(&self, params: &[R], dy: &[R], dx: &mut [R]) {
        let _timer = clock::time(Op::Products);
        let weight = Matrix::new(self.weight.of(params), self.inputs());
        self.multiply(Matrix::new(dy, self.outputs()), weight, false, dx);
    }

    /// `c = a b`, or `c += a b`.
    fn multiply<R: Float>(&self, a: Matrix<'_, R>, b: Matrix<'_, R>, accumulate: bool, c: &mut [R]) {
        match self.precision {
            Precision::F32 => {
                let beta = if accumulate { R::ONE } else { R::ZERO };
                general_mat_mul(R::ONE, &view(a), &view(b), beta, &mut matrix_mut(c, a.size[0]));
            }
            Precision::Bf16 => {
                PACKED.with_borrow_mut(|packed| R::rounded_product(a, b, accumulate, c, packed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, layout, values};

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
    fn the_residual_is_added() {
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
