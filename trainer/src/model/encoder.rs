//! The encoder: patch embedding, class token, positions, blocks, on the patches that are seen.

use std::ops::Range;

use smalti_models::VitConfig;

use super::stack::{Activations, Stack};
use crate::error::Result;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::{Layout, Slot};
use crate::model::patch;
use crate::train::step::Settled;

/// The slots of an encoder.
#[derive(Clone, Debug)]
pub struct Encoder {
    vit: VitConfig,
    embed: Linear,
    class_token: Slot,
    positions: Slot,
    train_positions: bool,
    stack: Stack,
}

/// Saved activations of an encoder.
#[derive(Clone, Debug, Default)]
pub struct Saved<R> {
    rows: Vec<R>,
    embedded: Vec<R>,
    ids: Vec<u32>,
    acts: Activations<R>,
}

impl<R> Saved<R> {
    /// What came out: `[batch · asked, dim]`.
    pub fn output(&self) -> &[R] {
        self.acts.output()
    }
}

impl Encoder {
    /// Finds the encoder's tensors. Positions are fixed in pretraining and trained in fine-tuning.
    pub fn find(layout: &Layout, vit: &VitConfig, train_positions: bool) -> Result<Encoder> {
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
    pub fn vit(&self) -> &VitConfig {
        &self.vit
    }

    /// Encodes the patches `ids` `[batch, seen]` of images `[batch, C, H, W]`. Of each image's `1 + seen` tokens, class
    /// token first, those `asked` come out: `saved.output()` is `[batch · asked, dim]`.
    pub fn forward<R: Float>(
        &self,
        params: &[R],
        pixels: &[R],
        ids: &[u32],
        batch: usize,
        asked: Range<usize>,
        drop: Option<&[R]>,
        saved: &mut Saved<R>,
    ) {
        let (dim, seen) = (self.vit.dim, ids.len() / batch);
        resize_buffer(&mut saved.rows, ids.len() * self.vit.patch_len());
        resize_buffer(&mut saved.embedded, ids.len() * dim);
        saved.ids.clear();
        saved.ids.extend_from_slice(ids);
        patch::gather(&self.vit, pixels, ids, batch, &mut saved.rows);
        self.embed.forward(params, &saved.rows, &mut saved.embedded);

        let (class_token, positions) = (self.class_token.of(params), self.positions.of(params));
        let first = &mut saved.acts.input;
        (first.tokens, first.asked) = (1 + seen, asked);
        resize_buffer(&mut first.values, batch * (1 + seen) * dim);
        let images = first.values.chunks_exact_mut((1 + seen) * dim);
        for (i, image) in images.enumerate() {
            let (first, rest) = image.split_at_mut(dim);
            R::add_rows(class_token, &positions[..dim], first);
            for (j, row) in rest.chunks_exact_mut(dim).enumerate() {
                let token = i * seen + j;
                let place = 1 + ids[token] as usize;
                R::add_rows(&saved.embedded[token * dim..][..dim], &positions[place * dim..][..dim], row);
            }
        }
        self.stack.forward(params, &[], drop, &mut saved.acts);
    }

    /// Gradients from `dx`, the gradient of the output (overwritten on the way); `settled` is told after each
    /// block that the gradients are complete from there on.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        batch: usize,
        drop: Option<&[R]>,
        saved: &mut Saved<R>,
        dx: &mut Vec<R>,
        grads: &mut [R],
        settled: Settled<'_, R>,
    ) {
        let (dim, seen) = (self.vit.dim, saved.ids.len() / batch);
        self.stack.backward(params, &[], drop, &mut saved.acts, dx, &mut [], grads, settled);
        for (i, image) in dx.chunks_exact(dim * (1 + seen)).enumerate() {
            let (first, rest) = image.split_at(dim);
            R::axpy(R::ONE, first, self.class_token.of_mut(grads));
            saved.embedded[i * seen * dim..][..seen * dim].copy_from_slice(rest);
            if self.train_positions {
                let dpositions = self.positions.of_mut(grads);
                R::axpy(R::ONE, first, &mut dpositions[..dim]);
                for (row, &id) in rest.chunks_exact(dim).zip(&saved.ids[i * seen..]) {
                    R::axpy(R::ONE, row, &mut dpositions[(1 + id as usize) * dim..][..dim]);
                }
            }
        }
        self.embed.backward_params(&saved.rows, &saved.embedded, grads);
    }
}
