//! Pixels of the hidden patches, predicted by a masked autoencoder (arXiv 2111.06377, section 3).
//!
//! Targets are patches in the order of the reference code, (row, column, channel).

use smalti_kernels::Real;
use smalti_models::VitConfig;

use crate::clock::{self, Op};
use crate::model::grads::Grads;
use crate::model::mae::{Activations, Input, Mae};
use crate::model::ops::{Float, resize_buffer};

/// Added to the variance of normalised targets (the reference code's).
const TARGET_EPS: f64 = 1e-6;

/// `weight · Σ_patches mean((prediction - target)²)` over the hidden patches.
#[derive(Clone, Copy, Debug)]
pub struct PixelLoss {
    /// Whether each target patch is normalised to mean 0 and variance 1.
    pub normalise: bool,
    /// The factor on each patch's loss: 1 / predicted patches of the batch for a mean.
    pub weight: f64,
}

impl PixelLoss {
    /// The loss of these images. Leaves its gradient in `acts.dpredictions`.
    pub fn loss<R: Float>(
        &self,
        model: &Mae,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
    ) -> f64 {
        model.predict(params, input, acts);
        let vit = &model.config().encoder;
        resize_buffer(&mut acts.dpredictions, acts.predictions.len());
        self.write_targets(vit, input, &mut acts.dpredictions);
        squared_error(&acts.predictions, &mut acts.dpredictions, vit.patch_len(), self.weight)
    }

    /// [`PixelLoss::loss`], and its gradients added to `grads`.
    pub fn gradient<R: Float>(
        &self,
        model: &Mae,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) -> f64 {
        let loss = self.loss(model, params, input, acts);
        model.decode_backward(params, input, acts, grads);
        model.encode_backward(params, input, acts, grads);
        loss
    }

    /// The targets `[batch · hidden, patch_len]`.
    fn write_targets<R: Real>(&self, vit: &VitConfig, input: Input<'_, R>, targets: &mut [R]) {
        let _timer = clock::time(Op::Patches);
        patchify(vit, input.pixels, input.hidden, input.batch, targets);
        if self.normalise {
            for patch in targets.chunks_exact_mut(vit.patch_len()) {
                let (mean, std) = patch_statistics(patch);
                patch.iter_mut().for_each(|x| *x = (*x - mean) / std);
            }
        }
    }
}

/// The mean squared error of each patch, summed over patches, times `weight`. Turns `targets` `[patches, patch_len]` into
/// the gradient of `predictions`.
pub fn squared_error<R: Float>(predictions: &[R], targets: &mut [R], patch_len: usize, weight: f64) -> f64 {
    let each = weight / patch_len as f64;
    let slope = R::of(2.0 * each);
    let mut sum = 0.0;
    for (predictions, targets) in predictions.chunks_exact(patch_len).zip(targets.chunks_exact_mut(patch_len))
    {
        // A short sum in the models' type for each patch, in f64 over patches.
        let mut patch = R::ZERO;
        for (&prediction, target) in predictions.iter().zip(targets) {
            let error = prediction - *target;
            patch = patch + error * error;
            *target = slope * error;
        }
        sum += patch.wide();
    }
    sum * each
}

/// Copies the patches `ids` `[count, each]` of images `[count, C, H, W]` to `rows` `[count · each, patch_len]`.
pub fn patchify<R: Real>(vit: &VitConfig, pixels: &[R], ids: &[u32], count: usize, rows: &mut [R]) {
    let image = vit.channels * vit.img_size * vit.img_size;
    let each = (ids.len() / count.max(1)).max(1);
    for (i, (row, &id)) in rows.chunks_exact_mut(vit.patch_len()).zip(ids).enumerate() {
        let pixels = &pixels[i / each * image..][..image];
        for (j, value) in row.iter_mut().enumerate() {
            *value = pixels[pixel(vit, id, j)];
        }
    }
}

/// The inverse of [`patchify`] for one image: copies `rows` `[ids, patch_len]` to the patches `ids` of `[C, H, W]`.
pub fn unpatchify<R: Real>(vit: &VitConfig, rows: &[R], ids: &[u32], pixels: &mut [R]) {
    for (row, &id) in rows.chunks_exact(vit.patch_len()).zip(ids) {
        for (j, &value) in row.iter().enumerate() {
            pixels[pixel(vit, id, j)] = value;
        }
    }
}

/// Where value `j` of the patch `id` lies in its image `[C, H, W]`.
fn pixel(vit: &VitConfig, id: u32, j: usize) -> usize {
    let (side, grid, size, channels) = (vit.patch_size, vit.grid(), vit.img_size, vit.channels);
    let (top, left) = (id as usize / grid * side, id as usize % grid * side);
    let (y, x, channel) = (j / channels / side, j / channels % side, j % channels);
    (channel * size + top + y) * size + left + x
}

/// Mean and standard deviation (unbiased) of a patch, by which its target is normalised.
pub fn patch_statistics<R: Real>(patch: &[R]) -> (R, R) {
    let n = patch.len() as f64;
    let mean = patch.iter().map(|x| x.wide()).sum::<f64>() / n;
    let squares = patch.iter().map(|x| (x.wide() - mean) * (x.wide() - mean)).sum::<f64>();
    let variance = squares / (n - 1.0).max(1.0);
    (R::of(mean), R::of((variance + TARGET_EPS).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, layout, values};
    use crate::objective::mask::Mask;
    use smalti_models::{DecoderConfig, DecoderKind as Kind, MaeConfig};

    const FIXED: [&str; 2] = ["pos_embed", "decoder_pos_embed"];

    fn vit() -> VitConfig {
        VitConfig {
            img_size: 6,
            patch_size: 3,
            channels: 2,
            dim: 4,
            depth: 1,
            heads: 1,
            stem: Default::default(),
            variant: Default::default(),
        }
    }

    #[test]
    fn gradients_of_predictions_match_finite_differences() {
        let layout = layout(&[("predictions", &[4, 6])]);
        let targets = values(24, 3);
        Check::new(&layout).run(
            |p| squared_error(p, &mut targets.clone(), 6, 0.25),
            |p, grads| {
                grads.copy_from_slice(&targets);
                squared_error(p, grads, 6, 0.25);
            },
        );
    }

    /// A model, a point to differentiate at, images and a mask.
    fn case(kind: Kind) -> (Mae, Vec<f64>, Vec<f64>, Mask) {
        let depth = if kind == Kind::Full { 1 } else { 2 };
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
        // Five patches are hidden; the cross decoder predicts three of them.
        let mask = Mask::draw(1, 0, &[0, 1, 2], 9, 4);
        let mask = if kind == Kind::Full { mask } else { mask.predicting(3, 3) };
        (mae, params, values(3 * 3 * 36, 2), mask)
    }

    #[test]
    fn gradients_of_an_autoencoder_match_finite_differences() {
        for (kind, normalise) in [(Kind::Full, true), (Kind::Full, false), (Kind::Cross, true)] {
            let (mae, params, pixels, mask) = case(kind);
            let input = mask.input(&pixels, 3);
            let objective = PixelLoss { normalise, weight: 1.0 / 15.0 };
            Check::at(mae.layout(), params).skip(&FIXED).run(
                |p| objective.loss(&mae, p, input, &mut Activations::default()),
                |p, grads| {
                    let (mut acts, mut grads) = (Activations::default(), Grads::new(grads));
                    objective.gradient(&mae, p, input, &mut acts, &mut grads);
                },
            );
        }
    }

    #[test]
    fn slices_add_up_to_the_batch() {
        for kind in [Kind::Full, Kind::Cross] {
            let (mae, params, pixels, mask) = case(kind);
            let (input, mut acts) = (mask.input(&pixels, 3), Activations::default());
            let objective = PixelLoss { normalise: true, weight: 0.1 };
            let mut run = |from, to, grads: &mut [f64]| {
                let input = input.slice(from, to);
                objective.gradient(&mae, &params, input, &mut acts, &mut Grads::new(grads))
            };
            let (mut whole, mut slices) = (vec![0.0; params.len()], vec![0.0; params.len()]);
            let loss = run(0, 3, &mut whole);
            let losses = run(0, 2, &mut slices) + run(2, 3, &mut slices);
            assert!((loss - losses).abs() < 1e-12);
            assert!(whole.iter().zip(&slices).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn patches_have_the_order_of_the_reference_code() {
        let vit = vit();
        let pixels: Vec<f64> = (0..2 * 72).map(f64::from).collect();
        let ids = [3, 1, 0, 2];
        let mut rows = vec![0.0; 4 * 18];
        patchify(&vit, &pixels, &ids, 2, &mut rows);
        for (i, &id) in ids.iter().enumerate() {
            for (channel, y, x) in (0..2).flat_map(|c| (0..9).map(move |p| (c, p / 3, p % 3))) {
                let (top, left) = (id as usize / 2 * 3, id as usize % 2 * 3);
                let want = pixels[((i / 2 * 2 + channel) * 6 + top + y) * 6 + left + x];
                assert_eq!(rows[i * 18 + (y * 3 + x) * 2 + channel], want);
            }
        }
    }

    #[test]
    fn unpatchify_inverts_patchify() {
        let vit = vit();
        let pixels: Vec<f64> = (0..72).map(f64::from).collect();
        let ids = [0, 1, 2, 3];
        let (mut rows, mut back) = (vec![0.0; 72], vec![0.0; 72]);
        patchify(&vit, &pixels, &ids, 1, &mut rows);
        unpatchify(&vit, &rows, &ids, &mut back);
        assert_eq!(back, pixels);
    }

    #[test]
    fn normalised_targets_have_unit_unbiased_variance() {
        let pixels: Vec<f64> = (0..72).map(|i| f64::from(i * i % 17)).collect();
        let mut rows = vec![0.0; 18];
        let input = Input { pixels: &pixels, visible: &[0], hidden: &[2], batch: 1, batch_weight: None };
        PixelLoss { normalise: true, weight: 1.0 }.write_targets(&vit(), input, &mut rows);
        let mean = rows.iter().sum::<f64>() / 18.0;
        let variance = rows.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 17.0;
        assert!(mean.abs() < 1e-12 && (variance - 1.0).abs() < 1e-5);
    }
}
