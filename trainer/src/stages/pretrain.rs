//! Masked-autoencoder pretraining of a data set's images, labels unused (arXiv 2111.06377).

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smalti_models::{DecoderKind, MaeConfig, Preprocess};

use crate::data::{Augment, Batch, CacheBudget, Dataset, Loader, LoaderSettings, Share};
use crate::error::{Error, Result};
use crate::evaluate::reconstruct;
use crate::model::{Mae, mae};
use crate::objective::mask::Mask;
use crate::run::checkpoint;
use crate::run::{ModelConfig, RunDir};
use crate::train::optim::Optimizer;
use crate::train::ranks::Ranks;
use crate::train::step::{BatchPlan, GradLanes, micro_batch};
use crate::train::trainer::{Observer, OptimConfig, Task, Training};

/// Everything that decides what a pretraining run computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PretrainSettings {
    /// Encoder and decoder.
    pub model: MaeConfig,
    /// The model's input.
    pub preprocess: Preprocess,
    /// How parameters move.
    pub optim: OptimConfig,
    /// Share of the patches that is hidden.
    pub mask_ratio: f64,
    /// Share of the hidden patches that is predicted; below 1 only with the cross decoder.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub predict_ratio: f64,
    /// Whether targets are normalised patch by patch.
    pub norm_pix_loss: bool,
    /// Changes to each image.
    pub augment: Augment,
}

fn all() -> f64 {
    1.0
}

fn is_all(share: &f64) -> bool {
    *share == all()
}

/// What does not change results.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// Threads that compute.
    pub threads: usize,
    /// Threads that prepare batches.
    pub loader_threads: usize,
    /// The memory in which all loaders of the process keep prepared images.
    pub cache: CacheBudget,
    /// The greatest share of unusable images.
    pub max_bad: f64,
    /// Whether the run's last checkpoint is continued.
    pub resume: bool,
    /// The job of several ranks that this process is part of, if any. Rank 0 alone has a run folder.
    pub ranks: Option<Arc<Ranks>>,
}

impl ExecConfig {
    /// Defaults on this machine: all its threads, one more to prepare batches.
    pub fn new(threads: usize) -> ExecConfig {
        ExecConfig {
            threads,
            loader_threads: 1,
            cache: CacheBudget::default(),
            max_bad: 0.05,
            resume: false,
            ranks: None,
        }
    }
}

/// A trained autoencoder.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// The model.
    pub model: Mae,
    /// Its parameters.
    pub params: Vec<f32>,
    /// Its input.
    pub preprocess: Preprocess,
    /// Whether its targets were normalised.
    pub norm_pix_loss: bool,
}

impl PretrainSettings {
    /// Refuses what cannot be carried out.
    pub fn check(&self) -> Result<()> {
        self.model.check()?;
        self.preprocess.check()?;
        self.optim.check()?;
        let vit = &self.model.encoder;
        if (vit.img_size, vit.channels) != (self.preprocess.img_size, self.preprocess.channels) {
            return Err(Error::Usage(
                "the model's image size or channels differ from the preprocessing's".into(),
            ));
        }
        if vit.patches() < 2 {
            return Err(Error::Usage("patch-size: an image of one patch has nothing to hide".into()));
        }
        if !(self.mask_ratio > 0.0 && self.mask_ratio < 1.0) {
            return Err(Error::Usage(format!("mask-ratio is {}: expected between 0 and 1", self.mask_ratio)));
        }
        if !(self.predict_ratio > 0.0 && self.predict_ratio <= 1.0) {
            let found = self.predict_ratio;
            return Err(Error::Usage(format!("predict-ratio is {found}: expected above 0, at most 1")));
        }
        if self.predict_ratio < 1.0 && self.model.decoder.kind == DecoderKind::Full {
            return Err(Error::Usage(
                "predict-ratio below 1 needs --decoder cross: the full decoder computes all patches anyway"
                    .into(),
            ));
        }
        Ok(())
    }

    /// How many patches of an image are seen, and how many predicted.
    fn counts(&self) -> (usize, usize) {
        let visible = self.model.visible(self.mask_ratio);
        let hidden = self.model.encoder.patches() - visible;
        (visible, ((hidden as f64 * self.predict_ratio).round() as usize).clamp(1, hidden))
    }

    /// What `config.json` says.
    fn config(&self) -> ModelConfig {
        ModelConfig {
            model_type: "vit_mae".into(),
            encoder: self.model.encoder.clone(),
            decoder: Some(self.model.decoder.clone()),
            pool: None,
            norm_pix_loss: Some(self.norm_pix_loss),
        }
    }
}

/// Pretrains on all images of `data`; with a run folder, metrics, checkpoints and images go there.
pub fn pretrain(
    settings: &PretrainSettings,
    exec: &ExecConfig,
    data: &Dataset,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<Pretrained> {
    settings.check()?;
    let model = Mae::with_precision(&settings.model, settings.optim.precision)?;
    let optim = &settings.optim;
    let micro = micro_batch(settings.model.encoder.tokens());
    let share = exec
        .ranks
        .clone()
        .map(|ranks| Share::new(false, move |_, images| BatchPlan::new(images, micro).share(Some(&ranks))));
    let loader = Loader::new(
        data.clone(),
        LoaderSettings {
            share,
            threads: exec.loader_threads,
            cache: exec.cache.clone(),
            max_bad: exec.max_bad,
            drop_last: data.len() >= optim.batch_size,
            ..LoaderSettings::training(
                optim.batch_size,
                settings.preprocess.clone(),
                settings.augment,
                optim.seed,
            )
        },
    )?;
    if let Some(run) = run {
        run.save_settings(settings)?;
        run.save_config(&settings.config(), &settings.preprocess, &[])?;
    }
    let params = model.layout().init::<f32>(optim.seed);
    let optimizer = Optimizer::new(model.layout(), optim);
    let mut lanes = GradLanes::<mae::Saved<f32>>::new(exec.threads, params.len())?.among(exec.ranks.clone());
    let details = serde_json::to_value(settings).map_err(|e| Error::Usage(e.to_string()))?;
    let mut training = Training::new(optim, &loader, run, details.clone(), params, optimizer);
    training.start(exec)?;
    let mut task = Pretraining { model, settings, details, data };
    training.run(&mut lanes, &mut task, observer)?;
    Ok(Pretrained {
        model: task.model,
        params: training.params,
        preprocess: settings.preprocess.clone(),
        norm_pix_loss: settings.norm_pix_loss,
    })
}

/// The autoencoder as the training loop sees it.
struct Pretraining<'a> {
    model: Mae,
    settings: &'a PretrainSettings,
    details: serde_json::Value,
    data: &'a Dataset,
}

impl Task<mae::Saved<f32>> for Pretraining<'_> {
    fn gradient(
        &mut self,
        lanes: &mut GradLanes<mae::Saved<f32>>,
        params: &[f32],
        batch: Batch,
    ) -> Result<()> {
        let (vit, settings) = (&self.settings.model.encoder, self.settings);
        let (visible, predicted) = settings.counts();
        let mask = Mask::draw(settings.optim.seed, batch.epoch, &batch.ids, vit.patches(), visible);
        let mask = mask.predicting(batch.len(), predicted);
        let input = mae::Input::new(batch.pixels(), &mask, batch.len());
        let weight = 1.0 / (batch.total * predicted) as f64;
        lanes.sum(BatchPlan::new(batch.total, micro_batch(vit.tokens())), |part, saved, grads, settled| {
            let part = batch.places(part);
            let input = input.slice(part.start, part.end);
            self.model.gradient(params, input, settings.norm_pix_loss, weight, saved, grads, settled)
        })
    }

    fn save(&self, run: &RunDir, name: &str, params: &[f32]) -> Result<()> {
        checkpoint::save_model(&run.model(name), self.model.layout(), params, &self.details)
    }

    fn show(
        &mut self,
        _lanes: &GradLanes<mae::Saved<f32>>,
        run: &RunDir,
        params: &[f32],
        step: u64,
    ) -> Result<()> {
        crate::files::make_folder(&run.recon())?;
        let shown = reconstruct::Shown {
            model: &self.model,
            params,
            preprocess: &self.settings.preprocess,
            norm_pix_loss: self.settings.norm_pix_loss,
            mask_ratio: self.settings.mask_ratio,
            seed: self.settings.optim.seed,
        };
        shown.write(self.data, 8, &run.recon().join(format!("step-{step}.png")))
    }
}

/// Reads a pretrained run: its last checkpoint.
pub fn load(path: &Path) -> Result<Pretrained> {
    let run = RunDir::open(path)?;
    let (config, preprocess, _) = run.load_config()?;
    load_model(&run.model("last"), config, preprocess)
}

fn load_model(path: &Path, config: ModelConfig, preprocess: Preprocess) -> Result<Pretrained> {
    let unusable = |problem: String| Error::Checkpoint { path: path.into(), problem };
    let decoder = config.decoder.ok_or_else(|| {
        unusable("belongs to a classifier, expected a pretraining run (what `smalti pretrain` wrote)".into())
    })?;
    let model = Mae::new(&MaeConfig { encoder: config.encoder, decoder })?;
    let (tensors, _) = checkpoint::load(path)?;
    let mut params = model.layout().init::<f32>(0);
    let missing = checkpoint::restore(path, &tensors, model.layout(), &mut params)?;
    match missing.first() {
        Some(name) => Err(unusable(format!("lacks tensor `{name}`"))),
        None => {
            Ok(Pretrained { model, params, preprocess, norm_pix_loss: config.norm_pix_loss.unwrap_or(true) })
        }
    }
}
