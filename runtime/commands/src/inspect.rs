//! `inspect`: what is in a model file.

use serde_json::{Value, json};
use smalti_runtime::inspect::{Inspection, inspect};
use smalti_runtime::printable;

use super::args::{Args, ModelArgs};
use super::{open, out};

pub(super) fn run(command: &ModelArgs, args: &Args) -> anyhow::Result<u8> {
    let options = open::options(&command.file)?;
    let inspection =
        inspect(&options.read(&command.model)?).map_err(|error| error.in_file(&command.model))?;
    options.trust.check_version(inspection.record.as_ref())?;
    match args.json {
        true => out::json(as_json(&inspection))?,
        false => out::line(as_text(&inspection).trim_end())?,
    }
    inspection.judge_weights()?;
    let (model, has_vectors) = (
        out::quoted(&command.model),
        inspection.record.as_ref().is_some_and(|record| !record.golden.is_empty()),
    );
    out::next(args, &format!("smalti-run {} {model}", if has_vectors { "selftest" } else { "bench" }));
    Ok(0)
}

fn as_json(inspection: &Inspection) -> Value {
    let (summary, input) = (&inspection.summary, &inspection.summary.input);
    let outputs = summary.outputs.iter().map(|port| json!({ "name": port.name, "shape": port.dims }));
    let record = inspection.record.as_ref().map(|record| {
        json!({
            "names": record.names,
            "task": record.task,
            "description": record.description,
            "license": record.license,
            "version": record.version,
            "preprocessor_config": record.preprocess.to_json(),
            "golden": record.golden.len(),
            "training": record.training,
            "quantization": record.quantization,
            "weights_sha256": record.weights_sha256,
        })
    });
    json!({
        "file_bytes": inspection.file_bytes,
        "producer": inspection.producer,
        "opset": summary.opset,
        "input": {
            "name": input.name,
            "form": input.form.name(),
            "width": input.width,
            "height": input.height,
            "channels": input.channels,
        },
        "outputs": outputs.collect::<Vec<_>>(),
        "output": inspection.output,
        "gives_probabilities": inspection.gives_probabilities,
        "operators": summary.operators(),
        "parameters": summary.parameters,
        "weight_bytes": summary.weight_bytes,
        "multiply_adds": summary.multiply_adds,
        "activation_bytes": inspection.activation_bytes(),
        "kernels_share": inspection.kernels_share(),
        "fallback_reason": inspection.fallback_reason,
        "weights_sha256": inspection.weights_sha256,
        "weights_intact": inspection.weights_intact(),
        "record": record,
    })
}

fn as_text(inspection: &Inspection) -> String {
    let (summary, input) = (&inspection.summary, &inspection.summary.input);
    let (width, height, channels, form) = (input.width, input.height, input.channels, input.form.name());
    let outputs: Vec<_> =
        summary.outputs.iter().map(|port| format!("{} {:?}", port.name, port.dims)).collect();
    let operators: Vec<_> = summary.operators().iter().map(|(op, count)| format!("{op} {count}")).collect();
    let mut lines = vec![
        (
            "file",
            format!(
                "{}, opset {}, by {}",
                out::bytes(inspection.file_bytes),
                summary.opset,
                inspection.producer
            ),
        ),
        ("input", format!("{}: {width} x {height} x {channels}, {form}", input.name)),
        ("outputs", outputs.join(", ")),
        (
            "answers",
            format!(
                "{}, as {}{}",
                inspection.output,
                if inspection.gives_probabilities { "probabilities" } else { "logits" },
                if summary.outputs.len() > 1 { " (--output NAME chooses another)" } else { "" }
            ),
        ),
        ("parameters", format!("{} ({})", out::count(summary.parameters), out::bytes(summary.weight_bytes))),
        ("multiply-adds", out::count(summary.multiply_adds)),
        ("activations", format!("at most {} at a time", out::bytes(inspection.activation_bytes()))),
        ("operators", operators.join(", ")),
        (
            "runs on",
            match &inspection.fallback_reason {
                None => "our kernels, all multiply-adds".into(),
                Some(why) => format!("tract: {why}"),
            },
        ),
    ];
    let weights = match inspection.weights_intact() {
        Some(true) => "intact",
        Some(false) => "NOT those of the file's record",
        None => "no digest to compare with",
    };
    lines.push(("weights", format!("{weights} (SHA-256 {})", inspection.weights_sha256)));
    match &inspection.record {
        Some(record) => {
            lines.push(("labels", format!("{}: {}", record.names.len(), some(&record.names))));
            lines.push((
                "task",
                format!("{}, version {}, licence {}", record.task, record.version, record.license),
            ));
            lines.push(("about", record.description.clone()));
            lines.push(("preprocessing", record.preprocess.to_json().to_string()));
            lines.push(("test vectors", record.golden.len().to_string()));
            lines
                .push(("quantization", record.quantization.as_ref().map_or("none".into(), Value::to_string)));
        }
        None => lines.push(("record", "none (not written by Smalti)".into())),
    }
    lines.iter().map(|(name, value)| format!("{name:14} {}\n", printable(value))).collect()
}

/// The first labels.
fn some(names: &[String]) -> String {
    let more = if names.len() > 10 { ", ..." } else { "" };
    names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ") + more
}
