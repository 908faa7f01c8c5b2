//! Weights of timm or Hugging Face as a run, which everything that reads runs then works on.

use std::path::Path;

use serde_json::json;
use smalti_models::{Pooling, Preprocess, VitConfig};

use super::finetune::Finetuned;
use crate::error::{Error, Result};
use crate::model::Classifier;
use crate::model::weights::{self, Loaded, Take, Weights};
use crate::run::{ModelConfig, ModelFiles, RunDir};

/// What the weights are.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportSettings {
    /// The encoder; positions are resampled to its image size.
    pub encoder: VitConfig,
    /// How tokens become one vector.
    pub pool: Pooling,
    /// The model's input.
    pub preprocess: Preprocess,
    /// The classes of the file's head; none to leave the head out, so that the model embeds images and does no more.
    pub labels: Vec<String>,
}

impl ImportSettings {
    /// Refuses what does not fit together.
    pub fn check(&self) -> Result<()> {
        self.encoder.check()?;
        self.preprocess.check()?;
        let [model, input] = [
            (self.encoder.img_size, self.encoder.channels),
            (self.preprocess.img_size, self.preprocess.channels),
        ];
        if model == input {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "the model takes {0} x {0} pixels in {1} channels, its preprocessing gives {2} x {2} in {3}",
            model.0, model.1, input.0, input.1
        )))
    }

    /// Which of the file's tensors are taken.
    fn take(&self) -> Take {
        if self.labels.is_empty() { Take::Encoder } else { Take::Classifier }
    }
}

/// Reads the weights into a model; says what became of each tensor.
///
/// # Errors
/// Settings that do not fit together or not the file.
pub fn read(weights: &Weights, settings: &ImportSettings) -> Result<(Finetuned, Loaded)> {
    settings.check()?;
    let model = Classifier::new(&settings.encoder, settings.labels.len().max(1), settings.pool)?;
    let mut params = model.layout().init::<f32>(0);
    let loaded = weights.load(model.layout(), &mut params, settings.take())?;
    let (preprocess, labels) = (settings.preprocess.clone(), settings.labels.clone());
    Ok((Finetuned { model, params, preprocess, labels }, loaded))
}

/// Writes a model that was read from the file `source` as a run, with `settings` as its `config.toml`.
///
/// # Errors
/// The file system.
pub fn write(model: &Finetuned, source: &Path, settings: &str, run: &RunDir) -> Result<()> {
    let (encoder, pool) = (model.model.vit(), model.model.pool());
    let name = source.file_name().map(|name| name.to_string_lossy());
    let details = json!({
        "encoder": encoder, "pool": pool, "preprocess": model.preprocess, "imported": { "file": name },
    });
    let tensors =
        model.tensors().map(|(spec, slot)| (spec.name.as_str(), &spec.shape[..], slot.of(&model.params)));
    run.save_model("last", |path| weights::save(path, tensors, &details))?;
    // Last: a run that has settings has all else.
    run.begin(
        settings,
        &ModelFiles {
            config: ModelConfig::pooled(encoder, pool),
            preprocess: model.preprocess.clone(),
            labels: model.labels.clone(),
        },
    )
}
