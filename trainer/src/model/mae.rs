//! The masked autoencoder (arXiv 2111.06377): encode what is seen, decode, compare what is hidden.

use smalti_models::{MaeConfig, names};

use super::decoder::Decoder;
use super::encoder::{self, Encoder};
use super::stack::Activations;
use crate::error::Result;
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, loss, resize_buffer};
use crate::model::params::Layout;
use crate::model::patch;
use crate::model::precision::Precision;
use crate::objective::mask::Mask;
use crate::train::step::Settled;

/// The slots of a masked autoencoder.
#[derive(Clone, Debug)]
pub struct Mae {
    config: MaeConfig,
    layout: Layout,
    encoder: Encoder,
    norm: LayerNorm,
    decoder: Decoder,
    last_norm: LayerNorm,
    predict: Linear,
}

/// Saved activations; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Saved<R> {
    encoder: encoder::Saved<R>,
    latent: Vec<R>,
    stats: Vec<[R; 2]>,
    decoder: Activations<R>,
    last: Vec<R>,
    last_stats: Vec<[R; 2]>,
    pred: Vec<R>,
    target: Vec<R>,
    dqueried: Vec<R>,
    dlatent: Vec<R>,
    dx: Vec<R>,
}

/// Images with their masks: what one pass works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, R> {
    /// `[batch, C, H, W]`, normalised.
    pub pixels: &'a [R],
    /// `[batch, visible]` places.
    pub visible: &'a [u32],
    /// `[batch, hidden]` places of the patches that are predicted; the full decoder sees no others.
    pub hidden: &'a [u32],
    /// Number of images.
    pub batch: usize,
}

impl<'a, R> Input<'a, R> {
    /// All images of a batch under a mask.
    pub fn new(pixels: &'a [R], mask: &'a Mask, batch: usize) -> Input<'a, R> {
        Input { pixels, visible: &mask.visible, hidden: &mask.hidden, batch }
    }

    /// Images `from..to`.
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
        Ok(Mae {
            encoder: Encoder::find(&layout, &config.encoder, false)?,
            norm: LayerNorm::find(&layout, "norm")?,
            decoder: Decoder::find(&layout, config)?,
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
        let all = 0..1 + input.visible.len() / batch;
        self.encoder.forward(params, input.pixels, input.visible, batch, all, None, &mut s.encoder);
        let rows = batch + input.visible.len();
        resize_buffer(&mut s.latent, rows * dim);
        resize_buffer(&mut s.stats, rows);
        self.norm.forward(params, s.encoder.output(), &mut s.latent, &mut s.stats);
        self.decoder.forward(params, input, &s.latent, &mut s.decoder);
        // Only hidden patches are compared, so only they are predicted.
        resize_buffer(&mut s.last, input.hidden.len() * width);
        resize_buffer(&mut s.last_stats, input.hidden.len());
        resize_buffer(&mut s.pred, input.hidden.len() * self.config.encoder.patch_len());
        self.last_norm.forward(params, s.decoder.output(), &mut s.last, &mut s.last_stats);
        self.predict.forward(params, &s.last, &mut s.pred);
    }

    /// Loss of these images, `weight · Σ_patches mean((pred - target)²)`, without gradients.
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
        resize_buffer(&mut s.target, s.pred.len());
        patch::targets(vit, input.pixels, input.hidden, input.batch, normalise, &mut s.target);
        loss::squared_error(&mut s.pred, &s.target, vit.patch_len(), weight)
    }

    /// [`Mae::loss`], and its gradients added to `grads`; `settled` is told how far back they are complete.
    pub fn gradient<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        normalise: bool,
        weight: f64,
        s: &mut Saved<R>,
        grads: &mut [R],
        settled: Settled<'_, R>,
    ) -> f64 {
        let loss = self.loss(params, input, normalise, weight, s);

        // `pred` now holds its own gradient, and `last` is free once the weight's gradient is taken.
        self.predict.backward_params(&s.last, &s.pred, grads);
        self.predict.backward_input(params, &s.pred, &mut s.last);
        resize_buffer(&mut s.dqueried, s.last.len());
        s.dqueried.fill(R::ZERO);
        let queried = s.decoder.output();
        self.last_norm.backward(params, queried, &s.last_stats, &s.last, &mut s.dqueried, grads);
        resize_buffer(&mut s.dlatent, s.latent.len());
        let (dx, dlatent) = (&mut s.dqueried, &mut s.dlatent);
        self.decoder.backward(params, input, &s.latent, &mut s.decoder, dx, dlatent, grads, settled);
        resize_buffer(&mut s.dx, s.latent.len());
        s.dx.fill(R::ZERO);
        let output = s.encoder.output();
        self.norm.backward(params, output, &s.stats, &s.dlatent, &mut s.dx, grads);
        self.encoder.backward(params, input.batch, None, &mut s.encoder, &mut s.dx, grads, settled);
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
    use crate::model::ops::check::{Check, TOLERANCE, values};
    use smalti_models::{DecoderConfig, DecoderKind as Kind, VitConfig};

    pub fn small(kind: Kind) -> MaeConfig {
        let depth = if kind == Kind::Full { 1 } else { 2 };
        MaeConfig {
            encoder: VitConfig { img_size: 6, patch_size: 2, channels: 3, dim: 12, depth: 2, heads: 3 },
            decoder: DecoderConfig { kind, dim: 8, depth, heads: 2 },
        }
    }

    /// The model, a point to differentiate at, images and a mask.
    fn case(kind: Kind) -> (Mae, Vec<f64>, Vec<f64>, Mask) {
        let mae = Mae::new(&small(kind)).unwrap();
        let params = mae
            .layout()
            .init::<f64>(3)
            .iter()
            .zip(values(mae.layout().len(), 4))
            .map(|(p, v)| p + 0.1 * v)
            .collect();
        // Five patches are hidden; the cross decoder predicts three of them.
        let mask = Mask::draw(1, 0, &[0, 1, 2], 9, 4);
        let mask = if kind == Kind::Full { mask } else { mask.predicting(3, 3) };
        (mae, params, values(3 * 3 * 36, 2), mask)
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (kind, normalise) in [(Kind::Full, true), (Kind::Full, false), (Kind::Cross, true)] {
            let (mae, params, pixels, mask) = case(kind);
            let input = Input::new(&pixels, &mask, 3);
            Check::at(mae.layout(), params.clone()).skip(&["pos_embed", "decoder_pos_embed"]).run(
                |p| mae.loss(p, input, normalise, 1.0 / 15.0, &mut Saved::default()),
                |p, grads| {
                    mae.gradient(
                        p,
                        input,
                        normalise,
                        1.0 / 15.0,
                        &mut Saved::default(),
                        grads,
                        &mut |_, _| {},
                    );
                },
            );
        }
    }

    #[test]
    fn a_planted_error_is_caught_and_named() {
        let (mae, params, pixels, mask) = case(Kind::Full);
        let input = Input::new(&pixels, &mask, 3);
        let spoiled = "blocks.1.norm2.weight";
        let (error, name) = Check::at(mae.layout(), params).skip(&["pos_embed", "decoder_pos_embed"]).worst(
            |p| mae.loss(p, input, true, 1.0 / 15.0, &mut Saved::default()),
            |p, grads| {
                mae.gradient(p, input, true, 1.0 / 15.0, &mut Saved::default(), grads, &mut |_, _| {});
                mae.layout().slot(spoiled).unwrap().of_mut(grads).iter_mut().for_each(|g| *g *= 1.0001);
            },
        );
        assert!(error > 10.0 * TOLERANCE, "{error:e}");
        assert_eq!(name, spoiled);
    }

    #[test]
    fn slices_add_up_to_the_batch() {
        for kind in [Kind::Full, Kind::Cross] {
            let (mae, params, pixels, mask) = case(kind);
            let input = Input::new(&pixels, &mask, 3);
            let mut s = Saved::default();
            let mut run = |from, to, grads: &mut [f64]| {
                mae.gradient(&params, input.slice(from, to), true, 0.1, &mut s, grads, &mut |_, _| {})
            };
            let (mut whole, mut parts) = (vec![0.0; params.len()], vec![0.0; params.len()]);
            let a = run(0, 3, &mut whole);
            let b = [run(0, 2, &mut parts), run(2, 3, &mut parts)];
            assert!((a - b[0] - b[1]).abs() < 1e-12);
            assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn gradients_are_complete_where_they_are_said_to_be() {
        for kind in [Kind::Full, Kind::Cross] {
            let (mae, params, pixels, mask) = case(kind);
            let (mut grads, mut said) = (vec![0.0; params.len()], Vec::new());
            let mut note = |from: usize, grads: &[f64]| said.push((from, grads[from..].to_vec()));
            let input = Input::new(&pixels, &mask, 3);
            mae.gradient(&params, input, true, 0.1, &mut Saved::default(), &mut grads, &mut note);
            assert_eq!(said.len(), mae.config.encoder.depth + mae.config.decoder.depth);
            assert!(said.is_sorted_by(|a, b| a.0 > b.0));
            assert!(said.iter().all(|(from, values)| grads[*from..] == values[..]), "{kind:?}");
        }
    }

    #[test]
    fn hidden_patches_do_not_see_each_other_in_the_cross_decoder() {
        let (mae, params, pixels, mask) = case(Kind::Cross);
        let (mut few, mut s) = (mask.clone(), Saved::default());
        let all = mae.predict(&params, Input::new(&pixels, &mask, 3), &mut s).to_vec();
        few = few.predicting(3, 1);
        let one = mae.predict(&params, Input::new(&pixels, &few, 3), &mut s).to_vec();
        let len = mae.config.encoder.patch_len();
        for i in 0..3 {
            let (one, all) = (&one[i * len..][..len], &all[i * 3 * len..][..len]);
            assert!(one.iter().zip(all).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }
}
