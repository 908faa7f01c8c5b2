//! A pre-norm transformer block (arXiv 2010.11929, equations 2 and 3), and a stack of them.
//!
//! ```text
//! mid = x   + f₁ · proj(attention(qkv(norm1(x))))
//! out = mid + f₂ · fc2(gelu(fc1(norm2(mid))))
//! ```
//! `f₁`, `f₂` are 1, or per-picture factors of stochastic depth (arXiv 1603.09382): 0 or 1 / keep.

use crate::error::Result;
use crate::ops::attention::{Attention, Scratch};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::linear::Linear;
use crate::ops::{Float, fit, gelu, gelu_backward};
use crate::params::Layout;
use crate::step::Settled;

/// The slots of one block.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Where its tensors begin in the flat vector.
    start: usize,
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// What one block keeps for the way back; `n` rows, one a token.
#[derive(Clone, Debug, Default)]
struct Saved<R> {
    norm1: Vec<R>,
    stats1: Vec<[R; 2]>,
    qkv: Vec<R>,
    probs: Vec<R>,
    mixed: Vec<R>,
    mid: Vec<R>,
    norm2: Vec<R>,
    stats2: Vec<[R; 2]>,
    hidden: Vec<R>,
    active: Vec<R>,
    out: Vec<R>,
}

/// Gradients on the way through one block, reused by all.
#[derive(Clone, Debug, Default)]
struct Passing<R> {
    wide: Vec<R>,
    narrow: Vec<R>,
    branch: Vec<R>,
    qkv: Vec<R>,
}

/// Saved activations of a stack.
#[derive(Clone, Debug, Default)]
pub struct Activations<R> {
    /// `[batch · tokens, dim]`: what goes into the first block. Filled by the caller.
    pub input: Vec<R>,
    blocks: Vec<Saved<R>>,
    passing: Passing<R>,
    scratch: Scratch<R>,
}

impl<R> Activations<R> {
    /// What came out of the last block.
    pub fn output(&self) -> &[R] {
        self.blocks.last().map_or(&self.input, |block| &block.out)
    }
}

/// The blocks of an encoder or a decoder.
#[derive(Clone, Debug)]
pub struct Stack {
    blocks: Vec<Block>,
    attention: Attention,
}

/// `out = residual + factor · branch`, a factor a picture.
fn add_scaled<R: Float>(residual: &[R], factors: &[R], branch: &mut [R]) {
    let each = branch.len() / factors.len().max(1);
    let pictures = branch.chunks_exact_mut(each).zip(residual.chunks_exact(each)).zip(factors);
    for ((branch, residual), &factor) in pictures {
        for (branch, &residual) in branch.iter_mut().zip(residual) {
            *branch = residual + factor * *branch;
        }
    }
}

/// `y = factor · x`, a factor a picture; a plain copy without factors.
fn scaled<R: Float>(x: &[R], factors: Option<&[R]>, y: &mut Vec<R>) {
    fit(y, x.len());
    y.copy_from_slice(x);
    let Some(factors) = factors else { return };
    let each = x.len() / factors.len().max(1);
    for (row, &factor) in y.chunks_exact_mut(each).zip(factors) {
        row.iter_mut().for_each(|x| *x = *x * factor);
    }
}

impl Block {
    fn find(layout: &Layout, name: &str) -> Result<Block> {
        let linear = |part: &str| Linear::find(layout, &format!("{name}.{part}"));
        let norm = |part: &str| LayerNorm::find(layout, &format!("{name}.{part}"));
        Ok(Block {
            start: layout.slot(&format!("{name}.norm1.weight"))?.range().start,
            norm1: norm("norm1")?,
            qkv: linear("attn.qkv")?,
            proj: linear("attn.proj")?,
            norm2: norm("norm2")?,
            fc1: linear("mlp.fc1")?,
            fc2: linear("mlp.fc2")?,
        })
    }

    /// Residual branch's last layer: fused with the addition unless factors come between.
    fn close_branch<R: Float>(
        layer: &Linear,
        params: &[R],
        x: &[R],
        residual: &[R],
        factors: Option<&[R]>,
        out: &mut [R],
    ) {
        match factors {
            None => layer.forward_residual(params, x, residual, out),
            Some(factors) => {
                layer.forward(params, x, out);
                add_scaled(residual, factors, out);
            }
        }
    }

    fn forward<R: Float>(
        &self,
        params: &[R],
        attention: &Attention,
        tokens: usize,
        drop: [Option<&[R]>; 2],
        x: &[R],
        s: &mut Saved<R>,
        scratch: &mut Scratch<R>,
    ) {
        let dim = attention.dim;
        let n = x.len() / dim;
        for buffer in [&mut s.norm1, &mut s.mixed, &mut s.mid, &mut s.norm2, &mut s.out] {
            fit(buffer, n * dim);
        }
        fit(&mut s.qkv, n * 3 * dim);
        fit(&mut s.hidden, n * self.fc1.outputs());
        fit(&mut s.active, n * self.fc1.outputs());
        fit(&mut s.probs, attention.probabilities(n / tokens, tokens));
        fit(&mut s.stats1, n);
        fit(&mut s.stats2, n);

        self.norm1.forward(params, x, &mut s.norm1, &mut s.stats1);
        self.qkv.forward(params, &s.norm1, &mut s.qkv);
        attention.forward(tokens, &s.qkv, &mut s.probs, &mut s.mixed, scratch);
        Self::close_branch(&self.proj, params, &s.mixed, x, drop[0], &mut s.mid);

        self.norm2.forward(params, &s.mid, &mut s.norm2, &mut s.stats2);
        self.fc1.forward(params, &s.norm2, &mut s.hidden);
        gelu(&s.hidden, &mut s.active);
        Self::close_branch(&self.fc2, params, &s.active, &s.mid, drop[1], &mut s.out);
    }

    /// `dx` is the gradient of the block's output and becomes that of its input.
    fn backward<R: Float>(
        &self,
        params: &[R],
        attention: &Attention,
        tokens: usize,
        drop: [Option<&[R]>; 2],
        x: &[R],
        s: &Saved<R>,
        dx: &mut [R],
        grads: &mut [R],
        pass: &mut Passing<R>,
        scratch: &mut Scratch<R>,
    ) {
        fit(&mut pass.wide, s.hidden.len());
        fit(&mut pass.narrow, x.len());
        fit(&mut pass.qkv, s.qkv.len());

        let dbranch: &[R] = Self::open_branch(dx, drop[1], &mut pass.branch);
        self.fc2.backward_params(&s.active, dbranch, grads);
        self.fc2.backward_input(params, dbranch, &mut pass.wide);
        gelu_backward(&s.hidden, &mut pass.wide);
        self.fc1.backward_params(&s.norm2, &pass.wide, grads);
        self.fc1.backward_input(params, &pass.wide, &mut pass.narrow);
        self.norm2.backward(params, &s.mid, &s.stats2, &pass.narrow, dx, grads);

        let dbranch: &[R] = Self::open_branch(dx, drop[0], &mut pass.branch);
        self.proj.backward_params(&s.mixed, dbranch, grads);
        self.proj.backward_input(params, dbranch, &mut pass.narrow);
        attention.backward(tokens, &s.qkv, &s.probs, &pass.narrow, &mut pass.qkv, scratch);
        self.qkv.backward_params(&s.norm1, &pass.qkv, grads);
        self.qkv.backward_input(params, &pass.qkv, &mut pass.narrow);
        self.norm1.backward(params, x, &s.stats1, &pass.narrow, dx, grads);
    }

    /// The gradient that enters a residual branch.
    fn open_branch<'a, R: Float>(dx: &'a [R], factors: Option<&[R]>, buffer: &'a mut Vec<R>) -> &'a [R] {
        if factors.is_none() {
            return dx;
        }
        scaled(dx, factors, buffer);
        buffer
    }
}

/// The factors of both branches of block `i`, out of `[depth, 2, batch]`.
fn factors<R>(drop: Option<&[R]>, i: usize, batch: usize) -> [Option<&[R]>; 2] {
    let of = |branch: usize| drop.map(|drop| &drop[(2 * i + branch) * batch..][..batch]);
    [of(0), of(1)]
}

impl Stack {
    /// Finds the blocks `name.0`, `name.1`, ...
    pub fn find(layout: &Layout, name: &str, dim: usize, depth: usize, heads: usize) -> Result<Stack> {
        let blocks =
            (0..depth).map(|i| Block::find(layout, &format!("{name}.{i}"))).collect::<Result<_>>()?;
        Ok(Stack { blocks, attention: Attention { dim, heads } })
    }

    /// Width of a token.
    pub fn dim(&self) -> usize {
        self.attention.dim
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Runs all blocks on `acts.input`; `drop` holds stochastic depth's factors `[depth, 2, batch]`.
    pub fn forward<R: Float>(
        &self,
        params: &[R],
        tokens: usize,
        drop: Option<&[R]>,
        acts: &mut Activations<R>,
    ) {
        acts.blocks.resize_with(self.blocks.len(), Saved::default);
        let batch = acts.input.len() / self.dim() / tokens;
        for (i, block) in self.blocks.iter().enumerate() {
            let (before, after) = acts.blocks.split_at_mut(i);
            let x = before.last().map_or(&acts.input, |saved| &saved.out);
            let drop = factors(drop, i, batch);
            block.forward(params, &self.attention, tokens, drop, x, &mut after[0], &mut acts.scratch);
        }
    }

    /// `dx` is the gradient of the output and becomes that of the input. After each block `settled` is told that the
    /// gradients are complete from there on.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        tokens: usize,
        drop: Option<&[R]>,
        acts: &mut Activations<R>,
        dx: &mut [R],
        grads: &mut [R],
        settled: Settled<'_, R>,
    ) {
        let batch = dx.len() / self.dim() / tokens;
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let x = i.checked_sub(1).map_or(&acts.input, |before| &acts.blocks[before].out);
            block.backward(
                params,
                &self.attention,
                tokens,
                factors(drop, i, batch),
                x,
                &acts.blocks[i],
                dx,
                grads,
                &mut acts.passing,
                &mut acts.scratch,
            );
            settled(block.start, grads);
        }
    }
}
