//! The second half of a block: `out = mid + f · fc2(gelu(fc1(norm2(mid))))`.

use super::block::Passing;
use super::branch;
use crate::error::Result;
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, gelu, gelu_backward, resize_buffer};
use crate::model::params::Layout;

/// The slots of one MLP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mlp {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// What it keeps for the way back.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved<R> {
    norm: Vec<R>,
    stats: Vec<[R; 2]>,
    hidden: Vec<R>,
    active: Vec<R>,
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

    /// Writes `out` `[n, dim]` from `mid` `[n, dim]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        mid: &[R],
        factors: Option<&[R]>,
        s: &mut Saved<R>,
        out: &mut [R],
    ) {
        let n = mid.len() / self.fc1.inputs();
        resize_buffer(&mut s.norm, mid.len());
        resize_buffer(&mut s.stats, n);
        resize_buffer(&mut s.hidden, n * self.fc1.outputs());
        resize_buffer(&mut s.active, n * self.fc1.outputs());
        self.norm.forward(params, mid, &mut s.norm, &mut s.stats);
        self.fc1.forward(params, &s.norm, &mut s.hidden);
        gelu(&s.hidden, &mut s.active);
        branch::close(&self.fc2, params, &s.active, mid, factors, out);
    }

    /// `dx` is the gradient of `out` and becomes that of `mid`.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        mid: &[R],
        factors: Option<&[R]>,
        s: &Saved<R>,
        dx: &mut [R],
        grads: &mut [R],
        pass: &mut Passing<R>,
    ) {
        resize_buffer(&mut pass.wide, s.hidden.len());
        resize_buffer(&mut pass.narrow, mid.len());
        let dbranch = branch::open(dx, factors, &mut pass.branch);
        self.fc2.backward_params(&s.active, dbranch, grads);
        self.fc2.backward_input(params, dbranch, &mut pass.wide);
        gelu_backward(&s.hidden, &mut pass.wide);
        self.fc1.backward_params(&s.norm, &pass.wide, grads);
        self.fc1.backward_input(params, &pass.wide, &mut pass.narrow);
        self.norm.backward(params, mid, &s.stats, &pass.narrow, dx, grads);
    }
}
