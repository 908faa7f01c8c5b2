//! Models and what stands in them and beside them.

use smalti_models::{ModelRecord, Preprocess};
use smalti_runtime::gate::Form;
use smalti_runtime::trust::PublicKey;
use smalti_runtime::{Model, memory};

use super::{joined, judge, two};
use crate::file;

/// A model file: opened, described, and run on a plain image.
pub fn open(bytes: &[u8]) -> Result<(), String> {
    let Ok(model) = Model::from_bytes(bytes) else { return Ok(()) };
    _ = (model.fallback_reason(), memory::bound(&model, 1, None));
    let values = model.input().values();
    let answer = model.session().and_then(|mut session| match model.input().form {
        Form::U8Nhwc => session.run_pixels(&vec![100; values]),
        Form::F32Nchw => session.run_floats(&vec![0.5; values]),
    });
    judge(answer)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let models = [
        "models/colours_u8",
        "models/colours_qdq",
        "models/timm_tanh",
        "operators/graphs/residual_stages_int8",
        "operators/graphs/branch_in_a_branch",
    ];
    models.iter().map(|name| file(&format!("runtime/tests/{name}.onnx"))).collect()
}

/// What a model file says of itself: lines of `key=value`.
pub fn record(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let record = ModelRecord::from_metadata(text.lines().filter_map(|line| line.split_once('=')));
    if let Ok(Some(record)) = record {
        _ = record.to_metadata();
    }
    Ok(())
}

pub fn records() -> Vec<Vec<u8>> {
    let model = Model::from_bytes(&file("runtime/tests/models/colours_u8.onnx")).expect("a good model");
    let record = model.record().expect("one of ours");
    let lines = record.to_metadata().into_iter().map(|(key, value)| format!("{key}={value}\n"));
    vec![lines.collect::<String>().into_bytes()]
}

/// `preprocessor_config.json`, and an image prepared by it.
pub fn preprocess(bytes: &[u8]) -> Result<(), String> {
    let Ok(config) = serde_json::from_slice(bytes) else { return Ok(()) };
    let Ok(preprocess) = Preprocess::from_json(&config) else { return Ok(()) };
    // Larger inputs are refused where a model has them.
    if preprocess.img_size <= 512 {
        let image = smalti_models::Image::new(3, 2, 1, vec![7; 6]).expect("an image");
        _ = preprocess.apply(&image);
    }
    Ok(())
}

pub fn preprocesses() -> Vec<Vec<u8>> {
    let ours = Model::from_bytes(&file("runtime/tests/models/colours_u8.onnx")).expect("a good model");
    let ours = ours.preprocess().expect("one of ours").to_json().to_string();
    let theirs = r#"{"crop_size":{"height":224,"width":224},"do_center_crop":true,"do_resize":true,"image_mean":[0.485,0.456,0.406],
        "image_std":[0.229,0.224,0.225],"resample":3,"rescale_factor":0.00392156862745098,"size":{"shortest_edge":256}}"#;
    vec![ours.into_bytes(), theirs.into()]
}

/// A signature, and the key that it is held against.
pub fn signature(bytes: &[u8]) -> Result<(), String> {
    let (key, signature) = two(bytes);
    let (key, signature) = (String::from_utf8_lossy(key), String::from_utf8_lossy(signature));
    if let Ok(key) = PublicKey::parse(&key) {
        _ = key.check(b"message", &signature);
    }
    Ok(())
}

pub fn signatures() -> Vec<Vec<u8>> {
    let signed = |name: &str| file(&format!("runtime/tests/signed/{name}"));
    let key = signed("test.pub");
    vec![joined(&key, &signed("message.txt.minisig")), joined(&key, &signed("message.txt.legacy.minisig"))]
}
