//! `eval`: accuracy over a folder of class folders.

use std::time::Instant;

use serde_json::{Value, json};
use smalti_runtime::{Error, printable};
use smalti_tools::eval::{Evaluation, Settings, evaluate, share};

use super::args::{Args, EvalArgs};
use super::out;
use super::progress::Progress;

/// The most classes whose confusion matrix is printed as text.
const MATRIX: usize = 20;

pub(super) fn run(command: &EvalArgs, args: &Args) -> anyhow::Result<u8> {
    let model =
        super::open::open_output(&command.model, command.output.as_ref(), &command.file, &command.foreign)?;
    if model.preprocess().is_none() {
        let problem = "the model file does not say how to prepare images: give --mean and --std";
        return Err(Error::Usage(problem.into()).into());
    }
    let (progress, start) = (Progress::new(args.quiet), Instant::now());
    let step = |done, total| progress.step(done, total);
    let settings = Settings { threads: command.threads.into(), progress: &step };
    let evaluation = evaluate(&model, &command.folder, &settings)?;
    let seconds = start.elapsed().as_secs_f64();
    for (path, problem) in &evaluation.bad {
        out::error(format!("{}: {problem}", path.display()));
    }
    let bad = evaluation.bad.len() as u64;
    if share(bad, bad + evaluation.n()) > command.max_bad {
        let all = bad + evaluation.n();
        let problem = format!("{bad} of {all} images cannot be used, more than --max-bad allows");
        return Err(Error::Data { place: command.folder.display().to_string(), problem }.into());
    }
    match args.json {
        true => out::json(as_json(&evaluation, seconds))?,
        false => out::line(as_text(&evaluation, seconds).trim_end())?,
    }
    let model = out::quoted(&command.model);
    out::next(
        args,
        &format!("smalti-run explain {model} IMAGE -o heatmap.png, for what a wrong answer looked at"),
    );
    Ok(0)
}

fn as_json(evaluation: &Evaluation, seconds: f64) -> Value {
    let classes = evaluation.labels.iter().enumerate().map(|(class, label)| {
        let (n, correct) = evaluation.class(class);
        json!({ "label": label, "n": n, "correct": correct, "accuracy": share(correct, n) })
    });
    let bad = evaluation
        .bad
        .iter()
        .map(|(path, problem)| json!({ "path": path.display().to_string(), "error": problem }));
    json!({
        "accuracy": evaluation.accuracy(),
        "balanced_accuracy": evaluation.balanced_accuracy(),
        "interval": evaluation.interval(),
        "n": evaluation.n(),
        "split": evaluation.split,
        "correct": evaluation.correct(),
        "seconds": seconds,
        "classes": classes.collect::<Vec<_>>(),
        "confusion": evaluation.confusion,
        "bad": bad.collect::<Vec<_>>(),
    })
}

fn as_text(evaluation: &Evaluation, seconds: f64) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let (n, correct) = (evaluation.n(), evaluation.correct());
    let of = evaluation.split.map_or(String::new(), |split| format!(" {split} images"));
    let [low, high] = evaluation.interval();
    let mut text = format!(
        "accuracy {} ({correct} of {n}{of}, {seconds:.1} s), 95 % interval {:.2} to {}, balanced {}\n",
        percent(evaluation.accuracy()),
        100.0 * low,
        percent(high),
        percent(evaluation.balanced_accuracy())
    );
    let width = evaluation.labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    for (class, label) in evaluation.labels.iter().map(|label| printable(label)).enumerate() {
        let (n, correct) = evaluation.class(class);
        if n > 0 {
            text += &format!("  {label:width$}  {:>9}  ({correct} of {n})\n", percent(share(correct, n)));
        }
    }
    if evaluation.labels.len() <= MATRIX {
        text += "rows: the true class, columns: what it was taken for\n";
        let labels = evaluation.labels.iter().map(|label| printable(label));
        for (label, row) in labels.zip(&evaluation.confusion) {
            let row: String = row.iter().map(|count| format!(" {count:>6}")).collect();
            text += &format!("  {label:width$} {row}\n");
        }
    }
    text
}
