//! A run's folder: `config.toml metrics.jsonl checkpoints/ recon/`, and the files beside a checkpoint.

pub mod checkpoint;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use smalti_models::{Pool, Preprocess, VitConfig};

use crate::error::{Error, Result};
use crate::files;

/// What `config.json` beside a checkpoint says of the model: enough to build it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModelConfig {
    /// `vit` (a classifier) or `vit_mae` (a pretrained autoencoder), as Hugging Face calls them.
    #[serde(rename = "model_type")]
    pub model_type: String,
    /// The encoder.
    pub encoder: VitConfig,
    /// The decoder of an autoencoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<smalti_models::DecoderConfig>,
    /// How a classifier pools tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Whether the autoencoder's targets were normalised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_pix_loss: Option<bool>,
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// A new run. A folder that already holds a run is refused unless `overwrite`, which removes the old run's files
    /// and nothing else.
    pub fn create(path: &Path, overwrite: bool) -> Result<RunDir> {
        let run = RunDir { path: path.into() };
        if run.is_run() {
            if !overwrite {
                return Err(Error::Usage(format!(
                    "{} already holds a run: continue it with --resume, replace it with --overwrite, or name \
                     another folder",
                    path.display()
                )));
            }
            for name in ["checkpoints", "recon", "config.toml", "metrics.jsonl", "train.log", "report.html"] {
                remove(&run.path.join(name))?;
            }
        }
        files::make_folder(&run.checkpoints())?;
        Ok(run)
    }

    /// A run that is there.
    pub fn open(path: &Path) -> Result<RunDir> {
        let run = RunDir { path: path.into() };
        if !run.is_run() {
            let problem = "is no run (it has no folder `checkpoints`): expected what `smalti pretrain` or \
                           `smalti finetune` wrote";
            return Err(Error::Checkpoint { path: path.into(), problem: problem.into() });
        }
        Ok(run)
    }

    fn is_run(&self) -> bool {
        self.checkpoints().is_dir()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// A checkpoint's tensors: `last`, `best`.
    pub fn model(&self, name: &str) -> PathBuf {
        self.checkpoints().join(format!("{name}.safetensors"))
    }

    /// What `--resume` reads.
    pub fn state(&self) -> PathBuf {
        self.checkpoints().join("last.state")
    }

    /// The folder of reconstruction images.
    pub fn recon(&self) -> PathBuf {
        self.path.join("recon")
    }

    /// Saves the settings as TOML, unless the run has its settings: the program saves them as flags beforehand.
    pub fn save_settings(&self, settings: &impl Serialize) -> Result<()> {
        let path = self.path.join("config.toml");
        if path.is_file() {
            return Ok(());
        }
        let text = toml::to_string_pretty(settings)
            .map_err(|e| Error::Usage(format!("settings cannot be written as TOML: {e}")))?;
        files::write(&path, text.as_bytes())
    }

    /// Writes what belongs beside a checkpoint: `config.json`, `preprocessor_config.json`, `labels.txt`.
    pub fn save_config(
        &self,
        config: &ModelConfig,
        preprocess: &Preprocess,
        labels: &[String],
    ) -> Result<()> {
        let folder = self.checkpoints();
        save_json(&folder.join("config.json"), config)?;
        save_json(&folder.join("preprocessor_config.json"), &preprocess.to_json())?;
        if !labels.is_empty() {
            let text: String = labels.iter().map(|label| format!("{label}\n")).collect();
            files::write(&folder.join("labels.txt"), text.as_bytes())?;
        }
        Ok(())
    }

    /// Reads what [`RunDir::save_config`] wrote.
    pub fn load_config(&self) -> Result<(ModelConfig, Preprocess, Vec<String>)> {
        load_config(&self.checkpoints())
    }

    /// Opens `metrics.jsonl` and drops the lines after step `step`.
    pub fn metrics(&self, step: u64) -> Result<Metrics> {
        let path = self.path.join("metrics.jsonl");
        let mut kept = String::new();
        if step > 0 && path.is_file() {
            let file = File::open(&path).map_err(Error::file("read", &path))?;
            for line in BufReader::new(file).lines() {
                let line = line.map_err(Error::file("read", &path))?;
                let of = serde_json::from_str::<serde_json::Value>(&line).ok();
                if of.and_then(|line| line["step"].as_u64()).is_some_and(|of| of <= step) {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
        }
        files::write(&path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::file("write", &path))?;
        Ok(Metrics { path, file })
    }
}

/// Reads `config.json`, `preprocessor_config.json` and `labels.txt` of a folder.
pub fn load_config(folder: &Path) -> Result<(ModelConfig, Preprocess, Vec<String>)> {
    let config: ModelConfig = load_json(&folder.join("config.json"))?;
    config.encoder.check()?;
    let path = folder.join("preprocessor_config.json");
    let preprocess = Preprocess::from_json(&load_json(&path)?)?;
    let labels = folder.join("labels.txt");
    let labels = if labels.is_file() {
        let text = files::read(&labels, 16 << 20)?;
        String::from_utf8_lossy(&text).lines().map(str::to_string).collect()
    } else {
        Vec::new()
    };
    Ok((config, preprocess, labels))
}

fn remove(path: &Path) -> Result<()> {
    let done = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
        _ => Ok(()),
    }
}

fn save_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::Usage(format!("{} cannot be written: {e}", path.display())))?;
    text.push('\n');
    files::write(path, text.as_bytes())
}

fn load_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let bytes = files::read(path, 16 << 20)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::Checkpoint { path: path.into(), problem: format!("cannot be understood: {e}") })
}

/// `metrics.jsonl`, one object a line.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Appends one line.
    pub fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(line)
            .map_err(|e| Error::Usage(format!("a metric cannot be written: {e}")))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(Error::file("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_is_not_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let run = RunDir::create(&path, false).unwrap();
        std::fs::write(path.join("mine.txt"), "keep").unwrap();
        std::fs::write(run.state(), "old").unwrap();
        assert_eq!(RunDir::create(&path, false).unwrap_err().exit_code(), 2);
        assert!(RunDir::open(&path).is_ok());
        let run = RunDir::create(&path, true).unwrap();
        assert!(!run.state().exists() && path.join("mine.txt").exists());
        assert_eq!(RunDir::open(folder.path()).unwrap_err().exit_code(), 5);
    }

    #[test]
    fn metrics_after_the_step_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(&folder.path().join("run"), false).unwrap();
        let mut metrics = run.metrics(0).unwrap();
        (1..=5).for_each(|step| metrics.write(&json!({"step": step})).unwrap());
        OpenOptions::new()
            .append(true)
            .open(run.path().join("metrics.jsonl"))
            .unwrap()
            .write_all(b"{\"step\": 6, torn")
            .unwrap();
        run.metrics(3).unwrap().write(&json!({"step": 4, "again": true})).unwrap();
        let text = std::fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with("{\"again\":true,\"step\":4}\n"), "{text}");
    }

    #[test]
    fn the_configuration_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(&folder.path().join("run"), false).unwrap();
        let encoder = smalti_models::presets::Preset::Nano.encoder(32, 4, 3);
        let config = ModelConfig {
            model_type: "vit".into(),
            encoder,
            decoder: None,
            pool: Some(Pool::Token),
            norm_pix_loss: None,
        };
        let preprocess = Preprocess {
            img_size: 32,
            channels: 3,
            fit: smalti_models::preprocess::FitMode::Crop,
            interpolation: smalti_models::resize::Interpolation::Bicubic,
            mean: vec![0.5; 3],
            std: vec![0.25; 3],
        };
        let labels = vec!["a".to_string(), "b c".into()];
        run.save_config(&config, &preprocess, &labels).unwrap();
        assert_eq!(run.load_config().unwrap(), (config, preprocess, labels));
        std::fs::write(run.checkpoints().join("config.json"), "{").unwrap();
        assert_eq!(run.load_config().unwrap_err().exit_code(), 5);
    }
}
