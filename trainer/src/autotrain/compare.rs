//! Which classifier is right more often on images that it did not learn from.
//!
//! With few labels each image is held out once (cross-validation), so that all of them count. Where most images have no label,
//! an ensemble of the candidates and of the teacher competes, too: its answers become soft labels of the images
//! ([`super::soft_labels`]). A candidate's answer is then the mean of its folds' (bagging), so that what was trained for the
//! comparison is not thrown away.

use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::{self, Predictions};
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned, Finetuning, HeadInit};
use smalti_trainer::train::cost::cpu_per_step;
use smalti_trainer::train::step::GradLanes;
use smalti_trainer::train::{ExecConfig, OptimConfig};

use super::candidate::{Candidate, FROM_SCRATCH, Origin, candidates};
use super::choice::Choice;
use super::ensemble::{Ensemble, fraction_right, temperature};
use super::folds::{Fold, Trained, folds};
use super::frozen::Frozen;
use super::images::Images;
use super::report::Scored;
use super::teacher_head::TeacherHead;
use super::{Autotrain, cpu_seconds};

/// With fewer labels than this each is held out once.
const CROSS_VALIDATED: usize = 600;
/// Folds of the cross-validation.
const FOLDS: usize = 3;
/// Steps that a training takes to learn something, and those beyond which few labels bring nothing more.
const STEPS: [u64; 2] = [100, 1000];
/// Passes over more labels beyond which fine-tuning brings nothing more, and training from scratch.
const FINE_TUNED_PASSES: u64 = 10;
const SCRATCH_PASSES: u64 = 200;
/// Steps of the shortest training, whatever the budget.
pub(super) const LEAST: u64 = 3;
/// Share of the time that the comparison takes where self-training may follow.
const BEFORE_SELF_TRAINING: f64 = 0.5;
/// Images of which one label is expected, at least, for self-training.
const UNLABELLED: usize = 2;
/// What an ensemble may be worse by on held-out images: soft labels on all images add to what it knows (TrashNet without a teacher:
/// 51.7 % on held-out images, 57.5 % on the test images after self-training).
const CREDIT: f64 = 0.05;

/// Who competes.
pub(super) struct Entrants {
    /// The start, and how it is fine-tuned.
    pub(super) frozen: Frozen,
    pub(super) settings: FinetuneSettings,
    /// How the same model is trained from scratch, where that may be better.
    pub(super) scratch: Option<FinetuneSettings>,
    pub(super) teacher: Option<TeacherHead>,
}

/// The outcome.
pub(super) struct Comparison {
    pub(super) choice: Choice,
    /// The ensemble that is better than each candidate, if it is.
    pub(super) ensemble: Option<Ensemble>,
    pub(super) candidates: Vec<Candidate>,
    /// The folds of the labelled images, and what was trained without one each.
    pub(super) folds: Vec<Fold>,
    pub(super) trained: Vec<Trained>,
    /// CPU seconds in which a classifier says what an image is.
    pub(super) per_answer: f64,
}

/// A model from scratch alone, which is compared with nothing.
pub(super) fn alone(job: &Autotrain<'_>, settings: &FinetuneSettings, labelled: &Dataset) -> Result<Choice> {
    let per_step = cost(settings, &finetune::Images::labelled(labelled), &job.exec)?;
    let fitting = (job.until() - cpu_seconds()) / per_step;
    let most = most_steps(settings, labelled, SCRATCH_PASSES);
    Ok(Choice::new(FROM_SCRATCH, None, steps(job, fitting, most)))
}

/// Chooses among the entrants, in a part of the time that is left.
pub(super) fn compare(job: &Autotrain<'_>, images: &Images, entrants: &Entrants) -> Result<Comparison> {
    let (labelled, settings) = (&images.labelled, &entrants.settings);
    let per_step = cost(settings, &finetune::Images::labelled(labelled), &job.exec)?;
    let folds = folds(labelled, if labelled.len() < CROSS_VALIDATED { FOLDS } else { 1 });
    let self_trains = images.all.len() >= UNLABELLED * labelled.len();
    let share = if self_trains { BEFORE_SELF_TRAINING } else { 1.0 };
    let in_time = share * (job.until() - cpu_seconds()) / per_step;
    let steps_of_each = |origins: usize| in_time / (origins * folds.len() + usize::from(!self_trains)) as f64;
    let scratch = entrants.scratch.as_ref().filter(|_| steps_of_each(2) >= STEPS[0] as f64);
    let fitting = steps_of_each(1 + usize::from(scratch.is_some()));
    let steps = steps(job, fitting, most_steps(settings, labelled, FINE_TUNED_PASSES));
    let settings = with_steps(&FinetuneSettings { interpolate: 0.0, ..settings.clone() }, steps);
    let scratch = scratch.map(|settings| with_steps(settings, steps));
    let candidates = candidates(scratch.is_some());
    let mut found = HeldOut { candidates: vec![Vec::new(); candidates.len()], ..HeldOut::default() };
    let mut trained = Vec::new();
    for (i, fold) in folds.iter().enumerate() {
        job.tell(&format!("  comparing on held-out images, {} of {}", i + 1, folds.len()));
        let models = Trained::new(job, labelled, fold, &entrants.frozen, &settings, scratch.as_ref())?;
        found.add(job, labelled, fold, &candidates, &models, entrants.teacher.as_ref())?;
        trained.push(models);
    }
    let classes = labelled.classes().len();
    let fractions: Vec<f64> =
        found.candidates.iter().map(|logits| fraction_right(logits, &found.labels, classes)).collect();
    for (candidate, fraction) in candidates.iter().zip(&fractions) {
        job.tell(&format!("  {:<32}{:5.1}%", candidate.name, 100.0 * fraction));
    }
    let names = candidates.iter().map(|candidate| candidate.name.to_owned());
    let mut scored: Vec<Scored> = names
        .zip(&fractions)
        .map(|(name, fraction)| Scored { name, validation: *fraction, weight: None })
        .collect();
    let best = (0..candidates.len()).rev().max_by(|&a, &b| fractions[a].total_cmp(&fractions[b]));
    let best = best.unwrap_or_default();
    let ensemble = self_trains.then(|| found.ensemble(job, classes, &mut scored));
    let ensemble = ensemble.filter(|ensemble| ensemble.validation + CREDIT >= fractions[best]);
    let mut choice = Choice::new(candidates[best], Some(fractions[best]), steps);
    choice.candidates = scored;
    choice.temperature = temperature(&found.candidates[best], &found.labels, classes);
    if ensemble.is_none() && choice.interpolate < 1.0 {
        // What others would have taken is the best one's.
        let left = ((job.until() - cpu_seconds()) / per_step) as u64;
        let passes = match choice.origin {
            Origin::Start => FINE_TUNED_PASSES,
            Origin::Scratch => SCRATCH_PASSES,
        };
        choice.steps = left.clamp(steps, most_steps(&settings, labelled, passes).max(steps));
    }
    let answers = (candidates.len() * found.labels.len()).max(1);
    Ok(Comparison {
        choice,
        ensemble,
        candidates,
        folds,
        trained,
        per_answer: found.seconds / answers as f64,
    })
}

/// The steps of one training, of those that fit; says so where they are few.
fn steps(job: &Autotrain<'_>, fitting: f64, most: u64) -> u64 {
    let steps = (fitting as u64).clamp(LEAST, most);
    if steps < STEPS[0] {
        let enough = STEPS[0];
        job.tell(&format!("  the budget leaves {steps} steps, fewer than the {enough} that learning takes"));
    }
    steps
}

fn most_steps(settings: &FinetuneSettings, labelled: &Dataset, passes: u64) -> u64 {
    STEPS[1].max(passes * labelled.len() as u64 / settings.optim.batch_size.max(1) as u64)
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
    candidates: Vec<Vec<f32>>,
    /// Those of the teacher, if there is one.
    teacher: Vec<f32>,
    /// CPU time of the candidates' answers.
    seconds: f64,
}

impl HeldOut {
    /// Adds the images of one fold.
    fn add(
        &mut self,
        job: &Autotrain<'_>,
        labelled: &Dataset,
        fold: &Fold,
        candidates: &[Candidate],
        models: &Trained,
        teacher: Option<&TeacherHead>,
    ) -> Result<()> {
        let held = labelled.select(&fold.held);
        for (i, candidate) in candidates.iter().enumerate() {
            let Some(classifier) = models.classifier(candidate) else { continue };
            let began = cpu_seconds();
            let found = predictions(job, &classifier, &held)?;
            self.seconds += cpu_seconds() - began;
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

    /// The ensemble of candidates and the teacher; says how good both are, and adds them to what competed.
    fn ensemble(&self, job: &Autotrain<'_>, classes: usize, scored: &mut Vec<Scored>) -> Ensemble {
        let mut all = self.candidates.clone();
        let add = |scored: &mut Vec<Scored>, name: &str, validation| {
            job.tell(&format!("  {name:<32}{:5.1}%", 100.0 * validation));
            scored.push(Scored { name: name.to_owned(), validation, weight: None });
        };
        if !self.teacher.is_empty() {
            let right = fraction_right(&self.teacher, &self.labels, classes);
            add(scored, "the teacher, logistic head", right);
            all.push(self.teacher.clone());
        }
        let ensemble = Ensemble::fit(&all, &self.labels, classes);
        for (i, scored) in scored.iter_mut().enumerate() {
            scored.weight = Some(ensemble.weight(i));
        }
        add(scored, "weighted mean of their answers", ensemble.validation);
        ensemble
    }
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
