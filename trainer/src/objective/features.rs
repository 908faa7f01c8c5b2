//! What a student says against what its teacher says: distance and direction, of embeddings and of tokens.

use crate::model::classifier::Input;
use crate::model::grads::Grads;
use crate::model::ops::Float;
use crate::model::student::{Activations, Student};

/// `weight · Σ_images (d(embedding, target) + mean over tokens of d(token, target))` with
/// `d(x, t) = 1 - cos(x, t) + mean over values of smooth L1(x - t)`.
///
/// Cosine next to a smooth L1 distance, of embeddings and of tokens, is the loss of AM-RADIO (arXiv 2312.06709, section 3.3) and
/// UNIC (arXiv 2408.05088). Smooth L1 is `x² / 2` up to 1 and `|x| - 1/2` beyond (arXiv 1504.08083, equation 3).
#[derive(Clone, Copy, Debug)]
pub struct FeatureLoss<'a, R> {
    /// `[batch, width + tokens · token values]`: of each image the embedding, then its tokens if the student has a projection
    /// for them; centred and of standard deviation about 1.
    pub targets: &'a [R],
    /// The factor on each image's loss: 1 / images of the batch for a mean.
    pub weight: f64,
}

impl<R: Float> FeatureLoss<'_, R> {
    /// The loss of these images. Leaves its gradient in `acts`.
    pub fn loss(
        &self,
        student: &Student,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
    ) -> f64 {
        student.forward(params, input, acts);
        let (width, values) = (student.width(), student.token_values());
        let of_tokens = acts.tokens.len() / input.batch;
        let weight_of_token = self.weight / (of_tokens / values.max(1)).max(1) as f64;
        let mut sum = 0.0;
        for (i, target) in self.targets.chunks_exact(width + of_tokens).enumerate() {
            let (embedding, tokens) = target.split_at(width);
            let (row, rows) = (i * width..(i + 1) * width, i * of_tokens..(i + 1) * of_tokens);
            let of_embeddings = &mut acts.classifier;
            let (x, dx) = (&of_embeddings.logits[row.clone()], &mut of_embeddings.dlogits[row]);
            sum += distance(x, embedding, width, self.weight, dx);
            if values > 0 {
                let (x, dx) = (&acts.tokens[rows.clone()], &mut acts.dtokens[rows]);
                sum += distance(x, tokens, values, weight_of_token, dx);
            }
        }
        sum
    }

    /// [`FeatureLoss::loss`], and its gradients added to `grads`.
    pub fn gradient(
        &self,
        student: &Student,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) -> f64 {
        let loss = self.loss(student, params, input, acts);
        student.backward(params, input, acts, grads);
        loss
    }
}

/// The loss of `rows` against `targets`, both `[rows, width]`, summed over rows, times `weight`. Writes its gradient to
/// `drows`.
pub fn distance<R: Float>(rows: &[R], targets: &[R], width: usize, weight: f64, drows: &mut [R]) -> f64 {
    let mut sum = 0.0;
    let pairs = rows.chunks_exact(width).zip(targets.chunks_exact(width));
    for ((row, target), drow) in pairs.zip(drows.chunks_exact_mut(width)) {
        let dot = |a: &[R], b: &[R]| a.iter().zip(b).map(|(a, b)| a.wide() * b.wide()).sum::<f64>();
        let (length, of_target) = (dot(row, row).sqrt().max(1e-12), dot(target, target).sqrt().max(1e-12));
        let cosine = dot(row, target) / (length * of_target);
        sum += 1.0 - cosine;
        for ((x, t), dx) in row.iter().zip(target).zip(drow) {
            let (x, t) = (x.wide(), t.wide());
            let apart = x - t;
            sum += if apart.abs() < 1.0 { 0.5 * apart * apart } else { apart.abs() - 0.5 } / width as f64;
            let along = (cosine * x / length - t / of_target) / length;
            *dx = R::of(weight * (along + apart.clamp(-1.0, 1.0) / width as f64));
        }
    }
    sum * weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, layout, values};
    use crate::model::precision::Precision;
    use crate::objective::mask::Mask;
    use smalti_models::VitConfig;

    /// Four patches of a grey image.
    fn tiny() -> VitConfig {
        VitConfig {
            img_size: 4,
            patch_size: 2,
            channels: 1,
            dim: 8,
            depth: 1,
            heads: 2,
            stem: Default::default(),
            variant: Default::default(),
        }
    }

    #[test]
    fn gradients_of_rows_match_finite_differences() {
        let layout = layout(&[("rows", &[4, 5])]);
        // Some differences above 1, where smooth L1 is a line.
        let targets: Vec<f64> = values(20, 3).iter().map(|x| 3.0 * x).collect();
        Check::new(&layout).run(
            |p| distance(p, &targets, 5, 0.25, &mut [0.0; 20]),
            |p, grads| {
                distance(p, &targets, 5, 0.25, grads);
            },
        );
    }

    /// With tokens and without.
    #[test]
    fn gradients_of_a_student_match_finite_differences() {
        let patches = VitConfig { channels: 3, dim: 12, depth: 2, heads: 3, ..tiny() };
        for token_values in [0, 5] {
            let (pixels, targets) = (values(2 * 3 * 16, 2), values(2 * (7 + 4 * token_values), 5));
            let objective = FeatureLoss { targets: &targets, weight: 0.5 };
            let student = Student::new(&patches, 7, token_values, Precision::F32).unwrap();
            let noise = values(student.layout().len(), 4);
            let start = student.layout().init::<f64>(3);
            let params = start.iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect();
            let visible = Mask::none(2, 4).visible;
            let input =
                Input { pixels: &pixels, visible: &visible, drop: None, batch: 2, batch_weight: None };
            Check::at(student.layout(), params).run(
                |p| objective.loss(&student, p, input, &mut Activations::default()),
                |p, grads| {
                    let (mut acts, mut grads) = (Activations::default(), Grads::new(grads));
                    objective.gradient(&student, p, input, &mut acts, &mut grads);
                },
            );
        }
    }

    /// The embedding's part and the mean of the tokens' parts.
    #[test]
    fn the_loss_is_the_sum_of_its_parts() {
        let vit = tiny();
        let student = Student::new(&vit, 3, 2, Precision::F32).unwrap();
        let params: Vec<f64> = values(student.layout().len(), 1);
        let (pixels, visible) = (values(16, 2), Mask::none(1, 4).visible);
        let input = Input { pixels: &pixels, visible: &visible, drop: None, batch: 1, batch_weight: None };
        let (targets, mut acts) = (values(3 + 4 * 2, 3), Activations::default());
        let loss = FeatureLoss { targets: &targets, weight: 1.0 }.loss(&student, &params, input, &mut acts);
        let of_embedding = distance(&acts.classifier.logits, &targets[..3], 3, 1.0, &mut [0.0; 3]);
        let of_tokens = distance(&acts.tokens, &targets[3..], 2, 1.0, &mut [0.0; 8]) / 4.0;
        assert!((loss - of_embedding - of_tokens).abs() < 1e-12, "{loss} {of_embedding} {of_tokens}");
    }

    #[test]
    fn a_student_that_says_the_same_has_no_loss() {
        let (rows, mut drows) = ([1.0f32, -2.0, 0.5, 0.0], [9.0; 4]);
        assert!(distance(&rows, &rows, 4, 1.0, &mut drows).abs() < 1e-9);
        assert!(drows.iter().all(|x| x.abs() < 1e-6), "{drows:?}");
        let zeros = distance(&[0.0f32; 4], &rows, 4, 1.0, &mut drows);
        assert!(zeros.is_finite() && drows.iter().all(|x| x.is_finite()));
    }
}
