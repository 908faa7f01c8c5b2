//! A stack of blocks: an encoder's or a decoder's.

use std::ops::Range;

use super::block::{Block, Flow, Passing, Saved};
use crate::error::Result;
use crate::model::ops::Float;
use crate::model::ops::attention::Attention;
use crate::model::params::Layout;
use crate::train::step::Settled;

/// What goes into the first block. Filled by the caller.
#[derive(Clone, Debug, Default)]
pub(super) struct Input<R> {
    /// `[rows, dim]`.
    pub(super) values: Vec<R>,
    /// The row of each token `[batch · tokens]`, where tokens share some; empty: row by row.
    pub(super) rows: Vec<u32>,
    /// Tokens of an image.
    pub(super) tokens: usize,
    /// Those of them that are read from the last block: the others end there with their keys and values.
    pub(super) asked: Range<usize>,
}

/// Saved activations of a stack; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    pub(super) input: Input<R>,
    blocks: Vec<Saved<R>>,
    passing: Passing<R>,
}

impl<R> Activations<R> {
    /// What came out of the last block, `[batch · asked, dim]`.
    pub(super) fn output(&self) -> &[R] {
        self.blocks.last().map_or(&[], |block| &block.out)
    }
}

/// The blocks.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    blocks: Vec<Block>,
    attention: Attention,
}

impl Stack {
    /// Finds the `depth` blocks `name.0`, `name.1`, ..., which ask each other or a memory.
    pub(super) fn find(
        layout: &Layout,
        name: &str,
        [dim, depth, heads]: [usize; 3],
        asks_memory: bool,
    ) -> Result<Stack> {
        let blocks = (0..depth).map(|i| Block::find(layout, &format!("{name}.{i}"), asks_memory));
        Ok(Stack { blocks: blocks.collect::<Result<_>>()?, attention: Attention { dim, heads } })
    }

    /// Width of a token.
    pub(super) fn dim(&self) -> usize {
        self.attention.dim
    }

    /// What block `i` works on; `drop` is `[depth, 2, batch]`.
    fn flow<'a, R>(
        &self,
        i: usize,
        input: &'a Input<R>,
        memory: &'a [R],
        drop: Option<&'a [R]>,
    ) -> Flow<'a, R> {
        let tokens = input.tokens;
        let all = if input.rows.is_empty() { input.values.len() / self.dim() } else { input.rows.len() };
        let batch = all / tokens.max(1);
        let factors = |branch: usize| drop.map(|drop| &drop[(2 * i + branch) * batch..][..batch]);
        Flow {
            batch,
            tokens,
            asked: if i + 1 == self.blocks.len() { input.asked.clone() } else { 0..tokens },
            rows: if i == 0 { &input.rows } else { &[] },
            memory,
            drop: [factors(0), factors(1)],
        }
    }

    /// Runs all blocks on `acts.input`. `memory` is `[batch · keys, ...]` for blocks that ask one; `drop` holds stochastic
    /// depth's factors `[depth, 2, batch]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        memory: &[R],
        drop: Option<&[R]>,
        acts: &mut Activations<R>,
    ) {
        acts.blocks.resize_with(self.blocks.len(), Saved::default);
        for (i, block) in self.blocks.iter().enumerate() {
            let flow = self.flow(i, &acts.input, memory, drop);
            let (before, after) = acts.blocks.split_at_mut(i);
            let x = before.last().map_or(&acts.input.values, |saved| &saved.out);
            block.forward(params, &self.attention, &flow, x, &mut after[0], &mut acts.passing);
        }
    }

    /// `dx` is the gradient of the output and becomes that of `acts.input.values`; the memory's is added to `dmemory`. After
    /// each block `settled` is told that the gradients are complete from there on.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        memory: &[R],
        drop: Option<&[R]>,
        acts: &mut Activations<R>,
        dx: &mut Vec<R>,
        dmemory: &mut [R],
        grads: &mut [R],
        settled: Settled<'_, R>,
    ) {
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let flow = self.flow(i, &acts.input, memory, drop);
            let x = i.checked_sub(1).map_or(&acts.input.values, |before| &acts.blocks[before].out);
            block.backward(
                params,
                &self.attention,
                &flow,
                x,
                &acts.blocks[i],
                dx,
                dmemory,
                grads,
                &mut acts.passing,
            );
            settled(block.start, grads);
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

    /// A stack that asks itself or a memory, the length of its parameters, and a memory of two images.
    fn stack(depth: usize, asks_memory: bool) -> (Stack, usize, Vec<f64>) {
        let kind = if asks_memory { DecoderKind::Cross } else { DecoderKind::Full };
        let config = MaeConfig {
            encoder: VitConfig { img_size: 6, patch_size: 2, channels: 3, dim: 12, depth: 1, heads: 3 },
            decoder: DecoderConfig { kind, dim: DIM, depth, heads: 2 },
        };
        let layout = Layout::new(names::mae(&config), Precision::F32);
        let stack = Stack::find(&layout, "decoder_blocks", [DIM, depth, 2], asks_memory).unwrap();
        (stack, layout.len(), if asks_memory { values(2 * 3 * 12, 5) } else { Vec::new() })
    }

    /// The output, the input's gradient, the memory's and the parameters'.
    fn run(of: &(Stack, usize, Vec<f64>), input: Input<f64>, pull: &[f64]) -> [Vec<f64>; 4] {
        let (stack, len, memory) = of;
        let (params, mut grads) = (values(*len, 6), vec![0.0; *len]);
        let mut acts = Activations { input, ..Default::default() };
        stack.forward(&params, memory, None, &mut acts);
        let (mut dx, mut dmemory) = (pull.to_vec(), vec![0.0; memory.len()]);
        stack.backward(&params, memory, None, &mut acts, &mut dx, &mut dmemory, &mut grads, &mut |_, _| {});
        [acts.output().to_vec(), dx, dmemory, grads]
    }

    #[track_caller]
    fn assert_close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-11));
    }

    #[test]
    fn what_is_left_out_changes_nothing() {
        // Two images of five tokens; three rows are shared by the last tokens of both.
        let rows = [0, 1, 4, 5, 6, 2, 3, 6, 4, 5u32];
        let (tokens, distinct) = (5, 7);
        let shared = values(distinct * DIM, 7);
        let row = |x: &[f64], i: usize| x[i * DIM..][..DIM].to_vec();
        let each: Vec<f64> = rows.iter().flat_map(|&i| row(&shared, i as usize)).collect();
        for (depth, asks_memory) in [(1, false), (2, false), (3, false), (1, true), (2, true)] {
            // Tokens that ask a memory all come out.
            let asked = if asks_memory { 0..5 } else { 2..5 };
            let of = stack(depth, asks_memory);
            let pull = values(2 * asked.len() * DIM, 8);
            let mut full_pull = vec![0.0; 2 * tokens * DIM];
            for (full, some) in full_pull.chunks_mut(tokens * DIM).zip(pull.chunks(asked.len() * DIM)) {
                full[asked.start * DIM..].copy_from_slice(some);
            }
            let plain = Input { values: each.clone(), rows: Vec::new(), tokens, asked: 0..tokens };
            let [out, dx, dmemory, grads] = run(&of, plain, &full_pull);
            let input = Input { values: shared.clone(), rows: rows.to_vec(), tokens, asked: asked.clone() };
            let got = run(&of, input, &pull);

            let out: Vec<f64> =
                out.chunks(tokens * DIM).flat_map(|image| image[asked.start * DIM..].to_vec()).collect();
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
