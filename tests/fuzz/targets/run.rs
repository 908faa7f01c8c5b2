//! What a run and its checkpoints are read from.

use smalti_models::Pooling;
use smalti_models::presets::Preset;
use smalti_trainer::model::weights::Weights;
use smalti_trainer::run::{config, state as states_of_runs};

use super::written;
use crate::file;

/// A file of weights, ours or another program's, and what it says of its sizes.
pub fn weights(bytes: &[u8]) -> Result<(), String> {
    if let Ok(weights) = Weights::open(&written("model.safetensors", bytes)) {
        _ = weights.sizes();
        _ = weights.stated();
    }
    Ok(())
}

pub fn weight_files() -> Vec<Vec<u8>> {
    ["timm_token", "face_dinov2", "timm_swiglu_packed"]
        .map(|name| file(&format!("tests/golden/weights/{name}.safetensors")))
        .into()
}

/// All that a run needs to continue.
pub fn state(bytes: &[u8]) -> Result<(), String> {
    _ = states_of_runs::load(&written("last.state", bytes));
    Ok(())
}

pub fn states() -> Vec<Vec<u8>> {
    let path = written("seed.state", b"");
    let about = states_of_runs::About::default();
    let vectors: [(&str, &[f32]); 2] = [("params", &[1.0, -2.0]), ("m", &[0.5; 3])];
    states_of_runs::save(&path, &path.with_extension("before"), &about, &vectors)
        .expect("room for a small file");
    vec![std::fs::read(path).expect("what was just written")]
}

/// `config.json` of a folder of weights.
pub fn config(bytes: &[u8]) -> Result<(), String> {
    let preprocess = &super::model::preprocesses()[0];
    let path = written("run/config.json", bytes);
    written("run/preprocessor_config.json", preprocess);
    _ = config::ModelFiles::load(path.parent().expect("a folder"));
    Ok(())
}

pub fn configs() -> Vec<Vec<u8>> {
    let config = config::ModelConfig {
        model_type: "vit".into(),
        encoder: Preset::Nano.encoder(32, 8, 3),
        decoder: None,
        pool: Some(Pooling::Mean),
        norm_pix_loss: None,
    };
    vec![serde_json::to_vec(&config).expect("a configuration")]
}
