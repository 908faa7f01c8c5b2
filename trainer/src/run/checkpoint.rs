//! The state of a run, `last.state`: a safetensors file with parameters, both moments and the settings.
//!
//! It is complete, so that one rename makes a checkpoint. `NAME.safetensors` next to it holds the model's tensors alone
//! ([`weights::save_model`]), which timm loads with `load_state_dict`.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::model::weights::file::{bytes_of, unusable};
use crate::model::weights::{self, file};
use crate::train::optim::AdamW;

/// All that a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Parameters.
    pub params: Vec<f32>,
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
    /// Steps done; with the settings' seed it fixes every random number to come and the place in the data.
    pub step: u64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The best score on held-out images so far.
    pub best: Option<f64>,
    /// The settings that the run was started with.
    pub settings: serde_json::Value,
}

impl State {
    /// Writes the state, with a digest of its tensors.
    pub fn save(path: &Path, params: &[f32], optimizer: &AdamW, about: &About) -> Result<()> {
        let shape = [params.len()];
        let details = serde_json::json!({
            "step": optimizer.step, "seconds": about.seconds, "best": about.best, "settings": about.settings,
            "sha256": digest([params, &optimizer.m, &optimizer.v]),
        });
        let tensors = [("params", params), ("m", &optimizer.m), ("v", &optimizer.v)];
        weights::save(path, tensors.map(|(name, values)| (name, &shape[..], values)), &details)
    }

    /// Reads a state for a model of `len` parameters.
    pub fn load(path: &Path, len: usize) -> Result<State> {
        let (mut tensors, details) = file::load(path)?;
        let mut take = |name: &str| {
            let tensor = tensors.remove(name).ok_or_else(|| unusable(path, format!("lacks `{name}`")))?;
            let values: Vec<f32> = tensor.values;
            if values.len() != len {
                let problem = format!("`{name}` has {} values, this model has {len}", values.len());
                return Err(unusable(path, problem));
            }
            Ok(values)
        };
        let (params, m, v) = (take("params")?, take("m")?, take("v")?);
        if details["sha256"] != digest([&params, &m, &v]) {
            return Err(unusable(path, "its digest does not match its tensors: the file is damaged"));
        }
        let step = details["step"].as_u64().ok_or_else(|| unusable(path, "does not say its step"))?;
        let seconds = details["seconds"].as_f64().unwrap_or(0.0);
        Ok(State {
            params,
            m,
            v,
            step,
            seconds,
            best: details["best"].as_f64(),
            settings: details["settings"].clone(),
        })
    }
}

/// What a [`State`] says besides its tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Seconds of training so far.
    pub seconds: f64,
    /// The best score on held-out images so far.
    pub best: Option<f64>,
    /// The run's settings.
    pub settings: serde_json::Value,
}

fn digest(tensors: [&[f32]; 3]) -> String {
    let mut hash = Sha256::new();
    tensors.iter().for_each(|values| hash.update(bytes_of(values)));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::Layout;
    use crate::model::precision::Precision;
    use smalti_models::names;
    use smalti_models::{Pool, VitConfig};

    fn layout() -> Layout {
        let vit = VitConfig { img_size: 4, patch_size: 2, channels: 1, dim: 8, depth: 1, heads: 2 };
        Layout::new(names::classifier(&vit, 3, Pool::Mean), Precision::F32)
    }

    #[test]
    fn a_state_comes_back_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, path) = (layout(), folder.path().join("last.state"));
        let params = layout.init::<f32>(5);
        let mut optimizer = AdamW::new(&layout, [0.9, 0.95], 0.0, 1.0);
        optimizer.step = 7;
        let about = About { seconds: 1.5, best: Some(0.25), settings: serde_json::json!({"seed": 3}) };
        State::save(&path, &params, &optimizer, &about).unwrap();
        let state = State::load(&path, layout.len()).unwrap();
        assert_eq!((state.step, state.seconds, state.best), (7, 1.5, Some(0.25)));
        assert_eq!((state.params, state.m, state.settings), (params, optimizer.m, about.settings));
        assert!(State::load(&path, 3).unwrap_err().to_string().contains("this model has 3"));

        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(State::load(&path, layout.len()).unwrap_err().exit_code(), 5);
        }
        let mut flipped = whole.clone();
        flipped[whole.len() - 40] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(State::load(&path, layout.len()).is_err());
    }
}
