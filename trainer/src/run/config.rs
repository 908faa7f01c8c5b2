//! The files next to a checkpoint that say what the model is: `config.json`, `preprocessor_config.json`, `labels.txt`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use smalti_models::{Pooling, Preprocess, VitConfig};

use crate::error::{Error, Result};
use crate::files;

/// The largest of these files that is read.
const MAX_BYTES: u64 = 16 << 20;

/// `config.json`: enough to build the model again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModelConfig {
    /// `vit` (a classifier) or `vit_mae` (a pretrained autoencoder), as Hugging Face calls them; with a convolutional stem
    /// `hybrid` or `hybrid_mae`.
    #[serde(rename = "model_type")]
    pub model_type: String,
    /// The encoder.
    pub encoder: VitConfig,
    /// The decoder of an autoencoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<smalti_models::DecoderConfig>,
    /// How a classifier pools tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pooling>,
    /// Whether the autoencoder's targets were normalised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_pix_loss: Option<bool>,
}

impl ModelConfig {
    /// An encoder whose tokens are pooled, with or without a head.
    pub(crate) fn pooled(encoder: &VitConfig, pool: Pooling) -> ModelConfig {
        ModelConfig {
            model_type: if encoder.stem.is_patches() { "vit" } else { "hybrid" }.into(),
            encoder: encoder.clone(),
            decoder: None,
            pool: Some(pool),
            norm_pix_loss: None,
        }
    }
}

/// What a model is, apart from its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFiles {
    /// The model.
    pub config: ModelConfig,
    /// Its input.
    pub preprocess: Preprocess,
    /// The names of its classes; none for an autoencoder.
    pub labels: Vec<String>,
}

impl ModelFiles {
    /// The files' names and contents.
    pub fn to_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut files = vec![
            ("config.json", to_json(&self.config)?),
            ("preprocessor_config.json", to_json(&self.preprocess.to_json())?),
        ];
        if !self.labels.is_empty() {
            let text: String = self.labels.iter().map(|label| format!("{label}\n")).collect();
            files.push(("labels.txt", text.into_bytes()));
        }
        Ok(files)
    }

    /// Reads the files in a folder.
    pub fn load(folder: &Path) -> Result<ModelFiles> {
        let config: ModelConfig = load_json(&folder.join("config.json"))?;
        config.encoder.check()?;
        let preprocess = Preprocess::from_json(&load_json(&folder.join("preprocessor_config.json"))?)?;
        Ok(ModelFiles { config, preprocess, labels: load_labels(&folder.join("labels.txt"))? })
    }
}

/// The names of the classes, one a line; none where there is no file.
pub fn load_labels(path: &Path) -> Result<Vec<String>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = files::read(path, MAX_BYTES)?;
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_string).collect())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::Usage(format!("the model's configuration cannot be written as JSON: {e}")))?;
    text.push('\n');
    Ok(text.into_bytes())
}

fn load_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let bytes = files::read(path, MAX_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Checkpoint {
        path: path.into(),
        problem: format!("is not what smalti writes: {e}"),
    })
}
