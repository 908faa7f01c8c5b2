//! The masked autoencoder's own decoder (arXiv 2111.06377): blocks over all tokens, a mask token in each hidden place.

use smalti_models::MaeConfig;

use super::block::{Activations, Stack};
use super::mae::Input;
use crate::error::Result;
use crate::ops::linear::Linear;
use crate::ops::{Float, fit};
use crate::params::{Layout, Slot};
use crate::step::Settled;

/// The slots of a decoder.
#[derive(Clone, Debug)]
pub struct Full {
    /// Tokens of a picture, the class token too.
    tokens: usize,
    embed: Linear,
    mask_token: Slot,
    positions: Slot,
    stack: Stack,
}

/// Saved activations; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Saved<R> {
    embedded: Vec<R>,
    acts: Activations<R>,
    dx: Vec<R>,
}

impl Full {
    /// Finds the decoder's tensors.
    pub fn find(layout: &Layout, config: &MaeConfig) -> Result<Full> {
        let decoder = &config.decoder;
        Ok(Full {
            tokens: config.encoder.tokens(),
            embed: Linear::find(layout, "decoder_embed")?,
            mask_token: layout.slot("mask_token")?,
            positions: layout.slot("decoder_pos_embed")?,
            stack: Stack::find(layout, "decoder_blocks", decoder.dim, decoder.depth, decoder.heads)?,
        })
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
        let (width, batch, tokens) = (self.stack.dim(), input.batch, self.tokens);
        let seen = input.visible.len() / batch;
        fit(&mut s.embedded, batch * (1 + seen) * width);
        self.embed.forward(params, latent, &mut s.embedded);

        // Mask tokens everywhere, then what was encoded over them; positions on all.
        let (mask_token, positions) = (self.mask_token.of(params), self.positions.of(params));
        fit(&mut s.acts.input, batch * tokens * width);
        for (i, picture) in s.acts.input.chunks_exact_mut(tokens * width).enumerate() {
            for (row, place) in picture.chunks_exact_mut(width).zip(positions.chunks_exact(width)) {
                R::add_rows(place, mask_token, row);
            }
            let embedded = &s.embedded[i * (1 + seen) * width..][..(1 + seen) * width];
            for (j, row) in embedded.chunks_exact(width).enumerate() {
                let place = if j == 0 { 0 } else { 1 + input.visible[i * seen + j - 1] as usize };
                let place = place * width..(place + 1) * width;
                R::add_rows(row, &positions[place.clone()], &mut picture[place]);
            }
        }
        self.stack.forward(params, tokens, None, &mut s.acts);
        fit(queried, input.hidden.len() * width);
        for (row, token) in queried.chunks_exact_mut(width).zip(self.hidden_tokens(input)) {
            row.copy_from_slice(&s.acts.output()[token * width..][..width]);
        }
    }

    /// Rows of the decoder's output that belong to the hidden patches, in their order.
    fn hidden_tokens<'a, R>(&self, input: Input<'a, R>) -> impl Iterator<Item = usize> + use<'a, R> {
        let (each, tokens) = (input.hidden.len() / input.batch, self.tokens);
        input.hidden.iter().enumerate().map(move |(i, &id)| i / each.max(1) * tokens + 1 + id as usize)
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
        let (width, batch, tokens) = (self.stack.dim(), input.batch, self.tokens);
        let seen = input.visible.len() / batch;
        fit(&mut s.dx, batch * tokens * width);
        s.dx.fill(R::ZERO);
        for (row, token) in dqueried.chunks_exact(width).zip(self.hidden_tokens(input)) {
            s.dx[token * width..][..width].copy_from_slice(row);
        }
        self.stack.backward(params, tokens, None, &mut s.acts, &mut s.dx, grads, settled);

        for (i, picture) in s.dx.chunks_exact(tokens * width).enumerate() {
            let embedded = &mut s.embedded[i * (1 + seen) * width..][..(1 + seen) * width];
            for (j, row) in embedded.chunks_exact_mut(width).enumerate() {
                let place = if j == 0 { 0 } else { 1 + input.visible[i * seen + j - 1] as usize };
                row.copy_from_slice(&picture[place * width..][..width]);
            }
        }
        for token in self.hidden_tokens(input) {
            R::axpy(R::ONE, &s.dx[token * width..][..width], self.mask_token.of_mut(grads));
        }
        self.embed.backward_params(latent, &s.embedded, grads);
        self.embed.backward_input(params, &s.embedded, dlatent);
    }
}
