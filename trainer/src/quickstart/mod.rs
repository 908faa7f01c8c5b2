//! `smalti quickstart`: `smalti train` on photos that are in the program, or on the user's, next to the same from scratch.
//!
//! Both learn the same ten labels a class for the same CPU time; the first starts from an encoder that has learned from other
//! photos without labels, and learns from the photos without labels too. It is then run as on a device.

mod device;
mod photos;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use smalti_trainer::data::{Dataset, Split, Splits, audit};
use smalti_trainer::run::owner::{Claim, Owner};
use smalti_trainer::train::ExecConfig;
use smalti_trainer::train::step::GradLanes;
use smalti_trainer::{Error, Result, evaluate};

use crate::args::training::RunArgs;
use crate::args::{Global, QuickstartArgs, TrainArgs};
use crate::autotrain::{self, Trained};
use crate::commands::{self, runs};
use crate::console::log::{next, tell};
use crate::console::out::{self, quoted};
use crate::console::signals::Stop;
use crate::report::PAGE;
use report::Report;

/// Minutes that it takes, unless told otherwise: less than the three that are promised.
const MINUTES: f64 = 2.5;
/// Share of them that each of both trainings takes.
const OF_EACH: f64 = 0.42;
/// CPU seconds beyond which a training brings little more on so few photos.
const MAX_SECONDS: f64 = 150.0;
/// Images that are looked at before training.
const LOOKED_AT: usize = 2000;
/// Labels of each class that are learned from.
const LABELS: usize = 10;
/// The photos, the two trainings, and the outcome, below the folder.
const DATA: &str = "data";
const TRAIN: &str = "train";
const SCRATCH: &str = "scratch";
const REPORT: &str = "report.json";

/// What stays the same throughout.
struct Quickstart<'a> {
    global: &'a Global,
    exec: ExecConfig,
    stop: Stop,
    out: PathBuf,
    overwrite: bool,
    /// CPU seconds of each training.
    budget: f64,
}

pub(crate) fn run(args: &QuickstartArgs, global: &Global) -> anyhow::Result<()> {
    let start = Instant::now();
    let quick = args.quick == Some(true);
    let minutes = args.minutes.unwrap_or(if quick { MINUTES / 10.0 } else { MINUTES });
    if !(minutes > 0.0 && minutes <= 1e4) {
        return Err(Error::Usage(format!("minutes is {minutes}: expected above 0, at most 10000")).into());
    }
    let out = args.out.clone().unwrap_or_else(|| "smalti-quickstart".into());
    let overwrite = args.overwrite == Some(true);
    let exec = runs::exec(&RunArgs::default(), commands::machine(&args.machine)?)?;
    let each = minutes * 60.0 * OF_EACH;
    let budget = (each * exec.threads as f64).min(MAX_SECONDS.max(each)).max(1.0);
    // What is no data set is said before anything is written.
    args.data.as_deref().map(Splits::read).transpose()?;
    let owner = claim(&out, overwrite, args.data.as_ref())?;
    let job = Quickstart { global, exec, stop: Stop::listen(), out, overwrite, budget };
    let data = match &args.data {
        Some(data) => data.clone(),
        None => {
            job.tell("photos of ten kinds of fruit and vegetables, ten of each with a label");
            photos::unpack(DATA, &owner, quick)?;
            job.out.join(DATA)
        }
    };
    let (mut report, trained) = job.run(&data)?;
    report.seconds = start.elapsed().as_secs_f64();
    owner.write_json(REPORT, &report)?;
    let Trained { model, images, .. } = trained;
    let page = autotrain::write_page(&job.out, data, &model, images, &job.exec, global);
    report.seconds = start.elapsed().as_secs_f64();
    owner.write_json(REPORT, &report)?;
    if global.json {
        return out::json(serde_json::to_value(&report)?);
    }
    out::text(&report.table())?;
    job.say_what_is_next(&report, page.as_deref(), args.data.is_some());
    Ok(())
}

/// Takes the folder: refuses what is there already, or removes what smalti wrote and nothing else.
fn claim(out: &Path, overwrite: bool, data: Option<&PathBuf>) -> Result<Owner> {
    let names: &[&str] = if data.is_none() { &[REPORT, PAGE, DATA] } else { &[REPORT, PAGE] };
    let inputs: Vec<(&str, PathBuf)> = data.iter().map(|path| ("--data", (*path).clone())).collect();
    let claim =
        Claim { written_by: "quickstart", names, overwrite, inputs: &inputs, legacy: &[], resumable: false };
    claim.check(out)?;
    for part in [TRAIN, SCRATCH] {
        autotrain::check(&out.join(part), overwrite, &inputs)?;
    }
    Owner::claim(out, &claim)
}

impl Quickstart<'_> {
    fn tell(&self, text: &str) {
        tell(self.global, text);
    }

    fn run(&self, data: &Path) -> anyhow::Result<(Report, Trained)> {
        let splits = Splits::open(data)?;
        let report = audit::look(&Splits::read(data)?, LOOKED_AT)?;
        self.tell(report.to_string().trim_end());
        let train = splits.dataset(Split::Train)?;
        if train.classes().is_empty() {
            // The error that says what a labelled data set looks like.
            train.labels()?;
        }
        let labelled: usize = train.class_counts().iter().sum();
        let labels = labelled.min(LABELS * train.classes().len());
        let trained = self.train(data, labels, TRAIN, "auto")?;
        self.tell("the same labels and the same CPU time, from scratch");
        let scratch = self.train(data, labels, SCRATCH, "scratch")?;
        let mut report = Report::new(&trained.report, &scratch.report, &self.out);
        if let Some((test, _)) = &trained.images.test {
            report.add_device(&device::run(&trained.report.model, test, &self.predictions(&trained, test)?)?);
        }
        Ok((report, trained))
    }

    fn train(&self, data: &Path, labels: usize, name: &str, start: &str) -> anyhow::Result<Trained> {
        let args = TrainArgs {
            data: Some(data.to_owned()),
            labels: Some(labels.to_string()),
            budget: Some(format!("{}s", self.budget)),
            start: Some(start.into()),
            out: Some(self.out.join(name)),
            overwrite: Some(self.overwrite),
            ..TrainArgs::default()
        };
        autotrain::execute(args, self.exec.clone(), self.stop.clone(), self.global)
    }

    /// What the trainer says of the images that the device is measured on.
    fn predictions(&self, trained: &Trained, test: &Dataset) -> anyhow::Result<evaluate::Predictions> {
        let model = &trained.model;
        let loader = evaluate::loader(test, &model.preprocess, &self.exec)?;
        let lanes = GradLanes::new(self.exec.threads, 0)?;
        Ok(evaluate::predict(&model.model, &model.params, &loader, &lanes, &|| self.stop.code())?)
    }

    fn say_what_is_next(&self, report: &Report, page: Option<&str>, own: bool) {
        let place = self.out.display();
        self.tell(&format!(
            "left in {place}: {TRAIN}/ with the model, its int8 form and the runs that made it, {SCRATCH}/"
        ));
        page.iter().for_each(|page| self.tell(page));
        let model = quoted(&report.model);
        match own {
            true => next(self.global, &format!("smalti-run run {model} IMAGES")),
            false => next(
                self.global,
                &format!("smalti-run run {model} IMAGES; on your own photos: smalti train DIR"),
            ),
        }
    }
}
