//! `run`: pictures in, labels out.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use smalti_runtime::models::picture::Limits;
use smalti_runtime::models::preprocess::Fit;
use smalti_runtime::models::resize::Interpolation;
use smalti_runtime::{Error, Model, Picture, Prediction, Preprocess, Session, pictures};

use super::args::{Args, FitArg, ForeignArgs, InterpolationArg, RunArgs};
use super::out;

/// The exit code when some pictures could not be used.
const BAD_INPUT: u8 = 5;

pub(super) fn run(command: &RunArgs, args: &Args) -> anyhow::Result<u8> {
    let model = open(&command.model, &command.foreign)?;
    let mut session = model.session()?;
    let (mut results, mut failed) = (Vec::new(), 0u64);
    for input in &command.inputs {
        let files = match input.as_os_str() == "-" {
            true => Ok(vec![input.clone()]),
            false => pictures::list(input),
        };
        let files = match files {
            Ok(files) => files,
            Err(error) => {
                failed += 1;
                results.push(refuse(input, &error));
                continue;
            }
        };
        for file in files {
            match one(&mut session, &file) {
                Ok(prediction) if args.json => results.push(as_json(&file, &prediction, command.top_k)),
                Ok(prediction) => out::line(&as_text(&file, &prediction, command.top_k))?,
                Err(error @ Error::Data { .. }) => {
                    failed += 1;
                    results.push(refuse(&file, &error));
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
    if args.json {
        out::json(json!({ "results": results, "failed": failed }))?;
    }
    Ok(if failed == 0 { 0 } else { BAD_INPUT })
}

/// Reports a picture that cannot be used, and goes on.
fn refuse(input: &Path, error: &Error) -> Value {
    eprintln!("smalti-run: error: {error}");
    json!({ "input": input.display().to_string(), "error": error.to_string() })
}

/// Classifies one picture.
fn one(session: &mut Session, file: &Path) -> Result<Prediction, Error> {
    let picture = if file.as_os_str() == "-" { standard_input()? } else { pictures::open(file)? };
    session.classify(&picture).map_err(|error| match error {
        Error::Data { problem, .. } => Error::Data { place: file.display().to_string(), problem },
        other => other,
    })
}

/// The picture on the standard input.
fn standard_input() -> Result<Picture, Error> {
    let (place, limit) = ("standard input", Limits::default().max_bytes);
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| Error::Data { place: place.into(), problem: error.to_string() })?;
    pictures::decode(place, &bytes)
}

fn as_json(file: &Path, prediction: &Prediction, top_k: u32) -> Value {
    let ranked = prediction.ranked.iter().take(top_k as usize).map(
        |ranked| json!({ "label": ranked.label, "index": ranked.index, "probability": ranked.probability }),
    );
    json!({ "input": file.display().to_string(), "predictions": ranked.collect::<Vec<_>>() })
}

fn as_text(file: &Path, prediction: &Prediction, top_k: u32) -> String {
    let percent = |probability: f32| format!("{:.1} %", 100.0 * probability);
    let ranked = prediction.ranked.iter().take(top_k as usize);
    let labels: Vec<_> = ranked.map(|r| format!("{} {}", r.label, percent(r.probability))).collect();
    format!("{}: {}", file.display(), labels.join(", "))
}

/// Opens a model, with preprocessing and labels from the command line where they are given.
pub(super) fn open(path: &Path, foreign: &ForeignArgs) -> anyhow::Result<Model> {
    let mut model = Model::open(path)?;
    if let Some(preprocess) = preprocess(&model, foreign)? {
        model = model.with_preprocess(preprocess)?;
    }
    match &foreign.labels {
        Some(path) => Ok(model.with_labels(read_labels(path)?)?),
        None => Ok(model),
    }
}

/// The model's own preprocessing with what the command line says instead; none if neither says anything.
fn preprocess(model: &Model, foreign: &ForeignArgs) -> anyhow::Result<Option<Preprocess>> {
    let ForeignArgs { mean, std, resize, interpolation, .. } = foreign;
    let input = model.input();
    let mut preprocess = match (model.preprocess(), mean, std) {
        (Some(own), _, _) => own.clone(),
        (None, Some(mean), Some(std)) => Preprocess {
            img_size: input.width,
            channels: input.channels,
            fit: Fit::Crop,
            interpolation: Interpolation::Bicubic,
            mean: mean.clone(),
            std: std.clone(),
        },
        (None, None, None) if resize.is_none() && interpolation.is_none() => return Ok(None),
        _ => {
            let problem = "the model file does not say how to prepare pictures: give both --mean and --std";
            return Err(Error::Usage(problem.into()).into());
        }
    };
    if let Some(mean) = mean {
        preprocess.mean = mean.clone();
    }
    if let Some(std) = std {
        preprocess.std = std.clone();
    }
    if let Some(fit) = resize {
        preprocess.fit = match fit {
            FitArg::Crop => Fit::Crop,
            FitArg::Squash => Fit::Squash,
        };
    }
    if let Some(interpolation) = interpolation {
        preprocess.interpolation = match interpolation {
            InterpolationArg::Bilinear => Interpolation::Bilinear,
            InterpolationArg::Bicubic => Interpolation::Bicubic,
        };
    }
    Ok(Some(preprocess))
}

/// One label a line; an empty last line is none.
fn read_labels(path: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}
