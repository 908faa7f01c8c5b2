//! The masked autoencoder (arXiv 2111.06377): an encoder of the visible patches, a decoder that predicts the hidden ones.
//!
//! The forward pass has two parts with a seam between them: [`Mae::encode`] gives latents, [`Mae::decode`] gives
//! predictions. Each has its own backward pass, so an objective may compare predictions, latents or both. It reads
//! [`Activations::latents`] or [`Activations::predictions`], writes their gradients next to them, and runs the backward
//! passes in reverse.

use smalti_models::{MaeConfig, names};

use super::decoder::{self, Decoder};
use super::encoder::{self, Encoder};
use super::grads::Grads;
use super::stack;
use crate::error::Result;
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;
use crate::model::precision::Precision;

/// The slots of a masked autoencoder.
#[derive(Clone, Debug)]
pub struct Mae {
    config: MaeConfig,
    layout: Layout,
    encoder: Encoder,
    norm: LayerNorm,
    decoder: Decoder,
    decoder_norm: LayerNorm,
    predict: Linear,
}

/// What the backward passes need, and the gradients at the seams; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Activations<R> {
    encoder: encoder::Activations<R>,
    stats: Vec<[R; 2]>,
    decoder: stack::Activations<R>,
    /// The decoder's output after its norm, then the gradient of it.
    decoded: Vec<R>,
    decoded_stats: Vec<[R; 2]>,
    dencoded: Vec<R>,
    ddecoded: Vec<R>,
    /// The output of [`Mae::encode`], `[batch · (1 + visible), dim]`: of each image the class token's, if there is one, then
    /// the visible patches' in the order of [`Input::visible`].
    pub latents: Vec<R>,
    /// The loss's gradient of the latents: what [`Mae::decode_backward`] writes and [`Mae::encode_backward`] reads.
    pub dlatents: Vec<R>,
    /// The output of [`Mae::decode`], `[batch · hidden, patch_len]` in the order of [`Input::hidden`].
    pub predictions: Vec<R>,
    /// The loss's gradient of the predictions: what an objective writes and [`Mae::decode_backward`] reads.
    pub dpredictions: Vec<R>,
}

/// Masked images: what one pass works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, R> {
    /// `[batch, C, H, W]`, normalised.
    pub pixels: &'a [R],
    /// The places of the visible patches `[batch, visible]`.
    pub visible: &'a [u32],
    /// The places of the patches to predict `[batch, hidden]`. The full decoder knows no others.
    pub hidden: &'a [u32],
    /// Number of images.
    pub batch: usize,
    /// As in the classifier's [`Input`](super::classifier::Input).
    pub batch_weight: Option<f64>,
}

impl<'a, R> Input<'a, R> {
    /// Images `from..to`.
    pub fn slice(&self, from: usize, to: usize) -> Input<'a, R> {
        let part = |len: usize| from * len / self.batch..to * len / self.batch;
        Input {
            pixels: &self.pixels[part(self.pixels.len())],
            visible: &self.visible[part(self.visible.len())],
            hidden: &self.hidden[part(self.hidden.len())],
            batch: to - from,
            batch_weight: self.batch_weight,
        }
    }

    fn encoder(&self, class_tokens: usize) -> encoder::Input<'a, R> {
        encoder::Input {
            pixels: self.pixels,
            visible: self.visible,
            batch: self.batch,
            queries: 0..self.visible.len() / self.batch + class_tokens,
            drop: None,
            batch_weight: self.batch_weight,
        }
    }

    fn decoder<'b>(&self, latents: &'b [R]) -> decoder::Input<'b, R>
    where
        'a: 'b,
    {
        decoder::Input { latents, visible: self.visible, hidden: self.hidden, batch: self.batch }
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
            decoder_norm: LayerNorm::find(&layout, "decoder_norm")?,
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

    fn encoder_input<'a, R>(&self, input: Input<'a, R>) -> encoder::Input<'a, R> {
        input.encoder(self.config.encoder.class_tokens())
    }

    /// Encoder and norm: computes `acts.latents` `[batch · (1 + visible), dim]`, without the 1 behind convolutions.
    pub fn encode<R: Float>(&self, params: &[R], input: Input<'_, R>, acts: &mut Activations<R>) {
        self.encoder.forward(params, &self.encoder_input(input), &mut acts.encoder);
        let encoded = acts.encoder.output();
        resize_buffer(&mut acts.latents, encoded.len());
        resize_buffer(&mut acts.stats, encoded.len() / self.config.encoder.dim);
        self.norm.forward(params, encoded, &mut acts.latents, &mut acts.stats);
    }

    /// Decoder, norm and the last layer, after [`Mae::encode`]: computes `acts.predictions` `[batch · hidden, patch_len]`.
    pub fn decode<R: Float>(&self, params: &[R], input: Input<'_, R>, acts: &mut Activations<R>) {
        let rows = input.hidden.len();
        self.decoder.forward(params, input.decoder(&acts.latents), &mut acts.decoder);
        resize_buffer(&mut acts.decoded, rows * self.decoder.dim());
        resize_buffer(&mut acts.decoded_stats, rows);
        resize_buffer(&mut acts.predictions, rows * self.predict.outputs());
        self.decoder_norm.forward(params, acts.decoder.output(), &mut acts.decoded, &mut acts.decoded_stats);
        self.predict.forward(params, &acts.decoded, &mut acts.predictions);
    }

    /// The backward pass of [`Mae::decode`]: from `acts.dpredictions` to `acts.dlatents`, which it overwrites. Adds the
    /// gradients of the decoder's tensors.
    pub fn decode_backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) {
        self.predict.backward_params(&acts.decoded, &acts.dpredictions, grads);
        self.predict.backward_input(params, &acts.dpredictions, &mut acts.decoded);
        let (output, dnormed) = (acts.decoder.output(), &acts.decoded);
        resize_buffer(&mut acts.ddecoded, output.len());
        acts.ddecoded.fill(R::ZERO);
        self.decoder_norm.backward(params, output, &acts.decoded_stats, dnormed, &mut acts.ddecoded, grads);
        resize_buffer(&mut acts.dlatents, acts.latents.len());
        let (dx, dlatents) = (&mut acts.ddecoded, &mut acts.dlatents);
        self.decoder.backward(params, input.decoder(&acts.latents), &mut acts.decoder, dx, dlatents, grads);
    }

    /// The backward pass of [`Mae::encode`], from `acts.dlatents`. Adds the gradients of the encoder's tensors.
    pub fn encode_backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) {
        let output = acts.encoder.output();
        resize_buffer(&mut acts.dencoded, output.len());
        acts.dencoded.fill(R::ZERO);
        self.norm.backward(params, output, &acts.stats, &acts.dlatents, &mut acts.dencoded, grads);
        self.encoder.backward(
            params,
            &self.encoder_input(input),
            &mut acts.encoder,
            &mut acts.dencoded,
            grads,
        );
    }

    /// The whole forward pass: predicted pixels `[batch · hidden, patch_len]`, each patch in the order (row, column,
    /// channel).
    pub fn predict<'s, R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &'s mut Activations<R>,
    ) -> &'s [R] {
        self.encode(params, input, acts);
        self.decode(params, input, acts);
        &acts.predictions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, TOLERANCE, dot, values};
    use smalti_models::{DecoderConfig, DecoderKind as Kind, VitConfig};

    const FIXED: [&str; 2] = ["pos_embed", "decoder_pos_embed"];
    /// Three images of nine patches.
    const VISIBLE: [u32; 12] = [4, 0, 7, 2, 8, 1, 3, 5, 6, 2, 0, 1];
    const HIDDEN: [u32; 15] = [1, 8, 3, 5, 6, 0, 2, 7, 4, 6, 3, 8, 5, 7, 4];
    /// The first three hidden patches of each.
    const FEW_HIDDEN: [u32; 9] = [1, 8, 3, 0, 2, 7, 3, 8, 5];

    /// A model, a point to differentiate at, images, and the patches to predict.
    struct Case {
        mae: Mae,
        params: Vec<f64>,
        pixels: Vec<f64>,
        hidden: &'static [u32],
    }

    impl Case {
        fn new(kind: Kind) -> Case {
            let full = kind == Kind::Full;
            let depth = if full { 1 } else { 2 };
            let config = MaeConfig {
                encoder: VitConfig {
                    img_size: 6,
                    patch_size: 2,
                    channels: 3,
                    dim: 12,
                    depth: 2,
                    heads: 3,
                    stem: Default::default(),
                    variant: Default::default(),
                },
                decoder: DecoderConfig { kind, dim: 8, depth, heads: 2 },
            };
            let mae = Mae::new(&config).unwrap();
            let noise = values(mae.layout().len(), 4);
            let params = mae.layout().init::<f64>(3).iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect();
            let hidden = if full { &HIDDEN[..] } else { &FEW_HIDDEN };
            Case { mae, params, pixels: values(3 * 3 * 36, 2), hidden }
        }

        fn input(&self) -> Input<'_, f64> {
            Input {
                pixels: &self.pixels,
                visible: &VISIBLE,
                hidden: self.hidden,
                batch: 3,
                batch_weight: None,
            }
        }

        /// An arbitrary gradient of the predictions.
        fn pull(&self) -> Vec<f64> {
            values(self.hidden.len() * 12, 8)
        }

        /// Predictions times `pull`.
        fn loss(&self, params: &[f64], pull: &[f64]) -> f64 {
            dot(self.mae.predict(params, self.input(), &mut Activations::default()), pull)
        }

        /// The gradient of [`Case::loss`].
        fn gradient(&self, params: &[f64], pull: &[f64], grads: &mut Grads<'_, f64>) {
            let mut acts = Activations::default();
            self.mae.predict(params, self.input(), &mut acts);
            acts.dpredictions = pull.to_vec();
            self.mae.decode_backward(params, self.input(), &mut acts, grads);
            self.mae.encode_backward(params, self.input(), &mut acts, grads);
        }

        fn check(&self) -> Check<'_> {
            Check::at(self.mae.layout(), self.params.clone()).skip(&FIXED)
        }
    }

    #[test]
    fn gradients_of_predictions_match_finite_differences() {
        for kind in [Kind::Full, Kind::Cross] {
            let case = Case::new(kind);
            let pull = case.pull();
            case.check()
                .run(|p| case.loss(p, &pull), |p, grads| case.gradient(p, &pull, &mut Grads::new(grads)));
        }
    }

    #[test]
    fn gradients_of_latents_match_finite_differences() {
        let case = Case::new(Kind::Full);
        let (mae, input, pull) = (&case.mae, case.input(), values(3 * 5 * 12, 9));
        let latents = |p: &[f64], acts: &mut Activations<f64>| {
            mae.encode(p, input, acts);
            dot(&acts.latents, &pull)
        };
        case.check().run(
            |p| latents(p, &mut Activations::default()),
            |p, grads| {
                let mut acts = Activations::default();
                latents(p, &mut acts);
                acts.dlatents = pull.clone();
                mae.encode_backward(p, input, &mut acts, &mut Grads::new(grads));
                let decoder = mae.layout().iter().filter(|(spec, _)| spec.name.contains("decoder"));
                decoder.for_each(|(_, slot)| assert!(slot.of(grads).iter().all(|g| *g == 0.0)));
            },
        );
    }

    #[test]
    fn gradients_of_predictions_and_latents_together_match_finite_differences() {
        for kind in [Kind::Full, Kind::Cross] {
            let case = Case::new(kind);
            let (mae, input) = (&case.mae, case.input());
            let (pull, latent_pull) = (case.pull(), values(3 * 5 * 12, 9));
            let loss = |p: &[f64], acts: &mut Activations<f64>| {
                dot(mae.predict(p, input, acts), &pull) + dot(&acts.latents, &latent_pull)
            };
            case.check().run(
                |p| loss(p, &mut Activations::default()),
                |p, grads| {
                    let (mut acts, mut grads) = (Activations::default(), Grads::new(grads));
                    loss(p, &mut acts);
                    acts.dpredictions = pull.clone();
                    mae.decode_backward(p, input, &mut acts, &mut grads);
                    acts.dlatents.iter_mut().zip(&latent_pull).for_each(|(d, pull)| *d += pull);
                    mae.encode_backward(p, input, &mut acts, &mut grads);
                },
            );
        }
    }

    #[test]
    fn a_planted_error_is_caught_and_named() {
        let case = Case::new(Kind::Full);
        let (pull, spoiled) = (case.pull(), "blocks.1.norm2.weight");
        let (error, name) = case.check().worst(
            |p| case.loss(p, &pull),
            |p, grads| {
                case.gradient(p, &pull, &mut Grads::new(grads));
                case.mae.layout().slot(spoiled).unwrap().of_mut(grads).iter_mut().for_each(|g| *g *= 1.0001);
            },
        );
        assert!(error > 10.0 * TOLERANCE, "{error:e}");
        assert_eq!(name, spoiled);
    }

    #[test]
    fn gradients_are_complete_from_where_the_handle_says() {
        for kind in [Kind::Full, Kind::Cross] {
            let case = Case::new(kind);
            let (mut values, mut ready) = (vec![0.0; case.params.len()], Vec::new());
            let mut listen = |start: usize, values: &[f64]| ready.push((start, values[start..].to_vec()));
            let mut grads = Grads::with_listener(&mut values, &mut listen);
            case.gradient(&case.params, &case.pull(), &mut grads);
            let config = case.mae.config();
            assert_eq!(ready.len(), config.encoder.depth + config.decoder.depth);
            assert!(ready.is_sorted_by(|a, b| a.0 > b.0));
            assert!(ready.iter().all(|(start, complete)| values[*start..] == complete[..]), "{kind:?}");
        }
    }

    #[test]
    fn hidden_patches_do_not_see_each_other_in_the_cross_decoder() {
        let case = Case::new(Kind::Cross);
        let (len, mut acts) = (12, Activations::default());
        let all = case.mae.predict(&case.params, case.input(), &mut acts).to_vec();
        let hidden: Vec<u32> = FEW_HIDDEN.iter().step_by(3).copied().collect();
        let one = case.mae.predict(&case.params, Input { hidden: &hidden, ..case.input() }, &mut acts);
        for (one, all) in one.chunks(len).zip(all.chunks(3 * len)) {
            assert!(one.iter().zip(all).all(|(one, all)| (one - all).abs() < 1e-12));
        }
    }
}
