//! From labels to a classifier: what competes, what is chosen, and its training.

use std::path::PathBuf;
use std::time::Duration;

use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned, HeadInit};
use smalti_trainer::train::ExecConfig;

use super::candidate::Origin;
use super::choice::{Choice, SelfTraining};
use super::compare::{self, Entrants, with_steps};
use super::frozen::Frozen;
use super::images::Images;
use super::soft_labels::SoftLabels;
use super::start::Start;
use super::teacher_head::TeacherHead;
use super::{Autotrain, CHOICE, cpu_seconds, mirror};
use crate::args::training::OptimArgs;
use crate::args::{FinetuneArgs, TrainArgs};
use crate::commands::runs;
use crate::console::progress::Watch;
use crate::plan;

/// Images of a fine-tuning step.
const BATCH: usize = 32;
/// Images of a step of self-training.
const SELF_TRAINING_BATCH: usize = 64;
/// Passes over all images beyond which soft labels bring nothing more.
const PASSES: usize = 30;
/// The share of its start's weights that self-training keeps (WiSE-FT, arXiv 2109.01903). Held-out images are of the same
/// places and people as those that are learned from; nearer to its start a model is right more often where these change.
const KEPT: f64 = 0.25;
/// How often test images are classified, in f32 and in int8.
const TEST_PASSES: f64 = 2.0;
/// Peak learning rate of both, and that of convolutions from scratch.
const LR: f64 = 1e-3;
const SCRATCH_LR: f64 = 3e-3;

/// A classifier that has learned.
pub(super) struct Learned {
    pub(super) model: Finetuned,
    pub(super) settings: FinetuneSettings,
    /// The run that it is in.
    pub(super) run: PathBuf,
    pub(super) choice: Choice,
}

impl Autotrain<'_> {
    /// Chooses a classifier by held-out images and trains it on all labels, or on soft labels of all images where an ensemble
    /// is better than each candidate.
    pub(super) fn learn_from_labels(
        &self,
        args: &mut TrainArgs,
        images: &Images,
        start: &Start,
    ) -> anyhow::Result<Learned> {
        let labelled = &images.labelled;
        let mut settings = self.plan(args, start, labelled, BATCH)?;
        self.tell(&format!("3 learning from {} labels", labelled.len()));
        if start.file.is_none() {
            let choice = match self.earlier_choice() {
                Some(choice) => choice,
                None => compare::alone(self, &settings, labelled)?,
            };
            self.keep(&choice)?;
            return self.train_chosen(args, settings, labelled, None, choice);
        }
        let mut frozen = Frozen::new(self, &settings, labelled, &start.init()?)?;
        if args.flip.is_none() {
            args.flip = Some(!mirror::changes_classes(self, &frozen, labelled)?);
            self.save(args)?;
            if args.flip == Some(false) {
                self.tell("  mirrored images are taken for other classes: nothing is mirrored");
                settings = self.plan(args, start, labelled, BATCH)?;
                frozen = Frozen::new(self, &settings, labelled, &start.init()?)?;
            }
        }
        let test = images.test.as_ref().map_or(0, |(test, _)| test.len());
        self.measuring.set(TEST_PASSES * test as f64 * frozen.per_image);
        let rival = start.rival(&settings.encoder);
        let mut entrants = Entrants {
            frozen,
            scratch: rival.map(|rival| self.plan(args, &rival, labelled, BATCH)).transpose()?,
            teacher: start.run().map(|run| TeacherHead::open(run, images)).transpose()?.flatten(),
            settings,
        };
        let (choice, labels) = match self.earlier_choice() {
            Some(choice) => {
                let kept = |training: &SelfTraining| SoftLabels::kept(self, images, training.images);
                let labels = choice.self_training.as_ref().map(kept).transpose()?;
                (choice, labels)
            }
            None => self.choose(args, images, start, &mut entrants)?,
        };
        self.keep(&choice)?;
        self.stop.check()?;
        let Entrants { frozen, settings, scratch, .. } = entrants;
        match (&choice.self_training, labels, scratch) {
            (Some(training), Some(labels), _) => {
                let settings = self.plan(args, start, &labels.images, SELF_TRAINING_BATCH)?;
                let settings =
                    FinetuneSettings { interpolate: KEPT, ..with_steps(&settings, training.steps) };
                let SelfTraining { steps, images, .. } = training;
                self.tell(&format!("  {}: {steps} steps on {images} images", choice.candidate));
                self.learn(args, "self-train", settings, &labels.images(), Some(&frozen), choice)
            }
            (_, _, Some(settings)) if choice.origin == Origin::Scratch => {
                self.train_chosen(args, settings, labelled, None, choice)
            }
            _ => self.train_chosen(args, settings, labelled, Some(&frozen), choice),
        }
    }

    /// Compares, and asks the ensemble about all images where it is better than each candidate.
    fn choose(
        &self,
        args: &TrainArgs,
        images: &Images,
        start: &Start,
        entrants: &mut Entrants,
    ) -> anyhow::Result<(Choice, Option<SoftLabels>)> {
        let comparison = compare::compare(self, images, entrants)?;
        let Some(ensemble) = &comparison.ensemble else { return Ok((comparison.choice, None)) };
        self.stop.check()?;
        let labels = SoftLabels::ask(self, images, entrants, &comparison, ensemble)?;
        labels.keep(self)?;
        let settings = self.plan(args, start, &labels.images, SELF_TRAINING_BATCH)?;
        let training = SelfTraining {
            ensemble: ensemble.clone(),
            images: labels.images.len(),
            steps: self.self_training_steps(&settings, &labels)?,
        };
        Ok((comparison.choice.with(training), Some(labels)))
    }

    /// Plans a training on `data`; its steps are chosen later.
    fn plan(
        &self,
        args: &TrainArgs,
        start: &Start,
        data: &Dataset,
        batch_size: usize,
    ) -> Result<FinetuneSettings> {
        let (from_scratch, optim) = (start.file.is_none(), self.optim_args(start));
        let mut wanted = FinetuneArgs {
            data: args.data.clone(),
            init: Some(start.source()),
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
        let mut settings = plan::finetune::plan(&mut wanted, &start.init()?, data)?;
        if !from_scratch {
            settings.head = HeadInit::Probe;
        }
        Ok(settings)
    }

    /// Steps of self-training that fit into the time.
    fn self_training_steps(&self, settings: &FinetuneSettings, labels: &SoftLabels) -> Result<u64> {
        let per_step = compare::cost(settings, &labels.images(), &self.exec)?;
        let most = (PASSES * labels.images.len() / settings.optim.batch_size.max(1)) as u64;
        let fitting = (self.until() - cpu_seconds()) / per_step;
        Ok((fitting as u64).clamp(compare::LEAST, most.max(500)))
    }

    /// What was chosen before an interruption.
    fn earlier_choice(&self) -> Option<Choice> {
        let bytes = self.resumes.then(|| std::fs::read(self.out.join(CHOICE)).ok()).flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn keep(&self, choice: &Choice) -> anyhow::Result<()> {
        self.owner.write_json(CHOICE, choice)?;
        self.note_time()
    }

    /// Trains the candidate that was chosen on all labels.
    fn train_chosen(
        &self,
        args: &TrainArgs,
        settings: FinetuneSettings,
        labelled: &Dataset,
        frozen: Option<&Frozen>,
        choice: Choice,
    ) -> anyhow::Result<Learned> {
        let Choice { candidate, interpolate, steps, .. } = &choice;
        let settings = FinetuneSettings { interpolate: *interpolate, ..with_steps(&settings, *steps) };
        self.tell(&format!("  {candidate}: {steps} steps on all labels"));
        self.learn(args, "finetune", settings, &finetune::Images::labelled(labelled), frozen, choice)
    }

    /// Learns from images, into a run of this name.
    fn learn(
        &self,
        args: &TrainArgs,
        name: &str,
        settings: FinetuneSettings,
        images: &finetune::Images<'_>,
        frozen: Option<&Frozen>,
        choice: Choice,
    ) -> anyhow::Result<Learned> {
        let inputs = [("DIR", args.data.as_ref())];
        let text = finetune::settings_file(&settings)?;
        let dir = runs::open_with(&self.run_args(name), "finetune", &text, &inputs)?;
        let exec = ExecConfig { checkpoint_every: Duration::from_secs(60), ..self.exec.clone() };
        let (mut watch, run) = (Watch::new(self.global, name, self.stop.clone()), Some(&dir));
        let (mut model, _) = match frozen.map(|frozen| &frozen.classifier.params) {
            Some(start) => finetune::finetune_from(start, &settings, &exec, images, run, &mut watch)?,
            None => finetune::finetune(&settings, &exec, images, None, run, &mut watch)?,
        };
        model.divide_logits(choice.temperature);
        Ok(Learned { model, settings, run: dir.path().to_owned(), choice })
    }
}
