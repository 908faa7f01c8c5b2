//! What lies in a folder that a report is asked of: which command wrote it, the runs in it, what they were told, their images.

use std::path::{Path, PathBuf};

use serde_json::Value;
use smalti_trainer::data::{Dataset, Split, Splits};
use smalti_trainer::run::{RunDir, owner};
use smalti_trainer::stages::finetune::{self, Finetuned};
use smalti_trainer::{Error, Result, evaluate::probe};

use crate::args::{DistilArgs, FinetuneArgs, PretrainArgs, TrainArgs, config};
use crate::autotrain;
use crate::plan;

/// Parts of `smalti train`, in the order in which they run, and of `smalti quickstart`.
const STAGES: [&str; 3] = ["distil", "finetune", "self-train"];
const QUICKSTART: [&str; 2] = ["train", "scratch"];

/// The command that wrote a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Train,
    Quickstart,
    Curve,
    Pretrain,
    Distil,
    Finetune,
    Import,
}

const KINDS: [(&str, Kind); 7] = [
    ("train", Kind::Train),
    ("quickstart", Kind::Quickstart),
    ("curve", Kind::Curve),
    ("pretrain", Kind::Pretrain),
    ("distil", Kind::Distil),
    ("finetune", Kind::Finetune),
    ("import", Kind::Import),
];

impl Kind {
    /// The command's name.
    pub(super) fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// A folder that a command of Smalti wrote.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// The images of a run.
pub(super) struct RunImages {
    /// The data set that they are of.
    pub(super) root: PathBuf,
    /// All that was learned from; labels are those that counted.
    pub(super) learned: Dataset,
    /// Labelled images that it is measured on, and which split they are.
    pub(super) held_out: Option<(Dataset, String)>,
}

impl Source {
    /// Looks at a folder.
    ///
    /// # Errors
    /// A folder that is nothing of Smalti's.
    pub(super) fn open(path: &Path) -> Result<Source> {
        let writer = owner::written_by(path);
        let known = KINDS.iter().find(|(name, _)| writer.as_deref() == Some(name));
        let kind = match known {
            Some((_, kind)) => *kind,
            // What a version without a marker wrote.
            None => match RunDir::open(path).and_then(|run| run.load_model_files()) {
                Ok(files) if files.config.decoder.is_some() => Kind::Pretrain,
                Ok(_) => Kind::Finetune,
                Err(_) => {
                    let problem = "is nothing to report on: expected a folder that `smalti train`, `quickstart`, `curve`, \
                                   `pretrain`, `distil`, `finetune` or `import` wrote";
                    return Err(Error::Checkpoint { path: path.into(), problem: problem.into() });
                }
            },
        };
        Ok(Source { path: path.into(), kind })
    }

    /// The trainings that a quickstart compares; the folder itself in any other case.
    pub(super) fn trainings(&self) -> Vec<Source> {
        match self.kind {
            Kind::Quickstart => {
                let paths = QUICKSTART.iter().map(|name| self.path.join(name));
                paths.filter_map(|path| Source::open(&path).ok()).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// The folders of runs, each with the name of what it did, in the order in which they ran.
    pub(super) fn stages(&self) -> Vec<(String, PathBuf)> {
        match self.kind {
            Kind::Train => {
                let stages = STAGES.iter().map(|name| ((*name).to_owned(), self.path.join(name)));
                stages.filter(|(_, path)| path.join("metrics.jsonl").is_file()).collect()
            }
            Kind::Quickstart | Kind::Curve => Vec::new(),
            _ => vec![(self.kind.name().to_owned(), self.path.clone())],
        }
    }

    /// Whether a process is writing to the folder now.
    pub(super) fn is_running(&self) -> bool {
        owner::is_locked(&self.path)
    }

    /// A JSON file of the folder.
    pub(super) fn json(&self, name: &str) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.path.join(name)).ok()?).ok()
    }

    /// A file that the folder's report names, where it lies now: as it was named, or in the folder.
    pub(super) fn file(&self, named: &Path) -> Option<PathBuf> {
        let here = self.path.join(named.file_name()?);
        [here, named.to_owned()].into_iter().find(|path| path.exists())
    }

    /// The settings that a command of this kind was given.
    fn settings<T: clap::Args + serde::Serialize + serde::de::DeserializeOwned + Default>(
        &self,
    ) -> Result<T> {
        let path = self.path.join("config.toml");
        config::merge(T::default(), path.is_file().then_some(path.as_path()))
    }

    /// The run's images, out of its own data set or out of `data`.
    ///
    /// # Errors
    /// A data set that is not known, or not there.
    pub(super) fn images(&self, data: Option<&Path>) -> Result<RunImages> {
        match self.kind {
            Kind::Train => self.images_of_train(data),
            Kind::Finetune => {
                let mut args: FinetuneArgs = self.settings()?;
                let root = found(data.map(Path::to_owned).or(args.data))?;
                args.data = Some(root.clone());
                let sets = plan::finetune::sets(&mut args)?;
                let held_out = sets.test.map(|(test, split)| (test, split.to_string()));
                Ok(RunImages { root, learned: sets.train, held_out })
            }
            Kind::Pretrain => {
                let args: PretrainArgs = self.settings()?;
                unlabelled(found(data.map(Path::to_owned).or(args.data))?, args.split.as_deref())
            }
            Kind::Distil => {
                let args: DistilArgs = self.settings()?;
                unlabelled(found(data.map(Path::to_owned).or(args.data))?, args.split.as_deref())
            }
            _ => unlabelled(found(data.map(Path::to_owned))?, None),
        }
    }

    /// The data set that a `smalti train` noted.
    pub(super) fn root(&self) -> Option<PathBuf> {
        Some(self.json(autotrain::DATA)?["data"].as_str()?.into())
    }

    fn images_of_train(&self, data: Option<&Path>) -> Result<RunImages> {
        let mut args: TrainArgs = self.settings()?;
        let root = found(data.map(Path::to_owned).or_else(|| self.root()))?;
        args.data = Some(root.clone());
        let images = autotrain::images::chosen(&mut args)?;
        Ok(RunImages { root, learned: images.all, held_out: images.test })
    }

    /// The run's model; of `smalti train` the one that it exported.
    ///
    /// # Errors
    /// A run that has none yet, or a damaged one.
    pub(super) fn model(&self) -> Result<Finetuned> {
        match self.kind {
            Kind::Train => {
                let stages = self.stages();
                let Some((_, run)) = stages.iter().rev().find(|(name, _)| name != "distil") else {
                    let problem = "has no classifier yet: continue with `smalti train DIR --resume`";
                    return Err(Error::Checkpoint { path: self.path.clone(), problem: problem.into() });
                };
                let mut model = finetune::load(run)?;
                let temperature =
                    self.json(autotrain::CHOICE).and_then(|choice| choice["temperature"].as_f64());
                model.divide_logits(temperature.filter(|t| *t > 0.0).unwrap_or(1.0));
                Ok(model)
            }
            Kind::Finetune => finetune::load(&self.path),
            _ => probe::load(&self.path),
        }
    }
}

/// A data set that is known and there.
fn found(data: Option<PathBuf>) -> Result<PathBuf> {
    let Some(data) = data else {
        return Err(Error::Usage(
            "the run does not say what its images are: name them with --data DIR".into(),
        ));
    };
    if data.exists() {
        return Ok(data);
    }
    let problem = "is not there now: name the run's images with --data DIR";
    Err(Error::data(data.display().to_string(), problem))
}

/// The images of a run that learned without labels, with those that the data set has, to look at.
fn unlabelled(root: PathBuf, split: Option<&str>) -> Result<RunImages> {
    let data = Splits::open(&root)?;
    let split = split.map_or(Ok(Split::Train), plan::split)?;
    let split = if data.has(split) { split } else { Split::All };
    Ok(RunImages { learned: data.dataset(split)?, held_out: None, root })
}
