//! `smalti train`: from a folder of photos to a model file.
//!
//! 1. look at the images;
//! 2. learn without labels: from a teacher if one is given;
//! 3. learn from the labels: candidates compete on held-out images, the best learns from all labels ([`classify`]), and what an
//!    ensemble says of the images without labels is learned, too ([`self_train`]);
//! 4. measure on the test split, export, quantize, run as on a device ([`device`]).
//!
//! Every stage is a run of its own below the folder, so that each can be continued, looked at and used by the other commands.

mod classify;
mod device;
mod ensemble;
mod images;
pub(crate) mod report;
mod self_train;
mod start;
mod teacher_head;

use std::path::{Path, PathBuf};
use std::time::Duration;

use smalti_models::starts;
use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::run::owner::Claim;
use smalti_trainer::run::{Owner, RunDir};
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned, HeadInit};
use smalti_trainer::train::ExecConfig;

use crate::args::training::{ImageArgs, OptimArgs, RunArgs, SizeArgs};
use crate::args::{DistilArgs, FinetuneArgs, Global, TrainArgs, config};
use crate::commands::{self, distil, runs};
use crate::console::log::tell;
use crate::console::out;
use crate::console::progress::Watch;
use crate::console::signals::Stop;
use crate::plan::finetune::Init;
use crate::plan::{self, fill, optim::duration, required};
use classify::{Choice, Frozen, cpu_seconds};
use images::Images;
use report::Report;
use start::Start;
use teacher_head::TeacherHead;

/// The default budget.
const BUDGET: &str = "10m";
/// Share of the budget that a teacher and its student take.
const OF_DISTILLATION: f64 = 0.65;
/// Share of what is left then that measuring and exporting take.
const OF_THE_REST: f64 = 0.1;
/// Images of a fine-tuning step.
const BATCH: usize = 32;
/// Images of a step of self-training.
const SELF_TRAINING_BATCH: usize = 64;
/// Peak learning rate of both, and that of convolutions from scratch.
const LR: f64 = 1e-3;
const SCRATCH_LR: f64 = 3e-3;
/// What the command writes into its folder.
const FILES: [&str; 8] = [
    "config.toml",
    "distil",
    CHOICE,
    "finetune",
    "self-train",
    "model.onnx",
    "model-int8.onnx",
    "report.json",
];
/// The candidate that was chosen.
const CHOICE: &str = "choice.json";

/// A `smalti train` at work.
struct Autotrain<'a> {
    global: &'a Global,
    out: PathBuf,
    owner: Owner,
    exec: ExecConfig,
    stop: Stop,
    /// The CPU time at the beginning, in seconds.
    began: f64,
    /// CPU seconds that everything may take.
    budget: f64,
    resumes: bool,
    overwrite: bool,
}

/// What came of it.
pub(crate) struct Trained {
    pub(crate) report: Report,
    pub(crate) model: Finetuned,
    /// The images that it was measured on.
    pub(crate) test: Option<Dataset>,
}

pub(crate) fn run(args: TrainArgs, global: &Global) -> anyhow::Result<()> {
    let out = args.out.clone().unwrap_or_else(|| "smalti-train".into());
    let (resumes, overwrite) = (args.resume == Some(true), args.overwrite == Some(true));
    let settings = out.join("config.toml");
    let file = global.config.clone().or((resumes && settings.is_file()).then(|| settings.clone()));
    let args = TrainArgs {
        out: Some(out),
        resume: Some(resumes),
        overwrite: Some(overwrite),
        ..config::merge(args, file.as_deref())?
    };
    let exec = runs::exec(&RunArgs::default(), commands::machine(&args.machine)?)?;
    let report = execute(args, exec, Stop::listen(), global)?.report;
    if global.json {
        return out::text(&out::object(serde_json::to_value(&report)?).to_string());
    }
    out::text(&report.text())?;
    tell(global, &format!("next: smalti-run run {} IMAGES", report.model.display()));
    Ok(())
}

/// Does all of it, and leaves the report in the folder.
pub(crate) fn execute(
    mut args: TrainArgs,
    exec: ExecConfig,
    stop: Stop,
    global: &Global,
) -> anyhow::Result<Trained> {
    let began = cpu_seconds();
    let out = required(&args.out, "--out", "a folder")?;
    let (resumes, overwrite) = (args.resume == Some(true), args.overwrite == Some(true));
    let budget = duration(&fill(&mut args.budget, BUDGET.into()))?.as_secs_f64();
    let owner = claim(&out, &args, resumes, overwrite)?;
    let job = Autotrain { global, out, owner, exec, stop, began, budget, resumes, overwrite };
    // DIR is no flag, and said again with --resume.
    let saved = TrainArgs { data: None, ..args.clone() };
    job.owner.write("config.toml", config::to_toml(&saved)?.as_bytes())?;
    let trained = job.run(&mut args).map_err(|error| job.explain_stop(error))?;
    let object = out::object(serde_json::to_value(&trained.report)?);
    job.owner.write("report.json", format!("{object:#}\n").as_bytes())?;
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

    fn run(&self, args: &mut TrainArgs) -> anyhow::Result<Trained> {
        let images = images::open(args)?;
        let (all, labelled) = (images.all.len(), images.labelled.len());
        let classes = images.labelled.classes().len();
        let test = images.test.as_ref().map_or(0, |(test, _)| test.len());
        self.tell(&format!(
            "1 {all} images, {labelled} of them labelled, {classes} classes, {test} to measure on"
        ));
        let start = Start::choose(args, &images)?;
        let start = self.learn_without_labels(args, start, &images)?;
        self.stop.check()?;
        let Learned { model, settings, run, choice } = self.learn_from_labels(args, &images, &start)?;
        self.stop.check()?;
        let found = match &images.test {
            Some((test, _)) => Some(commands::finetune::evaluate(&model, test, &self.exec)?),
            None => None,
        };
        let device = device::export(self, &model, &settings, &images)?;
        let report = Report {
            schema_version: 1,
            accuracy: found.as_ref().map(|found| found.accuracy),
            balanced_accuracy: found.as_ref().map(|found| found.balanced_accuracy),
            n: found.as_ref().map_or(0, |found| found.n),
            split: images.test.as_ref().map(|(_, split)| split.to_string()),
            validation: choice.validation,
            chosen: choice.candidate,
            start: start.name,
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
        Ok(Trained { report, model, test: images.test.map(|(test, _)| test) })
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
            wanted.init = Some(start.file.clone().unwrap_or_else(|| "scratch".into()));
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

    /// Chooses a classifier by held-out images and trains it on all labels, and on soft labels of the other images if an
    /// ensemble is better than each candidate.
    fn learn_from_labels(&self, args: &TrainArgs, images: &Images, start: &Start) -> anyhow::Result<Learned> {
        let init = Init::read(&Some(start.file.clone().unwrap_or_else(|| "scratch".into())))?;
        let plan = |data: &Dataset, batch| self.plan(args, start, &init, data, batch);
        let settings = plan(&images.labelled, BATCH)?;
        self.tell(&format!("3 learning from {} labels", images.labelled.len()));
        let frozen = match init {
            Init::Scratch => None,
            _ => Some(Frozen::new(self, &settings, &images.labelled, &init)?),
        };
        let run = start.file.as_deref().filter(|path| path.is_dir());
        let mut teacher = run.map(|run| TeacherHead::open(run, images)).transpose()?.flatten();
        let choice = match self.earlier_choice() {
            Some(choice) => choice,
            None => {
                let seconds = self.until() - cpu_seconds();
                classify::choose(self, &settings, images, frozen.as_ref(), teacher.as_ref(), seconds)?
            }
        };
        self.keep(&choice)?;
        self.stop.check()?;
        let tuned = self.train_chosen(args, &settings, images, frozen.as_ref(), choice)?;
        self.stop.check()?;
        let mut choice = tuned.choice.clone();
        let (Some(ensemble), Some(frozen)) = (&choice.ensemble, &frozen) else { return Ok(tuned) };
        let members = [&frozen.classifier, &tuned.model];
        let targets = self.soft_labels(images, members, teacher.as_mut(), ensemble)?;
        let settings = plan(&images.all, SELF_TRAINING_BATCH)?;
        let steps = match choice.self_training_steps {
            Some(steps) => steps,
            None => self.self_training_steps(&settings, images, &targets, self.until())?,
        };
        choice.candidate = match ensemble.members() {
            1 => "self-trained on the teacher's answers".into(),
            members => format!("self-trained on the mean answer of {members} classifiers"),
        };
        choice.self_training_steps = Some(steps);
        self.keep(&choice)?;
        let (settings, all) = (classify::with_steps(&settings, steps), images.all.len());
        self.tell(&format!("  self-training: {steps} steps on all {all} images"));
        let (model, run) = self.self_train(args, &settings, images, frozen, &targets)?;
        Ok(Learned { model, settings, run, choice })
    }

    /// The CPU time at which learning ends: measuring and exporting follow.
    fn until(&self) -> f64 {
        let left = (self.began + self.budget - cpu_seconds()).max(1.0);
        cpu_seconds() + left * (1.0 - OF_THE_REST)
    }

    /// Plans a fine-tuning on `data`; its steps are chosen later.
    fn plan(
        &self,
        args: &TrainArgs,
        start: &Start,
        init: &Init,
        data: &Dataset,
        batch_size: usize,
    ) -> Result<FinetuneSettings> {
        let (from_scratch, optim) = (start.file.is_none(), self.optim_args(start));
        let mut wanted = FinetuneArgs {
            data: args.data.clone(),
            init: Some(start.file.clone().unwrap_or_else(|| "scratch".into())),
            images: self.image_args(args),
            size: start.size.clone(),
            optim: OptimArgs {
                steps: Some(500),
                batch_size: Some(batch_size),
                seed: args.seed,
                lr: if from_scratch { optim.optimizer.is_some().then_some(SCRATCH_LR) } else { Some(LR) },
                ..optim
            },
            ..FinetuneArgs::default()
        };
        let mut settings = plan::finetune::plan(&mut wanted, init, data)?;
        if !from_scratch {
            settings.head = HeadInit::Probe;
        }
        Ok(settings)
    }

    /// What was chosen before an interruption.
    fn earlier_choice(&self) -> Option<Choice> {
        let bytes = self.resumes.then(|| std::fs::read(self.out.join(CHOICE)).ok()).flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn keep(&self, choice: &Choice) -> anyhow::Result<()> {
        let text = format!("{:#}\n", serde_json::to_value(choice)?);
        self.owner.write(CHOICE, text.as_bytes())?;
        Ok(())
    }

    /// Learns from all labels as was chosen, into a run.
    fn train_chosen(
        &self,
        args: &TrainArgs,
        settings: &FinetuneSettings,
        images: &Images,
        frozen: Option<&Frozen>,
        choice: Choice,
    ) -> anyhow::Result<Learned> {
        let Choice { candidate, interpolate, steps, .. } = &choice;
        let settings =
            FinetuneSettings { interpolate: *interpolate, ..classify::with_steps(settings, *steps) };
        self.tell(&format!("  {candidate}: {steps} steps on all labels"));
        let (dir, exec) = self.run_dir(args, "finetune", &settings)?;
        let mut watch = Watch::new(self.global, "finetune", self.stop.clone());
        let data = finetune::Images::labelled(&images.labelled);
        let (model, _) = match frozen {
            Some(frozen) => {
                let start = &frozen.classifier.params;
                finetune::finetune_from(start, &settings, &exec, &data, Some(&dir), &mut watch)?
            }
            None => finetune::finetune(&settings, &exec, &data, None, Some(&dir), &mut watch)?,
        };
        Ok(Learned { model, settings, run: dir.path().to_owned(), choice })
    }

    /// The run of a fine-tuning below the folder.
    fn run_dir(
        &self,
        args: &TrainArgs,
        name: &str,
        settings: &FinetuneSettings,
    ) -> Result<(RunDir, ExecConfig)> {
        let inputs = [("DIR", args.data.as_ref())];
        let text = finetune::settings_file(settings)?;
        let dir = runs::open_with(&self.run_args(name), "finetune", &text, &inputs)?;
        Ok((dir, ExecConfig { checkpoint_every: Duration::from_secs(60), ..self.exec.clone() }))
    }
}

/// A classifier that has learned.
struct Learned {
    model: Finetuned,
    settings: FinetuneSettings,
    /// The run that it is in.
    run: PathBuf,
    choice: Choice,
}
