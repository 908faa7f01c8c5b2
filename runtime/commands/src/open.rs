//! Opening models as the command line says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use smalti_runtime::models::preprocess::FitMode;
use smalti_runtime::models::resize::Interpolation;
use smalti_runtime::trust::{PublicKey, Trust};
use smalti_runtime::watch::{ModelWatcher, WatchHandle, WatchOptions};
use smalti_runtime::{Error, Model, OpenOptions, Preprocess};
use smalti_tools::suggest;

use super::args::{FileArgs, FitArg, ForeignArgs, InterpolationArg, WatchArgs};

/// What files must show.
pub(super) fn trust(args: &FileArgs) -> Result<Trust, Error> {
    let key = args.pubkey.as_deref().map(PublicKey::named).transpose()?;
    Ok(Trust { key, min_version: args.min_version.clone() })
}

/// How model files are read.
pub(super) fn options(args: &FileArgs) -> Result<OpenOptions, Error> {
    Ok(OpenOptions {
        trust: trust(args)?,
        external_data: args.external_data,
        input_size: args.img_size,
        ..OpenOptions::default()
    })
}

/// Opens a model, with preprocessing and labels from the command line where they are given.
pub(super) fn open(path: &Path, args: &FileArgs, foreign: &ForeignArgs) -> Result<Model, Error> {
    open_output(path, None, args, foreign)
}

/// As [`open`], with the answers from an output of that name.
pub(super) fn open_output(
    path: &Path,
    output: Option<&String>,
    args: &FileArgs,
    foreign: &ForeignArgs,
) -> Result<Model, Error> {
    let options = OpenOptions { output: output.cloned(), ..options(args)? };
    open_with(path, &options, foreign)
}

/// As [`open`], with any options.
pub(super) fn open_with(path: &Path, options: &OpenOptions, foreign: &ForeignArgs) -> Result<Model, Error> {
    Overrides::new(foreign)?.apply(Model::open_with(path, options)?)
}

/// As [`open_output`], with a look-out for the file's replacement where the flags ask for it.
pub(super) fn watched(
    path: &Path,
    output: Option<&String>,
    watch: &WatchArgs,
    args: &FileArgs,
    foreign: &ForeignArgs,
) -> Result<(Model, Option<WatchHandle>), Error> {
    if !watch.watch {
        return Ok((open_output(path, output, args, foreign)?, None));
    }
    let overrides = Overrides::new(foreign)?;
    let prepare = Box::new(move |model| overrides.apply(model));
    let open = OpenOptions { output: output.cloned(), ..options(args)? };
    let (watcher, model) = ModelWatcher::open(path, WatchOptions { open, threads: 1, prepare })?;
    let handle = watcher.start(Duration::from_secs_f64(watch.watch_interval))?;
    Ok((model, Some(handle)))
}

/// The refusal of a name, with the similar one of those that there are.
pub(super) fn did_you_mean(error: Error, word: &str, names: &[String]) -> Error {
    match error {
        Error::Usage(problem) => {
            let hint = suggest::did_you_mean(word, names.iter().map(String::as_str));
            Error::Usage(format!("{problem}{hint}"))
        }
        other => other,
    }
}

/// What the command line says in a model file's place.
struct Overrides {
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    fit: Option<FitMode>,
    interpolation: Option<Interpolation>,
    labels: Option<Vec<String>>,
}

impl Overrides {
    fn new(args: &ForeignArgs) -> Result<Overrides, Error> {
        Ok(Overrides {
            mean: args.mean.clone(),
            std: args.std.clone(),
            fit: args.resize.map(|fit| match fit {
                FitArg::Crop => FitMode::Crop,
                FitArg::Squash => FitMode::Squash,
            }),
            interpolation: args.interpolation.map(|interpolation| match interpolation {
                InterpolationArg::Bilinear => Interpolation::Bilinear,
                InterpolationArg::Bicubic => Interpolation::Bicubic,
            }),
            labels: args.labels.as_ref().map(read_labels).transpose()?,
        })
    }

    fn apply(&self, model: Model) -> Result<Model, Error> {
        let model = match self.preprocess(&model)? {
            Some(preprocess) => model.with_preprocess(preprocess)?,
            None => model,
        };
        match &self.labels {
            Some(labels) => {
                let (found, wanted) = (labels.len(), model.labels().len());
                model.with_labels(labels.clone()).map_err(|_| {
                    Error::Usage(format!(
                        "--labels has {found} lines, the model {wanted} classes: give one line for each"
                    ))
                })
            }
            None => Ok(model),
        }
    }

    /// The model's own preprocessing with what the command line says instead; none if neither says anything.
    fn preprocess(&self, model: &Model) -> Result<Option<Preprocess>, Error> {
        let Overrides { mean, std, fit, interpolation, .. } = self;
        let input = model.input();
        let mut preprocess = match (model.preprocess(), mean, std) {
            (Some(own), _, _) => own.clone(),
            (None, Some(mean), Some(std)) => Preprocess {
                img_size: input.width.max(input.height),
                channels: input.channels,
                fit: FitMode::Crop,
                resize: None,
                interpolation: Interpolation::Bicubic,
                mean: mean.clone(),
                std: std.clone(),
            },
            (None, None, None) if fit.is_none() && interpolation.is_none() => return Ok(None),
            _ => {
                let problem = "the model file does not say how to prepare images: give both --mean and --std";
                return Err(Error::Usage(problem.into()));
            }
        };
        let Preprocess { mean: to_mean, std: to_std, .. } = &mut preprocess;
        mean.iter().for_each(|mean| to_mean.clone_from(mean));
        std.iter().for_each(|std| to_std.clone_from(std));
        preprocess.fit = fit.unwrap_or(preprocess.fit);
        preprocess.interpolation = interpolation.unwrap_or(preprocess.interpolation);
        Ok(Some(preprocess))
    }
}

/// One label a line; an empty last line is none.
fn read_labels(path: &PathBuf) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}
