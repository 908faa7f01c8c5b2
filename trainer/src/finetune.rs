//! Supervised fine-tuning of a classifier, from a pretrained encoder or from scratch.

use std::path::Path;

use serde::{Deserialize, Serialize};
use smalti_models::{Pool, Preprocess, VitConfig};

use crate::checkpoint;
use crate::data::mix::soft_targets;
use crate::data::{Augment, Batch, Dataset, Loader, LoaderSettings, Mix, Share};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::mask::Mask;
use crate::nn::{Classifier, classifier};
use crate::optim::Optimizer;
use crate::pretrain::Resources;
use crate::ranks::Ranks;
use crate::rng::{Rng, stream};
use crate::run::{ModelConfig, RunDir};
use crate::step::{Deal, Lanes, micro_batch};
use crate::train::{Course, Learner, Observer, Training};

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
    pub course: Course,
    /// Changes to each picture.
    pub augment: Augment,
    /// Mixtures of pictures.
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
        self.course.check()?;
        if (self.encoder.img_size, self.encoder.channels)
            != (self.preprocess.img_size, self.preprocess.channels)
        {
            return Err(Error::Usage(
                "the model's picture size or channels differ from the preprocessing's".into(),
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

    /// Patches of each picture that the encoder sees in this epoch.
    fn seen(&self, epoch: u64) -> usize {
        let patches = self.encoder.patches();
        let full = epoch as f64 >= self.course.epochs as f64 * (1.0 - FULL_TOKENS);
        if full {
            return patches;
        }
        ((patches as f64 * (1.0 - self.token_drop)).round() as usize).clamp(1, patches)
    }

    /// How a batch of this epoch is dealt out.
    fn deal(&self, epoch: u64, pictures: usize) -> Deal {
        Deal::new(pictures, micro_batch(1 + self.seen(epoch)))
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

/// The pictures of a fine-tuning run.
pub struct Pictures<'a> {
    /// Labelled pictures to learn from.
    pub train: &'a Dataset,
    /// Labelled pictures that choose the best epoch, if any.
    pub val: Option<&'a Dataset>,
}

/// Fine-tunes from `init` (a pretrained encoder's tensors; scratch without), see [`Pictures`] for the data.
pub fn finetune(
    settings: &FinetuneSettings,
    resources: &Resources,
    pictures: &Pictures<'_>,
    init: Option<&Path>,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<Finetuned> {
    settings.check()?;
    pictures.train.labels()?;
    let labels = pictures.train.classes().to_vec();
    let course = &settings.course;
    let model = Classifier::with_precision(&settings.encoder, labels.len(), settings.pool, course.precision)?;
    let mut params = model.layout().init::<f32>(course.seed);
    // Of several ranks the first reads it and tells the others.
    if let Some(path) = init.filter(|_| resources.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0)) {
        take_encoder(path, &model, &mut params)?;
    }
    let count = pictures.train.len();
    let share = resources.ranks.clone().map(|ranks| {
        let (settings, mixes) = (settings.clone(), settings.mix != Mix::default());
        Share::new(mixes, move |epoch, pictures| settings.deal(epoch, pictures).share(Some(&ranks)))
    });
    let loader = Loader::new(
        pictures.train.clone(),
        LoaderSettings {
            share,
            threads: resources.loader_threads,
            max_bad: resources.max_bad,
            // A short last batch is noise in a long epoch and a good part of a short one.
            drop_last: count >= 8 * course.batch_size,
            ..LoaderSettings::training(
                course.batch_size.min(count),
                settings.preprocess.clone(),
                settings.augment,
                course.seed,
            )
        },
    )?;
    if let Some(run) = run {
        run.save_settings(settings)?;
        run.save_config(&settings.config(), &settings.preprocess, &labels)?;
    }
    let optimizer = Optimizer::new(model.layout(), course);
    let mut lanes =
        Lanes::<classifier::Saved<f32>>::new(resources.threads, params.len())?.among(resources.ranks.clone());
    let details = serde_json::to_value(settings).map_err(|e| Error::Usage(e.to_string()))?;
    let mut training = Training::new(course, &loader, run, details.clone(), params, optimizer);
    training.start(resources)?;
    let val = pictures.val.map(|val| evaluate::loader(val, &settings.preprocess, resources)).transpose()?;
    let mut learner = Finetuning { model, settings, details, val, ranks: resources.ranks.as_deref() };
    training.run(&mut lanes, &mut learner, observer)?;
    let params = training.params;
    Ok(Finetuned { model: learner.model, params, preprocess: settings.preprocess.clone(), labels })
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
    /// Stochastic depth's factors `[depth, 2, batch]` for these pictures, from seed, epoch and picture alone.
    fn drop_factors(&self, epoch: u64, pictures: &[u32]) -> Option<Vec<f32>> {
        let (rate, depth) = (self.settings.drop_path, self.settings.encoder.depth);
        if rate == 0.0 {
            return None;
        }
        let mut factors = vec![1.0; depth * 2 * pictures.len()];
        for (i, &picture) in pictures.iter().enumerate() {
            let mut rng = Rng::new(self.settings.course.seed, stream::DROP_PATH, [epoch, u64::from(picture)]);
            for branch in 0..depth * 2 {
                let keep = 1.0 - rate * (branch / 2) as f64 / (depth - 1).max(1) as f64;
                let factor = if rng.chance(keep) { 1.0 / keep } else { 0.0 };
                factors[branch * pictures.len() + i] = factor as f32;
            }
        }
        Some(factors)
    }
}

impl Learner<classifier::Saved<f32>> for Finetuning<'_> {
    fn gradient(
        &mut self,
        lanes: &mut Lanes<classifier::Saved<f32>>,
        params: &[f32],
        mut batch: Batch,
    ) -> Result<()> {
        let (vit, seed, count) = (&self.settings.encoder, self.settings.course.seed, batch.len());
        let mut targets = soft_targets(&batch, self.model.classes(), self.settings.smoothing as f32)?;
        let mut rng = Rng::new(seed, stream::MIX, [batch.epoch, batch.index]);
        self.settings.mix.apply(&mut batch.pixels, &mut targets, count, vit.img_size, &mut rng);
        let seen = self.settings.seen(batch.epoch);
        let seen = if seen == vit.patches() {
            Mask::none(count, seen).visible
        } else {
            Mask::draw(seed, batch.epoch, &batch.ids, vit.patches(), seen).visible
        };
        let input = classifier::Input {
            pixels: &batch.pixels,
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

    fn score(&mut self, lanes: &Lanes<classifier::Saved<f32>>, params: &[f32]) -> Result<Option<f64>> {
        let Some(loader) = &self.val else { return Ok(None) };
        let found = evaluate::predict(&self.model, params, loader, lanes)?;
        let Some(ranks) = self.ranks else { return Ok(Some(found.accuracy()?)) };
        // Each rank has looked at its share of the pictures.
        let (right, all) = found.right();
        let sums = ranks.count(&[right as u64, all as u64])?;
        evaluate::share(sums[0] as usize, sums[1] as usize).map(Some)
    }
}

/// Reads a fine-tuned run: its best checkpoint where held-out pictures chose one, else its last.
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
