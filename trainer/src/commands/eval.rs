//! `smalti eval`: accuracy of a run's head, or of a probe on its frozen embeddings.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use smalti_trainer::data::{Dataset, LabelSpec, Split, Splits, pick_labels};
use smalti_trainer::evaluate::probe;
use smalti_trainer::evaluate::{self, Evaluation};
use smalti_trainer::stages::finetune;
use smalti_trainer::train::ExecConfig;

use crate::args::{EvalArgs, Global};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::plan::{self, held_out, required};

/// A confusion matrix with more classes than this is left to --json.
const SHOWN: usize = 20;

pub(crate) fn run(args: &EvalArgs, global: &Global) -> anyhow::Result<()> {
    let path = required(&args.run, "RUN", "what `smalti finetune` or `smalti pretrain` wrote")?;
    let data = required(&args.data, "--data", "a data set with labels")?;
    let exec = super::machine(&args.machine)?;
    let data = Splits::open(&data)?;
    let (held_out, split) = held_out(&data, args.split.as_deref())?;
    let (found, learned_from) = match args.probe.as_deref() {
        None => {
            let model = finetune::load(&path)?;
            (super::finetune::evaluate(&model, &held_out.with_classes(&model.labels)?, &exec)?, None)
        }
        Some(kind) => {
            let train = training_images(args, &data, split, global)?;
            let count = train.len();
            (run_probe(kind, &path, &train, &held_out.with_classes(train.classes())?, &exec)?, Some(count))
        }
    };
    if global.json {
        let mut report = serde_json::to_value(&found)?;
        if let Value::Object(report) = &mut report {
            report.insert("split".into(), split.to_string().into());
            report.insert("probe".into(), args.probe.clone().into());
            report.insert("labels".into(), learned_from.into());
        }
        return out::json(report);
    }
    out::text(&text(&found, split))?;
    let run = out::quoted(&path);
    match args.probe {
        None => next(global, &format!("smalti report {run}, for its mistakes as images")),
        Some(_) => next(
            global,
            &format!("smalti finetune --data {} --init {run} --out RUN", out::quoted(data.path())),
        ),
    }
    Ok(())
}

/// The labelled images that a probe learns from.
fn training_images(args: &EvalArgs, data: &Splits, split: Split, global: &Global) -> anyhow::Result<Dataset> {
    let train = data.dataset(Split::Train)?;
    if matches!(split, Split::Train | Split::All) {
        tell(global, "note: the probe is measured on images that it learned from: keep some in test/");
    }
    let spec: LabelSpec = args.labels.as_deref().unwrap_or("all").parse()?;
    let picked = pick_labels(&train, &spec, args.label_seed.unwrap_or(0))?;
    Ok(train.select(&picked))
}

fn run_probe(
    kind: &str,
    run: &Path,
    train: &Dataset,
    test: &Dataset,
    exec: &ExecConfig,
) -> anyhow::Result<Evaluation> {
    let model = plan::teacher::embedder(run)?;
    let classes = train.classes();
    let (train, test) = (probe::embed(&model, train, exec)?, probe::embed(&model, test, exec)?);
    let said = match kind {
        "knn" => probe::knn(&train, &test, classes.len())?,
        _ => probe::linear_probe(&train, &test, classes.len())?,
    };
    Ok(evaluate::evaluate(&said, &test.labels, classes)?)
}

/// The outcome as a table.
fn text(found: &Evaluation, split: Split) -> String {
    let width =
        found.per_class.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).clamp(5, 40);
    let mut text = format!(
        "accuracy {} on {} {split} images ({}), balanced {}\n\n{:width$}  images   right\n",
        out::percent(found.accuracy),
        found.n,
        out::interval(found.interval),
        out::percent(found.balanced_accuracy),
        "class"
    );
    for class in &found.per_class {
        let share = if class.n == 0 { "-".into() } else { out::percent(class.accuracy) };
        _ = writeln!(text, "{:width$}  {:>8}  {share:>7}", class.name, class.n);
    }
    if found.confusion.len() > SHOWN {
        return text;
    }
    let cell = found.confusion.iter().flatten().max().map_or(1, |most| most.to_string().len()).max(3);
    _ = write!(text, "\ntruth below, answer across\n{:width$}", "");
    (0..found.confusion.len()).for_each(|i| _ = write!(text, " {i:>cell$}"));
    for (i, (class, row)) in found.per_class.iter().zip(&found.confusion).enumerate() {
        _ = write!(
            text,
            "\n{:width$}",
            format!("{i} {}", class.name).chars().take(width).collect::<String>()
        );
        row.iter().for_each(|count| _ = write!(text, " {count:>cell$}"));
    }
    text
}
