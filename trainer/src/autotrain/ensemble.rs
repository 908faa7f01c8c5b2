//! Several classifiers of the same classes, whose mean answer is more often right than each one's.

use serde::{Deserialize, Serialize};
use smalti_trainer::evaluate::top;

/// Temperatures that are tried, from the sharpest, each [`FACTOR`] times the one before.
const SHARPEST: f64 = 0.1;
const FACTOR: f64 = 1.1;
const TRIED: i32 = 50;

/// How the answers of several classifiers are put together: the mean of their probabilities, each at the temperature at which
/// it is as sure as it is right (arXiv 1706.04599).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ensemble {
    /// One a member.
    temperatures: Vec<f64>,
    /// The fraction of held-out images that it gets right.
    pub(super) validation: f64,
}

impl Ensemble {
    /// Finds the temperatures from what each member says of images that it did not learn from: logits `[images, classes]`.
    pub(super) fn fit(members: &[Vec<f32>], labels: &[u32], classes: usize) -> Ensemble {
        let temperatures = members.iter().map(|logits| temperature(logits, labels, classes)).collect();
        let mut ensemble = Ensemble { temperatures, validation: 0.0 };
        let answers = ensemble.mean(members, classes);
        let right =
            answers.chunks_exact(classes).zip(labels).filter(|(row, label)| top(row) == **label as usize);
        ensemble.validation = right.count() as f64 / labels.len().max(1) as f64;
        ensemble
    }

    /// The mean of the members' probabilities `[images, classes]`.
    pub(super) fn mean(&self, members: &[Vec<f32>], classes: usize) -> Vec<f32> {
        let mut sum = vec![0.0; members.first().map_or(0, Vec::len)];
        for (logits, temperature) in members.iter().zip(&self.temperatures) {
            for (sum, row) in sum.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)) {
                let shares = probabilities(row, *temperature);
                sum.iter_mut().zip(shares).for_each(|(sum, p)| *sum += p as f32 / members.len() as f32);
            }
        }
        sum
    }

    /// Number of members.
    pub(super) fn members(&self) -> usize {
        self.temperatures.len()
    }
}

/// Softmax of `logits / temperature`.
fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let most = f64::from(logits[top(logits)]);
    let powers: Vec<f64> = logits.iter().map(|x| ((f64::from(*x) - most) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|x| x / sum).collect()
}

/// The temperature of least cross-entropy.
fn temperature(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let loss = |temperature: f64| -> f64 {
        let rows = logits.chunks_exact(classes).zip(labels);
        rows.map(|(row, label)| -probabilities(row, temperature)[*label as usize].max(1e-12).ln()).sum()
    };
    let tried = (0..TRIED).map(|i| SHARPEST * FACTOR.powi(i));
    tried.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that are right in `right` of 10 images, of two classes.
    fn member(right: usize, sure: f32) -> (Vec<f32>, Vec<u32>) {
        let labels: Vec<u32> = (0..10).map(|i| i % 2).collect();
        let said = labels.iter().enumerate().map(|(i, label)| if i < right { *label } else { 1 - *label });
        let logits = said.flat_map(|class| if class == 0 { [sure, 0.0] } else { [0.0, sure] }).collect();
        (logits, labels)
    }

    #[test]
    fn a_member_is_as_sure_as_it_is_right() {
        for sure in [0.5, 3.0, 20.0] {
            let (logits, labels) = member(8, sure);
            let share = probabilities(&logits[..2], temperature(&logits, &labels, 2))[0];
            assert!((share - 0.8).abs() < 0.02, "{sure}: {share}");
        }
    }

    #[test]
    fn the_better_member_decides() {
        let ((good, labels), (bad, _)) = (member(9, 0.5), member(6, 20.0));
        let ensemble = Ensemble::fit(&[good.clone(), bad.clone()], &labels, 2);
        assert_eq!((ensemble.validation, ensemble.members()), (0.9, 2));
        let answers = ensemble.mean(&[good, bad], 2);
        assert!(answers.chunks_exact(2).all(|row| (row[0] + row[1] - 1.0).abs() < 1e-6));
    }
}
