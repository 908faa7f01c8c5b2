//! `smalti finetune`.

use std::path::PathBuf;

use serde_json::{Value, json};
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::{Evaluation, loader, predict};
use smalti_trainer::stages::finetune::{self, Finetuned, Finetuning, Images};
use smalti_trainer::train::ExecConfig;
use smalti_trainer::train::cost::cpu_per_step;
use smalti_trainer::train::step::GradLanes;

use super::job::Job;
use super::runs;
use crate::args::{FinetuneArgs, Global};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::console::progress::Watch;
use crate::plan;
use crate::plan::finetune::{Init, sets};

pub(crate) fn run(args: FinetuneArgs, global: &Global) -> anyhow::Result<()> {
    let job = Job::join(global)?;
    let global = &job.global;
    let run = args.run.clone();
    let mut args: FinetuneArgs = match job.told()? {
        Some(args) => args,
        None => runs::merge(args, "finetune", &run, global)?,
    };
    let exec = runs::exec(&args.run, super::machine(&args.machine)?)?;
    // The first rank reads what --init names, and sends arguments that are complete.
    let init = if job.is_first() { Init::read(&args.init)? } else { Init::sent(&args.init) };
    let sets = sets(&mut args)?;
    let mut settings = plan::finetune::plan(&mut args, &init, &sets.train)?;
    if plan::optim::spend_budget(&mut args.optim, 0.0, || {
        let images = Images::labelled(&sets.train);
        cpu_per_step(&mut Finetuning::new(&settings, &exec, &images, None)?, &exec)
    })? {
        settings = plan::finetune::plan(&mut args, &init, &sets.train)?;
    }
    if let Some(file) = init.file().filter(|_| job.is_first()) {
        let loaded = finetune::check_init(&settings, file)?;
        ::log::info!("{}: {loaded}", file.display());
    }
    let val = args.val.as_ref().map(PathBuf::from);
    let inputs = [("--data", args.data.as_ref()), ("--init", args.init.as_ref()), ("--val", val.as_ref())];
    let dir = job.is_first().then(|| runs::open(&args.run, "finetune", &args, &inputs)).transpose()?;
    job.tell(&args)?;
    let exec = ExecConfig { ranks: job.ranks(), ..exec };
    tell(
        global,
        &format!(
            "fine-tuning on {} labelled images in {} classes, {} epochs, {}",
            sets.train.len(),
            sets.train.classes().len(),
            settings.optim.epochs,
            runs::workers(&exec),
        ),
    );
    let mut watch = Watch::new(global, "finetune", job.stop());
    let images = Images { train: &sets.train, val: sets.val.as_ref(), targets: None };
    let (last, outcome) =
        finetune::finetune(&settings, &exec, &images, init.file(), dir.as_ref(), &mut watch)?;
    job.leave();
    let Some(dir) = dir else { return Ok(()) };
    let (rate, loading, waiting) = (watch.images_per_s(), watch.loading(), watch.waiting());
    let best = outcome.best.map(|best| best.epoch);
    let (steps, seconds) = (outcome.steps, outcome.seconds);
    drop(watch);
    runs::tell_waiting(global, loading, waiting);
    let ranks = runs::size(&exec);
    let exec = ExecConfig { ranks: None, ..exec };

    // What was chosen on held-out images is what is used from here on.
    let model = if best.is_some() { finetune::load(dir.path())? } else { last };
    let test = sets.test.as_ref();
    let found = test.map(|(data, _)| evaluate(&model, data, &exec)).transpose()?;
    let split = test.map(|(_, split)| split.to_string());
    if global.json {
        return out::json(json!({
            "run": dir.path(), "accuracy": found.as_ref().map(|found| found.accuracy),
            "balanced_accuracy": found.as_ref().map(|found| found.balanced_accuracy),
            "interval": found.as_ref().map(|found| found.interval),
            "n": found.as_ref().map_or(0, |found| found.n), "split": split.map_or(Value::Null, Value::from),
            "labels": sets.train.len(), "classes": sets.train.classes().len(), "best_epoch": best,
            "steps": steps, "epochs": settings.optim.epochs, "images_per_s": rate, "seconds": seconds,
            "ranks": ranks, "loading": loading, "waiting": waiting,
        }));
    }
    let place = dir.path().display();
    match (found, split) {
        (Some(found), Some(split)) => out::text(&format!(
            "{place}: accuracy {} on {} {split} images ({}), balanced {}, {} labels, {steps} steps in {}",
            out::percent(found.accuracy),
            found.n,
            out::interval(found.interval),
            out::percent(found.balanced_accuracy),
            sets.train.len(),
            out::seconds(seconds)
        ))?,
        _ => out::text(&format!(
            "{place}: {steps} steps on {} labels in {}; no held-out images to measure on: keep some in test/",
            sets.train.len(),
            out::seconds(seconds)
        ))?,
    }
    next(global, &format!("smalti export {} -o model.onnx", out::quoted(dir.path())));
    Ok(())
}

/// How a classifier does on labelled images.
pub(crate) fn evaluate(model: &Finetuned, data: &Dataset, exec: &ExecConfig) -> anyhow::Result<Evaluation> {
    let lanes = GradLanes::new(exec.threads, 0)?;
    let loader = loader(data, &model.preprocess, exec)?;
    Ok(predict(&model.model, &model.params, &loader, &lanes, &|| None)?.evaluate(&model.labels)?)
}
