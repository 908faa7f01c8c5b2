//! The attention branch of a block: `out = x + f · gamma · proj(attention(qkv(norm1(x))))`.

use smalti_models::Variant;

use super::branch::{End, Scratch};
use super::input::{BlockInput, gather, scatter};
use crate::error::Result;
use crate::model::ops::attention::{Attention, Tokens};
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::qk_norm::{self, QkNorm};
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;

/// The layers that make queries, keys and values.
#[derive(Clone, Copy, Debug)]
enum Projection {
    /// Self-attention: all three from the tokens, queries and keys perhaps behind norms of their own.
    Own { qkv: Linear, norms: Option<QkNorm> },
    /// Cross-attention: queries from the tokens, keys and values from the memory.
    Cross { q: Linear, kv: Linear },
}

/// The slots of one attention branch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attn {
    attention: Attention,
    norm: LayerNorm,
    projection: Projection,
    proj: End,
}

/// What its backward pass needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    norm: Vec<R>,
    stats: Vec<[R; 2]>,
    /// Queries, keys and values, as [`Tokens`] says.
    qkv: Vec<R>,
    qk_norm: qk_norm::Activations<R>,
    /// The attention weights.
    pub(super) probs: Vec<R>,
    /// The heads' outputs `[batch · queries, dim]`.
    heads: Vec<R>,
    /// The last layer's output, with LayerScale.
    kept: Vec<R>,
    /// `[batch · queries, dim]`.
    pub(super) out: Vec<R>,
}

impl Attn {
    /// Finds the tensors of the block `name`.
    pub(super) fn find(
        layout: &Layout,
        name: &str,
        dim: usize,
        heads: usize,
        variant: &Variant,
        cross_attention: bool,
    ) -> Result<Attn> {
        let (eps, place) = (variant.norm_eps, if cross_attention { "cross_attn" } else { "attn" });
        let linear = |part: &str| Linear::find(layout, &format!("{name}.{place}.{part}"));
        let projection = if cross_attention {
            Projection::Cross { q: linear("q")?, kv: linear("kv")? }
        } else {
            let norms = || QkNorm::find(layout, &format!("{name}.attn"), dim, heads, eps);
            Projection::Own { qkv: linear("qkv")?, norms: variant.qk_norm.then(norms).transpose()? }
        };
        let scale = variant.layer_scale.then(|| format!("{name}.ls1"));
        let proj = End::find(layout, &format!("{name}.{place}.proj"), scale.as_deref())?;
        let norm = LayerNorm::find(layout, &format!("{name}.norm1"))?.with_eps(eps);
        Ok(Attn { attention: Attention { dim, heads }, norm, projection, proj })
    }

    /// The layer that every token goes through before attention.
    fn token_layer(&self) -> &Linear {
        match &self.projection {
            Projection::Own { qkv, .. } => qkv,
            Projection::Cross { q, .. } => q,
        }
    }

    /// The layer that the memory goes through.
    fn memory_layer(&self) -> Option<&Linear> {
        match &self.projection {
            Projection::Own { .. } => None,
            Projection::Cross { kv, .. } => Some(kv),
        }
    }

    /// The norms of queries and keys.
    fn qk_norm(&self) -> Option<&QkNorm> {
        match &self.projection {
            Projection::Own { norms, .. } => norms.as_ref(),
            Projection::Cross { .. } => None,
        }
    }

    /// Where queries, keys and values lie in [`Activations::qkv`].
    fn tokens<R>(&self, input: &BlockInput<'_, R>) -> Tokens {
        let dim = self.attention.dim;
        match self.memory_layer() {
            None => Tokens::own(dim, input.tokens, input.queries.clone()),
            Some(kv) => {
                let keys = input.memory.len() / kv.inputs() / input.batch;
                Tokens::cross(dim, input.batch, input.tokens, keys)
            }
        }
    }

    /// Computes `acts.out` `[batch · queries, dim]` from `input.x` `[rows, dim]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        input: &BlockInput<'_, R>,
        acts: &mut Activations<R>,
        scratch: &mut Scratch<R>,
    ) {
        let dim = self.attention.dim;
        resize_buffer(&mut acts.norm, input.x.len());
        resize_buffer(&mut acts.stats, input.x.len() / dim);
        self.norm.forward(params, input.x, &mut acts.norm, &mut acts.stats);
        self.project(params, input, acts, scratch);

        let (tokens, out) = (self.tokens(input), input.batch * input.queries.len() * dim);
        resize_buffer(&mut acts.probs, self.attention.probabilities(input.batch, tokens));
        resize_buffer(&mut acts.heads, out);
        resize_buffer(&mut acts.out, out);
        let attention = &mut scratch.attention;
        self.attention.forward(tokens, &acts.qkv, &mut acts.probs, &mut acts.heads, attention);
        let residual = input.residual(dim, &mut scratch.narrow);
        self.proj.forward(params, &acts.heads, residual, input.drop[0], &mut acts.kept, &mut acts.out);
    }

    /// Computes `acts.qkv` from `acts.norm` and the memory.
    fn project<R: Float>(
        &self,
        params: &[R],
        input: &BlockInput<'_, R>,
        acts: &mut Activations<R>,
        scratch: &mut Scratch<R>,
    ) {
        let (layer, memory_layer) = (self.token_layer(), self.memory_layer());
        let own = input.batch * input.tokens * layer.outputs();
        let other = memory_layer.map_or(0, |kv| input.memory.len() / kv.inputs() * kv.outputs());
        resize_buffer(&mut acts.qkv, own + other);
        let (own, other) = acts.qkv.split_at_mut(own);
        match input.shared_rows() {
            None => layer.forward(params, &acts.norm, own),
            Some(rows) => {
                resize_buffer(&mut scratch.qkv, acts.norm.len() / layer.inputs() * layer.outputs());
                layer.forward(params, &acts.norm, &mut scratch.qkv);
                gather(&scratch.qkv, rows, layer.outputs(), own);
            }
        }
        if let Some(norms) = self.qk_norm() {
            norms.forward(params, own, &mut acts.qk_norm, &mut scratch.twice);
        }
        if let Some(kv) = memory_layer {
            kv.forward(params, input.memory, other);
        }
    }

    /// Turns `dx`, the gradient of `acts.out`, into the gradient of `input.x`. Adds the memory's gradient to `dmemory`.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        input: &BlockInput<'_, R>,
        acts: &Activations<R>,
        dx: &mut Vec<R>,
        dmemory: &mut [R],
        grads: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        resize_buffer(&mut scratch.narrow, acts.heads.len());
        resize_buffer(&mut scratch.qkv, acts.qkv.len());
        let (known, dheads) = ([&acts.heads[..], &dx[..], &acts.kept[..]], &mut scratch.narrow);
        self.proj.backward(params, known, input.drop[0], &mut scratch.branch, dheads, grads);
        if input.queries.len() < input.tokens {
            scratch.qkv.fill(R::ZERO);
        }
        let (tokens, dheads) = (self.tokens(input), &scratch.narrow);
        let attention = &mut scratch.attention;
        self.attention.backward(tokens, &acts.qkv, &acts.probs, dheads, &mut scratch.qkv, attention);
        self.backward_memory(params, input, dmemory, grads, scratch);
        if let Some(norms) = self.qk_norm() {
            norms.backward(params, &acts.qk_norm, &mut scratch.qkv, grads, &mut scratch.twice);
        }
        self.backward_tokens(params, input, acts, dx, grads, scratch);
    }

    /// From the gradients of the memory's keys and values, in `scratch.qkv`, to that of the memory.
    fn backward_memory<R: Float>(
        &self,
        params: &[R],
        input: &BlockInput<'_, R>,
        dmemory: &mut [R],
        grads: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let Some(kv) = self.memory_layer() else { return };
        let dkv = &scratch.qkv[input.batch * input.tokens * self.token_layer().outputs()..];
        resize_buffer(&mut scratch.memory, input.memory.len());
        kv.backward_params(input.memory, dkv, grads);
        kv.backward_input(params, dkv, &mut scratch.memory);
        R::axpy(R::ONE, &scratch.memory, dmemory);
    }

    /// From the gradients of what the tokens were projected to, in `scratch.qkv`, and of the residual, in `dx`, to that of
    /// `input.x`, in `dx`.
    fn backward_tokens<R: Float>(
        &self,
        params: &[R],
        input: &BlockInput<'_, R>,
        acts: &Activations<R>,
        dx: &mut Vec<R>,
        grads: &mut [R],
        scratch: &mut Scratch<R>,
    ) {
        let (dim, layer) = (self.attention.dim, self.token_layer());
        let width = layer.outputs();
        let mut dprojected = &scratch.qkv[..input.batch * input.tokens * width];
        if let Some(rows) = input.shared_rows() {
            resize_buffer(&mut scratch.wide, input.x.len() / dim * width);
            scatter(dprojected, rows, width, &mut scratch.wide);
            dprojected = &scratch.wide;
        }
        if !input.keeps_rows() {
            resize_buffer(&mut scratch.branch, input.x.len());
            scatter(dx, input.query_rows(), dim, &mut scratch.branch);
            std::mem::swap(dx, &mut scratch.branch);
        }
        resize_buffer(&mut scratch.narrow, input.x.len());
        layer.backward_params(&acts.norm, dprojected, grads);
        layer.backward_input(params, dprojected, &mut scratch.narrow);
        self.norm.backward(params, input.x, &acts.stats, &scratch.narrow, dx, grads);
    }
}
