//! The two losses: squared error on hidden patches, cross-entropy against soft targets.

use super::Float;

/// Squared error, mean over a patch, times `weight`: returns `weight · Σ_patches mean((pred - target)²)` and turns
/// `pred` `[patches, patch_len]` into its gradient.
pub fn squared_error<R: Float>(pred: &mut [R], target: &[R], patch_len: usize, weight: f64) -> f64 {
    let each = weight / patch_len as f64;
    let slope = R::of(2.0 * each);
    let mut sum = 0.0;
    for (pred, target) in pred.chunks_exact_mut(patch_len).zip(target.chunks_exact(patch_len)) {
        // One short f32-friendly sum a patch, then f64 over patches.
        let mut patch = R::ZERO;
        for (pred, &target) in pred.iter_mut().zip(target) {
            let off = *pred - target;
            patch = patch + off * off;
            *pred = slope * off;
        }
        sum += patch.wide();
    }
    sum * each
}

/// Cross-entropy of `softmax(logits)` against soft targets `[rows, classes]` that each sum to 1: returns
/// `weight · Σ_rows` and turns `logits` into their gradient.
pub fn cross_entropy<R: Float>(logits: &mut [R], targets: &[R], classes: usize, weight: f64) -> f64 {
    let mut sum = 0.0;
    for (logits, targets) in logits.chunks_exact_mut(classes).zip(targets.chunks_exact(classes)) {
        let top = logits.iter().fold(f64::NEG_INFINITY, |top, x| top.max(x.wide()));
        let total: f64 = logits.iter().map(|x| (x.wide() - top).exp()).sum();
        let log_total = total.ln() + top;
        let mass: f64 = targets.iter().map(|t| t.wide()).sum();
        for (logit, target) in logits.iter_mut().zip(targets) {
            let log_p = logit.wide() - log_total;
            sum -= target.wide() * log_p;
            *logit = R::of(weight * (mass * log_p.exp() - target.wide()));
        }
    }
    sum * weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, layout, values};

    #[test]
    fn squared_error_gradient() {
        let layout = layout(&[("pred", &[4, 6])]);
        let target = values(24, 3);
        Check::new(&layout).run(
            |p| squared_error(&mut p.to_vec(), &target, 6, 0.25),
            |p, grads| {
                grads.copy_from_slice(p);
                squared_error(grads, &target, 6, 0.25);
            },
        );
    }

    #[test]
    fn cross_entropy_gradient() {
        let layout = layout(&[("logits", &[3, 4])]);
        let targets = [0.7, 0.1, 0.1, 0.1, 0.0, 1.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25];
        Check::new(&layout).run(
            |p| cross_entropy(&mut p.to_vec(), &targets, 4, 1.0 / 3.0),
            |p, grads| {
                grads.copy_from_slice(p);
                cross_entropy(grads, &targets, 4, 1.0 / 3.0);
            },
        );
    }

    #[test]
    fn cross_entropy_of_even_odds_is_the_log_of_the_classes() {
        let loss = cross_entropy(&mut [5.0f32, 5.0, 5.0, 5.0], &[0.0, 1.0, 0.0, 0.0], 4, 1.0);
        assert!((loss - 4f64.ln()).abs() < 1e-6);
        let huge = cross_entropy(&mut [1e30f32, -1e30], &[1.0, 0.0], 2, 1.0);
        assert_eq!(huge, 0.0);
    }
}
