//! `smalti finetune`.

use serde_json::{Value, json};
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::{Evaluation, loader, predict};
use smalti_trainer::finetune::{self, Finetuned, Pictures};
use smalti_trainer::pretrain::Resources;
use smalti_trainer::step::Lanes;

use super::runs;
use crate::args::{FinetuneArgs, Global};
use crate::console::log::tell;
use crate::console::out;
use crate::console::progress::Watch;
use crate::console::signals::Stop;
use crate::plan;
use crate::plan::finetune::{Init, sets};

pub(super) fn run(args: FinetuneArgs, global: &Global) -> anyhow::Result<()> {
    let run = args.run.clone();
    let mut args: FinetuneArgs = runs::merge(args, &run, global)?;
    let resources = super::machine(&args.machine)?;
    let init = Init::read(&args.init)?;
    let sets = sets(&mut args)?;
    let settings = plan::finetune::plan(&mut args, &init, &sets.train)?;
    init.file().map_or(Ok(()), |file| finetune::check_init(&settings, file))?;
    let dir = runs::open(&args.run, &args)?;
    let resources = Resources { resume: runs::resumes(&args.run, &dir, global), ..resources };
    tell(
        global,
        &format!(
            "fine-tuning on {} labelled pictures in {} classes, {} epochs, {} threads",
            sets.train.len(),
            sets.train.classes().len(),
            settings.course.epochs,
            resources.threads,
        ),
    );
    let mut watch = Watch::new(global, "finetune", Stop::listen());
    let pictures = Pictures { train: &sets.train, val: sets.val.as_ref() };
    let last = finetune::finetune(&settings, &resources, &pictures, init.file(), Some(&dir), &mut watch)?;
    let (rate, best) = (watch.images_per_s(), watch.best().map(|best| best.epoch));
    let (steps, seconds) = watch.last().map_or((0, 0.0), |last| (last.step, last.seconds));
    drop(watch);

    // What was chosen on held-out pictures is what is used from here on.
    let model = if best.is_some() { finetune::load(dir.path())? } else { last };
    let test = sets.test.as_ref();
    let found = test.map(|(data, _)| evaluate(&model, data, &resources)).transpose()?;
    let split = test.map(|(_, split)| split.to_string());
    if global.json {
        return out::json(json!({
            "run": dir.path(), "accuracy": found.as_ref().map(|found| found.accuracy),
            "balanced_accuracy": found.as_ref().map(|found| found.balanced_accuracy),
            "n": found.as_ref().map_or(0, |found| found.n), "split": split.map_or(Value::Null, Value::from),
            "labels": sets.train.len(), "classes": sets.train.classes().len(), "best_epoch": best,
            "steps": steps, "epochs": settings.course.epochs, "images_per_s": rate, "seconds": seconds,
        }));
    }
    let place = dir.path().display();
    match (found, split) {
        (Some(found), Some(split)) => out::text(&format!(
            "{place}: accuracy {} on {} {split} pictures (balanced {}), {} labels, {steps} steps in {}",
            out::percent(found.accuracy),
            found.n,
            out::percent(found.balanced_accuracy),
            sets.train.len(),
            out::seconds(seconds)
        ))?,
        _ => out::text(&format!(
            "{place}: {steps} steps on {} labels in {}; no held-out pictures to measure on: keep some in test/",
            sets.train.len(),
            out::seconds(seconds)
        ))?,
    }
    tell(global, &format!("next: smalti export {place} -o model.onnx"));
    Ok(())
}

/// How a classifier does on labelled pictures.
pub(super) fn evaluate(
    model: &Finetuned,
    data: &Dataset,
    resources: &Resources,
) -> anyhow::Result<Evaluation> {
    let lanes = Lanes::new(resources.threads, 0)?;
    let loader = loader(data, &model.preprocess, resources)?;
    Ok(predict(&model.model, &model.params, &loader, &lanes)?.evaluate(&model.labels)?)
}
