//! A stack of blocks: an encoder's or a decoder's.

use std::ops::Range;

use smalti_models::Variant;

use super::block::{self, Block, BlockInput, Scratch};
use super::grads::Grads;
use crate::error::Result;
use crate::model::ops::Float;
use crate::model::params::Layout;

/// The input of the first block. The caller fills it.
#[derive(Clone, Debug, Default)]
pub(super) struct Input<R> {
    /// `[rows, dim]`.
    pub(super) values: Vec<R>,
    /// The row of each token `[batch · tokens]`, where tokens share rows. Empty where token `i` has row `i`.
    pub(super) rows: Vec<u32>,
    /// Tokens of an image.
    pub(super) tokens: usize,
    /// The tokens of an image that leave the last block. The others serve it as keys and values only.
    pub(super) queries: Range<usize>,
}

/// What the backward pass of a stack needs; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    pub(super) input: Input<R>,
    blocks: Vec<block::Activations<R>>,
    scratch: Scratch<R>,
}

impl<R> Activations<R> {
    /// The last block's output `[batch · queries, dim]`.
    pub(super) fn output(&self) -> &[R] {
        self.blocks.last().map_or(&[], block::Activations::output)
    }

    /// The attention weights of each block.
    pub(super) fn attention(&self) -> impl Iterator<Item = &[R]> {
        self.blocks.iter().map(block::Activations::attention)
    }
}

/// The blocks.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    blocks: Vec<Block>,
    dim: usize,
}

impl Stack {
    /// Finds the `depth` blocks `name.0`, `name.1`, ..., with self-attention or cross-attention to a memory.
    pub(super) fn find(
        layout: &Layout,
        name: &str,
        [dim, depth, heads]: [usize; 3],
        variant: &Variant,
        cross_attention: bool,
    ) -> Result<Stack> {
        let block = |i| Block::find(layout, &format!("{name}.{i}"), dim, heads, variant, cross_attention);
        Ok(Stack { blocks: (0..depth).map(block).collect::<Result<_>>()?, dim })
    }

    /// Width of a token.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The input of block `i` with values `x`; `drop` is `[depth, 2, batch]`.
    fn block_input<'a, R>(
        &self,
        i: usize,
        x: &'a [R],
        input: &'a Input<R>,
        memory: &'a [R],
        drop: Option<&'a [R]>,
    ) -> BlockInput<'a, R> {
        let tokens = input.tokens;
        let all = if input.rows.is_empty() { input.values.len() / self.dim } else { input.rows.len() };
        let batch = all / tokens.max(1);
        let factors = |branch: usize| drop.map(|drop| &drop[(2 * i + branch) * batch..][..batch]);
        BlockInput {
            x,
            batch,
            tokens,
            queries: if i + 1 == self.blocks.len() { input.queries.clone() } else { 0..tokens },
            rows: if i == 0 { &input.rows } else { &[] },
            memory,
            drop: [factors(0), factors(1)],
        }
    }

    /// Runs all blocks on `acts.input`. `memory` is `[batch · keys, memory width]` with cross-attention and empty without;
    /// `drop` holds the factors of stochastic depth `[depth, 2, batch]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        memory: &[R],
        drop: Option<&[R]>,
        acts: &mut Activations<R>,
    ) {
        acts.blocks.resize_with(self.blocks.len(), Default::default);
        for (i, block) in self.blocks.iter().enumerate() {
            let (before, after) = acts.blocks.split_at_mut(i);
            let x = before.last().map_or(&acts.input.values[..], block::Activations::output);
            let input = self.block_input(i, x, &acts.input, memory, drop);
            block.forward(params, &input, &mut after[0], &mut acts.scratch);
        }
    }

    /// Turns `dx`, the gradient of the output, into the gradient of `acts.input.values`. Adds the memory's gradient to
    /// `dmemory`.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        memory: &[R],
        drop: Option<&[R]>,
        acts: &mut Activations<R>,
        dx: &mut Vec<R>,
        dmemory: &mut [R],
        grads: &mut Grads<'_, R>,
    ) {
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let x = i.checked_sub(1).map_or(&acts.input.values[..], |before| acts.blocks[before].output());
            let input = self.block_input(i, x, &acts.input, memory, drop);
            block.backward(params, &input, &acts.blocks[i], dx, dmemory, grads, &mut acts.scratch);
            grads.ready_from(block.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::values;
    use crate::model::precision::Precision;
    use smalti_models::{DecoderConfig, DecoderKind, MaeConfig, VitConfig, names};

    const DIM: usize = 8;

    /// A stack, the length of its parameters, and with cross-attention a memory of two images.
    fn stack(depth: usize, cross_attention: bool) -> (Stack, usize, Vec<f64>) {
        let kind = if cross_attention { DecoderKind::Cross } else { DecoderKind::Full };
        let config = MaeConfig {
            encoder: VitConfig {
                img_size: 6,
                patch_size: 2,
                channels: 3,
                dim: 12,
                depth: 1,
                heads: 3,
                stem: Default::default(),
                variant: Variant::PLAIN,
            },
            decoder: DecoderConfig { kind, dim: DIM, depth, heads: 2 },
        };
        let layout = Layout::new(names::mae(&config), Precision::F32);
        let stack = Stack::find(&layout, "decoder_blocks", [DIM, depth, 2], &Variant::PLAIN, cross_attention)
            .unwrap();
        (stack, layout.len(), if cross_attention { values(2 * 3 * 12, 5) } else { Vec::new() })
    }

    /// The output, the input's gradient, the memory's and the parameters'.
    fn run(of: &(Stack, usize, Vec<f64>), input: Input<f64>, pull: &[f64]) -> [Vec<f64>; 4] {
        let (stack, len, memory) = of;
        let (params, mut grads) = (values(*len, 6), vec![0.0; *len]);
        let mut acts = Activations { input, ..Default::default() };
        stack.forward(&params, memory, None, &mut acts);
        let (mut dx, mut dmemory) = (pull.to_vec(), vec![0.0; memory.len()]);
        stack.backward(&params, memory, None, &mut acts, &mut dx, &mut dmemory, &mut Grads::new(&mut grads));
        [acts.output().to_vec(), dx, dmemory, grads]
    }

    #[track_caller]
    fn assert_close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-11));
    }

    #[test]
    fn skipped_work_changes_nothing() {
        // Two images of five tokens; three rows are shared by the last tokens of both.
        let rows = [0, 1, 4, 5, 6, 2, 3, 6, 4, 5u32];
        let (tokens, distinct) = (5, 7);
        let shared = values(distinct * DIM, 7);
        let row = |x: &[f64], i: usize| x[i * DIM..][..DIM].to_vec();
        let each: Vec<f64> = rows.iter().flat_map(|&i| row(&shared, i as usize)).collect();
        for (depth, cross_attention) in [(1, false), (2, false), (3, false), (1, true), (2, true)] {
            // With cross-attention all tokens are queries.
            let queries = if cross_attention { 0..5 } else { 2..5 };
            let of = stack(depth, cross_attention);
            let pull = values(2 * queries.len() * DIM, 8);
            let mut full_pull = vec![0.0; 2 * tokens * DIM];
            for (full, some) in full_pull.chunks_mut(tokens * DIM).zip(pull.chunks(queries.len() * DIM)) {
                full[queries.start * DIM..].copy_from_slice(some);
            }
            let plain = Input { values: each.clone(), rows: Vec::new(), tokens, queries: 0..tokens };
            let [out, dx, dmemory, grads] = run(&of, plain, &full_pull);
            let input =
                Input { values: shared.clone(), rows: rows.to_vec(), tokens, queries: queries.clone() };
            let got = run(&of, input, &pull);

            let out: Vec<f64> =
                out.chunks(tokens * DIM).flat_map(|image| image[queries.start * DIM..].to_vec()).collect();
            let mut summed = vec![0.0; shared.len()];
            for (i, &to) in rows.iter().enumerate() {
                let sum = &mut summed[to as usize * DIM..][..DIM];
                sum.iter_mut().zip(row(&dx, i)).for_each(|(sum, x)| *sum += x);
            }
            for (want, got) in [out, summed, dmemory, grads].iter().zip(&got) {
                assert_close(want, got);
            }
        }
    }
}
