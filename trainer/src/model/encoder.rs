//! The encoder: patch embedding, class token, positions, blocks. It runs on the visible patches alone.

use std::ops::Range;

use smalti_models::VitConfig;

use super::grads::Grads;
use super::stack::{self, Stack};
use crate::error::Result;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::{Layout, Slot};
use crate::model::patch;

/// The slots of an encoder.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    vit: VitConfig,
    embed: Linear,
    class_token: Slot,
    positions: Slot,
    train_positions: bool,
    stack: Stack,
}

/// What an encoder works on. Each image has `1 + visible` tokens, the class token first.
#[derive(Clone, Debug)]
pub(super) struct Input<'a, R> {
    /// `[batch, C, H, W]`, normalised.
    pub(super) pixels: &'a [R],
    /// The places of the visible patches `[batch, visible]`.
    pub(super) visible: &'a [u32],
    /// Number of images.
    pub(super) batch: usize,
    /// The tokens of an image that the output holds.
    pub(super) queries: Range<usize>,
    /// The factors of stochastic depth `[depth, 2, batch]`, if any.
    pub(super) drop: Option<&'a [R]>,
}

/// What the backward pass needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    patches: Vec<R>,
    /// The embedded patches, then their gradients.
    embedded: Vec<R>,
    stack: stack::Activations<R>,
}

impl<R> Activations<R> {
    /// The output `[batch · queries, dim]`.
    pub(super) fn output(&self) -> &[R] {
        self.stack.output()
    }
}

impl Encoder {
    /// Finds the encoder's tensors. Positions are fixed in pretraining and trained in fine-tuning.
    pub(super) fn find(layout: &Layout, vit: &VitConfig, train_positions: bool) -> Result<Encoder> {
        Ok(Encoder {
            vit: vit.clone(),
            embed: Linear::find(layout, "patch_embed.proj")?,
            class_token: layout.slot("cls_token")?,
            positions: layout.slot("pos_embed")?,
            train_positions,
            stack: Stack::find(layout, "blocks", [vit.dim, vit.depth, vit.heads], false)?,
        })
    }

    /// The configuration.
    pub(super) fn vit(&self) -> &VitConfig {
        &self.vit
    }

    /// Computes `acts.output()` `[batch · queries, dim]`.
    pub(super) fn forward<R: Float>(&self, params: &[R], input: &Input<'_, R>, acts: &mut Activations<R>) {
        let (count, dim) = (input.visible.len(), self.vit.dim);
        resize_buffer(&mut acts.patches, count * self.vit.patch_len());
        resize_buffer(&mut acts.embedded, count * dim);
        patch::gather(&self.vit, input.pixels, input.visible, input.batch, &mut acts.patches);
        self.embed.forward(params, &acts.patches, &mut acts.embedded);
        self.tokens(params, input, &acts.embedded, &mut acts.stack.input);
        self.stack.forward(params, &[], input.drop, &mut acts.stack);
    }

    /// Class token and embedded patches, each with its position.
    fn tokens<R: Float>(
        &self,
        params: &[R],
        input: &Input<'_, R>,
        embedded: &[R],
        tokens: &mut stack::Input<R>,
    ) {
        let (dim, visible) = (self.vit.dim, input.visible.len() / input.batch);
        let (class_token, positions) = (self.class_token.of(params), self.positions.of(params));
        (tokens.tokens, tokens.queries) = (1 + visible, input.queries.clone());
        resize_buffer(&mut tokens.values, input.batch * (1 + visible) * dim);
        let images = tokens.values.chunks_exact_mut((1 + visible) * dim);
        for (i, image) in images.enumerate() {
            let (first, rest) = image.split_at_mut(dim);
            R::add_rows(class_token, &positions[..dim], first);
            for (j, row) in rest.chunks_exact_mut(dim).enumerate() {
                let token = i * visible + j;
                let place = 1 + input.visible[token] as usize;
                R::add_rows(&embedded[token * dim..][..dim], &positions[place * dim..][..dim], row);
            }
        }
    }

    /// Adds the gradients of the encoder's tensors from `dx`, the gradient of the output, which it overwrites.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        input: &Input<'_, R>,
        acts: &mut Activations<R>,
        dx: &mut Vec<R>,
        grads: &mut Grads<'_, R>,
    ) {
        let (dim, visible) = (self.vit.dim, input.visible.len() / input.batch);
        self.stack.backward(params, &[], input.drop, &mut acts.stack, dx, &mut [], grads);
        for (i, image) in dx.chunks_exact(dim * (1 + visible)).enumerate() {
            let (first, rest) = image.split_at(dim);
            R::axpy(R::ONE, first, self.class_token.of_mut(grads));
            acts.embedded[i * visible * dim..][..visible * dim].copy_from_slice(rest);
            if self.train_positions {
                let dpositions = self.positions.of_mut(grads);
                R::axpy(R::ONE, first, &mut dpositions[..dim]);
                for (row, &id) in rest.chunks_exact(dim).zip(&input.visible[i * visible..]) {
                    R::axpy(R::ONE, row, &mut dpositions[(1 + id as usize) * dim..][..dim]);
                }
            }
        }
        self.embed.backward_params(&acts.patches, &acts.embedded, grads);
    }
}
