//! `run`: images in, labels out.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use smalti_runtime::models::image::Limits;
use smalti_runtime::stream::Spec;
use smalti_runtime::{Error, Image, Model, Prediction, Session, images, printable};
use smalti_tools::eval::share;

use super::args::{Args, RunArgs};
use super::{open, out, stream};

/// The exit code when more images than allowed could not be used.
pub(super) const BAD_INPUT: u8 = 5;

pub(super) fn run(command: &RunArgs, args: &Args) -> anyhow::Result<u8> {
    let specs = command.inputs.iter().filter_map(|input| Spec::parse(input.as_os_str()));
    let usage = |problem: &str| Err(Error::Usage(problem.into()).into());
    match specs.collect::<Result<Vec<_>, _>>()?.as_slice() {
        [spec] if command.inputs.len() == 1 => stream::run(spec, command, args),
        [] if command.stream.watch.watch || command.stream.every_frame => usage(
            "--watch and --every-frame are for streams: give mjpeg:FILE or raw:WIDTHxHEIGHT:PIXELS:FILE",
        ),
        [] => files(command, args),
        _ => usage("a stream must be the only input (a file of that name: put ./ in front)"),
    }
}

fn files(command: &RunArgs, args: &Args) -> anyhow::Result<u8> {
    let model = open::open_output(&command.model, command.output.as_ref(), &command.trust, &command.foreign)?;
    let mut session = model.session()?;
    let mut done = 0u64;
    let (mut results, mut failed) = (Vec::new(), 0u64);
    for input in &command.inputs {
        let files = match input.as_os_str() == "-" {
            true => Ok(vec![input.clone()]),
            false => images::list(input),
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
                Ok(prediction) => {
                    done += 1;
                    let name = file.display().to_string();
                    match args.json {
                        true => results.push(answered(&name, &prediction, command.top_k)),
                        false => out::line(&as_text(&name, &prediction, command.top_k))?,
                    }
                }
                Err(error @ Error::Data { .. }) => {
                    failed += 1;
                    results.push(refuse(&file, &error));
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
    if args.json {
        out::json(summary(results, failed))?;
    }
    let most = command.max_bad.unwrap_or(0.0);
    Ok(if share(failed, failed + done) > most { BAD_INPUT } else { 0 })
}

/// Reports an image that cannot be used, and goes on.
fn refuse(input: &Path, error: &Error) -> Value {
    out::error(error);
    unusable(&input.display().to_string(), error)
}

/// What `--json` says of an image.
pub(super) fn answered(input: &str, prediction: &Prediction, top_k: u32) -> Value {
    json!({ "input": input, "predictions": as_json(prediction, top_k) })
}

/// What `--json` says of an image that cannot be used.
pub(super) fn unusable(input: &str, error: &Error) -> Value {
    json!({ "input": input, "error": error.to_string() })
}

/// What `--json` says of all images.
pub(super) fn summary(results: Vec<Value>, failed: u64) -> Value {
    json!({ "results": results, "failed": failed })
}

/// Classifies one image.
fn one(session: &mut Session, file: &Path) -> Result<Prediction, Error> {
    let image = read(file, session.model())?;
    session.classify(&image).map_err(|error| match error {
        Error::Data { problem, .. } => Error::Data { place: file.display().to_string(), problem },
        other => other,
    })
}

/// The image in a file, or on the standard input (`-`).
pub(super) fn read(file: &Path, model: &Model) -> Result<Image, Error> {
    if file.as_os_str() == "-" { standard_input(model) } else { images::open_for(file, model) }
}

/// The image on the standard input.
fn standard_input(model: &Model) -> Result<Image, Error> {
    let (place, limit) = ("standard input", Limits::default().max_bytes);
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| Error::Data { place: place.into(), problem: error.to_string() })?;
    images::decode_for(place, &bytes, model)
}

/// The most probable labels.
pub(super) fn as_json(prediction: &Prediction, top_k: u32) -> Value {
    let ranked = prediction.ranked.iter().take(top_k as usize);
    ranked.map(|r| json!({ "label": r.label, "index": r.index, "probability": r.probability })).collect()
}

/// The most probable labels behind a name.
pub(super) fn as_text(name: &str, prediction: &Prediction, top_k: u32) -> String {
    let percent = |probability: f32| format!("{:.1} %", 100.0 * probability);
    let ranked = prediction.ranked.iter().take(top_k as usize);
    let labels: Vec<_> =
        ranked.map(|r| format!("{} {}", printable(&r.label), percent(r.probability))).collect();
    format!("{}: {}", printable(name), labels.join(", "))
}
