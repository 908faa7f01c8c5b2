//! A pre-norm transformer block (arXiv 2010.11929, equations 2 and 3).
//!
//! ```text
//! mid = x   + f₁ · γ₁ · proj(attention(qkv(norm1(x))))     module attn
//! out = mid + f₂ · γ₂ · fc2(gelu(fc1(norm2(mid))))         module mlp
//! ```
//! `f₁` and `f₂` are 1, or the factors of stochastic depth; `γ₁` and `γ₂` are 1, or LayerScale's ([`branch`]). Other
//! variants norm queries and keys again, or have SwiGLU in the place of GELU ([`Variant`]). In CrossMAE's blocks (arXiv 2401.14391) queries
//! come from `x`, keys and values from the encoder's output, the memory: `attention(q(norm1(x)), kv(memory))`.
//!
//! A block skips work that changes no result ([`BlockInput`]): equal rows of the input go through `norm1` and `qkv` once,
//! and tokens that nobody reads after the block end with their keys and values.

mod attn;
mod branch;
mod input;
mod mlp;

use smalti_models::Variant;

use self::attn::Attn;
pub(super) use self::branch::Scratch;
pub(super) use self::input::BlockInput;
use self::mlp::Mlp;
use crate::error::Result;
use crate::model::ops::Float;
use crate::model::params::Layout;

/// The slots of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// The first value of its tensors in the flat vector.
    pub(super) start: usize,
    attn: Attn,
    mlp: Mlp,
}

/// What the backward pass of one block needs from its forward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    attn: attn::Activations<R>,
    mlp: mlp::Activations<R>,
}

impl<R> Activations<R> {
    /// The block's output `[batch · queries, dim]`.
    pub(super) fn output(&self) -> &[R] {
        &self.mlp.out
    }

    /// The attention weights `[batch · heads, queries, keys]`, rows padded to a multiple of 8.
    pub(super) fn attention(&self) -> &[R] {
        &self.attn.probs
    }
}

impl Block {
    /// Finds the block `name` of width `dim`, with self-attention or cross-attention.
    pub(super) fn find(
        layout: &Layout,
        name: &str,
        dim: usize,
        heads: usize,
        variant: &Variant,
        cross_attention: bool,
    ) -> Result<Block> {
        Ok(Block {
            start: layout.slot(&format!("{name}.norm1.weight"))?.range().start,
            attn: Attn::find(layout, name, dim, heads, variant, cross_attention)?,
            mlp: Mlp::find(layout, name, variant)?,
        })
    }

    /// Computes `acts.output()` `[batch · queries, dim]` from `input.x` `[rows, dim]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        input: &BlockInput<'_, R>,
        acts: &mut Activations<R>,
        scratch: &mut Scratch<R>,
    ) {
        self.attn.forward(params, input, &mut acts.attn, scratch);
        self.mlp.forward(params, &acts.attn.out, input.drop[1], &mut acts.mlp);
    }

    /// Turns `dx`, the gradient of the output, into the gradient of `input.x`. Adds the memory's gradient to `dmemory`.
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
        self.mlp.backward(params, &acts.attn.out, input.drop[1], &acts.mlp, dx, grads, scratch);
        self.attn.backward(params, input, &acts.attn, dx, dmemory, grads, scratch);
    }
}
