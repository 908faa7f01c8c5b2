//! A student's projected embedding against a teacher's: distance and direction.

use crate::model::classifier::{Activations, Classifier, Input};
use crate::model::grads::Grads;
use crate::model::ops::Float;

/// `weight · Σ_images (1 - cos(student, target) + mean over values of smooth L1(student - target))`.
///
/// The student is a [`Classifier`] whose head projects embeddings to the teacher's width; the projection is dropped after
/// training. Cosine next to a smooth L1 distance is the summary loss of AM-RADIO (arXiv 2312.06709, section 3.3) and UNIC
/// (arXiv 2408.05088). Smooth L1 is `x² / 2` up to 1 and `|x| - 1/2` beyond (arXiv 1504.08083, equation 3).
#[derive(Clone, Copy, Debug)]
pub struct FeatureLoss<'a, R> {
    /// `[batch, width]`, centred and of standard deviation about 1.
    pub targets: &'a [R],
    /// The factor on each image's loss: 1 / images of the batch for a mean.
    pub weight: f64,
}

impl<R: Float> FeatureLoss<'_, R> {
    /// The loss of these images. Leaves its gradient in `acts.dlogits`.
    pub fn loss(
        &self,
        model: &Classifier,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
    ) -> f64 {
        model.compare(params, input, acts, |logits, dlogits| {
            distance(logits, self.targets, model.classes(), self.weight, dlogits)
        })
    }

    /// [`FeatureLoss::loss`], and its gradients added to `grads`.
    pub fn gradient(
        &self,
        model: &Classifier,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) -> f64 {
        let loss = self.loss(model, params, input, acts);
        model.backward(params, input, acts, grads);
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
    use crate::objective::mask::Mask;
    use smalti_models::{Pooling, VitConfig};

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

    #[test]
    fn gradients_of_a_student_match_finite_differences() {
        let vit = VitConfig {
            img_size: 4,
            patch_size: 2,
            channels: 3,
            dim: 12,
            depth: 2,
            heads: 3,
            stem: Default::default(),
            variant: Default::default(),
        };
        let (pixels, targets) = (values(2 * 3 * 16, 2), values(2 * 7, 5));
        let objective = FeatureLoss { targets: &targets, weight: 0.5 };
        let model = Classifier::new(&vit, 7, Pooling::Mean).unwrap();
        let noise = values(model.layout().len(), 4);
        let params = model.layout().init::<f64>(3).iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect();
        let visible = Mask::none(2, 4).visible;
        let input = Input { pixels: &pixels, visible: &visible, drop: None, batch: 2, batch_weight: None };
        Check::at(model.layout(), params).run(
            |p| objective.loss(&model, p, input, &mut Activations::default()),
            |p, grads| {
                let (mut acts, mut grads) = (Activations::default(), Grads::new(grads));
                objective.gradient(&model, p, input, &mut acts, &mut grads);
            },
        );
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
