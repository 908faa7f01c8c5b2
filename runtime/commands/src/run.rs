//! `run`: images in, labels out.

use serde_json::{Value, json};
use smalti_runtime::stream::Spec;
use smalti_runtime::{Error, Model, Prediction, printable};

use super::args::{Args, RunArgs};
use super::learn::Answerer;
use super::{inputs, open, out, stream};

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

/// The class bank, where one is asked for.
pub(super) fn open_bank(command: &RunArgs, model: &Model) -> Result<Option<Answerer>, Error> {
    let trust = open::trust(&command.file)?;
    command.bank.as_ref().map(|bank| Answerer::open(bank, model, &trust)).transpose()
}

fn files(command: &RunArgs, args: &Args) -> anyhow::Result<u8> {
    let model = open::open_output(&command.model, command.output.as_ref(), &command.file, &command.foreign)?;
    let mut session = model.session()?;
    let mut bank = open_bank(command, &model)?;
    let tally = inputs::each(&command.inputs, &model, |file, image| {
        let mut prediction = session.classify(image)?;
        if let Some(bank) = &mut bank {
            bank.rank(&model, &mut prediction)?;
        }
        if args.json {
            return Ok(json!({ "predictions": as_json(&prediction, command.top_k) }));
        }
        out::line(&as_text(&file.display().to_string(), &prediction, command.top_k))?;
        Ok(Value::Null)
    })?;
    let code = tally.judge(command.max_bad.unwrap_or(0.0));
    if args.json {
        out::json(inputs::summary(tally.results, tally.failed))?;
    }
    // On a device it runs again and again, with nobody watching.
    if cfg!(feature = "serve") && out::is_watched() {
        out::next(
            args,
            &format!("smalti-run serve {}, for a page in the browser", out::quoted(&command.model)),
        );
    }
    Ok(code)
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
