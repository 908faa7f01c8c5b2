//! The masked autoencoder's decoder: from the latents to one row for each hidden patch.
//!
//! The full decoder (arXiv 2111.06377) runs its blocks over the latents and a mask token in each hidden place. The cross
//! decoder (CrossMAE, arXiv 2401.14391) runs them over mask tokens alone, with cross-attention to the latents. Its mask
//! tokens do not see each other, so it can predict any fraction of the hidden patches.
//!
//! A mask token with its position is the same in all images, so the first block's input holds one row for each place.

use smalti_models::{DecoderKind, MaeConfig, Variant};

use super::grads::Grads;
use super::stack::{Activations, Stack};
use crate::error::Result;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::{Layout, Slot};

/// The slots of a decoder.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    /// Latents to tokens of the full decoder. The cross decoder attends to the latents themselves.
    embed: Option<Linear>,
    mask_token: Slot,
    positions: Slot,
    /// Class tokens an image, in front of latents and positions.
    class_tokens: usize,
    stack: Stack,
}

/// What a decoder works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a, R> {
    /// `[batch · (1 + visible), dim]`: of each image the class token's, if there is one, then the visible patches'.
    pub(super) latents: &'a [R],
    /// The places of the visible patches `[batch, visible]`.
    pub(super) visible: &'a [u32],
    /// The places of the patches to predict `[batch, hidden]`.
    pub(super) hidden: &'a [u32],
    /// Number of images.
    pub(super) batch: usize,
}

impl Decoder {
    /// Finds the decoder's tensors.
    pub(super) fn find(layout: &Layout, config: &MaeConfig) -> Result<Decoder> {
        let decoder = &config.decoder;
        let sizes = [decoder.dim, decoder.depth, decoder.heads];
        let (embed, cross_attention) = match decoder.kind {
            DecoderKind::Full => (Some(Linear::find(layout, "decoder_embed")?), false),
            DecoderKind::Cross => (None, true),
        };
        Ok(Decoder {
            embed,
            mask_token: layout.slot("mask_token")?,
            positions: layout.slot("decoder_pos_embed")?,
            class_tokens: config.encoder.class_tokens(),
            stack: Stack::find(layout, "decoder_blocks", sizes, &Variant::PLAIN, cross_attention)?,
        })
    }

    /// Width of a token.
    pub(super) fn dim(&self) -> usize {
        self.stack.dim()
    }

    /// Tokens of an image that come from latents.
    fn encoded_tokens<R>(&self, input: Input<'_, R>) -> usize {
        if self.embed.is_some() { self.class_tokens + input.visible.len() / input.batch } else { 0 }
    }

    /// Computes `acts.output()` `[batch · hidden, width]`.
    pub(super) fn forward<R: Float>(&self, params: &[R], input: Input<'_, R>, acts: &mut Activations<R>) {
        let (width, batch, seen) = (self.dim(), input.batch, self.encoded_tokens(input));
        let (mask_token, positions) = (self.mask_token.of(params), self.positions.of(params));
        let (places, hidden) = (&positions[self.class_tokens * width..], input.hidden.len() / batch);
        let first = &mut acts.input;
        (first.tokens, first.queries) = (seen + hidden, seen..seen + hidden);

        resize_buffer(&mut first.values, batch * seen * width + places.len());
        let (encoded, masked) = first.values.split_at_mut(batch * seen * width);
        self.embed_latents(params, input, encoded);
        R::add_rows(places, mask_token, masked);

        first.rows.clear();
        for (image, ids) in input.hidden.chunks_exact(hidden).enumerate() {
            first.rows.extend((image * seen..(image + 1) * seen).map(|row| row as u32));
            first.rows.extend(ids.iter().map(|id| (batch * seen) as u32 + id));
        }
        self.stack.forward(params, input.latents, None, acts);
    }

    /// The full decoder's tokens of latents, each with its position.
    fn embed_latents<R: Float>(&self, params: &[R], input: Input<'_, R>, encoded: &mut [R]) {
        let Some(embed) = &self.embed else { return };
        let (width, seen, positions) = (self.dim(), self.encoded_tokens(input), self.positions.of(params));
        embed.forward(params, input.latents, encoded);
        let first = self.class_tokens;
        let visible = input.visible.chunks_exact(seen - first);
        for (image, visible) in encoded.chunks_exact_mut(seen * width).zip(visible) {
            let ids = (0..first).chain(visible.iter().map(|&id| first + id as usize));
            for (row, id) in image.chunks_exact_mut(width).zip(ids) {
                R::axpy(R::ONE, &positions[id * width..][..width], row);
            }
        }
    }

    /// Writes `dlatents`, the gradient of the latents, from `dx`, the gradient of the output, which it overwrites.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        dx: &mut Vec<R>,
        dlatents: &mut [R],
        grads: &mut Grads<'_, R>,
    ) {
        dlatents.fill(R::ZERO);
        self.stack.backward(params, input.latents, None, acts, dx, dlatents, grads);
        let (encoded, masked) = dx.split_at(input.batch * self.encoded_tokens(input) * self.dim());
        R::column_sums(masked, self.mask_token.of_mut(grads));
        if let Some(embed) = &self.embed {
            embed.backward_params(input.latents, encoded, grads);
            embed.backward_input(params, encoded, dlatents);
        }
    }
}
