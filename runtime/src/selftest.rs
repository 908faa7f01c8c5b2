//! Does the model compute here what it computed where it was made? The file's own test vectors say.

use serde::Serialize;
use smalti_models::ModelRecord;

use crate::error::{Error, Result};
use crate::load::Model;

/// How far a logit may be off, relative to the largest logit of its vector (or to 1 if that is larger).
///
/// Sums of floats in another order differ by about 1e-6 of that scale; a wrong kernel, a damaged weight or
/// another preprocessing by far more than 1e-3.
pub const TOLERANCE: f32 = 1e-3;

/// The key of `quantization` in a model's record that says how far a quantized model's logits may be off instead,
/// on the same scale.
///
/// Where floats are rounded to 8 bits, a difference in the last bit of a sum may become a whole step, and the steps
/// of later layers follow. That is noise of the kind that quantization itself makes, and never more of it.
pub const QUANTIZED_TOLERANCE: &str = "selftest_tolerance";
/// What a record may say there.
const QUANTIZED: std::ops::RangeInclusive<f32> = 0.02..=0.1;

/// The tolerance for a quantized model whose test vectors are that far from those of its float model.
pub fn quantized_tolerance(distance: f32) -> f32 {
    distance.clamp(*QUANTIZED.start(), *QUANTIZED.end())
}

/// The tolerance for a model: its record's if it is quantized, within bounds.
fn tolerance(record: Option<&ModelRecord>) -> f32 {
    let quantization = record.and_then(|record| record.quantization.as_ref());
    let found = quantization.and_then(|quantization| quantization.get(QUANTIZED_TOLERANCE)?.as_f64());
    found.map_or(TOLERANCE, |found| quantized_tolerance(found as f32))
}

/// One test vector, compared.
#[derive(Clone, Debug, Serialize)]
pub struct Vector {
    /// Number of the procedural image.
    pub pattern: u64,
    /// Largest difference of a logit.
    pub difference: f32,
    /// What was allowed.
    pub allowed: f32,
    /// Whether the most probable class is the same.
    pub same_class: bool,
}

impl Vector {
    /// Whether this vector holds.
    pub fn holds(&self) -> bool {
        self.difference <= self.allowed
    }
}

/// Runs every test vector of the model's record. An error of kind [`Error::GateFailed`] if there are none.
pub fn run(model: &Model) -> Result<Vec<Vector>> {
    let golden = model.record().map_or(&[][..], |record| &record.golden);
    if golden.is_empty() {
        return Err(Error::GateFailed("selftest: the model file holds no test vectors, as those of other programs do: hold it against another by \
             `smalti-run compare`".into()));
    }
    let tolerance = tolerance(model.record());
    let (size, channels) = (model.input().width, model.input().channels);
    let mut session = model.session()?;
    let mut vectors = Vec::new();
    for vector in golden {
        let image = vector.image(size, channels)?;
        let output = session.run_pixels(image.data())?;
        vectors.push(compare(vector.pattern, &output.logits, &vector.logits, tolerance));
    }
    Ok(vectors)
}

/// Fails unless every vector holds.
pub fn judge(vectors: &[Vector]) -> Result<()> {
    let failed = vectors.iter().filter(|vector| !vector.holds()).count();
    let Some(worst) =
        vectors.iter().max_by(|a, b| (a.difference / a.allowed).total_cmp(&(b.difference / b.allowed)))
    else {
        return Ok(());
    };
    if failed == 0 {
        return Ok(());
    }
    let Vector { pattern, difference, allowed, .. } = worst;
    Err(Error::GateFailed(format!(
        "selftest: {failed} of {} test vectors are off; pattern {pattern} by {difference:.2e}, allowed {allowed:.2e}",
        vectors.len()
    )))
}

/// Compares one vector's logits.
fn compare(pattern: u64, found: &[f32], wanted: &[f32], tolerance: f32) -> Vector {
    let same_class = best(found) == best(wanted);
    Vector { pattern, difference: difference(found, wanted), allowed: tolerance * scale(wanted), same_class }
}

/// Largest difference of a logit.
fn difference(found: &[f32], wanted: &[f32]) -> f32 {
    match found.len() == wanted.len() {
        true => found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max),
        false => f32::INFINITY,
    }
}

/// What differences are relative to: the largest logit, or 1.
fn scale(wanted: &[f32]) -> f32 {
    wanted.iter().fold(1.0, |scale: f32, logit| scale.max(logit.abs()))
}

/// Largest difference of a logit on the scale of [`TOLERANCE`].
pub fn relative_difference(found: &[f32], wanted: &[f32]) -> f32 {
    difference(found, wanted) / scale(wanted)
}

/// The first of the largest values.
fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_follows_the_scale_of_the_logits() {
        assert!(compare(0, &[0.0005, 1.0], &[0.0, 1.0], TOLERANCE).holds());
        assert!(!compare(0, &[0.005, 1.0], &[0.0, 1.0], TOLERANCE).holds());
        assert!(compare(0, &[0.005, 10.0], &[0.0, 10.0], TOLERANCE).holds());
        assert!(!compare(0, &[0.0], &[0.0, 0.0], TOLERANCE).holds());
    }

    #[test]
    fn the_verdict_names_the_worst_vector() {
        let vectors = [compare(3, &[1.0], &[1.0], TOLERANCE), compare(4, &[1.5], &[1.0], TOLERANCE)];
        assert!(judge(&vectors[..1]).is_ok());
        let message = judge(&vectors).unwrap_err().to_string();
        assert!(message.contains("1 of 2") && message.contains("pattern 4"), "{message}");
    }

    #[test]
    fn a_quantized_models_tolerance_is_its_own_within_bounds() {
        for (written, expected) in
            [("0.05", 0.05), ("9", 0.1), ("0", 0.02), ("null", TOLERANCE), ("\"x\"", TOLERANCE)]
        {
            let value = serde_json::from_str(&format!("{{\"{QUANTIZED_TOLERANCE}\": {written}}}")).unwrap();
            let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
            let model = Model::open(models.join("colours_u8.onnx")).unwrap();
            let record = ModelRecord { quantization: Some(value), ..model.record().unwrap().clone() };
            assert_eq!(tolerance(Some(&record)), expected, "{written}");
        }
        assert_eq!(tolerance(None), TOLERANCE);
    }
}
