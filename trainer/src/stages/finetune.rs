//! Supervised fine-tuning of a classifier, from a pretrained encoder or from scratch.

use std::path::Path;

use serde::{Deserialize, Serialize};
use smalti_models::{Pool, Preprocess, VitConfig};

use crate::data::mix::soft_targets;
use crate::data::{Augment, Batch, Dataset, Loader, LoaderSettings, Mix, Share};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::model::{Classifier, classifier};
use crate::objective::mask::Mask;
use crate::rng::{Rng, stream};
use crate::run::checkpoint;
use crate::run::{ModelConfig, RunDir};
use crate::stages::pretrain::ExecConfig;
use crate::train::optim::Optimizer;
use crate::train::ranks::Ranks;
use crate::train::step::{BatchPlan, GradLanes, micro_batch};
use crate::train::trainer::{Observer, OptimConfig, Task, Training};

/// The last share of the epochs that sees every token, whatever [`FinetuneSettings::token_drop`] says.
pub const FULL_TOKENS: f64 = 0.2;

/// Everything that decides what a fine-tuning run computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FinetuneSettings {
    /// The encoder.
    pub encoder: VitConfig,
    /// How tokens become one vector.
    pub pool: Pool,
    /// The model's input.
    pub preprocess: Preprocess,
    /// How parameters move.
    pub optim: OptimConfig,
    /// Changes to each image.
    pub augment: Augment,
    /// Mixtures of images.
    pub mix: Mix,
    /// Share of each target that is spread over all classes.
    pub smoothing: f64,
    /// Probability that a residual branch of the last block is left out; lower blocks proportionally less.
    pub drop_path: f64,
    /// Share of the patches that training leaves out at random, until the last fifth of the epochs.
    pub token_drop: f64,
}

/// A trained classifier.
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

impl FinetuneSettings {
    /// Refuses what cannot be carried out.
    pub fn check(&self) -> Result<()> {
        self.encoder.check()?;
        self.preprocess.check()?;
        self.optim.check()?;
        if (self.encoder.img_size, self.encoder.channels)
            != (self.preprocess.img_size, self.preprocess.channels)
        {
            return Err(Error::Usage(
                "the model's image size or channels differ from the preprocessing's".into(),
            ));
        }
        for (name, value) in
            [("smoothing", self.smoothing), ("drop-path", self.drop_path), ("token-drop", self.token_drop)]
        {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::Usage(format!("{name} is {value}: expected 0 to below 1")));
            }
        }
        self.mix.check()
    }

    /// Patches of each image that the encoder sees in this epoch.
    fn seen(&self, epoch: u64) -> usize {
        let patches = self.encoder.patches();
        let full = epoch as f64 >= self.optim.epochs as f64 * (1.0 - FULL_TOKENS);
        if full {
            return patches;
        }
        ((patches as f64 * (1.0 - self.token_drop)).round() as usize).clamp(1, patches)
    }

    /// How a batch of this epoch is dealt out.
    fn deal(&self, epoch: u64, images: usize) -> BatchPlan {
        BatchPlan::new(images, micro_batch(1 + self.seen(epoch)))
    }

    /// What `config.json` says.
    fn config(&self) -> ModelConfig {
        ModelConfig {
            model_type: "vit".into(),
            encoder: self.encoder.clone(),
            decoder: None,
            pool: Some(self.pool),
            norm_pix_loss: None,
        }
    }
}

/// The images of a fine-tuning run.
pub struct Images<'a> {
    /// Labelled images to learn from.
    pub train: &'a Dataset,
    /// Labelled images that choose the best epoch, if any.
    pub val: Option<&'a Dataset>,
}

/// Fine-tunes from `init` (a pretrained encoder's tensors; scratch without), see [`Images`] for the data.
pub fn finetune(
    settings: &FinetuneSettings,
    exec: &ExecConfig,
    images: &Images<'_>,
    init: Option<&Path>,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<Finetuned> {
    settings.check()?;
    images.train.labels()?;
    let labels = images.train.classes().to_vec();
    let optim = &settings.optim;
    let model = Classifier::with_precision(&settings.encoder, labels.len(), settings.pool, optim.precision)?;
    let mut params = model.layout().init::<f32>(optim.seed);
    // Of several ranks the first reads it and tells the others.
    if let Some(path) = init.filter(|_| exec.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0)) {
        take_encoder(path, &model, &mut params)?;
    }
    let count = images.train.len();
    let share = exec.ranks.clone().map(|ranks| {
        let (settings, mixes) = (settings.clone(), settings.mix != Mix::default());
        Share::new(mixes, move |epoch, images| settings.deal(epoch, images).share(Some(&ranks)))
    });
    let loader = Loader::new(
        images.train.clone(),
        LoaderSettings {
            share,
            threads: exec.loader_threads,
            cache: exec.cache.clone(),
            max_bad: exec.max_bad,
            // A short last batch is noise in a long epoch and a good part of a short one.
            drop_last: count >= 8 * optim.batch_size,
            ..LoaderSettings::training(
                optim.batch_size.min(count),
                settings.preprocess.clone(),
                settings.augment,
                optim.seed,
            )
        },
    )?;
    if let Some(run) = run {
        run.save_settings(settings)?;
        run.save_config(&settings.config(), &settings.preprocess, &labels)?;
    }
    let optimizer = Optimizer::new(model.layout(), optim);
    let mut lanes =
        GradLanes::<classifier::Saved<f32>>::new(exec.threads, params.len())?.among(exec.ranks.clone());
    let details = serde_json::to_value(settings).map_err(|e| Error::Usage(e.to_string()))?;
    let mut training = Training::new(optim, &loader, run, details.clone(), params, optimizer);
    training.start(exec)?;
    let val = images.val.map(|val| evaluate::loader(val, &settings.preprocess, exec)).transpose()?;
    let mut task = Finetuning { model, settings, details, val, ranks: exec.ranks.as_deref() };
    training.run(&mut lanes, &mut task, observer)?;
    let params = training.params;
    Ok(Finetuned { model: task.model, params, preprocess: settings.preprocess.clone(), labels })
}

/// Refuses a file that [`finetune`] cannot start from under these settings.
pub fn check_init(settings: &FinetuneSettings, init: &Path) -> Result<()> {
    let model = Classifier::new(&settings.encoder, 1, settings.pool)?;
    let mut params = vec![0.0; model.layout().len()];
    take_encoder(init, &model, &mut params)
}

/// Copies an encoder's tensors; the head, and a norm of another place, keep their fresh start.
fn take_encoder(path: &Path, model: &Classifier, params: &mut [f32]) -> Result<()> {
    let (mut tensors, _) = checkpoint::load(path)?;
    // A head belongs to the classes that it was trained on.
    tensors.retain(|name, _| !name.starts_with("head."));
    let missing = checkpoint::restore(path, &tensors, model.layout(), params)?;
    let fresh = |name: &str| ["head.", "fc_norm.", "norm."].iter().any(|prefix| name.starts_with(prefix));
    match missing.iter().find(|name| !fresh(name)) {
        Some(name) => Err(Error::Checkpoint {
            path: path.into(),
            problem: format!("lacks tensor `{name}`: expected the encoder of a model of the same size"),
        }),
        None => Ok(()),
    }
}

/// The classifier as the training loop sees it.
struct Finetuning<'a> {
    model: Classifier,
    settings: &'a FinetuneSettings,
    details: serde_json::Value,
    val: Option<Loader>,
    ranks: Option<&'a Ranks>,
}

impl Finetuning<'_> {
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

impl Task<classifier::Saved<f32>> for Finetuning<'_> {
    fn gradient(
        &mut self,
        lanes: &mut GradLanes<classifier::Saved<f32>>,
        params: &[f32],
        mut batch: Batch,
    ) -> Result<()> {
        let (vit, seed, count) = (&self.settings.encoder, self.settings.optim.seed, batch.len());
        let mut targets = soft_targets(&batch, self.model.classes(), self.settings.smoothing as f32)?;
        let mut rng = Rng::new(seed, stream::MIX, [batch.epoch, batch.index]);
        self.settings.mix.apply(batch.pixels_mut(), &mut targets, count, vit.img_size, &mut rng);
        let seen = self.settings.seen(batch.epoch);
        let seen = if seen == vit.patches() {
            Mask::none(count, seen).visible
        } else {
            Mask::draw(seed, batch.epoch, &batch.ids, vit.patches(), seen).visible
        };
        let input = classifier::Input {
            pixels: batch.pixels(),
            seen: &seen,
            drop: None,
            targets: &targets,
            batch: count,
        };
        let deal = self.settings.deal(batch.epoch, batch.total);
        lanes.sum(deal, |part, saved, grads, settled| {
            let part = batch.places(part);
            let drop = self.drop_factors(batch.epoch, &batch.ids[part.clone()]);
            let input = classifier::Input { drop: drop.as_deref(), ..input.slice(part.start, part.end) };
            self.model.gradient(params, input, 1.0 / batch.total as f64, saved, grads, settled)
        })
    }

    fn save(&self, run: &RunDir, name: &str, params: &[f32]) -> Result<()> {
        checkpoint::save_model(&run.model(name), self.model.layout(), params, &self.details)
    }

    fn score(&mut self, lanes: &GradLanes<classifier::Saved<f32>>, params: &[f32]) -> Result<Option<f64>> {
        let Some(loader) = &self.val else { return Ok(None) };
        let found = evaluate::predict(&self.model, params, loader, lanes)?;
        let Some(ranks) = self.ranks else { return Ok(Some(found.accuracy()?)) };
        // Each rank has looked at its share of the images.
        let (right, all) = found.right();
        let sums = ranks.count(&[right as u64, all as u64])?;
        evaluate::share(sums[0] as usize, sums[1] as usize).map(Some)
    }
}

/// Reads a fine-tuned run: its best checkpoint where held-out images chose one, else its last.
pub fn load(path: &Path) -> Result<Finetuned> {
    let run = RunDir::open(path)?;
    let (config, preprocess, labels) = run.load_config()?;
    let best = run.model("best");
    let file = if best.is_file() { best } else { run.model("last") };
    let unusable = |problem: String| Error::Checkpoint { path: file.clone(), problem };
    let pool = config.pool.ok_or_else(|| {
        unusable("belongs to a pretraining run, expected a classifier (what `smalti finetune` wrote)".into())
    })?;
    if labels.is_empty() {
        return Err(unusable("has no `labels.txt` beside it".into()));
    }
    let model = Classifier::new(&config.encoder, labels.len(), pool)?;
    let mut params = model.layout().init::<f32>(0);
    let (tensors, _) = checkpoint::load(&file)?;
    match checkpoint::restore(&file, &tensors, model.layout(), &mut params)?.first() {
        Some(name) => Err(unusable(format!("lacks tensor `{name}`"))),
        None => Ok(Finetuned { model, params, preprocess, labels }),
    }
}
