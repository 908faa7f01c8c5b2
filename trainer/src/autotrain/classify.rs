//! Head or all layers: which classifier of the same encoder is right more often on images that it did not learn from.
//!
//! Three candidates come out of one fine-tuning: the logistic regression that it starts from, its outcome, and the mean of
//! both (WiSE-FT, arXiv 2109.01903). With few labels each image is held out once (cross-validation), so that all of them count
//! and all are learned from in the end.

use serde::{Deserialize, Serialize};
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate;
use smalti_trainer::model::Classifier;
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuning, HeadInit, Images};
use smalti_trainer::stages::head;
use smalti_trainer::train::cost::cpu_per_step;
use smalti_trainer::train::step::GradLanes;
use smalti_trainer::train::{ExecConfig, OptimConfig};
use smalti_trainer::{Result, clock};

use super::Autotrain;
use crate::console::progress::Watch;
use crate::plan::finetune::Init;

/// With fewer labels than this each is held out once.
const CROSS_VALIDATED: usize = 600;
/// Folds of the cross-validation.
const FOLDS: usize = 3;
/// Steps that a fine-tuning takes to learn something, and those beyond which few labels bring nothing more.
const STEPS: [u64; 2] = [100, 1000];
/// Steps of the shortest fine-tuning, whatever the budget.
const LEAST: u64 = 20;

/// A classifier of the same encoder, by the share of the starting weights that it keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) name: &'static str,
    pub(super) interpolate: f64,
}

/// The only candidate without a start.
const FROM_SCRATCH: Candidate = Candidate { name: "trained from scratch", interpolate: 0.0 };

/// In the order in which equal ones are preferred.
pub(super) const CANDIDATES: [Candidate; 3] = [
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
}

/// Chooses among the candidates for `labelled`, within `seconds` of CPU time for this and for the fine-tuning that follows.
pub(super) fn choose(
    job: &Autotrain<'_>,
    settings: &FinetuneSettings,
    labelled: &Dataset,
    init: &Init,
    seconds: f64,
) -> Result<Choice> {
    let per_step = cost(settings, labelled, init, &job.exec)?;
    let scratch = init.file().is_none();
    let folds = folds(labelled, if labelled.len() < CROSS_VALIDATED { FOLDS } else { 1 });
    // Of a fine-tuning on all labels, a fold's is a part.
    let runs = if scratch { 1.0 } else { 1.0 + folds.len() as f64 };
    let [enough, most] = STEPS;
    let most = most.max(10 * labelled.len() as u64 / settings.optim.batch_size.max(1) as u64);
    let steps = ((seconds / runs / per_step) as u64).clamp(LEAST, most);
    if steps < enough {
        job.tell(&format!("  the budget leaves {steps} steps, fewer than the {enough} that learning takes"));
    }
    if scratch {
        return Ok(Choice::new(FROM_SCRATCH, None, steps));
    }
    let mut right = [0; CANDIDATES.len()];
    let mut judged = 0;
    for (i, (kept, held)) in folds.iter().enumerate() {
        job.tell(&format!("  comparing on held-out images, {} of {}", i + 1, folds.len()));
        let found = compare(job, &with_steps(settings, steps), kept, held, init)?;
        right.iter_mut().zip(found).for_each(|(sum, right)| *sum += right);
        judged += held.len();
    }
    let fraction = |i: usize| right[i] as f64 / judged.max(1) as f64;
    for (i, candidate) in CANDIDATES.iter().enumerate() {
        job.tell(&format!("  {:<32}{:5.1}%", candidate.name, 100.0 * fraction(i)));
    }
    let best = (0..CANDIDATES.len()).rev().max_by_key(|&i| right[i]).unwrap_or_default();
    Ok(Choice::new(CANDIDATES[best], Some(fraction(best)), steps))
}

impl Choice {
    fn new(candidate: Candidate, validation: Option<f64>, steps: u64) -> Choice {
        let Candidate { name, interpolate } = candidate;
        // The frozen candidate is its start, whatever the steps.
        let steps = if interpolate == 1.0 { 1 } else { steps };
        Choice { candidate: name.into(), interpolate, validation, steps }
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
fn cost(settings: &FinetuneSettings, labelled: &Dataset, init: &Init, exec: &ExecConfig) -> Result<f64> {
    let images = Images { train: labelled, val: None };
    let fresh = FinetuneSettings { head: HeadInit::Fresh, ..settings.clone() };
    let seconds = cpu_per_step(&mut Finetuning::new(&fresh, exec, &images, init.file())?, exec)?;
    Ok(seconds.max(1e-6))
}

/// How many of the held-out images each candidate gets right that learned from the others.
fn compare(
    job: &Autotrain<'_>,
    settings: &FinetuneSettings,
    kept: &Dataset,
    held: &Dataset,
    init: &Init,
) -> Result<[usize; CANDIDATES.len()]> {
    let images = Images { train: kept, val: None };
    let mut watch = Watch::new(job.global, "compare", job.stop.clone());
    let settings = FinetuneSettings { interpolate: 0.0, ..settings.clone() };
    let (tuned, _) = finetune::finetune(&settings, &job.exec, &images, init.file(), None, &mut watch)?;
    drop(watch);
    let mut start = finetune::start(&settings, kept.classes().len(), init.file())?;
    let FinetuneSettings { preprocess, augment, optim, .. } = &settings;
    let stop = || job.stop.code();
    head::fit(&tuned.model, &mut start, kept, preprocess, augment, optim.seed, &job.exec, &stop)?;
    let mut right = [0; CANDIDATES.len()];
    for (candidate, right) in CANDIDATES.iter().zip(&mut right) {
        let params = finetune::interpolate(&tuned.params, &start, candidate.interpolate);
        *right = count_right(&tuned.model, &params, held, &settings, job)?;
    }
    Ok(right)
}

fn count_right(
    model: &Classifier,
    params: &[f32],
    data: &Dataset,
    settings: &FinetuneSettings,
    job: &Autotrain<'_>,
) -> Result<usize> {
    let loader = evaluate::loader(data, &settings.preprocess, &job.exec)?;
    let lanes = GradLanes::new(job.exec.threads, 0)?;
    Ok(evaluate::predict(model, params, &loader, &lanes, &|| job.stop.code())?.right().0)
}

/// Each fold's images to learn from and to hold out: classes are dealt out evenly. A single fold holds a fifth out.
fn folds(labelled: &Dataset, count: usize) -> Vec<(Dataset, Dataset)> {
    let mut order: Vec<usize> = (0..labelled.len()).collect();
    order.sort_by_key(|&i| labelled.label(i));
    let parts = if count == 1 { 5 } else { count };
    let fold = |fold: usize| {
        let is_held = |(place, _): &(usize, &usize)| place % parts == fold;
        let pick = |held: bool| {
            let picked = order.iter().enumerate().filter(|pair| is_held(pair) == held).map(|(_, i)| *i);
            labelled.select(&picked.collect::<Vec<_>>())
        };
        (pick(false), pick(true))
    };
    (0..count).map(fold).filter(|(kept, held)| !kept.is_empty() && !held.is_empty()).collect()
}

/// CPU time so far, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    clock::cpu_time().as_secs_f64()
}
