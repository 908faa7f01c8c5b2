//! What goes into each layer, over the calibration images: one pass, image by image.
//!
//! Kept for each value: a histogram, the mean square of each channel, and a few rows on which the layers' errors are
//! measured. Memory does not grow with the number of images.

use super::histogram::Histogram;
use super::layers::Patch;
use crate::samples::Sample;
use smalti_runtime::Model;
use smalti_runtime::taps::Taps;
use smalti_runtime::{Error, Result};

/// The most rows kept of a value, over all images.
const ROWS: usize = 128;
/// The share of calibration images that may be unusable.
const MAX_BAD: f64 = 0.05;

/// What was seen of one value: rows of K channels.
#[derive(Clone, Debug, Default)]
pub(super) struct Activation {
    pub(super) histogram: Histogram,
    /// Sum and sum of squares of each of the K channels.
    sums: Vec<[f64; 2]>,
    /// Rows of K values that went into `sums`.
    seen: u64,
    /// Whether some value is not a byte.
    more_than_bytes: bool,
    /// Some of the rows, one after the other.
    pub(super) rows: Vec<f32>,
}

impl Activation {
    /// Takes in one image's rows, and keeps `keep` of them. False if a value is not finite.
    fn add(&mut self, values: &[f32], channels: usize, keep: usize, image: usize) -> bool {
        if channels == 0 || !self.histogram.add(values) {
            return false;
        }
        self.sums.resize(channels, [0.0; 2]);
        for row in values.chunks_exact(channels) {
            for ([sum, squares], x) in self.sums.iter_mut().zip(row.iter().copied().map(f64::from)) {
                *sum += x;
                *squares += x * x;
            }
        }
        self.more_than_bytes |= values.iter().any(|&x| f32::from(x as u8) != x);
        let rows = values.len() / channels;
        self.seen += rows as u64;
        // Other rows of every image, so that all places are seen.
        let keep = keep.min(rows).min(ROWS.saturating_sub(self.rows.len() / channels));
        for i in 0..keep {
            let row = (i * rows / keep + 7 * image) % rows;
            self.rows.extend(&values[row * channels..(row + 1) * channels]);
        }
        true
    }

    /// Mean and mean square of each channel.
    pub(super) fn moments(&self) -> Vec<[f64; 2]> {
        let n = self.seen.max(1) as f64;
        self.sums.iter().map(|sums| sums.map(|sum| sum / n)).collect()
    }

    /// Whether these are pixels as they came: their 256 levels are exact.
    pub(super) fn are_bytes(&self) -> bool {
        self.seen > 0 && !self.more_than_bytes
    }
}

/// What calibration saw.
pub(super) struct Calibration {
    /// One for each value.
    pub(super) activations: Vec<Activation>,
    /// Images that were used.
    pub(super) images: usize,
}

/// Runs the model, of the file `bytes`, over the samples and looks at `values`; `step` is called after each image.
///
/// Errors: [`Error::Usage`] if nothing says how images are prepared, [`Error::Data`] if too many images cannot be used, [`Error::Engine`] if a value is not finite.
pub(super) fn calibrate(
    bytes: &[u8],
    model: &Model,
    values: &[(&str, Option<&Patch>)],
    samples: &[Sample],
    step: &dyn Fn(usize),
) -> Result<Calibration> {
    // Windows of several kinds may see the same value.
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in values {
        if !names.contains(name) {
            names.push(name);
        }
    }
    if model.preprocess().is_none() {
        let problem = "the model file does not say how to prepare images: give --mean and --std";
        return Err(Error::Usage(problem.into()));
    }
    let mut taps = Taps::new(bytes, model, &names)?;
    let mut rows = Vec::new();
    let mut activations = vec![Activation::default(); values.len()];
    let keep = ROWS.div_ceil(samples.len().max(1));
    let (mut images, mut bad) = (0, Vec::new());
    for (i, sample) in samples.iter().enumerate() {
        let look = |name: usize, seen: &[f32], shape: &[usize]| {
            let of_name = values.iter().zip(&mut activations).filter(|((value, _), _)| *value == names[name]);
            for ((_, patch), activation) in of_name {
                let (seen, channels) = match (patch, shape) {
                    (Some(patch), &[1, _, height, width]) => {
                        let fits = patch.rows(seen, [height, width], &mut rows);
                        (&rows[..], fits.map_or(0, |()| patch.row()))
                    }
                    _ => (seen, shape.last().copied().unwrap_or(1)),
                };
                if !activation.add(seen, channels, keep, i) {
                    return Err(not_finite(names[name], &sample.name));
                }
            }
            Ok(())
        };
        match sample.open_for(model).and_then(|image| taps.run_image(image.view(), look)) {
            Ok(()) => images += 1,
            Err(Error::Data { problem, .. }) => {
                log::warn!("{}: {problem}", sample.name);
                bad.push((sample.name.as_str(), problem));
            }
            Err(other) => return Err(other),
        }
        step(i + 1);
    }
    if images == 0 || bad.len() as f64 > MAX_BAD * samples.len() as f64 {
        let (place, problem) =
            bad.first().map_or(("calibration", "no images"), |(name, problem)| (*name, problem.as_str()));
        let found =
            format!("{problem} ({} of {} calibration images cannot be used)", bad.len(), samples.len());
        return Err(Error::data(place, found));
    }
    Ok(Calibration { activations, images })
}

/// The error for a model that overflows on an image.
fn not_finite(value: &str, image: &str) -> Error {
    let problem = format!("`{value}` is not finite for {image}");
    Error::Engine { step: "calibrate", problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_within_bounds_and_squares_are_means() {
        let mut activation = Activation::default();
        for image in 0..300 {
            assert!(activation.add(&[1.0, 2.0, 3.0, 4.0], 2, 1, image));
        }
        assert_eq!((activation.rows.len(), activation.moments()), (2 * ROWS, vec![[2.0, 5.0], [3.0, 10.0]]));
        assert!(activation.rows.chunks(2).any(|row| row == [1.0, 2.0]));
        assert!(activation.rows.chunks(2).any(|row| row == [3.0, 4.0]));
        assert!(!activation.add(&[f32::NAN, 0.0], 2, 1, 0));
        assert!(!activation.add(&[], 0, 1, 0) && activation.add(&[], 2, 1, 0));
    }

    #[test]
    fn bytes_are_known() {
        let mut activation = Activation::default();
        assert!(!activation.are_bytes());
        assert!(activation.add(&[0.0, 255.0, 7.0], 1, 1, 0) && activation.are_bytes());
        for other in [-1.0, 256.0, 0.5] {
            let mut activation = activation.clone();
            assert!(activation.add(&[other], 1, 1, 0) && !activation.are_bytes(), "{other}");
        }
    }
}
