//! The MLP branch of a block: `out = x + f · fc2(gelu(fc1(norm2(x))))`.

use super::branch::{self, Scratch};
use crate::error::Result;
use crate::model::ops::gelu::{gelu, gelu_backward};
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;

/// The slots of one MLP branch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mlp {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// What its backward pass needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    norm: Vec<R>,
    stats: Vec<[R; 2]>,
    /// Before GELU `[n, 4 · dim]`.
    hidden: Vec<R>,
    /// After GELU.
    active: Vec<R>,
    /// `[n, dim]`.
    pub(super) out: Vec<R>,
}

impl Mlp {
    /// Finds the tensors of the block `name`.
    pub(super) fn find(layout: &Layout, name: &str) -> Result<Mlp> {
        Ok(Mlp {
            norm: LayerNorm::find(layout, &format!("{name}.norm2"))?,
            fc1: Linear::find(layout, &format!("{name}.mlp.fc1"))?,
            fc2: Linear::find(layout, &format!("{name}.mlp.fc2"))?,
        })
    }

    /// Computes `acts.out` `[n, dim]` from `x` `[n, dim]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        x: &[R],
        factors: Option<&[R]>,
        acts: &mut Activations<R>,
    ) {
        let n = x.len() / self.fc1.inputs();
        resize_buffer(&mut acts.norm, x.len());
        resize_buffer(&mut acts.stats, n);
        resize_buffer(&mut acts.hidden, n * self.fc1.outputs());
        resize_buffer(&mut acts.active, n * self.fc1.outputs());
        resize_buffer(&mut acts.out, x.len());
        self.norm.forward(params, x, &mut acts.norm, &mut acts.stats);
        self.fc1.forward(params, &acts.norm, &mut acts.hidden);
        gelu(&acts.hidden, &mut acts.active);
        branch::add_residual(&self.fc2, params, &acts.active, x, factors, &mut acts.out);
    }

    /// Turns `dx`, the gradient of `acts.out`, into the gradient of `x`.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        x: &[R],
        factors: Option<&[R]>,
        acts: &Activations<R>,
        dx: &mut [R],
        grads: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        resize_buffer(&mut scratch.wide, acts.hidden.len());
        resize_buffer(&mut scratch.narrow, x.len());
        let dbranch = branch::branch_gradient(dx, factors, &mut scratch.branch);
        self.fc2.backward_params(&acts.active, dbranch, grads);
        self.fc2.backward_input(params, dbranch, &mut scratch.wide);
        gelu_backward(&acts.hidden, &mut scratch.wide);
        self.fc1.backward_params(&acts.norm, &scratch.wide, grads);
        self.fc1.backward_input(params, &scratch.wide, &mut scratch.narrow);
        self.norm.backward(params, x, &acts.stats, &scratch.narrow, dx, grads);
    }
}
