//! The gate: what quantization may cost, and what it does cost.

use serde::Serialize;

use crate::compare::Comparison;

/// The points of accuracy that may be lost, where images have labels.
pub const POINTS: f64 = 0.005;
/// The share of images whose answer may change, where they have none.
pub const FLIPS: f64 = 0.01;
/// The least mean cosine between the vectors of both models, where images have no labels.
pub const COSINE: f64 = 0.98;

/// What may be lost, by the kind of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Accuracy that may be lost, as a share of 1; for images with labels.
    pub points: f64,
    /// The share of answers that may change; for images without labels.
    pub flips: f64,
    /// The least mean cosine between the models' vectors; for images without labels.
    pub cosine: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { points: POINTS, flips: FLIPS, cosine: COSINE }
    }
}

impl Budget {
    /// The same share for both kinds of images.
    pub fn of(share: f64) -> Budget {
        Budget { points: share, flips: share, cosine: COSINE }
    }

    /// What a comparison of the float model with the quantized one exceeds; none if it holds.
    pub fn exceeded(&self, found: &Comparison) -> Option<String> {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        // Shares of whole images: not to fail by the last bit of a difference.
        let slack = 1e-9;
        if let (Some(float), Some(int8)) = (found.accuracy_a, found.accuracy_b) {
            let lost = float - int8;
            return (lost > self.points + slack).then(|| {
                let (float, int8, points) = (percent(float), percent(int8), 100.0 * self.points);
                format!(
                    "accuracy falls from {float} to {int8}, by {:.2} points, the budget is {points:.2}",
                    100.0 * lost
                )
            });
        }
        let changed = 1.0 - found.agreement;
        if changed > self.flips + slack {
            let (changed, budget) = (percent(changed), percent(self.flips));
            return Some(format!("{changed} of the answers change, the budget is {budget}"));
        }
        (found.cosine < self.cosine).then(|| {
            let (kind, cosine) = (found.cosine_of, found.cosine);
            format!("the mean cosine of the {kind} is {cosine:.4}, at least {} is needed", self.cosine)
        })
    }
}

/// How many layers stay float in try number `i`, the ones with most noise first: 0, 1, 2, 3, 4, 6, 9, 13, ...
pub(super) fn kept_float(i: usize) -> usize {
    (0..i).fold(0, |kept, _| kept + (kept / 2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::of_outputs;
    use crate::samples::Sample;
    use smalti_runtime::session::Output;

    fn comparison(float: &[usize], int8: &[usize], classes: &[Option<usize>]) -> Comparison {
        let outputs = |best: &[usize]| {
            let logits = |&best: &usize| (0..2).map(|class| f32::from(u8::from(class == best))).collect();
            best.iter()
                .map(|best| Ok(Output { logits: logits(best), embedding: Some(vec![1.0]), tokens: None }))
                .collect()
        };
        let samples: Vec<_> = classes.iter().map(|&class| Sample::file("x".into(), class)).collect();
        let labels = ["a".to_owned(), "b".to_owned()];
        of_outputs(&labels, &samples, &outputs(float), &outputs(int8)).unwrap()
    }

    #[test]
    fn with_labels_only_lost_points_count() {
        let classes = [Some(0), Some(1), Some(0), Some(1)];
        let found = comparison(&[0, 1, 0, 0], &[0, 1, 1, 1], &classes);
        assert_eq!(Budget::of(0.0).exceeded(&found), None); // one lost, one won
        let found = comparison(&[0, 1, 0, 0], &[0, 1, 1, 0], &classes);
        assert_eq!(Budget::of(0.25).exceeded(&found), None);
        let message = Budget::of(0.1).exceeded(&found).unwrap();
        assert!(
            message.contains("from 75.00 % to 50.00 %, by 25.00 points, the budget is 10.00"),
            "{message}"
        );
    }

    #[test]
    fn without_labels_changed_answers_count() {
        let found = comparison(&[0, 1, 0, 0], &[0, 1, 1, 0], &[None; 4]);
        assert_eq!(Budget::of(0.25).exceeded(&found), None);
        assert!(Budget::default().exceeded(&found).unwrap().contains("25.00 % of the answers change"));
        let far = Comparison { agreement: 1.0, cosine: 0.5, ..found };
        assert!(Budget::default().exceeded(&far).unwrap().contains("cosine"));
    }

    #[test]
    fn tries_keep_more_and_more_layers_float() {
        assert_eq!((0..9).map(kept_float).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 6, 9, 13, 19]);
    }
}
