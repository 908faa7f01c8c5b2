//! A pre-norm transformer block (arXiv 2010.11929, equations 2 and 3).
//!
//! ```text
//! mid = x   + f₁ · proj(attention(qkv(norm1(x))))
//! out = mid + f₂ · fc2(gelu(fc1(norm2(mid))))
//! ```
//! `f₁`, `f₂` are 1, or stochastic depth's ([`branch`]). In CrossMAE's blocks (arXiv 2401.14391) `x` asks and what was
//! encoded, the memory, is asked: `attention(q(norm1(x)), kv(memory))`.
//!
//! Two things are not computed in vain ([`Flow`]): rows of the input that are equal go through `norm1` and `qkv` once,
//! and tokens that nobody reads afterwards end with their keys and values.

use std::ops::Range;

use super::branch;
use super::mlp::{self, Mlp};
use crate::error::Result;
use crate::model::ops::attention::{Attention, Scratch, Tokens};
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;

/// Where queries, keys and values come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// All from the tokens themselves.
    Own { qkv: Linear },
    /// Queries from the tokens, keys and values from the memory.
    Memory { q: Linear, kv: Linear },
}

/// The slots of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Where its tensors begin in the flat vector.
    pub(super) start: usize,
    norm: LayerNorm,
    source: Source,
    proj: Linear,
    mlp: Mlp,
}

/// What one block keeps for the way back.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved<R> {
    norm: Vec<R>,
    stats: Vec<[R; 2]>,
    qkv: Vec<R>,
    probs: Vec<R>,
    mixed: Vec<R>,
    mid: Vec<R>,
    mlp: mlp::Saved<R>,
    /// `[batch · asked, dim]`.
    pub(super) out: Vec<R>,
}

/// Values and gradients on the way through one block, reused by all.
#[derive(Clone, Debug, Default)]
pub(super) struct Passing<R> {
    /// The MLP's hidden values.
    pub(super) wide: Vec<R>,
    /// As wide as a token.
    pub(super) narrow: Vec<R>,
    /// What enters a residual branch.
    pub(super) branch: Vec<R>,
    qkv: Vec<R>,
    memory: Vec<R>,
    scratch: Scratch<R>,
}

/// What one block works on.
#[derive(Clone, Debug)]
pub(super) struct Flow<'a, R> {
    /// Number of images.
    pub(super) batch: usize,
    /// Tokens of an image.
    pub(super) tokens: usize,
    /// Those of them that come out.
    pub(super) asked: Range<usize>,
    /// The input's row of each of the batch's tokens; empty where each has its own, in order.
    pub(super) rows: &'a [u32],
    /// `[batch · keys, ...]`, for blocks that ask a memory.
    pub(super) memory: &'a [R],
    /// Stochastic depth's factors of both branches, one an image.
    pub(super) drop: [Option<&'a [R]>; 2],
}

impl<R: Float> Flow<'_, R> {
    /// Whether the output has the rows of the input.
    fn is_plain(&self) -> bool {
        self.rows.is_empty() && self.asked == (0..self.tokens)
    }

    /// The input's row of each token that comes out.
    fn asked_rows(&self) -> impl Iterator<Item = usize> {
        (0..self.batch)
            .flat_map(move |image| self.asked.clone().map(move |token| image * self.tokens + token))
            .map(|token| self.rows.get(token).map_or(token, |&row| row as usize))
    }

    /// The input's row of each token, where they are not the same.
    fn shared_rows(&self) -> Option<impl Iterator<Item = usize>> {
        (!self.rows.is_empty()).then(|| self.rows.iter().map(|&row| row as usize))
    }
}

/// `y` = these rows of `x`, each `width` long.
fn gather<R: Float>(x: &[R], rows: impl Iterator<Item = usize>, width: usize, y: &mut [R]) {
    for (y, row) in y.chunks_exact_mut(width).zip(rows) {
        y.copy_from_slice(&x[row * width..][..width]);
    }
}

/// The way back from [`gather`]: row by row, in order, `dx` gets the sum of what was copied from it.
fn scatter<R: Float>(dy: &[R], rows: impl Iterator<Item = usize>, width: usize, dx: &mut [R]) {
    dx.fill(R::ZERO);
    for (dy, row) in dy.chunks_exact(width).zip(rows) {
        R::axpy(R::ONE, dy, &mut dx[row * width..][..width]);
    }
}

impl Block {
    /// Finds the block `name`, of whichever kind it is.
    pub(super) fn find(layout: &Layout, name: &str, asks_memory: bool) -> Result<Block> {
        let linear = |part: &str| Linear::find(layout, &format!("{name}.{part}"));
        let (source, proj) = if asks_memory {
            let (q, kv) = (linear("cross_attn.q")?, linear("cross_attn.kv")?);
            (Source::Memory { q, kv }, linear("cross_attn.proj")?)
        } else {
            (Source::Own { qkv: linear("attn.qkv")? }, linear("attn.proj")?)
        };
        Ok(Block {
            start: layout.slot(&format!("{name}.norm1.weight"))?.range().start,
            norm: LayerNorm::find(layout, &format!("{name}.norm1"))?,
            source,
            proj,
            mlp: Mlp::find(layout, name)?,
        })
    }

    /// The layer that every token goes through before attention.
    fn first(&self) -> &Linear {
        match &self.source {
            Source::Own { qkv } => qkv,
            Source::Memory { q, .. } => q,
        }
    }

    /// Who asks whom, and where they lie in [`Saved::qkv`].
    fn attention<R: Float>(&self, dim: usize, flow: &Flow<'_, R>) -> Tokens {
        match &self.source {
            Source::Own { .. } => Tokens::own(dim, flow.tokens, flow.asked.clone()),
            Source::Memory { kv, .. } => {
                Tokens::cross(dim, flow.batch, flow.tokens, flow.memory.len() / kv.inputs() / flow.batch)
            }
        }
    }

    /// From `x` `[rows, dim]` to `s.out` `[batch · asked, dim]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        attention: &Attention,
        flow: &Flow<'_, R>,
        x: &[R],
        s: &mut Saved<R>,
        pass: &mut Passing<R>,
    ) {
        let (dim, first) = (attention.dim, self.first());
        let tokens = self.attention(dim, flow);
        let (all, out) = (flow.batch * flow.tokens, flow.batch * flow.asked.len() * dim);
        let asking = all * first.outputs();

        resize_buffer(&mut s.norm, x.len());
        resize_buffer(&mut s.stats, x.len() / dim);
        self.norm.forward(params, x, &mut s.norm, &mut s.stats);
        let answers = match &self.source {
            Source::Own { .. } => 0,
            Source::Memory { kv, .. } => flow.memory.len() / kv.inputs() * kv.outputs(),
        };
        resize_buffer(&mut s.qkv, asking + answers);
        let (qkv, kv_out) = s.qkv.split_at_mut(asking);
        match flow.shared_rows() {
            None => first.forward(params, &s.norm, qkv),
            Some(rows) => {
                resize_buffer(&mut pass.qkv, x.len() / dim * first.outputs());
                first.forward(params, &s.norm, &mut pass.qkv);
                gather(&pass.qkv, rows, first.outputs(), qkv);
            }
        }
        if let Source::Memory { kv, .. } = &self.source {
            kv.forward(params, flow.memory, kv_out);
        }
        resize_buffer(&mut s.probs, attention.probabilities(flow.batch, tokens));
        resize_buffer(&mut s.mixed, out);
        attention.forward(tokens, &s.qkv, &mut s.probs, &mut s.mixed, &mut pass.scratch);

        resize_buffer(&mut s.mid, out);
        let residual = if flow.is_plain() {
            x
        } else {
            resize_buffer(&mut pass.narrow, out);
            gather(x, flow.asked_rows(), dim, &mut pass.narrow);
            &pass.narrow
        };
        branch::close(&self.proj, params, &s.mixed, residual, flow.drop[0], &mut s.mid);
        resize_buffer(&mut s.out, out);
        self.mlp.forward(params, &s.mid, flow.drop[1], &mut s.mlp, &mut s.out);
    }

    /// `dx` is the gradient of `s.out` and becomes that of `x`; that of the memory is added to `dmemory`.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        attention: &Attention,
        flow: &Flow<'_, R>,
        x: &[R],
        s: &Saved<R>,
        dx: &mut Vec<R>,
        dmemory: &mut [R],
        grads: &mut [R],
        pass: &mut Passing<R>,
    ) {
        let (dim, first) = (attention.dim, self.first());
        self.mlp.backward(params, &s.mid, flow.drop[1], &s.mlp, dx, grads, pass);

        resize_buffer(&mut pass.narrow, s.mixed.len());
        resize_buffer(&mut pass.qkv, s.qkv.len());
        let dbranch = branch::open(dx, flow.drop[0], &mut pass.branch);
        self.proj.backward_params(&s.mixed, dbranch, grads);
        self.proj.backward_input(params, dbranch, &mut pass.narrow);
        if flow.asked.len() < flow.tokens {
            pass.qkv.fill(R::ZERO);
        }
        let tokens = self.attention(dim, flow);
        attention.backward(tokens, &s.qkv, &s.probs, &pass.narrow, &mut pass.qkv, &mut pass.scratch);
        let (dqkv, dkv) = pass.qkv.split_at(flow.batch * flow.tokens * first.outputs());
        if let Source::Memory { kv, .. } = &self.source {
            resize_buffer(&mut pass.memory, flow.memory.len());
            kv.backward_params(flow.memory, dkv, grads);
            kv.backward_input(params, dkv, &mut pass.memory);
            R::axpy(R::ONE, &pass.memory, dmemory);
        }

        // Back to the rows of the input.
        let dqkv = match flow.shared_rows() {
            None => dqkv,
            Some(rows) => {
                resize_buffer(&mut pass.wide, x.len() / dim * first.outputs());
                scatter(dqkv, rows, first.outputs(), &mut pass.wide);
                &pass.wide
            }
        };
        if !flow.is_plain() {
            resize_buffer(&mut pass.branch, x.len());
            scatter(dx, flow.asked_rows(), dim, &mut pass.branch);
            std::mem::swap(dx, &mut pass.branch);
        }
        resize_buffer(&mut pass.narrow, x.len());
        first.backward_params(&s.norm, dqkv, grads);
        first.backward_input(params, dqkv, &mut pass.narrow);
        self.norm.backward(params, x, &s.stats, &pass.narrow, dx, grads);
    }
}
