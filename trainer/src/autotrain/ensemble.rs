//! Several classifiers of the same classes, whose mean answer is more often right than each one's.

use serde::{Deserialize, Serialize};
use smalti_trainer::evaluate::{probabilities, top};

/// Temperatures that are tried, from the sharpest, each [`FACTOR`] times the one before.
const SHARPEST: f64 = 0.1;
const FACTOR: f64 = 1.1;
const TRIED: i32 = 60;

/// Images that speak for each member before any is looked at: few held-out images do not tell members apart.
const PRIOR: f64 = 3.0;
/// Rounds of expectation maximisation.
const ROUNDS: usize = 100;
/// What a class has at least where a logarithm is taken.
pub(super) const FLOOR: f32 = 1e-6;
/// A member of less weight is left out: to ask it takes time.
const LEAST_WEIGHT: f64 = 0.05;

/// How the answers of several classifiers are put together: a weighted mean of their probabilities, each at the temperature
/// at which it is as sure as it is right (arXiv 1706.04599). The weights are those of a mixture under which the held-out
/// labels are likeliest (stacking, Wolpert 1992), with a prior for equal ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ensemble {
    /// One for each classifier.
    temperatures: Vec<f64>,
    /// Likewise; their sum is 1.
    weights: Vec<f64>,
    /// The fraction of held-out images that it gets right.
    pub(super) validation: f64,
    /// The cross-entropy of what it says of each of them; in no file.
    #[serde(skip)]
    pub(super) losses: Vec<f64>,
}

impl Ensemble {
    /// Fits temperatures and weights to what each classifier says of images that it did not learn from, logits
    /// `[images, classes]`.
    pub(super) fn fit(classifiers: &[Vec<f32>], labels: &[u32], classes: usize) -> Ensemble {
        let temperatures: Vec<f64> =
            classifiers.iter().map(|logits| temperature(logits, labels, classes)).collect();
        // What each says of the right class.
        let said: Vec<Vec<f64>> = classifiers
            .iter()
            .zip(&temperatures)
            .map(|(logits, temperature)| {
                let rows = logits.chunks_exact(classes).zip(labels);
                rows.map(|(row, label)| probabilities(row, *temperature)[*label as usize]).collect()
            })
            .collect();
        let mut ensemble =
            Ensemble { temperatures, weights: weights(&said), validation: 0.0, losses: Vec::new() };
        let answers = ensemble.mean(classifiers, classes);
        ensemble.validation = fraction_right(&answers, labels, classes);
        let of_the_right = answers.chunks_exact(classes).zip(labels).map(|(row, label)| row[*label as usize]);
        ensemble.losses = of_the_right.map(|p| -f64::from(p.max(FLOOR)).ln()).collect();
        ensemble
    }

    /// The weighted mean of all classifiers' probabilities `[images, classes]`.
    pub(super) fn mean(&self, classifiers: &[Vec<f32>], classes: usize) -> Vec<f32> {
        let mut sum = vec![0.0; classifiers.first().map_or(0, Vec::len)];
        for (i, logits) in classifiers.iter().enumerate() {
            self.add(i, logits, 1.0, classes, &mut sum);
        }
        sum
    }

    /// Adds a classifier's part of the mean to `sum`, times `share`.
    pub(super) fn add(&self, classifier: usize, logits: &[f32], share: f64, classes: usize, sum: &mut [f32]) {
        let weight = share * self.weight(classifier);
        let Some(temperature) = self.temperatures.get(classifier).filter(|_| weight > 0.0) else { return };
        for (sum, row) in sum.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)) {
            let shares = probabilities(row, *temperature);
            sum.iter_mut().zip(shares).for_each(|(sum, p)| *sum += (weight * p) as f32);
        }
    }

    /// The weight of a classifier: 0 if it is no member.
    pub(super) fn weight(&self, classifier: usize) -> f64 {
        self.weights.get(classifier).copied().unwrap_or(0.0)
    }

    /// Number of members.
    pub(super) fn members(&self) -> usize {
        self.weights.iter().filter(|weight| **weight > 0.0).count()
    }
}

/// The weights of a mixture under which what was said of each image is likeliest; `said` `[classifiers, images]`.
fn weights(said: &[Vec<f64>]) -> Vec<f64> {
    let count = said.len();
    let mut weights = vec![1.0 / count.max(1) as f64; count];
    for _ in 0..ROUNDS {
        let mut sums = vec![PRIOR; count];
        for image in 0..said.first().map_or(0, Vec::len) {
            let all: f64 = said.iter().zip(&weights).map(|(said, weight)| weight * said[image]).sum();
            for ((sum, said), weight) in sums.iter_mut().zip(said).zip(&weights) {
                *sum += weight * said[image] / all.max(1e-12);
            }
        }
        let all: f64 = sums.iter().sum();
        weights = sums.into_iter().map(|sum| sum / all).collect();
    }
    weights.iter_mut().filter(|weight| **weight < LEAST_WEIGHT).for_each(|weight| *weight = 0.0);
    let all: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / all).collect()
}

/// The fraction of images whose largest value is that of their class.
pub(super) fn fraction_right(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let rows = logits.chunks_exact(classes).zip(labels);
    let right = rows.filter(|(row, label)| top(row) == **label as usize).count();
    right as f64 / labels.len().max(1) as f64
}

/// The temperature of least cross-entropy.
pub(super) fn temperature(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let tried = (0..TRIED).map(|i| SHARPEST * FACTOR.powi(i));
    let loss = |temperature: f64| cross_entropies(logits, labels, classes, temperature).sum::<f64>();
    tried.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(1.0)
}

/// The cross-entropy of each image.
pub(super) fn cross_entropies(
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    temperature: f64,
) -> impl Iterator<Item = f64> {
    let rows = logits.chunks_exact(classes).zip(labels);
    rows.map(move |(row, label)| -probabilities(row, temperature)[*label as usize].max(1e-12).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that are right in `right` of 10 images each, of two classes and 100 images.
    fn member(right: usize, sure: f32) -> (Vec<f32>, Vec<u32>) {
        let labels: Vec<u32> = (0..100).map(|i| i % 2).collect();
        let said =
            labels.iter().enumerate().map(|(i, label)| if i % 10 < right { *label } else { 1 - *label });
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
    fn who_knows_little_says_little() {
        let ((good, labels), (bad, _)) = (member(9, 0.5), member(5, 20.0));
        let ensemble = Ensemble::fit(&[good.clone(), bad, good], &labels, 2);
        assert_eq!(ensemble.validation, 0.9);
        assert!(ensemble.weight(1) < 0.15 && ensemble.weight(0) > 0.4, "{ensemble:?}");
        assert!((ensemble.weight(0) - ensemble.weight(2)).abs() < 1e-9);
    }

    #[test]
    fn members_that_err_elsewhere_help_each_other() {
        let labels = vec![0; 10];
        let of = |wrong: std::ops::Range<usize>| -> Vec<f32> {
            (0..10).flat_map(|i| if wrong.contains(&i) { [0.0, 1.0] } else { [2.0, 0.0] }).collect()
        };
        let all = [of(0..3), of(3..6), of(6..9)];
        let ensemble = Ensemble::fit(&all, &labels, 2);
        assert_eq!((ensemble.validation, ensemble.members()), (1.0, 3));
        let answers = ensemble.mean(&all, 2);
        assert!(answers.chunks_exact(2).all(|row| (row[0] + row[1] - 1.0).abs() < 1e-6));
    }
}
