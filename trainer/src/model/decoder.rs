//! The masked autoencoder's decoder: from what was encoded to one row for each hidden patch.
//!
//! The full one (arXiv 2111.06377) runs its blocks over what was encoded and a mask token in each hidden place. In the
//! cross one (CrossMAE, arXiv 2401.14391) mask tokens alone run and ask what was encoded; they do not see each other, so
//! that any share of them can be predicted.
//!
//! A mask token differs from place to place and not from image to image, so the first block's input holds one for
//! each place.

use smalti_models::{DecoderKind, MaeConfig};

use super::mae::Input;
use super::stack::{Activations, Stack};
use crate::error::Result;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::{Layout, Slot};
use crate::train::step::Settled;

/// The slots of a decoder.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    /// How what was encoded becomes tokens of the full decoder; the cross one asks it as it is.
    embed: Option<Linear>,
    mask_token: Slot,
    positions: Slot,
    stack: Stack,
}

impl Decoder {
    /// Finds the decoder's tensors.
    pub(super) fn find(layout: &Layout, config: &MaeConfig) -> Result<Decoder> {
        let decoder = &config.decoder;
        let sizes = [decoder.dim, decoder.depth, decoder.heads];
        let (embed, asks_memory) = match decoder.kind {
            DecoderKind::Full => (Some(Linear::find(layout, "decoder_embed")?), false),
            DecoderKind::Cross => (None, true),
        };
        Ok(Decoder {
            embed,
            mask_token: layout.slot("mask_token")?,
            positions: layout.slot("decoder_pos_embed")?,
            stack: Stack::find(layout, "decoder_blocks", sizes, asks_memory)?,
        })
    }

    /// Rows of the input that are encoded tokens, of an image: the class token's and the visible patches'.
    fn seen<R>(&self, input: Input<'_, R>) -> usize {
        if self.embed.is_some() { 1 + input.visible.len() / input.batch } else { 0 }
    }

    /// From `latent` `[batch · (1 + visible), dim]` to `acts.output()` `[hidden, width]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        latent: &[R],
        acts: &mut Activations<R>,
    ) {
        let (width, batch, seen) = (self.stack.dim(), input.batch, self.seen(input));
        let (mask_token, positions) = (self.mask_token.of(params), self.positions.of(params));
        let (places, hidden) = (&positions[width..], input.hidden.len() / batch);
        let first = &mut acts.input;
        (first.tokens, first.asked) = (seen + hidden, seen..seen + hidden);

        resize_buffer(&mut first.values, batch * seen * width + places.len());
        let (encoded, masked) = first.values.split_at_mut(batch * seen * width);
        if let Some(embed) = &self.embed {
            embed.forward(params, latent, encoded);
            let visible = input.visible.chunks_exact(seen - 1);
            for (image, visible) in encoded.chunks_exact_mut(seen * width).zip(visible) {
                let ids = std::iter::once(0).chain(visible.iter().map(|&id| 1 + id as usize));
                for (row, id) in image.chunks_exact_mut(width).zip(ids) {
                    R::axpy(R::ONE, &positions[id * width..][..width], row);
                }
            }
        }
        R::add_rows(places, mask_token, masked);

        first.rows.clear();
        for (image, ids) in input.hidden.chunks_exact(hidden).enumerate() {
            first.rows.extend((image * seen..(image + 1) * seen).map(|row| row as u32));
            first.rows.extend(ids.iter().map(|id| (batch * seen) as u32 + id));
        }
        self.stack.forward(params, latent, None, acts);
    }

    /// Writes `dlatent` from `dx`, the gradient of the output (overwritten on the way).
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        latent: &[R],
        acts: &mut Activations<R>,
        dx: &mut Vec<R>,
        dlatent: &mut [R],
        grads: &mut [R],
        settled: Settled<'_, R>,
    ) {
        dlatent.fill(R::ZERO);
        self.stack.backward(params, latent, None, acts, dx, dlatent, grads, settled);
        let (encoded, masked) = dx.split_at(input.batch * self.seen(input) * self.stack.dim());
        R::column_sums(masked, self.mask_token.of_mut(grads));
        if let Some(embed) = &self.embed {
            embed.backward_params(latent, encoded, grads);
            embed.backward_input(params, encoded, dlatent);
        }
    }
}
