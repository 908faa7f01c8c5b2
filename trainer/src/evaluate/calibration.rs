//! How sure a classifier is, held against how right it is: the reliability diagram and the expected calibration error (Guo et
//! al. 2017, arXiv 1706.04599, section 2).

use serde::Serialize;

/// Answers between two confidences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bin {
    /// How many answers.
    pub n: usize,
    /// Their mean probability of the class that they say.
    pub confidence: f64,
    /// Fraction of them that is right.
    pub accuracy: f64,
}

/// A reliability diagram.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reliability {
    /// Bins of equal width from 0 to 1.
    pub bins: Vec<Bin>,
    /// The expected calibration error: the mean over all answers of the distance between confidence and accuracy of their bin.
    pub ece: f64,
    /// The mean confidence of all answers.
    pub confidence: f64,
}

/// The diagram of answers, each its probability from 0 to 1 and whether it is right.
pub fn reliability(answers: &[(f64, bool)], bins: usize) -> Reliability {
    let mut sums = vec![(0usize, 0.0, 0usize); bins.max(1)];
    for &(confidence, is_right) in answers {
        // What is no number counts as 0.
        let confidence = if confidence.is_nan() { 0.0 } else { confidence.clamp(0.0, 1.0) };
        let place = (confidence * bins as f64) as usize;
        let Some(bin) = sums.get_mut(place.min(bins.max(1) - 1)) else { continue };
        *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + usize::from(is_right));
    }
    let all = answers.len().max(1) as f64;
    let bins: Vec<Bin> = sums
        .iter()
        .map(|&(n, confidence, right)| {
            let count = n.max(1) as f64;
            Bin { n, confidence: confidence / count, accuracy: right as f64 / count }
        })
        .collect();
    let ece = bins.iter().map(|bin| bin.n as f64 / all * (bin.confidence - bin.accuracy).abs()).sum();
    let confidence = bins.iter().map(|bin| bin.n as f64 / all * bin.confidence).sum();
    Reliability { bins, ece, confidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_distance_of_each_bin_by_its_answers() {
        // Four answers at 0.9, three of them right; four at 0.6, all of them right.
        let answers: Vec<(f64, bool)> =
            (0..4).map(|i| (0.9, i > 0)).chain((0..4).map(|_| (0.6, true))).collect();
        let found = reliability(&answers, 10);
        assert!((found.ece - (0.5 * 0.15 + 0.5 * 0.4)).abs() < 1e-12, "{found:?}");
        assert!((found.confidence - 0.75).abs() < 1e-12);
        assert_eq!((found.bins.len(), found.bins[6].n, found.bins[9].accuracy), (10, 4, 0.75));
    }

    #[test]
    fn the_ends_belong_to_the_outer_bins_and_nothing_is_no_error() {
        let found = reliability(&[(1.0, true), (0.0, false), (f64::NAN, false)], 5);
        assert_eq!((found.bins[4].n, found.bins[0].n), (1, 2));
        assert_eq!(reliability(&[], 10).ece, 0.0);
    }
}
