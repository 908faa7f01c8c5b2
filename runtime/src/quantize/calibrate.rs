//! What goes into each layer, over the calibration pictures: one pass, picture by picture.
//!
//! Kept for each value: a histogram, the mean square of each channel, and a few rows on which the layers' errors are
//! measured. Memory does not grow with the number of pictures.

use super::histogram::Histogram;
use super::prepare::prepare;
use super::taps::Taps;
use crate::error::{Error, Result};
use crate::load::Model;
use crate::samples::Sample;
use tract_onnx::pb::ModelProto;

/// The most rows kept of a value, over all pictures.
const ROWS: usize = 128;
/// The share of calibration pictures that may be unusable.
const MAX_BAD: f64 = 0.05;

/// What was seen of one value, `[.., K]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Activation {
    pub(super) histogram: Histogram,
    /// Sum of squares of each of the K channels.
    squares: Vec<f64>,
    /// Rows of K values that went into `squares`.
    seen: u64,
    /// Some of the rows, one after the other.
    pub(super) rows: Vec<f32>,
}

impl Activation {
    /// Takes in one picture's rows, and keeps `keep` of them. False if a value is not finite.
    fn add(&mut self, values: &[f32], channels: usize, keep: usize, picture: usize) -> bool {
        if channels == 0 || !self.histogram.add(values) {
            return false;
        }
        self.squares.resize(channels, 0.0);
        for row in values.chunks_exact(channels) {
            self.squares.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
        }
        let rows = values.len() / channels;
        self.seen += rows as u64;
        // Other rows of every picture, so that all places are seen.
        let keep = keep.min(rows).min(ROWS.saturating_sub(self.rows.len() / channels));
        for i in 0..keep {
            let row = (i * rows / keep + 7 * picture) % rows;
            self.rows.extend(&values[row * channels..(row + 1) * channels]);
        }
        true
    }

    /// Mean square of each channel.
    pub(super) fn importance(&self) -> Vec<f64> {
        self.squares.iter().map(|sum| sum / self.seen.max(1) as f64).collect()
    }
}

/// What calibration saw.
pub(super) struct Calibration {
    /// One for each value.
    pub(super) activations: Vec<Activation>,
    /// Pictures that were used.
    pub(super) pictures: usize,
}

/// Runs the model over the samples and looks at `values`; `step` is called after each picture.
///
/// Errors: [`Error::Data`] if too many pictures cannot be used, [`Error::Engine`] if a value is not finite.
pub(super) fn calibrate(
    proto: &ModelProto,
    model: &Model,
    values: &[&str],
    samples: &[Sample],
    step: &dyn Fn(usize),
) -> Result<Calibration> {
    let mut taps = Taps::new(proto, model.input(), values)?;
    let mut activations = vec![Activation::default(); values.len()];
    let keep = ROWS.div_ceil(samples.len().max(1));
    let (mut pictures, mut bad) = (0, Vec::new());
    for (i, sample) in samples.iter().enumerate() {
        match sample.open().and_then(|picture| prepare(model, &picture)) {
            Ok(pixels) => {
                taps.run(&pixels, |value, seen, channels| {
                    match activations[value].add(seen, channels, keep, i) {
                        true => Ok(()),
                        false => Err(not_finite(values[value], &sample.name)),
                    }
                })?;
                pictures += 1;
            }
            Err(Error::Data { problem, .. }) => {
                log::warn!("{}: {problem}", sample.name);
                bad.push((sample.name.as_str(), problem));
            }
            Err(other) => return Err(other),
        }
        step(i + 1);
    }
    if pictures == 0 || bad.len() as f64 > MAX_BAD * samples.len() as f64 {
        let (place, problem) =
            bad.first().map_or(("calibration", "no pictures"), |(name, problem)| (*name, problem.as_str()));
        let found =
            format!("{problem} ({} of {} calibration pictures cannot be used)", bad.len(), samples.len());
        return Err(Error::data(place, found));
    }
    Ok(Calibration { activations, pictures })
}

/// The error for a model that overflows on a picture.
fn not_finite(value: &str, picture: &str) -> Error {
    let problem = format!("`{value}` is not finite for {picture}");
    Error::Engine { step: "calibrate", problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_within_bounds_and_squares_are_means() {
        let mut activation = Activation::default();
        for picture in 0..300 {
            assert!(activation.add(&[1.0, 2.0, 3.0, 4.0], 2, 1, picture));
        }
        assert_eq!((activation.rows.len(), activation.importance()), (2 * ROWS, vec![5.0, 10.0]));
        assert!(activation.rows.chunks(2).any(|row| row == [1.0, 2.0]));
        assert!(activation.rows.chunks(2).any(|row| row == [3.0, 4.0]));
        assert!(!activation.add(&[f32::NAN, 0.0], 2, 1, 0));
        assert!(!activation.add(&[], 0, 1, 0) && activation.add(&[], 2, 1, 0));
    }
}
