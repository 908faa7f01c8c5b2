//! Residual branches, `out = x + f · gamma · layer(...)`: their ends, and the buffers that they share.
//!
//! `f` is 1, or each image's factor of stochastic depth (arXiv 1603.09382): 0 or 1 / keep. `gamma` is LayerScale's, where
//! there is one.

use crate::error::Result;
use crate::model::ops::layer_scale::LayerScale;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, attention, resize_buffer};
use crate::model::params::Layout;

/// Temporary values and gradients of one block; all blocks of a stack reuse them.
#[derive(Clone, Debug, Default)]
pub(in crate::model) struct Scratch<R> {
    /// The MLP's hidden layer `[rows, hidden]`, or queries, keys and values of distinct rows.
    pub(super) wide: Vec<R>,
    /// Both halves of SwiGLU's input `[rows, 2 · hidden]`, or queries and keys between their norms.
    pub(super) twice: Vec<R>,
    /// `[rows, dim]`.
    pub(super) narrow: Vec<R>,
    /// The gradient that enters a branch `[rows, dim]`.
    pub(super) branch: Vec<R>,
    /// Queries, keys and values, or their gradients.
    pub(super) qkv: Vec<R>,
    /// A block's part of the memory's gradient `[batch · keys, memory width]`.
    pub(super) memory: Vec<R>,
    /// Buffers of one attention head.
    pub(super) attention: attention::Scratch<R>,
}

/// The last layer of a branch, with what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    layer: Linear,
    scale: Option<LayerScale>,
}

impl End {
    /// Finds the layer `layer`, and with `scale` the LayerScale of this name.
    pub(super) fn find(layout: &Layout, layer: &str, scale: Option<&str>) -> Result<End> {
        let scale = scale.map(|name| LayerScale::find(layout, name)).transpose()?;
        Ok(End { layer: Linear::find(layout, layer)?, scale })
    }

    /// `out = residual + f · gamma · layer(x)`, fused into the layer where there are no factors. With LayerScale, `kept`
    /// becomes what the layer gives.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        x: &[R],
        residual: &[R],
        factors: Option<&[R]>,
        kept: &mut Vec<R>,
        out: &mut [R],
    ) {
        if let Some(scale) = &self.scale {
            resize_buffer(kept, out.len());
            self.layer.forward(params, x, kept);
            return scale.forward(params, kept, residual, factors, out);
        }
        let Some(factors) = factors else { return self.layer.forward_residual(params, x, residual, out) };
        self.layer.forward(params, x, out);
        let each = out.len() / factors.len().max(1);
        let images = out.chunks_exact_mut(each).zip(residual.chunks_exact(each)).zip(factors);
        for ((out, residual), &factor) in images {
            for (out, &residual) in out.iter_mut().zip(residual) {
                *out = residual + factor * *out;
            }
        }
    }

    /// Writes the gradient of `x` to `dx`, from that of `out` and from `kept`.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        [x, dout, kept]: [&[R]; 3],
        factors: Option<&[R]>,
        buffer: &mut Vec<R>,
        dx: &mut [R],
        grads: &mut [R],
    ) {
        let dlayer = match &self.scale {
            Some(scale) => {
                resize_buffer(buffer, dout.len());
                scale.backward(params, kept, dout, factors, buffer, grads);
                &buffer[..]
            }
            None => branch_gradient(dout, factors, buffer),
        };
        self.layer.backward_params(x, dlayer, grads);
        self.layer.backward_input(params, dlayer, dx);
    }
}

/// The gradient of `layer(x)` from `dout`: `f · dout`, in `buffer` where there are factors.
fn branch_gradient<'a, R: Float>(dout: &'a [R], factors: Option<&[R]>, buffer: &'a mut Vec<R>) -> &'a [R] {
    let Some(factors) = factors else { return dout };
    resize_buffer(buffer, dout.len());
    let each = dout.len() / factors.len().max(1);
    let images = buffer.chunks_exact_mut(each).zip(dout.chunks_exact(each)).zip(factors);
    for ((row, dout), &factor) in images {
        for (row, &dout) in row.iter_mut().zip(dout) {
            *row = dout * factor;
        }
    }
    buffer
}
