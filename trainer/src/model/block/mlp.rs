//! The MLP branch of a block: `out = x + f · gamma · fc2(act(fc1(norm2(x))))`, `act` being GELU or SwiGLU.

use smalti_models::variant::{Mlp as Kind, Variant};

use super::branch::{End, Scratch};
use crate::error::Result;
use crate::model::ops::gelu::{gelu, gelu_backward};
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::swiglu::{swiglu, swiglu_backward};
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;

/// The slots of one MLP branch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mlp {
    norm: LayerNorm,
    fc1: Linear,
    kind: Kind,
    fc2: End,
}

/// What its backward pass needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    norm: Vec<R>,
    stats: Vec<[R; 2]>,
    /// Before GELU `[n, hidden]`, or SwiGLU `[n, 2 · hidden]`.
    fused: Vec<R>,
    /// After it `[n, hidden]`.
    active: Vec<R>,
    /// The last layer's output, with LayerScale.
    kept: Vec<R>,
    /// `[n, dim]`.
    pub(super) out: Vec<R>,
}

impl Mlp {
    /// Finds the tensors of the block `name`.
    pub(super) fn find(layout: &Layout, name: &str, variant: &Variant) -> Result<Mlp> {
        let scale = variant.layer_scale.then(|| format!("{name}.ls2"));
        Ok(Mlp {
            norm: LayerNorm::find(layout, &format!("{name}.norm2"))?.with_eps(variant.norm_eps),
            fc1: Linear::find(layout, &format!("{name}.mlp.fc1"))?,
            kind: variant.mlp,
            fc2: End::find(layout, &format!("{name}.mlp.fc2"), scale.as_deref())?,
        })
    }

    /// Width of the hidden layer.
    fn hidden(&self) -> usize {
        self.fc1.outputs() / self.kind.fused()
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
        resize_buffer(&mut acts.fused, n * self.fc1.outputs());
        resize_buffer(&mut acts.active, n * self.hidden());
        resize_buffer(&mut acts.out, x.len());
        self.norm.forward(params, x, &mut acts.norm, &mut acts.stats);
        self.fc1.forward(params, &acts.norm, &mut acts.fused);
        match self.kind {
            Kind::Gelu => gelu(&acts.fused, &mut acts.active),
            Kind::SwiGlu => swiglu(&acts.fused, self.hidden(), &mut acts.active),
        }
        self.fc2.forward(params, &acts.active, x, factors, &mut acts.kept, &mut acts.out);
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
        resize_buffer(&mut scratch.wide, acts.active.len());
        resize_buffer(&mut scratch.narrow, x.len());
        let (known, dactive) = ([&acts.active[..], &dx[..], &acts.kept[..]], &mut scratch.wide);
        self.fc2.backward(params, known, factors, &mut scratch.branch, dactive, grads);
        let dfused = match self.kind {
            Kind::Gelu => {
                gelu_backward(&acts.fused, dactive);
                dactive
            }
            Kind::SwiGlu => {
                resize_buffer(&mut scratch.twice, acts.fused.len());
                swiglu_backward(&acts.fused, self.hidden(), dactive, &mut scratch.twice);
                &mut scratch.twice
            }
        };
        self.fc1.backward_params(&acts.norm, dfused, grads);
        self.fc1.backward_input(params, dfused, &mut scratch.narrow);
        self.norm.backward(params, x, &acts.stats, &scratch.narrow, dx, grads);
    }
}
