//! What the quantized file says about itself: everything that the float one said, with test vectors, digest and
//! `quantization` of its own.

use serde_json::{Value, json};
use smalti_models::contract::Golden;
use smalti_models::onnx::{ModelProto, StringStringEntryProto};

use super::{Row, Settings};
use crate::compare::Comparison;
use smalti_runtime::Model;
use smalti_runtime::Result;
use smalti_runtime::inspect;
use smalti_runtime::selftest;

/// The value of `quantization`.
pub(super) fn quantization(
    settings: &Settings<'_>,
    images: usize,
    rows: &[Row],
    found: &Comparison,
    tolerance: Option<f32>,
) -> Value {
    // Four decimals are enough, and short.
    let tolerance = tolerance.map(|tolerance| (f64::from(tolerance) * 1e4).round() / 1e4);
    let float: Vec<&str> = rows.iter().filter(|row| row.kept_float).map(|row| row.name.as_str()).collect();
    json!({
        "method": settings.method.name(),
        "samples": images,
        "activations": "uint8, asymmetric, one scale a tensor",
        "weights": "int8, symmetric, one scale an output channel; four neighbours of one sign come to 128 at most",
        "layers": rows.len() - float.len(),
        "kept_float": float,
        "measured_on": found.n,
        "float_accuracy": found.accuracy_a,
        "int8_accuracy": found.accuracy_b,
        "agreement": found.agreement,
        "cosine": found.cosine,
        selftest::QUANTIZED_TOLERANCE: tolerance,
    })
}

/// New test vectors, those of the quantized model as it runs here, and how far they are from the float model's,
/// relative to the largest logit. Nothing for a foreign model.
pub(super) fn golden(float: &Model, int8: &Model) -> Result<Option<(Vec<Golden>, f32)>> {
    let Some(record) = float.record() else { return Ok(None) };
    let (size, channels) = (float.input().width, float.input().channels);
    // As the file's own record prepares images, whatever was said for the measuring.
    let session = |model: &Model| model.clone().with_preprocess(record.preprocess.clone())?.session();
    let mut sessions = (session(float)?, session(int8)?);
    let (mut vectors, mut furthest) = (Vec::new(), 0.0f32);
    for vector in &record.golden {
        let image = vector.image(size, channels)?;
        let wanted = sessions.0.run_pixels(image.data())?.logits;
        let logits = sessions.1.run_pixels(image.data())?.logits;
        furthest = furthest.max(selftest::relative_difference(&logits, &wanted));
        vectors.push(Golden::new(vector.pattern, &image, logits));
    }
    Ok(Some((vectors, furthest)))
}

/// Writes the changed keys, and leaves all others as they are.
pub(super) fn write(proto: &mut ModelProto, golden: Option<&[Golden]>, quantization: &Value) {
    if let Some(golden) = golden {
        // Straight to text: this way floats keep their shortest decimals.
        set(proto, "golden", serde_json::to_string(golden).unwrap_or_default());
        let digest = inspect::weights_sha256(proto);
        set(proto, "sha256.weights", digest);
    }
    set(proto, "quantization", quantization.to_string());
}

fn set(proto: &mut ModelProto, key: &str, value: String) {
    match proto.metadata_props.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => entry.value = value,
        None => proto.metadata_props.push(StringStringEntryProto { key: key.into(), value }),
    }
}
