//! Supervised fine-tuning of a classifier, from a pretrained encoder or from scratch.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use smalti_models::Preprocess;
use smalti_models::names::TensorSpec;

mod settings;

pub use settings::{FULL_TOKENS, FinetuneSettings, HeadInit};

use super::head::{self, Embedded};
use super::{flags, to_json};
use crate::data::mix::soft_targets;
use crate::data::{Batch, Dataset, Loader, LoaderSettings, Mix};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::model::params::{Layout, Slot};
use crate::model::weights::{self, Loaded, Take, Weights};
use crate::model::{Classifier, classifier};
use crate::objective::{CrossEntropy, Mask};
use crate::rng::{Rng, stream};
use crate::run::{ModelConfig, ModelFiles, RunDir};
use crate::train::step::{BatchPlan, GradLanes};
use crate::train::{
    ExecConfig, Observer, OptimConfig, Outcome, Planner, StopCheck, Task, TaskData, Validation, train,
};

/// A trained classifier, or an encoder that embeds images: one without classes, whose head means nothing. It answers in f32, as
/// on a device.
#[derive(Clone, Debug)]
pub struct Finetuned {
    /// The model.
    pub model: Classifier,
    /// Its parameters.
    pub params: Vec<f32>,
    /// Its input.
    pub preprocess: Preprocess,
    /// Its classes.
    pub labels: Vec<String>,
}

impl Finetuned {
    /// Its tensors; without classes none of a head, which means nothing.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, Slot)> {
        let layout = self.model.layout();
        let head = layout.head().filter(|_| !self.labels.is_empty());
        layout.without_head().chain(head)
    }

    /// Divides all logits by a temperature: what it answers stays, how sure it is changes (arXiv 1706.04599).
    pub fn divide_logits(&mut self, temperature: f64) {
        let Finetuned { model, params, .. } = self;
        for (_, slot) in model.layout().head() {
            slot.of_mut(params).iter_mut().for_each(|x| *x = (f64::from(*x) / temperature) as f32);
        }
    }
}

/// The images of a fine-tuning run.
pub struct Images<'a> {
    /// Labelled images to learn from.
    pub train: &'a Dataset,
    /// Labelled images that choose the best epoch, if any.
    pub val: Option<&'a Dataset>,
    /// Soft labels `[images, classes]` that are learned in place of the labels: each row of them sums to 1. Images to
    /// learn from then need no label.
    pub targets: Option<&'a [f32]>,
}

impl<'a> Images<'a> {
    /// Labelled images to learn from, and none to choose an epoch.
    pub fn labelled(train: &'a Dataset) -> Images<'a> {
        Images { train, val: None, targets: None }
    }

    /// Refuses images without labels, and soft labels of other images.
    fn check(&self) -> Result<()> {
        let (images, classes) = (self.train.len(), self.train.classes().len());
        match self.targets {
            None => self.train.labels().map(|_| ()),
            Some(targets) if targets.len() == images * classes => Ok(()),
            Some(targets) => Err(Error::Usage(format!(
                "{} soft labels for {images} images of {classes} classes",
                targets.len()
            ))),
        }
    }

    /// Targets `[batch, classes]` of a batch.
    fn targets(&self, batch: &Batch, smoothing: f32) -> Result<Vec<f32>> {
        let classes = self.train.classes().len();
        let Some(targets) = self.targets else { return soft_targets(batch, classes, smoothing) };
        let row =
            |id: &u32| targets.get(*id as usize * classes..(*id as usize + 1) * classes).unwrap_or_default();
        Ok(batch.ids.iter().flat_map(row).copied().collect())
    }
}

/// Fine-tunes from `init` (a pretrained encoder's tensors; from scratch without), see [`Images`] for the data.
///
/// # Errors
/// As [`train`]; and where `init` does not fit the settings.
pub fn finetune(
    settings: &FinetuneSettings,
    exec: &ExecConfig,
    images: &Images<'_>,
    init: Option<&Path>,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<(Finetuned, Outcome)> {
    carry_out(Finetuning::new(settings, exec, images, init)?, exec, run, observer)
}

/// As [`finetune`], from all parameters of a classifier, head included.
///
/// # Errors
/// As [`train`]; parameters of another model.
pub fn finetune_from(
    start: &[f32],
    settings: &FinetuneSettings,
    exec: &ExecConfig,
    images: &Images<'_>,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<(Finetuned, Outcome)> {
    let mut task = Finetuning::new(settings, exec, images, None)?;
    let needed = task.model.layout().len();
    if start.len() != needed {
        let problem = format!("{} parameters to start from, the model has {needed}", start.len());
        return Err(Error::Usage(problem));
    }
    task.given = start.to_vec();
    carry_out(task, exec, run, observer)
}

fn carry_out(
    mut task: Finetuning<'_>,
    exec: &ExecConfig,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<(Finetuned, Outcome)> {
    let outcome = train(&mut task, exec, run, observer)?;
    let params = task.averaged(&outcome.params).into_owned();
    let finetuned = Finetuned {
        model: task.model.in_f32()?,
        params,
        preprocess: task.settings.preprocess.clone(),
        labels: task.images.train.classes().to_vec(),
    };
    Ok((finetuned, outcome))
}

/// The classifier that fine-tuning under these settings starts from, but for its head.
///
/// # Errors
/// An `init` that does not fit the settings.
pub fn start(settings: &FinetuneSettings, classes: &[String], init: Option<&Path>) -> Result<Finetuned> {
    let model = Classifier::new(&settings.encoder, classes.len(), settings.pool)?;
    let mut params = model.layout().init(settings.optim.seed);
    if let Some(path) = init {
        Weights::open(path)?.load(model.layout(), &mut params, Take::Encoder)?;
    }
    Ok(Finetuned { model, params, preprocess: settings.preprocess.clone(), labels: classes.to_vec() })
}

/// The weights at share `share` of the way from `params` back to `start` (WiSE-FT, arXiv 2109.01903).
pub fn interpolate(params: &[f32], start: &[f32], share: f64) -> Vec<f32> {
    params.iter().zip(start).map(|(x, start)| x + share as f32 * (start - x)).collect()
}

/// These settings as the text of a settings file of `smalti finetune`.
///
/// # Errors
/// As TOML's.
pub fn settings_file(settings: &FinetuneSettings) -> Result<String> {
    flags::to_text(&settings.flags()?)
}

/// Says what [`finetune`] under these settings takes from the file `init`.
///
/// # Errors
/// A file that it cannot start from.
pub fn check_init(settings: &FinetuneSettings, init: &Path) -> Result<Loaded> {
    let model = Classifier::new(&settings.encoder, 1, settings.pool)?;
    let mut params = vec![0.0; model.layout().len()];
    Weights::open(init)?.load(model.layout(), &mut params, Take::Encoder)
}

/// Fine-tuning as a stage.
pub struct Finetuning<'a> {
    model: Classifier,
    settings: &'a FinetuneSettings,
    images: &'a Images<'a>,
    init: Option<&'a Path>,
    val: Option<Loader>,
    exec: ExecConfig,
    /// The moving average of the weights, if there is one.
    ema: Vec<f32>,
    /// The weights at the start, if the outcome keeps a share of them.
    start: Vec<f32>,
    /// All parameters to start from; empty where `init` says.
    given: Vec<f32>,
}

impl<'a> Finetuning<'a> {
    /// Refuses settings that cannot be carried out, and images without labels.
    pub fn new(
        settings: &'a FinetuneSettings,
        exec: &ExecConfig,
        images: &'a Images<'a>,
        init: Option<&'a Path>,
    ) -> Result<Finetuning<'a>> {
        settings.check()?;
        images.check()?;
        let classes = images.train.classes().len();
        let model =
            Classifier::with_precision(&settings.encoder, classes, settings.pool, settings.optim.precision)?;
        let val = images.val.map(|val| evaluate::loader(val, &settings.preprocess, exec)).transpose()?;
        let (ema, start, given) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Finetuning { model, settings, images, init, val, exec: exec.clone(), ema, start, given })
    }
}

impl Finetuning<'_> {
    /// What is validated and saved in place of the parameters.
    fn averaged<'p>(&'p self, params: &'p [f32]) -> Cow<'p, [f32]> {
        let params = if self.ema.is_empty() { params } else { &self.ema };
        if self.start.is_empty() {
            return Cow::Borrowed(params);
        }
        Cow::Owned(interpolate(params, &self.start, self.settings.interpolate))
    }

    /// The parameters that `init` and the head's settings say.
    fn first_params(&self, is_first_rank: bool) -> Result<Vec<f32>> {
        let init = self.init.filter(|_| is_first_rank);
        let mut start = start(self.settings, self.images.train.classes(), init)?;
        if self.settings.head == HeadInit::Probe && is_first_rank {
            let exec = ExecConfig { ranks: None, ..self.exec.clone() };
            let FinetuneSettings { augment, optim, .. } = self.settings;
            let data = self.images.train.labelled();
            let embedded =
                Embedded::new(&start, &data, augment, optim.seed, head::MAX_ROWS, &exec, &|| None)?;
            let head = embedded.fit(None, None)?;
            head.write(start.model.layout(), &mut start.params)?;
            log::info!("the head's logistic regression: {:.3} right in cross-validation", head.validation);
        }
        Ok(start.params)
    }

    /// Stochastic depth's factors `[depth, 2, batch]` for these images, from seed, epoch and image alone.
    fn drop_factors(&self, epoch: u64, images: &[u32]) -> Option<Vec<f32>> {
        let (rate, depth) = (self.settings.drop_path, self.settings.encoder.depth);
        if rate == 0.0 {
            return None;
        }
        let mut factors = vec![1.0; depth * 2 * images.len()];
        for (i, &image) in images.iter().enumerate() {
            let mut rng = Rng::new(self.settings.optim.seed, stream::DROP_PATH, [epoch, u64::from(image)]);
            for branch in 0..depth * 2 {
                let keep = 1.0 - rate * (branch / 2) as f64 / (depth - 1).max(1) as f64;
                let factor = if rng.chance(keep) { 1.0 / keep } else { 0.0 };
                factors[branch * images.len() + i] = factor as f32;
            }
        }
        Some(factors)
    }
}

impl Task for Finetuning<'_> {
    type Buffers = classifier::Activations<f32>;

    fn name(&self) -> &'static str {
        "finetune"
    }

    fn settings(&self) -> Result<Value> {
        to_json(self.settings)
    }

    fn settings_file(&self) -> Result<String> {
        settings_file(self.settings)
    }

    fn optim(&self) -> &OptimConfig {
        &self.settings.optim
    }

    fn data(&self) -> TaskData {
        let (optim, train) = (&self.settings.optim, self.images.train);
        let loader = LoaderSettings {
            // A short last batch is noise in a long epoch and a good part of a short one.
            drop_last: train.len() * optim.repeat >= 8 * optim.batch_size,
            repeat: optim.repeat,
            ..LoaderSettings::training(
                optim.batch_size.min(train.len()),
                self.settings.preprocess.clone(),
                self.settings.augment,
                optim.seed,
            )
        };
        let others = self.images.val.iter().map(|val| ("val", (*val).clone())).collect();
        TaskData { train: train.clone(), loader, mixes: self.settings.mix != Mix::default(), others }
    }

    fn plan(&self) -> Planner {
        let settings = self.settings.clone();
        Arc::new(move |epoch, images| settings.plan(epoch, images))
    }

    fn layout(&self) -> &Layout {
        self.model.layout()
    }

    fn init(&mut self, is_first_rank: bool) -> Result<Vec<f32>> {
        let params =
            if self.given.is_empty() { self.first_params(is_first_rank)? } else { self.given.clone() };
        if self.settings.ema > 0.0 {
            self.ema = params.clone();
        }
        if self.settings.interpolate > 0.0 {
            self.start = params.clone();
        }
        Ok(params)
    }

    fn after_step(&mut self, params: &mut [f32], step: u64) {
        // The average of a short run is not one of its start (Tan and Le 2019's warm-up of the decay).
        let decay = self.settings.ema.min((1 + step) as f64 / (10 + step) as f64) as f32;
        self.ema.iter_mut().zip(params).for_each(|(mean, x)| *mean = decay * *mean + (1.0 - decay) * *x);
    }

    fn vectors(&self) -> Vec<(&'static str, &[f32])> {
        let all = [("ema", &self.ema[..]), ("start", &self.start[..])];
        all.into_iter().filter(|(_, values)| !values.is_empty()).collect()
    }

    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        let all = [("ema", &mut self.ema), ("start", &mut self.start)];
        all.into_iter().filter(|(_, values)| !values.is_empty()).collect()
    }

    fn gradient(
        &mut self,
        lanes: &mut GradLanes<classifier::Activations<f32>>,
        params: &[f32],
        mut batch: Batch,
        plan: BatchPlan,
    ) -> Result<()> {
        let (vit, seed, count) = (&self.settings.encoder, self.settings.optim.seed, batch.len());
        let mut targets = self.images.targets(&batch, self.settings.smoothing as f32)?;
        let mut rng = Rng::new(seed, stream::MIX, [batch.epoch, batch.index]);
        self.settings.mix.apply(batch.pixels_mut(), &mut targets, count, vit.img_size, &mut rng);
        let visible = self.settings.seen(batch.epoch);
        let visible = if visible == vit.patches() {
            Mask::none(count, visible).visible
        } else {
            Mask::draw(seed, batch.epoch, &batch.ids, vit.patches(), visible).visible
        };
        let (classes, weight) = (self.model.classes(), 1.0 / batch.total as f64);
        let input = classifier::Input {
            pixels: batch.pixels(),
            visible: &visible,
            drop: None,
            batch: count,
            batch_weight: Some(weight),
        };
        lanes.sum(plan, |images, acts, grads| {
            let images = batch.places(images);
            let drop = self.drop_factors(batch.epoch, &batch.ids[images.clone()]);
            let input = classifier::Input { drop: drop.as_deref(), ..input.slice(images.start, images.end) };
            let targets = &targets[images.start * classes..images.end * classes];
            CrossEntropy { targets, weight }.gradient(&self.model, params, input, acts, grads)
        })
    }

    fn validate(
        &mut self,
        _: u64,
        lanes: &GradLanes<classifier::Activations<f32>>,
        params: &[f32],
        stop: StopCheck<'_>,
    ) -> Result<Option<Validation>> {
        let Some(loader) = &self.val else { return Ok(None) };
        let found = evaluate::predict(&self.model, &self.averaged(params), loader, lanes, stop)?;
        let Some(ranks) = &self.exec.ranks else { return Ok(Some(Validation::Accuracy(found.accuracy()?))) };
        // Each rank has looked at its share of the images.
        let (right, all) = found.right();
        let sums = ranks.all_reduce_sum(&[right as u64, all as u64])?;
        let accuracy = evaluate::share(sums[0] as usize, sums[1] as usize)?;
        Ok(Some(Validation::Accuracy(accuracy)))
    }

    fn model_files(&self) -> ModelFiles {
        let (config, preprocess) = (
            ModelConfig::pooled(&self.settings.encoder, self.settings.pool),
            self.settings.preprocess.clone(),
        );
        ModelFiles { config, preprocess, labels: self.images.train.classes().to_vec() }
    }

    fn save(&self, path: &Path, params: &[f32]) -> Result<()> {
        weights::save_model(path, self.model.layout(), &self.averaged(params), &self.settings()?)
    }
}

/// Reads a fine-tuned run: its best checkpoint where held-out images chose one, else its last.
pub fn load(path: &Path) -> Result<Finetuned> {
    let run = RunDir::open(path)?;
    let ModelFiles { config, preprocess, labels } = run.load_model_files()?;
    let file = run.best_or_last();
    let unusable = |problem: String| Error::Checkpoint { path: file.clone(), problem };
    let pool = config.pool.ok_or_else(|| {
        unusable("belongs to a pretraining run, expected a classifier (what `smalti finetune` wrote)".into())
    })?;
    if labels.is_empty() {
        let advice = "fine-tune it first (`smalti finetune --init`), or measure it with --probe";
        return Err(unusable(format!("is an encoder without a head for classes: {advice}")));
    }
    let model = Classifier::new(&config.encoder, labels.len(), pool)?;
    let mut params = model.layout().init::<f32>(0);
    Weights::open(&file)?.load(model.layout(), &mut params, Take::Model)?;
    Ok(Finetuned { model, params, preprocess, labels })
}
