//! The masked autoencoder (arXiv 2111.06377): encode what is seen, decode everything, compare what is hidden.

use smalti_models::{MaeConfig, names};

use super::block::{Activations, Stack};
use super::encoder::{self, Encoder};
use crate::error::Result;
use crate::mask::Mask;
use crate::ops::layer_norm::LayerNorm;
use crate::ops::linear::Linear;
use crate::ops::{Float, fit, loss};
use crate::params::{Layout, Slot};
use crate::patch;
use crate::precision::Precision;

/// The slots of a masked autoencoder.
#[derive(Clone, Debug)]
pub struct Mae {
    config: MaeConfig,
    layout: Layout,
    encoder: Encoder,
    norm: LayerNorm,
    embed: Linear,
    mask_token: Slot,
    positions: Slot,
    stack: Stack,
    last_norm: LayerNorm,
    predict: Linear,
}

/// Saved activations; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Saved<R> {
    encoder: encoder::Saved<R>,
    latent: Vec<R>,
    stats: Vec<[R; 2]>,
    embedded: Vec<R>,
    acts: Activations<R>,
    queried: Vec<R>,
    last: Vec<R>,
    last_stats: Vec<[R; 2]>,
    pred: Vec<R>,
    target: Vec<R>,
    dx: Vec<R>,
    dlatent: Vec<R>,
}

/// Pictures with their masks: what one pass works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, R> {
    /// `[batch, C, H, W]`, normalised.
    pub pixels: &'a [R],
    /// `[batch, visible]` places.
    pub visible: &'a [u32],
    /// `[batch, hidden]` places.
    pub hidden: &'a [u32],
    /// Number of pictures.
    pub batch: usize,
}

impl<'a, R> Input<'a, R> {
    /// All pictures of a batch under a mask.
    pub fn new(pixels: &'a [R], mask: &'a Mask, batch: usize) -> Input<'a, R> {
        Input { pixels, visible: &mask.visible, hidden: &mask.hidden, batch }
    }

    /// Pictures `from..to`.
    pub fn slice(&self, from: usize, to: usize) -> Input<'a, R> {
        let part = |len: usize| from * len / self.batch..to * len / self.batch;
        Input {
            pixels: &self.pixels[part(self.pixels.len())],
            visible: &self.visible[part(self.visible.len())],
            hidden: &self.hidden[part(self.hidden.len())],
            batch: to - from,
        }
    }
}

impl Mae {
    /// Lays out a masked autoencoder.
    pub fn new(config: &MaeConfig) -> Result<Mae> {
        Mae::with_precision(config, Precision::F32)
    }

    /// As [`Mae::new`], with layers that multiply in `precision`.
    pub fn with_precision(config: &MaeConfig, precision: Precision) -> Result<Mae> {
        config.check()?;
        let layout = Layout::new(names::mae(config), precision);
        let decoder = &config.decoder;
        Ok(Mae {
            encoder: Encoder::find(&layout, &config.encoder, false)?,
            norm: LayerNorm::find(&layout, "norm")?,
            embed: Linear::find(&layout, "decoder_embed")?,
            mask_token: layout.slot("mask_token")?,
            positions: layout.slot("decoder_pos_embed")?,
            stack: Stack::find(&layout, "decoder_blocks", decoder.dim, decoder.depth, decoder.heads)?,
            last_norm: LayerNorm::find(&layout, "decoder_norm")?,
            predict: Linear::find(&layout, "decoder_pred")?,
            config: config.clone(),
            layout,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &MaeConfig {
        &self.config
    }

    /// The tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Everything up to the predictions for the patches `input.hidden`, left in `s.pred`.
    fn predict_hidden<R: Float>(&self, params: &[R], input: Input<'_, R>, s: &mut Saved<R>) {
        let (dim, width, batch) = (self.config.encoder.dim, self.config.decoder.dim, input.batch);
        let (seen, tokens) = (input.visible.len() / batch, self.config.encoder.tokens());
        self.encoder.forward(params, input.pixels, input.visible, batch, None, &mut s.encoder);

        let rows = batch * (1 + seen);
        fit(&mut s.latent, rows * dim);
        fit(&mut s.stats, rows);
        fit(&mut s.embedded, rows * width);
        self.norm.forward(params, s.encoder.acts.output(), &mut s.latent, &mut s.stats);
        self.embed.forward(params, &s.latent, &mut s.embedded);

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

        // Only hidden patches are compared, so only they are predicted.
        fit(&mut s.queried, input.hidden.len() * width);
        fit(&mut s.last, input.hidden.len() * width);
        fit(&mut s.last_stats, input.hidden.len());
        fit(&mut s.pred, input.hidden.len() * self.config.encoder.patch_len());
        for (row, token) in s.queried.chunks_exact_mut(width).zip(self.hidden_tokens(input)) {
            row.copy_from_slice(&s.acts.output()[token * width..][..width]);
        }
        self.last_norm.forward(params, &s.queried, &mut s.last, &mut s.last_stats);
        self.predict.forward(params, &s.last, &mut s.pred);
    }

    /// Rows of the decoder's output that belong to the hidden patches, in their order.
    fn hidden_tokens<'a, R>(&self, input: Input<'a, R>) -> impl Iterator<Item = usize> + use<'a, R> {
        let (each, tokens) = (input.hidden.len() / input.batch, self.config.encoder.tokens());
        input.hidden.iter().enumerate().map(move |(i, &id)| i / each.max(1) * tokens + 1 + id as usize)
    }

    /// Loss of these pictures, `weight · Σ_patches mean((pred - target)²)`, without gradients.
    pub fn loss<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        normalise: bool,
        weight: f64,
        s: &mut Saved<R>,
    ) -> f64 {
        self.predict_hidden(params, input, s);
        let vit = &self.config.encoder;
        fit(&mut s.target, s.pred.len());
        patch::targets(vit, input.pixels, input.hidden, input.batch, normalise, &mut s.target);
        loss::squared_error(&mut s.pred, &s.target, vit.patch_len(), weight)
    }

    /// [`Mae::loss`], and its gradients added to `grads`.
    pub fn gradient<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        normalise: bool,
        weight: f64,
        s: &mut Saved<R>,
        grads: &mut [R],
    ) -> f64 {
        let loss = self.loss(params, input, normalise, weight, s);
        let (dim, width, batch) = (self.config.encoder.dim, self.config.decoder.dim, input.batch);
        let (seen, tokens) = (input.visible.len() / batch, self.config.encoder.tokens());

        // `pred` now holds its own gradient, and `last` is free once the weight's gradient is taken.
        self.predict.backward_params(&s.last, &s.pred, grads);
        self.predict.backward_input(params, &s.pred, &mut s.last);
        fit(&mut s.dlatent, s.queried.len());
        s.dlatent.fill(R::ZERO);
        self.last_norm.backward(params, &s.queried, &s.last_stats, &s.last, &mut s.dlatent, grads);
        fit(&mut s.dx, batch * tokens * width);
        s.dx.fill(R::ZERO);
        for (row, token) in s.dlatent.chunks_exact(width).zip(self.hidden_tokens(input)) {
            s.dx[token * width..][..width].copy_from_slice(row);
        }
        self.stack.backward(params, tokens, None, &mut s.acts, &mut s.dx, grads);

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

        self.embed.backward_params(&s.latent, &s.embedded, grads);
        fit(&mut s.dlatent, batch * (1 + seen) * dim);
        self.embed.backward_input(params, &s.embedded, &mut s.dlatent);
        fit(&mut s.dx, batch * (1 + seen) * dim);
        s.dx.fill(R::ZERO);
        let output = s.encoder.acts.output();
        self.norm.backward(params, output, &s.stats, &s.dlatent, &mut s.dx, grads);
        self.encoder.backward(params, batch, None, &mut s.encoder, &mut s.dx, grads);
        loss
    }

    /// Predicted pixels `[hidden, patch_len]` (row, column, channel) of the hidden patches.
    pub fn predict<'s, R: Float>(&self, params: &[R], input: Input<'_, R>, s: &'s mut Saved<R>) -> &'s [R] {
        self.predict_hidden(params, input, s);
        &s.pred
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, TOLERANCE, values};
    use smalti_models::{DecoderConfig, VitConfig};

    pub fn small() -> MaeConfig {
        MaeConfig {
            encoder: VitConfig { img_size: 6, patch_size: 2, channels: 3, dim: 12, depth: 2, heads: 3 },
            decoder: DecoderConfig { dim: 8, depth: 1, heads: 2 },
        }
    }

    /// The model, a point to differentiate at, pictures and a mask.
    fn case() -> (Mae, Vec<f64>, Vec<f64>, Mask) {
        let mae = Mae::new(&small()).unwrap();
        let params = mae
            .layout()
            .init::<f64>(3)
            .iter()
            .zip(values(mae.layout().len(), 4))
            .map(|(p, v)| p + 0.1 * v)
            .collect();
        let mask = Mask::draw(1, 0, &[0, 1, 2], 9, 4);
        (mae, params, values(3 * 3 * 36, 2), mask)
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (mae, params, pixels, mask) = case();
        for normalise in [true, false] {
            let input = Input::new(&pixels, &mask, 3);
            Check::at(mae.layout(), params.clone()).skip(&["pos_embed", "decoder_pos_embed"]).run(
                |p| mae.loss(p, input, normalise, 1.0 / 15.0, &mut Saved::default()),
                |p, grads| {
                    mae.gradient(p, input, normalise, 1.0 / 15.0, &mut Saved::default(), grads);
                },
            );
        }
    }

    #[test]
    fn a_planted_error_is_caught_and_named() {
        let (mae, params, pixels, mask) = case();
        let input = Input::new(&pixels, &mask, 3);
        let spoiled = "blocks.1.norm2.weight";
        let (error, name) = Check::at(mae.layout(), params).skip(&["pos_embed", "decoder_pos_embed"]).worst(
            |p| mae.loss(p, input, true, 1.0 / 15.0, &mut Saved::default()),
            |p, grads| {
                mae.gradient(p, input, true, 1.0 / 15.0, &mut Saved::default(), grads);
                mae.layout().slot(spoiled).unwrap().of_mut(grads).iter_mut().for_each(|g| *g *= 1.0001);
            },
        );
        assert!(error > 10.0 * TOLERANCE, "{error:e}");
        assert_eq!(name, spoiled);
    }

    #[test]
    fn slices_add_up_to_the_batch() {
        let (mae, params, pixels, mask) = case();
        let input = Input::new(&pixels, &mask, 3);
        let mut s = Saved::default();
        let (mut whole, mut parts) = (vec![0.0; params.len()], vec![0.0; params.len()]);
        let a = mae.gradient(&params, input, true, 0.1, &mut s, &mut whole);
        let b = [(0, 2), (2, 3)]
            .map(|(from, to)| mae.gradient(&params, input.slice(from, to), true, 0.1, &mut s, &mut parts));
        assert!((a - b[0] - b[1]).abs() < 1e-12);
        assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
