//! The encoder: stem, class token, registers, positions, blocks. It runs on the visible patches alone.

use std::ops::Range;

use smalti_models::VitConfig;

use super::grads::Grads;
use super::stack::{self, Stack};
use super::stem::{self, Stem};
use crate::error::Result;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::{Layout, Slot};

/// The slots of an encoder.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    vit: VitConfig,
    stem: Stem,
    class_token: Option<Slot>,
    registers: Option<Slot>,
    positions: Slot,
    train_positions: bool,
    stack: Stack,
}

/// What an encoder works on. Each image has a token for each visible patch, and in front the class
/// token and the registers where there are any.
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
    /// As in [`stem::Input`].
    pub(super) batch_weight: Option<f64>,
}

impl<'a, R> Input<'a, R> {
    fn stem(&self) -> stem::Input<'a, R> {
        let Input { pixels, visible, batch, batch_weight, .. } = *self;
        stem::Input { pixels, visible, batch, batch_weight }
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    stem: stem::Activations<R>,
    stack: stack::Activations<R>,
}

impl<R> Activations<R> {
    /// The output `[batch · queries, dim]`.
    pub(super) fn output(&self) -> &[R] {
        self.stack.output()
    }

    /// The attention weights of each block.
    pub(super) fn attention(&self) -> impl Iterator<Item = &[R]> {
        self.stack.attention()
    }
}

impl Encoder {
    /// Finds the encoder's tensors. Positions of patches are fixed in pretraining and trained in fine-tuning, those behind
    /// convolutions are always trained.
    pub(super) fn find(layout: &Layout, vit: &VitConfig, train_positions: bool) -> Result<Encoder> {
        Ok(Encoder {
            vit: vit.clone(),
            stem: Stem::find(layout, vit)?,
            class_token: (vit.class_tokens() > 0).then(|| layout.slot("cls_token")).transpose()?,
            registers: (vit.variant.registers > 0).then(|| layout.slot("reg_token")).transpose()?,
            positions: layout.slot("pos_embed")?,
            train_positions: train_positions || !vit.stem.is_patches(),
            stack: Stack::find(layout, "blocks", [vit.dim, vit.depth, vit.heads], &vit.variant, false)?,
        })
    }

    /// The configuration.
    pub(super) fn vit(&self) -> &VitConfig {
        &self.vit
    }

    /// Computes `acts.output()` `[batch · queries, dim]`.
    pub(super) fn forward<R: Float>(&self, params: &[R], input: &Input<'_, R>, acts: &mut Activations<R>) {
        self.stem.forward(params, &input.stem(), &mut acts.stem);
        self.tokens(params, input, &acts.stem.embedded, &mut acts.stack.input);
        self.stack.forward(params, &[], input.drop, &mut acts.stack);
    }

    /// Rows of the position table in front of those of the patches.
    fn class_positions(&self) -> usize {
        self.vit.positions() - self.vit.patches()
    }

    /// Class token and embedded patches, each with its position, and registers between them without one.
    fn tokens<R: Float>(
        &self,
        params: &[R],
        input: &Input<'_, R>,
        embedded: &[R],
        tokens: &mut stack::Input<R>,
    ) {
        let (dim, visible) = (self.vit.dim, input.visible.len() / input.batch);
        let (first, positions) = (self.vit.prefix_tokens(), self.positions.of(params));
        let (class_positions, patch_positions) = positions.split_at(self.class_positions() * dim);
        (tokens.tokens, tokens.queries) = (first + visible, input.queries.clone());
        resize_buffer(&mut tokens.values, input.batch * (first + visible) * dim);
        let images = tokens.values.chunks_exact_mut((first + visible) * dim);
        for (i, image) in images.enumerate() {
            let (prefix, rest) = image.split_at_mut(first * dim);
            let (class, registers) = prefix.split_at_mut(self.vit.class_tokens() * dim);
            if let Some(class_token) = &self.class_token {
                class.copy_from_slice(class_token.of(params));
                R::axpy(R::ONE, class_positions, &mut class[..class_positions.len()]);
            }
            if let Some(tokens) = &self.registers {
                registers.copy_from_slice(tokens.of(params));
            }
            for (j, row) in rest.chunks_exact_mut(dim).enumerate() {
                let token = i * visible + j;
                let place = input.visible[token] as usize;
                R::add_rows(&embedded[token * dim..][..dim], &patch_positions[place * dim..][..dim], row);
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
        let (first, class_positions) = (self.vit.prefix_tokens(), self.class_positions());
        self.stack.backward(params, &[], input.drop, &mut acts.stack, dx, &mut [], grads);
        for (i, image) in dx.chunks_exact(dim * (first + visible)).enumerate() {
            let (prefix, rest) = image.split_at(first * dim);
            let (class, registers) = prefix.split_at(self.vit.class_tokens() * dim);
            acts.stem.embedded[i * visible * dim..][..visible * dim].copy_from_slice(rest);
            if let Some(class_token) = &self.class_token {
                R::axpy(R::ONE, class, class_token.of_mut(grads));
            }
            if let Some(tokens) = &self.registers {
                R::axpy(R::ONE, registers, tokens.of_mut(grads));
            }
            if self.train_positions {
                let (dclass, dpatches) = self.positions.of_mut(grads).split_at_mut(class_positions * dim);
                R::axpy(R::ONE, &class[..dclass.len()], dclass);
                for (row, &id) in rest.chunks_exact(dim).zip(&input.visible[i * visible..]) {
                    R::axpy(R::ONE, row, &mut dpatches[id as usize * dim..][..dim]);
                }
            }
        }
        self.stem.backward(params, &input.stem(), &mut acts.stem, grads);
    }
}
