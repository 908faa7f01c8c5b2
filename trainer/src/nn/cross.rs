//! CrossMAE's decoder (arXiv 2401.14391): hidden patches alone ask, and only what was encoded answers.
//!
//! ```text
//! mid = x   + proj(cross_attention(q(norm1(x)), kv(latent)))
//! out = mid + fc2(gelu(fc1(norm2(mid))))
//! ```
//! `x` starts as the mask token with the position of a hidden patch. Hidden patches do not see each other, so that each
//! is predicted alone, and any share of them can be.

use smalti_models::MaeConfig;

use super::mae::Input;
use crate::error::Result;
use crate::ops::cross_attention::{CrossAttention, Scratch, Tokens};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::linear::Linear;
use crate::ops::{Float, fit, gelu, gelu_backward};
use crate::params::{Layout, Slot};
use crate::step::Settled;

/// The slots of one block.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Where its tensors begin in the flat vector.
    start: usize,
    norm1: LayerNorm,
    q: Linear,
    kv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// What one block keeps for the way back.
#[derive(Clone, Debug, Default)]
struct Kept<R> {
    norm1: Vec<R>,
    stats1: Vec<[R; 2]>,
    q: Vec<R>,
    kv: Vec<R>,
    probs: Vec<R>,
    mixed: Vec<R>,
    mid: Vec<R>,
    norm2: Vec<R>,
    stats2: Vec<[R; 2]>,
    hidden: Vec<R>,
    active: Vec<R>,
    out: Vec<R>,
}

/// Saved activations, and gradients on the way; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Saved<R> {
    input: Vec<R>,
    blocks: Vec<Kept<R>>,
    dx: Vec<R>,
    wide: Vec<R>,
    narrow: Vec<R>,
    dq: Vec<R>,
    dkv: Vec<R>,
    dlatent: Vec<R>,
    scratch: Scratch<R>,
}

/// The slots of a decoder.
#[derive(Clone, Debug)]
pub struct Cross {
    mask_token: Slot,
    positions: Slot,
    blocks: Vec<Block>,
    attention: CrossAttention,
}

impl Block {
    fn find(layout: &Layout, name: &str) -> Result<Block> {
        let linear = |part: &str| Linear::find(layout, &format!("{name}.{part}"));
        let norm = |part: &str| LayerNorm::find(layout, &format!("{name}.{part}"));
        Ok(Block {
            start: layout.slot(&format!("{name}.norm1.weight"))?.range().start,
            norm1: norm("norm1")?,
            q: linear("cross_attn.q")?,
            kv: linear("cross_attn.kv")?,
            proj: linear("cross_attn.proj")?,
            norm2: norm("norm2")?,
            fc1: linear("mlp.fc1")?,
            fc2: linear("mlp.fc2")?,
        })
    }

    fn forward<R: Float>(
        &self,
        params: &[R],
        attention: &CrossAttention,
        tokens: Tokens,
        latent: &[R],
        x: &[R],
        s: &mut Kept<R>,
        scratch: &mut Scratch<R>,
    ) {
        let dim = attention.dim;
        let n = x.len() / dim;
        let batch = n / tokens.queries.max(1);
        for buffer in [&mut s.norm1, &mut s.q, &mut s.mixed, &mut s.mid, &mut s.norm2, &mut s.out] {
            fit(buffer, n * dim);
        }
        fit(&mut s.kv, batch * tokens.keys * 2 * dim);
        fit(&mut s.probs, attention.probabilities(batch, tokens));
        fit(&mut s.hidden, n * self.fc1.outputs());
        fit(&mut s.active, n * self.fc1.outputs());
        fit(&mut s.stats1, n);
        fit(&mut s.stats2, n);

        self.norm1.forward(params, x, &mut s.norm1, &mut s.stats1);
        self.q.forward(params, &s.norm1, &mut s.q);
        self.kv.forward(params, latent, &mut s.kv);
        attention.forward(tokens, &s.q, &s.kv, &mut s.probs, &mut s.mixed, scratch);
        self.proj.forward_residual(params, &s.mixed, x, &mut s.mid);

        self.norm2.forward(params, &s.mid, &mut s.norm2, &mut s.stats2);
        self.fc1.forward(params, &s.norm2, &mut s.hidden);
        gelu(&s.hidden, &mut s.active);
        self.fc2.forward_residual(params, &s.active, &s.mid, &mut s.out);
    }
}

impl Cross {
    /// Finds the decoder's tensors.
    pub fn find(layout: &Layout, config: &MaeConfig) -> Result<Cross> {
        let decoder = &config.decoder;
        let blocks = (0..decoder.depth).map(|i| Block::find(layout, &format!("decoder_blocks.{i}")));
        Ok(Cross {
            mask_token: layout.slot("mask_token")?,
            positions: layout.slot("decoder_pos_embed")?,
            blocks: blocks.collect::<Result<_>>()?,
            attention: CrossAttention { dim: decoder.dim, heads: decoder.heads },
        })
    }

    fn tokens<R>(input: Input<'_, R>) -> Tokens {
        Tokens { queries: input.hidden.len() / input.batch, keys: 1 + input.visible.len() / input.batch }
    }

    /// From `latent` `[batch · (1 + visible), dim]` to `queried` `[hidden, width]`, a row for each hidden patch.
    pub fn forward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        latent: &[R],
        queried: &mut Vec<R>,
        s: &mut Saved<R>,
    ) {
        let (width, tokens) = (self.attention.dim, Self::tokens(input));
        let (mask_token, positions) = (self.mask_token.of(params), self.positions.of(params));
        fit(&mut s.input, input.hidden.len() * width);
        for (row, &id) in s.input.chunks_exact_mut(width).zip(input.hidden) {
            R::add_rows(&positions[(1 + id as usize) * width..][..width], mask_token, row);
        }
        s.blocks.resize_with(self.blocks.len(), Kept::default);
        for (i, block) in self.blocks.iter().enumerate() {
            let (before, after) = s.blocks.split_at_mut(i);
            let x = before.last().map_or(&s.input, |kept| &kept.out);
            block.forward(params, &self.attention, tokens, latent, x, &mut after[0], &mut s.scratch);
        }
        fit(queried, s.input.len());
        queried.copy_from_slice(s.blocks.last().map_or(&s.input, |kept| &kept.out));
    }

    /// Writes `dlatent` from `dqueried`.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        latent: &[R],
        dqueried: &[R],
        dlatent: &mut [R],
        grads: &mut [R],
        s: &mut Saved<R>,
        settled: Settled<'_, R>,
    ) {
        let tokens = Self::tokens(input);
        fit(&mut s.dx, dqueried.len());
        s.dx.copy_from_slice(dqueried);
        fit(&mut s.narrow, dqueried.len());
        fit(&mut s.dq, dqueried.len());
        fit(&mut s.dlatent, latent.len());
        dlatent.fill(R::ZERO);
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let (x, kept) = (i.checked_sub(1).map_or(&s.input, |before| &s.blocks[before].out), &s.blocks[i]);
            fit(&mut s.wide, kept.hidden.len());
            fit(&mut s.dkv, kept.kv.len());
            block.fc2.backward_params(&kept.active, &s.dx, grads);
            block.fc2.backward_input(params, &s.dx, &mut s.wide);
            gelu_backward(&kept.hidden, &mut s.wide);
            block.fc1.backward_params(&kept.norm2, &s.wide, grads);
            block.fc1.backward_input(params, &s.wide, &mut s.narrow);
            block.norm2.backward(params, &kept.mid, &kept.stats2, &s.narrow, &mut s.dx, grads);

            block.proj.backward_params(&kept.mixed, &s.dx, grads);
            block.proj.backward_input(params, &s.dx, &mut s.narrow);
            let (dout, scratch) = (&s.narrow, &mut s.scratch);
            self.attention.backward(
                tokens,
                &kept.q,
                &kept.kv,
                &kept.probs,
                dout,
                &mut s.dq,
                &mut s.dkv,
                scratch,
            );
            // Every block reads what was encoded.
            block.kv.backward_params(latent, &s.dkv, grads);
            block.kv.backward_input(params, &s.dkv, &mut s.dlatent);
            R::axpy(R::ONE, &s.dlatent, dlatent);
            block.q.backward_params(&kept.norm1, &s.dq, grads);
            block.q.backward_input(params, &s.dq, &mut s.narrow);
            block.norm1.backward(params, x, &kept.stats1, &s.narrow, &mut s.dx, grads);
            settled(block.start, grads);
        }
        R::column_sums(&s.dx, self.mask_token.of_mut(grads));
    }
}
