//! Which classifier of the same encoder is right more often on images that it did not learn from.
//!
//! Three candidates come out of one fine-tuning: the logistic regression on the frozen encoder that it starts from, its
//! outcome, and the mean of both (WiSE-FT, arXiv 2109.01903). With few labels each image is held out once (cross-validation), so
//! that all of them count and all are learned from in the end. Where most images have no label, an ensemble of the candidates
//! and of the teacher competes, too: its answers become soft labels of all images ([`super::self_train`]).

use serde::{Deserialize, Serialize};
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::{self, Predictions, top};
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned, Finetuning, HeadInit};
use smalti_trainer::stages::head::Embedded;
use smalti_trainer::train::cost::cpu_per_step;
use smalti_trainer::train::step::GradLanes;
use smalti_trainer::train::{ExecConfig, OptimConfig};
use smalti_trainer::{Result, clock};

use super::Autotrain;
use super::ensemble::Ensemble;
use super::images::Images;
use super::teacher_head::TeacherHead;
use crate::console::progress::Watch;
use crate::plan::finetune::Init;

/// With fewer labels than this each is held out once.
const CROSS_VALIDATED: usize = 600;
/// Folds of the cross-validation.
const FOLDS: usize = 3;
/// Steps that a fine-tuning takes to learn something, and those beyond which few labels bring nothing more.
const STEPS: [u64; 2] = [100, 1000];
/// Steps of the shortest training, whatever the budget.
pub(super) const LEAST: u64 = 3;
/// Share of the time that candidates take where self-training may follow.
const BEFORE_SELF_TRAINING: f64 = 0.6;
/// Images of which one label is expected, at least, for self-training.
const UNLABELLED: usize = 2;
/// What an ensemble may be worse by on held-out images: soft labels on all images add to what it knows.
const CREDIT: f64 = 0.02;

/// A classifier of the same encoder, by the share of the starting weights that it keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    name: &'static str,
    interpolate: f64,
}

/// The only candidate without a start.
const FROM_SCRATCH: Candidate = Candidate { name: "trained from scratch", interpolate: 0.0 };
const HALF_WAY: usize = 0;
const FROZEN: usize = 1;
const FINE_TUNED: usize = 2;

/// In the order in which equal ones are preferred.
const CANDIDATES: [Candidate; 3] = [
    Candidate { name: "fine-tuned, half way", interpolate: 0.5 },
    Candidate { name: "frozen encoder, logistic head", interpolate: 1.0 },
    Candidate { name: "fine-tuned", interpolate: 0.0 },
];

/// The candidate that was chosen. It is kept, so that a command that continues makes no other choice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Choice {
    /// [`Candidate::name`].
    pub(super) candidate: String,
    /// [`Candidate::interpolate`].
    pub(super) interpolate: f64,
    /// The fraction of held-out images that it gets right; none where nothing was compared.
    pub(super) validation: Option<f64>,
    /// Steps on all labels.
    pub(super) steps: u64,
    /// The ensemble whose answers are learned from in the end, where it is better than each candidate.
    pub(super) ensemble: Option<Ensemble>,
    /// Steps on its answers, once they are known.
    pub(super) self_training_steps: Option<u64>,
}

/// The frozen encoder under a logistic regression on all labels: what fine-tuning starts from.
pub(super) struct Frozen {
    pub(super) classifier: Finetuned,
    embedded: Embedded,
    decay: f64,
}

impl Frozen {
    /// Embeds the labelled images and fits the regression.
    pub(super) fn new(
        job: &Autotrain<'_>,
        settings: &FinetuneSettings,
        labelled: &Dataset,
        init: &Init,
    ) -> Result<Frozen> {
        let mut classifier = finetune::start(settings, labelled.classes(), init.file())?;
        let (augment, seed, stop) = (&settings.augment, settings.optim.seed, || job.stop.code());
        let embedded = Embedded::new(&classifier, labelled, augment, seed, &job.exec, &stop)?;
        let head = embedded.fit(None, None)?;
        head.write(classifier.model.layout(), &mut classifier.params)?;
        Ok(Frozen { classifier, embedded, decay: head.decay })
    }

    /// All parameters with a regression on these labelled images alone, rising.
    fn params_of(&self, kept: &[usize]) -> Result<Vec<f32>> {
        let mut params = self.classifier.params.clone();
        let head = self.embedded.fit(Some(kept), Some(self.decay))?;
        head.write(self.classifier.model.layout(), &mut params)?;
        Ok(params)
    }
}

/// Chooses among the candidates for the labels, within `seconds` of CPU time for this and for what follows.
pub(super) fn choose(
    job: &Autotrain<'_>,
    settings: &FinetuneSettings,
    images: &Images,
    frozen: Option<&Frozen>,
    teacher: Option<&TeacherHead>,
    seconds: f64,
) -> Result<Choice> {
    let labelled = &images.labelled;
    let per_step = cost(settings, &finetune::Images::labelled(labelled), &job.exec)?;
    let folds = folds(labelled, if labelled.len() < CROSS_VALIDATED { FOLDS } else { 1 });
    let self_trains = frozen.is_some() && images.all.len() >= UNLABELLED * labelled.len();
    // Of a fine-tuning on all labels, a fold's is a part.
    let runs = if frozen.is_none() { 1.0 } else { 1.0 + folds.len() as f64 };
    let share = if self_trains { BEFORE_SELF_TRAINING } else { 1.0 };
    let [enough, most] = STEPS;
    let most = most.max(10 * labelled.len() as u64 / settings.optim.batch_size.max(1) as u64);
    let steps = ((share * seconds / runs / per_step) as u64).clamp(LEAST, most);
    if steps < enough {
        job.tell(&format!("  the budget leaves {steps} steps, fewer than the {enough} that learning takes"));
    }
    let Some(frozen) = frozen else { return Ok(Choice::new(FROM_SCRATCH, None, steps)) };
    let mut found = HeldOut::default();
    for (i, fold) in folds.iter().enumerate() {
        job.tell(&format!("  comparing on held-out images, {} of {}", i + 1, folds.len()));
        found.add(job, &with_steps(settings, steps), labelled, fold, frozen, teacher)?;
    }
    let classes = labelled.classes().len();
    let fractions = found.candidates.each_ref().map(|logits| fraction_right(logits, &found.labels, classes));
    for (candidate, fraction) in CANDIDATES.iter().zip(fractions) {
        job.tell(&format!("  {:<32}{:5.1}%", candidate.name, 100.0 * fraction));
    }
    let best = (0..CANDIDATES.len()).rev().max_by(|&a, &b| fractions[a].total_cmp(&fractions[b]));
    let best = best.unwrap_or_default();
    let mut choice = Choice::new(CANDIDATES[best], Some(fractions[best]), steps);
    if self_trains {
        let ensemble = found.ensemble(classes);
        if let Some(teacher) = found.teacher_alone(classes) {
            job.tell(&format!("  {:<32}{:5.1}%", "the teacher, logistic head", 100.0 * teacher));
        }
        let name = match ensemble.members() {
            1 => "the best of them".into(),
            members => format!("mean answer of {members} of them"),
        };
        job.tell(&format!("  {name:<32}{:5.1}%", 100.0 * ensemble.validation));
        if ensemble.is_beyond(CANDIDATES.len()) && ensemble.validation + CREDIT >= fractions[best] {
            // Both that are fine-tuned follow from one.
            let tunes = ensemble.has(HALF_WAY) || ensemble.has(FINE_TUNED);
            let member = CANDIDATES[if tunes { FINE_TUNED } else { FROZEN }];
            choice = Choice::new(member, Some(ensemble.validation), steps);
            choice.ensemble = Some(ensemble);
            return Ok(choice);
        }
    }
    // What others would have taken is the best one's.
    if choice.interpolate < 1.0 {
        choice.steps = (((job.until() - cpu_seconds()) / per_step) as u64).clamp(steps, most);
    }
    Ok(choice)
}

impl Choice {
    fn new(candidate: Candidate, validation: Option<f64>, steps: u64) -> Choice {
        let Candidate { name, interpolate } = candidate;
        // The frozen candidate is its start, whatever the steps.
        let steps = if interpolate == 1.0 { 1 } else { steps };
        Choice {
            candidate: name.into(),
            interpolate,
            validation,
            steps,
            ensemble: None,
            self_training_steps: None,
        }
    }
}

/// The settings with so many steps, validated at no time.
pub(super) fn with_steps(settings: &FinetuneSettings, steps: u64) -> FinetuneSettings {
    let old = settings.optim.steps.unwrap_or(steps).max(1) as f64;
    let warmup_epochs = settings.optim.warmup_epochs * steps as f64 / old;
    let optim = OptimConfig { steps: Some(steps), warmup_epochs, ..settings.optim.clone() };
    FinetuneSettings { optim, ..settings.clone() }
}

/// Seconds of CPU time that a step takes.
pub(super) fn cost(
    settings: &FinetuneSettings,
    images: &finetune::Images<'_>,
    exec: &ExecConfig,
) -> Result<f64> {
    let fresh = FinetuneSettings { head: HeadInit::Fresh, ..settings.clone() };
    let seconds = cpu_per_step(&mut Finetuning::new(&fresh, exec, images, None)?, exec)?;
    Ok(seconds.max(1e-6))
}

/// What classifiers say of images that they did not learn from.
#[derive(Default)]
struct HeldOut {
    labels: Vec<u32>,
    /// Logits `[images, classes]` of each candidate.
    candidates: [Vec<f32>; CANDIDATES.len()],
    /// Those of the teacher, if there is one.
    teacher: Vec<f32>,
}

impl HeldOut {
    /// Adds the images of one fold.
    fn add(
        &mut self,
        job: &Autotrain<'_>,
        settings: &FinetuneSettings,
        labelled: &Dataset,
        fold: &Fold,
        frozen: &Frozen,
        teacher: Option<&TeacherHead>,
    ) -> Result<()> {
        let (kept, held) = (labelled.select(&fold.kept), labelled.select(&fold.held));
        let mut watch = Watch::new(job.global, "compare", job.stop.clone());
        let settings = FinetuneSettings { interpolate: 0.0, ..settings.clone() };
        let (start, images) = (frozen.params_of(&fold.kept)?, finetune::Images::labelled(&kept));
        let (mut tuned, _) =
            finetune::finetune_from(&start, &settings, &job.exec, &images, None, &mut watch)?;
        drop(watch);
        let last = std::mem::take(&mut tuned.params);
        for (i, candidate) in CANDIDATES.iter().enumerate() {
            tuned.params = finetune::interpolate(&last, &start, candidate.interpolate);
            let found = predictions(job, &tuned, &held)?;
            // The same images for all of them.
            if i == 0 {
                self.labels.extend(found.labels.iter().map(|label| label.unwrap_or_default()));
                if let Some(teacher) = teacher {
                    let readable: Vec<usize> = found.ids.iter().map(|id| fold.held[*id as usize]).collect();
                    self.teacher.extend(teacher.held_out(&fold.kept, &readable)?);
                }
            }
            self.candidates[i].extend(found.logits);
        }
        Ok(())
    }

    /// The best ensemble of candidates and the teacher.
    fn ensemble(&self, classes: usize) -> Ensemble {
        let teacher = Some(&self.teacher).filter(|logits| !logits.is_empty());
        let all: Vec<Vec<f32>> = self.candidates.iter().chain(teacher).cloned().collect();
        Ensemble::fit(&all, &self.labels, classes)
    }

    /// The fraction that the teacher gets right, if there is one.
    fn teacher_alone(&self, classes: usize) -> Option<f64> {
        (!self.teacher.is_empty()).then(|| fraction_right(&self.teacher, &self.labels, classes))
    }
}

fn fraction_right(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let rows = logits.chunks_exact(classes).zip(labels);
    let right = rows.filter(|(row, label)| top(row) == **label as usize).count();
    right as f64 / labels.len().max(1) as f64
}

/// Each candidate's classifier, from the frozen and the fine-tuned one.
pub(super) fn candidates(frozen: &Finetuned, tuned: &Finetuned) -> impl Iterator<Item = Finetuned> {
    CANDIDATES.into_iter().map(|candidate| {
        let params = finetune::interpolate(&tuned.params, &frozen.params, candidate.interpolate);
        Finetuned { params, ..tuned.clone() }
    })
}

/// What a classifier says of images as the device sees them.
pub(super) fn predictions(
    job: &Autotrain<'_>,
    classifier: &Finetuned,
    data: &Dataset,
) -> Result<Predictions> {
    let loader = evaluate::loader(data, &classifier.preprocess, &job.exec)?;
    let lanes = GradLanes::new(job.exec.threads, 0)?;
    evaluate::predict(&classifier.model, &classifier.params, &loader, &lanes, &|| job.stop.code())
}

/// Numbers of images to learn from and to hold out, both rising.
struct Fold {
    kept: Vec<usize>,
    held: Vec<usize>,
}

/// Folds over which classes are dealt out evenly. A single fold holds a fifth out.
fn folds(labelled: &Dataset, count: usize) -> Vec<Fold> {
    let mut order: Vec<usize> = (0..labelled.len()).collect();
    order.sort_by_key(|&i| labelled.label(i));
    let parts = if count == 1 { 5 } else { count };
    let fold = |fold: usize| {
        let pick = |is_held: bool| {
            let places = order.iter().enumerate().filter(|(place, _)| (place % parts == fold) == is_held);
            let mut picked: Vec<usize> = places.map(|(_, i)| *i).collect();
            picked.sort_unstable();
            picked
        };
        Fold { kept: pick(false), held: pick(true) }
    };
    (0..count).map(fold).filter(|fold| !fold.kept.is_empty() && !fold.held.is_empty()).collect()
}

/// CPU time so far, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    clock::cpu_time().as_secs_f64()
}
