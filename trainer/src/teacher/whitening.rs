//! Tokens in their principal directions, whitened.
//!
//! A teacher's tokens have hundreds of values of which a few directions hold most of the variance. A student's tokens are compared
//! with the first [`KEPT`] principal components, each divided by its standard deviation, so that what sets places apart
//! counts as much as what all have in common, and the files stay small.

use std::path::Path;

use ndarray::{ArrayView2, Axis};
use serde_json::Value;

use crate::error::Result;
use crate::evaluate::projection::principal_axes;
use crate::model::weights::file;

/// Most components of a token.
pub const KEPT: usize = 128;
/// Rounds of orthogonal iteration: directions of nearly the same length may stay mixed.
const ROUNDS: usize = 50;
/// The shortest direction, as a share of the longest.
const SHORTEST: f64 = 1e-3;

/// What a token is multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    /// `[values]`, subtracted first.
    mean: Vec<f32>,
    /// `[kept, values]`: principal directions, divided by their standard deviations.
    directions: Vec<f32>,
}

impl Whitening {
    /// Learns from tokens `[n, values]`.
    pub fn learn(tokens: &[f32], values: usize) -> Whitening {
        let n = tokens.len() / values.max(1);
        let Ok(tokens) = ArrayView2::from_shape((n, values), &tokens[..n * values]) else {
            return Whitening { mean: Vec::new(), directions: Vec::new() };
        };
        let mean = tokens.mean_axis(Axis(0)).unwrap_or_default();
        let centred = &tokens - &mean;
        let covariance = centred.t().dot(&centred).mapv(f64::from) / n.max(1) as f64;
        let (mut axes, variances) = principal_axes(&covariance, KEPT.min(values), ROUNDS);
        let shortest = variances.first().copied().unwrap_or_default().sqrt().max(1e-12) * SHORTEST;
        for (mut axis, variance) in axes.rows_mut().into_iter().zip(&variances) {
            axis /= variance.sqrt().max(shortest);
        }
        let directions = axes.iter().map(|x| *x as f32).collect();
        Whitening { mean: mean.to_vec(), directions }
    }

    /// Components of a token.
    pub fn kept(&self) -> usize {
        self.directions.len() / self.mean.len().max(1)
    }

    /// The components `[n, kept]` of tokens `[n, values]`.
    pub fn apply(&self, tokens: &[f32]) -> Vec<f32> {
        let (values, kept) = (self.mean.len(), self.kept());
        let shaped = |x, rows| ArrayView2::from_shape((rows, values), x);
        let (Ok(tokens), Ok(directions), Ok(mean)) = (
            shaped(tokens, tokens.len() / values.max(1)),
            shaped(&self.directions, kept),
            shaped(&self.mean, 1),
        ) else {
            return Vec::new();
        };
        (&tokens - &mean).dot(&directions.t()).iter().copied().collect()
    }

    /// Writes it with what it is of.
    ///
    /// # Errors
    /// The file system.
    pub fn save(&self, path: &Path, about: &Value) -> Result<()> {
        let (values, kept) = (self.mean.len(), self.kept());
        let tensors = [
            ("mean", &[values][..], &self.mean[..]),
            ("directions", &[kept, values][..], &self.directions[..]),
        ];
        file::save(path, tensors, about)
    }

    /// Reads what [`Whitening::save`] wrote, and what it is of.
    ///
    /// # Errors
    /// A file that is damaged or holds something else.
    pub fn load(path: &Path) -> Result<(Whitening, Value)> {
        let (mut tensors, about) = file::load(path)?;
        let mut take = |name| tensors.remove(name).map(|tensor| tensor.values).unwrap_or_default();
        let whitening = Whitening { mean: take("mean"), directions: take("directions") };
        match !whitening.mean.is_empty() && whitening.directions.len().is_multiple_of(whitening.mean.len()) {
            true => Ok((whitening, about)),
            false => Err(file::unusable(path, "holds no directions of tokens")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Tokens of six values that vary along two directions, one ten times as far as the other.
    fn tokens() -> Vec<f32> {
        let mut rng = Rng::new(0, 0, [7]);
        let token = |_| {
            let (a, b) = (10.0 * rng.normal(), rng.normal());
            [a + 1.0, a + b, -b, 2.0 * a, 5.0, b - a].map(|x| x as f32)
        };
        (0..500).flat_map(token).collect()
    }

    #[test]
    fn components_have_the_variance_one_and_nothing_in_common() {
        let tokens = tokens();
        let whitening = Whitening::learn(&tokens, 6);
        assert_eq!(whitening.kept(), 6);
        let components = whitening.apply(&tokens);
        let product = |i: usize, j: usize| {
            components.chunks_exact(6).map(|row| f64::from(row[i] * row[j])).sum::<f64>() / 500.0
        };
        assert!((product(0, 0) - 1.0).abs() < 1e-3 && (product(1, 1) - 1.0).abs() < 1e-3);
        assert!(product(0, 1).abs() < 1e-2, "{}", product(0, 1));
        // What does not vary is not blown up.
        assert!((2..6).all(|i| product(i, i) < 1e-2));
    }

    #[test]
    fn a_file_keeps_every_bit() {
        let folder = tempfile::tempdir().unwrap();
        let (path, about) = (folder.path().join("whitening"), serde_json::json!({"of": "these"}));
        let whitening = Whitening::learn(&tokens(), 6);
        whitening.save(&path, &about).unwrap();
        assert_eq!(Whitening::load(&path).unwrap(), (whitening, about));
        file::save(
            &path,
            [("mean", &[2][..], &[1.0f32, 2.0][..]), ("directions", &[3][..], &[0.0; 3][..])],
            &Value::Null,
        )
        .unwrap();
        assert!(Whitening::load(&path).is_err());
    }
}
