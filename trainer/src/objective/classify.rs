//! Cross-entropy of a classifier's logits against soft targets (mixup, CutMix, label smoothing).

use crate::model::classifier::{Activations, Classifier, Input};
use crate::model::grads::Grads;
use crate::model::ops::Float;

/// `weight · Σ_images -Σ_classes target · log softmax(logits)`.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a, R> {
    /// `[batch, classes]`; each row sums to 1.
    pub targets: &'a [R],
    /// The factor on each image's loss: 1 / images of the batch for a mean.
    pub weight: f64,
}

impl<R: Float> CrossEntropy<'_, R> {
    /// The loss of these images. Leaves its gradient in `acts.dlogits`.
    pub fn loss(
        &self,
        model: &Classifier,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
    ) -> f64 {
        model.compare(params, input, acts, |logits, dlogits| {
            cross_entropy(logits, self.targets, model.classes(), self.weight, dlogits)
        })
    }

    /// [`CrossEntropy::loss`], and its gradients added to `grads`.
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

/// Cross-entropy of `softmax(logits)` `[rows, classes]` against `targets` `[rows, classes]`, summed over rows, times
/// `weight`. Writes its gradient to `dlogits`.
pub fn cross_entropy<R: Float>(
    logits: &[R],
    targets: &[R],
    classes: usize,
    weight: f64,
    dlogits: &mut [R],
) -> f64 {
    let mut sum = 0.0;
    let rows = logits.chunks_exact(classes).zip(targets.chunks_exact(classes));
    for ((logits, targets), dlogits) in rows.zip(dlogits.chunks_exact_mut(classes)) {
        let top = logits.iter().fold(f64::NEG_INFINITY, |top, x| top.max(x.wide()));
        let total: f64 = logits.iter().map(|x| (x.wide() - top).exp()).sum();
        let log_total = total.ln() + top;
        let mass: f64 = targets.iter().map(|t| t.wide()).sum();
        for ((logit, target), dlogit) in logits.iter().zip(targets).zip(dlogits) {
            let log_p = logit.wide() - log_total;
            sum -= target.wide() * log_p;
            *dlogit = R::of(weight * (mass * log_p.exp() - target.wide()));
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

    const TARGETS: [f64; 9] = [0.7, 0.1, 0.2, 0.0, 1.0, 0.0, 0.3, 0.3, 0.4];

    #[test]
    fn gradients_of_logits_match_finite_differences() {
        let layout = layout(&[("logits", &[3, 3])]);
        Check::new(&layout).run(
            |p| cross_entropy(p, &TARGETS, 3, 1.0 / 3.0, &mut [0.0; 9]),
            |p, grads| {
                cross_entropy(p, &TARGETS, 3, 1.0 / 3.0, grads);
            },
        );
    }

    #[test]
    fn gradients_of_a_classifier_match_finite_differences() {
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
        let pixels = values(3 * 3 * 16, 2);
        let factors = [2.0, 0.0, 1.0, 1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 2.0, 2.0, 0.0];
        let objective = CrossEntropy { targets: &TARGETS, weight: 1.0 / 3.0 };
        for pool in [Pooling::Token, Pooling::Mean] {
            let model = Classifier::new(&vit, 3, pool).unwrap();
            let noise = values(model.layout().len(), 4);
            let params: Vec<f64> =
                model.layout().init::<f64>(3).iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect();
            for (patches, drop) in [(4, None), (3, Some(&factors[..]))] {
                let visible = Mask::draw(1, 0, &[0, 1, 2], 4, patches).visible;
                let input = Input { pixels: &pixels, visible: &visible, drop, batch: 3, batch_weight: None };
                Check::at(model.layout(), params.clone()).run(
                    |p| objective.loss(&model, p, input, &mut Activations::default()),
                    |p, grads| {
                        let (mut acts, mut grads) = (Activations::default(), Grads::new(grads));
                        objective.gradient(&model, p, input, &mut acts, &mut grads);
                    },
                );
            }
        }
    }

    #[test]
    fn equal_logits_give_the_log_of_the_classes() {
        let mut dlogits = [0.0; 4];
        let loss = cross_entropy(&[5.0f32; 4], &[0.0, 1.0, 0.0, 0.0], 4, 1.0, &mut dlogits);
        assert!((loss - 4f64.ln()).abs() < 1e-6);
        assert_eq!(dlogits, [0.25, -0.75, 0.25, 0.25]);
        let huge = cross_entropy(&[1e30f32, -1e30], &[1.0, 0.0], 2, 1.0, &mut dlogits[..2]);
        assert_eq!((huge, &dlogits[..2]), (0.0, &[0.0, 0.0][..]));
    }
}
