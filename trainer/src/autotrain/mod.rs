//! `smalti train`: from a folder of photos to a model file.
//!
//! 1. look at the images;
//! 2. learn without labels: from a teacher if one is given;
//! 3. learn from the labels ([`classify`]): candidates compete on held-out images ([`compare`]); the best learns from all labels,
//!    or, where an ensemble of them is better, what it says of all images ([`soft_labels`]);
//! 4. measure on the test split, export, quantize, run as on a device ([`device`]).
//!
//! Every stage is a run of its own below the folder, so that each can be continued, looked at and used by the other commands.

mod candidate;
mod choice;
mod classify;
mod compare;
mod device;
mod ensemble;
mod folds;
mod frozen;
pub(crate) mod images;
mod look_alikes;
mod mirror;
pub(crate) mod report;
mod soft_labels;
mod start;
mod teacher_head;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use serde_json::json;
use smalti_models::starts;
use smalti_trainer::run::Owner;
use smalti_trainer::run::owner::Claim;
use smalti_trainer::stages::finetune::Finetuned;
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Result, clock, teacher};

use crate::args::training::{ImageArgs, OptimArgs, RunArgs, SizeArgs};
use crate::args::{DistilArgs, Global, TrainArgs, config};
use crate::commands::{self, distil, runs};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::console::signals::Stop;
use crate::plan::{self, fill, optim::duration, required};
use crate::report::{Known, PAGE};
use classify::Learned;
use images::Images;
use report::Report;
use start::Start;

/// The default budget.
const BUDGET: &str = "10m";
/// Share of the budget that a teacher and its student take.
const OF_DISTILLATION: f64 = 0.65;
/// Share of what is left then that measuring and exporting take.
const OF_THE_REST: f64 = 0.1;
/// What the command writes into its folder.
const FILES: [&str; 12] = [
    "config.toml",
    DATA,
    SPENT,
    "distil",
    CHOICE,
    SOFT_LABELS,
    "finetune",
    "self-train",
    "model.onnx",
    "model-int8.onnx",
    "report.json",
    PAGE,
];
/// The folder of images, which is no flag.
pub(crate) const DATA: &str = "data.json";
/// What was chosen, and what an ensemble said of all images.
pub(crate) const CHOICE: &str = "choice.json";
const SOFT_LABELS: &str = "soft-labels.safetensors";
/// CPU seconds that were spent up to an interruption.
const SPENT: &str = "spent.json";

/// A `smalti train` at work.
struct Autotrain<'a> {
    global: &'a Global,
    out: PathBuf,
    owner: Owner,
    exec: ExecConfig,
    stop: Stop,
    /// The CPU time at the beginning, in seconds; negative where a command before this one was interrupted.
    began: f64,
    /// CPU seconds that everything may take.
    budget: f64,
    /// CPU seconds of it that are kept back for measuring, as far as they are known.
    measuring: Cell<f64>,
    resumes: bool,
    overwrite: bool,
}

/// What came of it.
pub(crate) struct Trained {
    pub(crate) report: Report,
    pub(crate) model: Finetuned,
    /// The images that it learned from, and those that it was measured on.
    pub(crate) images: Images,
}

pub(crate) fn run(args: TrainArgs, global: &Global) -> anyhow::Result<()> {
    let out = args.out.clone().unwrap_or_else(|| "smalti-train".into());
    let (resumes, overwrite) = (args.resume == Some(true), args.overwrite == Some(true));
    let file = config::file(global, resumes.then_some(out.as_path()));
    let args = TrainArgs {
        out: Some(out),
        resume: Some(resumes),
        overwrite: Some(overwrite),
        ..config::merge(args, file.as_deref())?
    };
    let exec = runs::exec(&RunArgs::default(), commands::machine(&args.machine)?)?;
    let (folder, data) = (args.out.clone().unwrap_or_default(), args.data.clone().unwrap_or_default());
    let Trained { report, model, images } = execute(args, exec.clone(), Stop::listen(), global)?;
    let page = write_page(&folder, data, &model, images, &exec, global);
    if global.json {
        return out::json(serde_json::to_value(&report)?);
    }
    out::text(&report.text())?;
    page.iter().for_each(|page| tell(global, page));
    next(global, &report.next(&folder));
    Ok(())
}

/// Writes the page about a training into `folder`. Gives a line that says where it is and what it took, beyond the budget; what
/// goes wrong costs nobody the model.
pub(crate) fn write_page(
    folder: &Path,
    data: PathBuf,
    model: &Finetuned,
    images: Images,
    exec: &ExecConfig,
    global: &Global,
) -> Option<String> {
    tell(global, "writing a page about it");
    let began = cpu_seconds();
    let known = Known::new(data, model, images.all, images.test);
    match crate::report::write_at_the_end(folder, known, exec) {
        Ok(page) => {
            let time = out::seconds(cpu_seconds() - began);
            Some(format!("page:  {} ({time} of CPU time, after the budget)", page.display()))
        }
        Err(why) => {
            log::warn!("no page was written: {why}");
            None
        }
    }
}

/// Does all of it, and leaves the report in the folder.
pub(crate) fn execute(
    mut args: TrainArgs,
    exec: ExecConfig,
    stop: Stop,
    global: &Global,
) -> anyhow::Result<Trained> {
    let now = cpu_seconds();
    let out = required(&args.out, "--out", "a folder")?;
    let (resumes, overwrite) = (args.resume == Some(true), args.overwrite == Some(true));
    let budget = duration(&fill(&mut args.budget, BUDGET.into()))?.as_secs_f64();
    // What is wrong with the images or the start is said before anything is written.
    let images = images::open(&mut args)?;
    let start = Start::choose(&args, &images)?;
    start.init()?;
    let owner = claim(&out, &args, resumes, overwrite)?;
    let began = now - if resumes { spent(&out) } else { 0.0 };
    let job = Autotrain {
        global,
        out,
        owner,
        exec,
        stop,
        began,
        budget,
        measuring: Cell::new(0.0),
        resumes,
        overwrite,
    };
    job.save(&args)?;
    let trained = job.run(&mut args, images, start);
    job.note_time()?;
    let trained = trained.map_err(|error| job.explain_stop(error))?;
    job.owner.write_json("report.json", &trained.report)?;
    Ok(trained)
}

/// Whether the folder can be taken; changes nothing.
pub(crate) fn check(out: &Path, overwrite: bool, inputs: &[(&str, PathBuf)]) -> Result<()> {
    claim_of(overwrite, inputs).check(out)
}

fn claim_of<'a>(overwrite: bool, inputs: &'a [(&'a str, PathBuf)]) -> Claim<'a> {
    Claim { written_by: "train", names: &FILES, overwrite, inputs, legacy: &[], resumable: true }
}

/// Takes the folder: refuses what is there already, or removes what smalti wrote and nothing else.
fn claim(out: &Path, args: &TrainArgs, resumes: bool, overwrite: bool) -> Result<Owner> {
    let is_word = |path: &PathBuf| {
        path.to_str().is_some_and(|name| ["auto", "scratch"].contains(&name) || starts::find(name).is_some())
    };
    let start = args.start.clone().filter(|path| !is_word(path));
    let paths = [
        ("DIR", &args.data),
        ("--unlabelled", &args.unlabelled),
        ("--start", &start),
        ("--teacher", &args.teacher.teacher),
    ];
    let inputs: Vec<(&str, PathBuf)> =
        paths.into_iter().filter_map(|(flag, path)| Some((flag, path.clone()?))).collect();
    if resumes {
        return Owner::resume(out, "train", &[]);
    }
    Owner::claim(out, &claim_of(overwrite, &inputs))
}

impl Autotrain<'_> {
    fn tell(&self, text: &str) {
        tell(self.global, text);
    }

    fn explain_stop(&self, error: anyhow::Error) -> anyhow::Error {
        if self.stop.code().is_none() {
            return error;
        }
        let out = self.out.display();
        error.context(format!("stopped by a signal: continue with `smalti train DIR --resume --out {out}`"))
    }

    fn run(&self, args: &mut TrainArgs, images: Images, start: Start) -> anyhow::Result<Trained> {
        let images = self.in_time(images, args)?;
        self.save(args)?;
        let (all, labelled) = (images.all.len(), images.labelled.len());
        let classes = images.labelled.classes().len();
        let test = images.test.as_ref().map_or(0, |(test, _)| test.len());
        self.tell(&format!(
            "1 {all} images, {labelled} of them labelled, {classes} classes, {test} to measure on"
        ));
        let start = self.learn_without_labels(args, start, &images)?;
        self.note_time()?;
        self.stop.check()?;
        let Learned { model, settings, run, choice } = self.learn_from_labels(args, &images, &start)?;
        self.note_time()?;
        self.stop.check()?;
        let found = match &images.test {
            Some((test, _)) => Some(commands::finetune::evaluate(&model, test, &self.exec)?),
            None => None,
        };
        let device = device::export(self, &model, &settings, args, &images)?;
        let report = Report {
            schema_version: 1,
            accuracy: found.as_ref().map(|found| found.accuracy),
            balanced_accuracy: found.as_ref().map(|found| found.balanced_accuracy),
            interval: found.as_ref().map(|found| found.interval),
            n: found.as_ref().map_or(0, |found| found.n),
            split: images.test.as_ref().map(|(_, split)| split.clone()),
            validation: choice.validation,
            chosen: choice.candidate,
            start: start.name.to_owned(),
            candidates: choice.candidates,
            images: all,
            labels: labelled,
            classes,
            cpu_seconds: cpu_seconds() - self.began,
            parameters: model.params.len(),
            run,
            model: device.model,
            int8_model: device.int8_model,
            int8_accuracy: device.int8_accuracy,
            int8_agreement: device.int8_agreement,
        };
        Ok(Trained { report, model, images })
    }

    /// Keeps the settings for a command that continues.
    pub(super) fn save(&self, args: &TrainArgs) -> anyhow::Result<()> {
        // DIR is no flag, and said again with --resume.
        let saved = TrainArgs { data: None, ..args.clone() };
        self.owner.write("config.toml", config::to_toml(&saved)?.as_bytes())?;
        self.owner.write_json(DATA, &json!({"data": args.data}))?;
        Ok(())
    }

    /// Keeps the time so far for a command that continues: the budget is for all of them together.
    pub(super) fn note_time(&self) -> anyhow::Result<()> {
        self.owner.write_json(SPENT, &(cpu_seconds() - self.began))?;
        Ok(())
    }

    /// As many of the images as there is time for.
    fn in_time(&self, images: Images, args: &mut TrainArgs) -> anyhow::Result<Images> {
        if args.most_images.is_none() && args.teacher.teacher.is_some() {
            let teacher = plan::teacher::open(&args.teacher)?;
            let seconds = OF_DISTILLATION * plan::distil::OF_TEACHER * self.budget;
            let most = seconds / teacher::cpu_per_image(&*teacher)?.max(1e-9);
            let most = (most as usize).max(images::LEAST);
            args.most_images = (most < images.all.len()).then_some(most);
        }
        let Some(most) = args.most_images else { return Ok(images) };
        let all = images.all.len();
        let images = images.at_most(most);
        if images.all.len() < all {
            self.tell(&format!("learning from {} of {all} images, to end in time", images.all.len()));
        }
        Ok(images)
    }

    fn run_args(&self, name: &str) -> RunArgs {
        let out = self.out.join(name);
        let resume = Some(self.resumes && out.join("config.toml").is_file());
        RunArgs { out: Some(out), resume, overwrite: Some(self.overwrite), ..RunArgs::default() }
    }

    /// Learns from a teacher on all images, if there is one.
    fn learn_without_labels(&self, args: &TrainArgs, start: Start, images: &Images) -> anyhow::Result<Start> {
        let begins = start.describe();
        let Some(teacher) = &args.teacher.teacher else {
            self.tell(&format!("2 {begins}"));
            return Ok(start);
        };
        self.tell(&format!("2 {begins}; learning from {} on all images, without labels", teacher.display()));
        let run = self.run_args("distil");
        let mut wanted = DistilArgs { data: args.data.clone(), run: run.clone(), ..DistilArgs::default() };
        wanted.machine = args.machine.clone();
        if run.resume != Some(true) {
            wanted.init = Some(start.source());
            wanted.teacher = args.teacher.clone();
            wanted.size = start.size.clone();
            wanted.images = self.image_args(args);
            let budget = Some(format!("{}s", (self.began + OF_DISTILLATION * self.budget).max(1.0)));
            wanted.optim = OptimArgs { budget, seed: args.seed, ..self.optim_args(&start) };
        }
        let wanted = runs::merge(wanted, "distil", &run, self.global)?;
        let done = distil::execute(wanted, &images.all, &self.exec, self.global, &self.stop)?;
        self.tell(&format!("  {} steps, loss {:.3}", done.outcome.steps, done.outcome.loss));
        let (file, size) = (Some(done.dir.path().to_owned()), SizeArgs::default());
        Ok(Start { name: "distilled", file, size })
    }

    fn image_args(&self, args: &TrainArgs) -> ImageArgs {
        ImageArgs { flip: args.flip, ..ImageArgs::default() }
    }

    /// Convolutions learn by AdamW, so all layers do.
    fn optim_args(&self, start: &Start) -> OptimArgs {
        OptimArgs { optimizer: start.has_convolutions().then(|| "adamw".into()), ..OptimArgs::default() }
    }

    /// The CPU time at which learning ends: measuring and exporting follow.
    fn until(&self) -> f64 {
        let left = (self.began + self.budget - self.measuring.get() - cpu_seconds()).max(1.0);
        cpu_seconds() + left * (1.0 - OF_THE_REST)
    }
}

/// The CPU time that commands before an interruption noted, in seconds.
fn spent(out: &Path) -> f64 {
    let text = std::fs::read(out.join(SPENT)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(0.0)
}

/// CPU time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    clock::cpu_time().as_secs_f64()
}
