//! A run's folder and everything in it.
//!
//! ```text
//! RUN/smalti-files.txt   which files are Smalti's; the lock            owner
//!     config.toml        settings, with the flags' names
//!     metrics.jsonl      one line a step and a validation              metrics
//!     train.log          messages
//!     checkpoints/       last.state, previous.state                    state
//!                        last.safetensors, best.safetensors            crate::model::weights
//!                        config.json, preprocessor_config.json, labels.txt    config
//!     recon/             reconstructions as PNG
//!     teacher/           embeddings of a teacher                       crate::teacher::cache
//!     report.html        what `smalti report` writes
//! ```
//! Only [`RunDir`] knows these names, and which checkpoint stands for the run.

pub mod config;
pub mod metrics;
pub mod owner;
pub mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use config::{ModelConfig, ModelFiles};
pub use metrics::Metrics;
pub use owner::Owner;
pub use state::{About, Best, LossTrack, State};

use crate::error::{Error, Result};
use crate::files;
use owner::Claim;

/// What a run's folder holds, apart from the marker.
const NAMES: [&str; 7] =
    ["config.toml", "metrics.jsonl", "train.log", "checkpoints", "recon", "teacher", "report.html"];
const STATE: &str = "checkpoints/last.state";
/// The state before, for when the last one is damaged.
const PREVIOUS: &str = "checkpoints/previous.state";
/// The name of the command that makes a run of weights of other programs.
pub const IMPORT: &str = "import";

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Present where this process may write.
    owner: Option<Arc<Owner>>,
    resumes: bool,
    settings: Option<String>,
}

/// How a new run's folder is taken.
#[derive(Clone, Debug, Default)]
pub struct Create<'a> {
    /// Whether an earlier run in the folder is replaced.
    pub overwrite: bool,
    /// Paths that the run reads, each with the flag that names it: they are never removed.
    pub inputs: &'a [(&'a str, PathBuf)],
}

impl Create<'_> {
    fn claim<'c>(&'c self, path: &Path, stage: &'static str, legacy: &'c [PathBuf]) -> Claim<'c> {
        // A run that failed before it began left nothing to lose.
        let has_begun = path.join("config.toml").exists();
        Claim {
            written_by: stage,
            names: &NAMES,
            overwrite: self.overwrite || !has_begun,
            inputs: self.inputs,
            legacy,
            resumable: stage != IMPORT,
        }
    }

    /// Whether [`RunDir::create`] would take the folder, but for its lock; changes nothing.
    pub fn check(&self, path: &Path, stage: &'static str) -> Result<()> {
        self.claim(path, stage, &legacy_files(path)).check(path)
    }
}

impl RunDir {
    /// A new run of the stage `stage`. Errors: the folder holds a run and is not to be overwritten, or files that are
    /// not Smalti's under the names of a run's, or another process works in it.
    pub fn create(path: &Path, stage: &'static str, create: &Create<'_>) -> Result<RunDir> {
        let owner = Owner::claim(path, &create.claim(path, stage, &legacy_files(path)))?;
        RunDir { path: path.into(), owner: Some(Arc::new(owner)), resumes: false, settings: None }.begun()
    }

    /// A run that is continued. One that was stopped before its first checkpoint begins anew.
    pub fn resume(path: &Path, stage: &'static str) -> Result<RunDir> {
        let run = RunDir::open(path)?;
        let owner = Owner::resume(path, stage, &legacy_files(path))?;
        let resumes = run.state().is_file() || run.previous_state().is_file();
        RunDir { owner: Some(Arc::new(owner)), resumes, ..run }.begun()
    }

    /// A run that is read. A finished one may get more files ([`RunDir::write`]).
    pub fn open(path: &Path) -> Result<RunDir> {
        if !owner::is_owned(path) && legacy_files(path).is_empty() {
            let problem = "is not a run: expected a folder that `smalti pretrain`, `distil`, `finetune` or `import` wrote";
            return Err(Error::Checkpoint { path: path.into(), problem: problem.into() });
        }
        Ok(RunDir { path: path.into(), owner: None, resumes: false, settings: None })
    }

    /// The same run with this text as `config.toml`, once it begins.
    pub fn with_settings(self, toml: String) -> RunDir {
        RunDir { settings: Some(toml), ..self }
    }

    /// Clears what a killed process left half written.
    fn begun(self) -> Result<RunDir> {
        files::make_folder(&self.checkpoints())?;
        [self.path.clone(), self.checkpoints()]
            .iter()
            .for_each(|folder| smalti_models::files::remove_stale(folder));
        Ok(self)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a state to continue from, and it is to be continued.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// Whether the run is weights of another program's, which `smalti import` brought here.
    pub fn is_imported(&self) -> bool {
        owner::written_by(&self.path).is_some_and(|writer| writer == IMPORT)
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// A checkpoint's tensors: `last`, `best`.
    pub fn model(&self, name: &str) -> PathBuf {
        self.path.join(model_name(name))
    }

    /// The checkpoint that stands for the run: the best by validation, else the last.
    pub fn best_or_last(&self) -> PathBuf {
        let best = self.model("best");
        if best.is_file() { best } else { self.model("last") }
    }

    /// What `--resume` reads.
    pub fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// What `--resume` reads where that is damaged.
    pub fn previous_state(&self) -> PathBuf {
        self.path.join(PREVIOUS)
    }

    /// The last state that can be read, and where it is. If that is not the last one that was written, it is said why.
    ///
    /// # Errors
    /// Those of the last one, if the one before cannot be read either.
    pub fn load_state(&self) -> Result<(PathBuf, State)> {
        let (last, previous) = (self.state(), self.previous_state());
        let problem = match state::load(&last) {
            Ok(state) => return Ok((last, state)),
            Err(problem) => problem,
        };
        let Ok(state) = state::load(&previous) else { return Err(problem) };
        log::warn!("{problem}; the run goes on from the checkpoint before, at step {}", state.about.step);
        Ok((previous, state))
    }

    /// Puts the state that was loaded into the place of the last one: a damaged one is not to push it out.
    pub fn accept_state(&self, path: &Path) -> Result<()> {
        let last = self.state();
        if path == last {
            return Ok(());
        }
        std::fs::rename(path, &last).map_err(Error::file("write", last))
    }

    /// `config.toml`.
    pub fn settings(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// What the model is, see [`ModelFiles`].
    pub fn load_model_files(&self) -> Result<ModelFiles> {
        ModelFiles::load(&self.checkpoints())
    }

    /// The path of the file `name`, relative to the run, listed as Smalti's: for who writes it himself.
    pub fn own(&self, name: &str) -> Result<PathBuf> {
        match &self.owner {
            Some(owner) => owner.add([Path::new(name)])?,
            None => owner::append(&self.path, [Path::new(name)])?,
        }
        Ok(self.path.join(name))
    }

    /// Whether `name`, relative to the run, is a file that Smalti wrote.
    pub fn owns(&self, name: &str) -> Result<bool> {
        Ok(owner::listed(&self.path)?.iter().any(|ours| ours == Path::new(name)))
    }

    /// Writes the file `name`, relative to the run, whole or not at all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.own(name)?;
        path.parent().map_or(Ok(()), files::make_folder)?;
        files::write(&path, bytes)
    }

    /// Writes a checkpoint's tensors by `save`, which gets the path.
    pub fn save_model(&self, name: &str, save: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        save(&self.own(&model_name(name))?)
    }

    /// Writes the state.
    pub fn save_state(&self, about: &About, vectors: &[(&str, &[f32])]) -> Result<()> {
        state::save(&self.own(STATE)?, &self.own(PREVIOUS)?, about, vectors)
    }

    /// Writes the settings that [`RunDir::with_settings`] gave, for a stage whose preparations take long.
    pub fn save_settings(&self) -> Result<()> {
        match &self.settings {
            Some(text) if !self.settings().is_file() => self.write("config.toml", text.as_bytes()),
            _ => Ok(()),
        }
    }

    /// Writes settings and model files, unless the run has them: called once the state is accepted. `settings` is the
    /// text for `config.toml` where [`RunDir::with_settings`] gave none.
    pub fn begin(&self, settings: &str, model: &ModelFiles) -> Result<()> {
        if !self.resumes || !self.settings().is_file() {
            self.write("config.toml", self.settings.as_deref().unwrap_or(settings).as_bytes())?;
        }
        for (name, bytes) in model.to_files()? {
            let name = format!("checkpoints/{name}");
            if !self.resumes || !self.path.join(&name).is_file() {
                self.write(&name, &bytes)?;
            }
        }
        Ok(())
    }

    /// Opens `metrics.jsonl` without the lines after step `step`.
    pub fn metrics(&self, step: u64) -> Result<Metrics> {
        Metrics::open(&self.own("metrics.jsonl")?, step)
    }
}

fn model_name(name: &str) -> String {
    format!("checkpoints/{name}.safetensors")
}

/// The files of a run that a version without a marker wrote; none where the folder is no such run.
fn legacy_files(run: &Path) -> Vec<PathBuf> {
    if owner::is_owned(run) || ModelFiles::load(&run.join("checkpoints")).is_err() {
        return Vec::new();
    }
    let checkpoints =
        ["last.state", "last.safetensors", "best.safetensors", "config.json", "preprocessor_config.json"];
    let mut names: Vec<PathBuf> =
        checkpoints.iter().map(|name| Path::new("checkpoints").join(name)).collect();
    names.extend(["checkpoints/labels.txt", "config.toml", "metrics.jsonl", "train.log"].map(PathBuf::from));
    let recon = std::fs::read_dir(run.join("recon")).into_iter().flatten().flatten();
    let is_step = |name: &str| name.starts_with("step-") && name.ends_with(".png");
    names.extend(
        recon
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_step(name))
            .map(|name| Path::new("recon").join(name)),
    );
    names.retain(|name| run.join(name).is_file());
    names
}

#[cfg(test)]
mod tests {
    use smalti_models::{Pooling, Preprocess, presets::Preset};

    use super::*;

    fn model_files() -> ModelFiles {
        ModelFiles {
            config: ModelConfig {
                model_type: "vit".into(),
                encoder: Preset::Nano.encoder(32, 4, 3),
                decoder: None,
                pool: Some(Pooling::Token),
                norm_pix_loss: None,
            },
            preprocess: Preprocess {
                img_size: 32,
                channels: 3,
                fit: smalti_models::preprocess::FitMode::Crop,
                resize: None,
                interpolation: smalti_models::resize::Interpolation::Bicubic,
                mean: vec![0.5; 3],
                std: vec![0.25; 3],
            },
            labels: vec!["a".to_string(), "b c".into()],
        }
    }

    fn create(path: &Path, overwrite: bool) -> Result<RunDir> {
        RunDir::create(path, "finetune", &Create { overwrite, inputs: &[] })
    }

    #[test]
    fn a_run_is_not_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let run = create(&path, false).unwrap();
        run.begin("seed = 1\n", &model_files()).unwrap();
        std::fs::write(path.join("mine.txt"), "keep").unwrap();
        drop(run);
        assert_eq!(create(&path, false).unwrap_err().exit_code(), 2);
        let run = create(&path, true).unwrap();
        assert!(!run.settings().exists() && path.join("mine.txt").exists());
        assert_eq!(RunDir::open(folder.path()).unwrap_err().exit_code(), 5);
    }

    #[test]
    fn the_model_files_come_back_and_a_resumed_run_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let run = create(&path, false).unwrap();
        run.begin("seed = 1\n", &model_files()).unwrap();
        run.save_state(&About::default(), &[("params", &[1.0])]).unwrap();
        assert_eq!(run.load_model_files().unwrap(), model_files());
        drop(run);
        let run = RunDir::resume(&path, "finetune").unwrap();
        assert!(run.resumes());
        run.begin("seed = 2\n", &ModelFiles { labels: vec!["z".into()], ..model_files() }).unwrap();
        assert_eq!(run.load_model_files().unwrap(), model_files());
        assert_eq!(std::fs::read_to_string(run.settings()).unwrap(), "seed = 1\n");
        std::fs::write(run.checkpoints().join("config.json"), "{").unwrap();
        assert_eq!(run.load_model_files().unwrap_err().exit_code(), 5);
    }

    #[test]
    fn a_run_of_a_version_without_a_marker_is_known_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let run = create(&path, false).unwrap();
        run.begin("seed = 1\n", &model_files()).unwrap();
        drop(run);
        std::fs::remove_file(path.join(owner::MARKER)).unwrap();
        std::fs::write(path.join("checkpoints/mine.pth"), "keep").unwrap();
        assert_eq!(create(&path, false).unwrap_err().exit_code(), 2);
        assert!(RunDir::open(&path).is_ok());
        drop(create(&path, true).unwrap());
        assert!(path.join("checkpoints/mine.pth").exists() && !path.join("config.toml").exists());
    }
}
