//! Models as real exporters write them: each passes the gate and gives ONNX Runtime's logits.

use std::path::PathBuf;

use smalti_runtime::Model;
use smalti_runtime::gate::Form;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// The image of `make.py`'s `ramp`.
fn ramp(values: usize) -> Vec<f32> {
    (0..values).map(|i| ((i * 73 + 19) % 256) as f32 / 128.0 - 1.0).collect()
}

fn largest_difference(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_onnx_runtime() {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let expected: std::collections::BTreeMap<String, Vec<f32>> = serde_json::from_str(&text).unwrap();
    assert!(expected.len() >= 10);
    for (name, wanted) in expected {
        let model =
            Model::open(folder().join(format!("{name}.onnx"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(model.input().form, Form::F32Nchw, "{name}");
        assert_eq!(model.fallback_reason(), None, "{name}");
        let output = model.session().unwrap().run_floats(&ramp(model.input().values())).unwrap();
        let difference = largest_difference(&output.logits, &wanted);
        // The quantized model's logits are levels: a sum in another order may move one by a step.
        let tolerance = if name.ends_with("qdq") { 0.0328 } else { 1e-4 };
        assert!(difference <= tolerance, "{name}: {:?} for {wanted:?}", output.logits);
    }
}
