//! Masked-autoencoder pretraining of a data set's images, labels unused (arXiv 2111.06377).

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use smalti_models::{DecoderKind, MaeConfig, Preprocess};
use toml::Table;

use super::neighbours::Neighbours;
use super::{flags, to_json};
use crate::clock::{self, Op};
use crate::data::{Augment, Batch, Dataset, LoaderSettings};
use crate::error::{Error, Result};
use crate::evaluate::reconstruct;
use crate::model::params::Layout;
use crate::model::weights::{self, Take, Weights};
use crate::model::{Mae, mae};
use crate::objective::{Mask, PixelLoss};
use crate::run::{ModelConfig, ModelFiles, RunDir};
use crate::train::step::{BatchPlan, GradLanes};
use crate::train::{
    ExecConfig, Observer, OptimConfig, Outcome, Planner, StopCheck, Task, TaskData, Validation, train,
};

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

    /// The flags of `smalti pretrain`.
    fn flags(&self) -> Result<Table> {
        let mut table = Table::new();
        flags::encoder(&mut table, &self.model.encoder)?;
        flags::decoder(&mut table, &self.model.decoder)?;
        flags::put(&mut table, "mask-ratio", self.mask_ratio)?;
        flags::put(&mut table, "predict-ratio", self.predict_ratio)?;
        flags::put(&mut table, "norm-pix-loss", self.norm_pix_loss)?;
        flags::preprocess(&mut table, &self.preprocess)?;
        flags::augment(&mut table, &self.augment)?;
        flags::optim(&mut table, &self.optim)?;
        Ok(table)
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
            model_type: if self.model.encoder.stem.is_patches() { "vit_mae" } else { "hybrid_mae" }.into(),
            encoder: self.model.encoder.clone(),
            decoder: Some(self.model.decoder.clone()),
            pool: None,
            norm_pix_loss: Some(self.norm_pix_loss),
        }
    }
}

/// Pretrains on all images of `data`; with a run folder, metrics, checkpoints and images go there.
///
/// # Errors
/// As [`train`].
pub fn pretrain(
    settings: &PretrainSettings,
    exec: &ExecConfig,
    data: &Dataset,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<(Pretrained, Outcome)> {
    let mut task = Pretraining::new(settings, exec, data)?;
    let outcome = train(&mut task, exec, run, observer)?;
    let pretrained = Pretrained {
        model: task.model,
        params: outcome.params.clone(),
        preprocess: settings.preprocess.clone(),
        norm_pix_loss: settings.norm_pix_loss,
    };
    Ok((pretrained, outcome))
}

/// Pretraining as a stage.
pub struct Pretraining<'a> {
    model: Mae,
    settings: &'a PretrainSettings,
    data: &'a Dataset,
    neighbours: Option<Neighbours>,
}

impl<'a> Pretraining<'a> {
    /// Refuses settings that cannot be carried out.
    pub fn new(
        settings: &'a PretrainSettings,
        exec: &ExecConfig,
        data: &'a Dataset,
    ) -> Result<Pretraining<'a>> {
        settings.check()?;
        let model = Mae::with_precision(&settings.model, settings.optim.precision)?;
        // The first rank shows it.
        let neighbours = match exec.is_first_rank() {
            true => Neighbours::new(&settings.model.encoder, &settings.preprocess, data, exec)?,
            false => None,
        };
        Ok(Pretraining { model, settings, data, neighbours })
    }
}

impl Task for Pretraining<'_> {
    type Buffers = mae::Activations<f32>;

    fn name(&self) -> &'static str {
        "pretrain"
    }

    fn settings(&self) -> Result<Value> {
        to_json(self.settings)
    }

    fn settings_file(&self) -> Result<String> {
        flags::to_text(&self.settings.flags()?)
    }

    fn optim(&self) -> &OptimConfig {
        &self.settings.optim
    }

    fn data(&self) -> TaskData {
        let optim = &self.settings.optim;
        let loader = LoaderSettings {
            drop_last: self.data.len() * optim.repeat >= optim.batch_size,
            repeat: optim.repeat,
            ..LoaderSettings::training(
                optim.batch_size,
                self.settings.preprocess.clone(),
                self.settings.augment,
                optim.seed,
            )
        };
        TaskData { train: self.data.clone(), loader, mixes: false, others: Vec::new() }
    }

    fn plan(&self) -> Planner {
        let vit = self.settings.model.encoder.clone();
        Arc::new(move |_, images| BatchPlan::of(&vit, vit.patches(), images))
    }

    fn layout(&self) -> &Layout {
        self.model.layout()
    }

    fn init(&mut self, _: bool) -> Result<Vec<f32>> {
        Ok(self.model.layout().init(self.settings.optim.seed))
    }

    fn gradient(
        &mut self,
        lanes: &mut GradLanes<mae::Activations<f32>>,
        params: &[f32],
        batch: Batch,
        plan: BatchPlan,
    ) -> Result<()> {
        let (vit, settings) = (&self.settings.model.encoder, self.settings);
        let (visible, predicted) = settings.counts();
        let timer = clock::time(Op::Patches);
        let mask = Mask::draw(settings.optim.seed, batch.epoch, &batch.ids, vit.patches(), visible);
        let mask = mask.predicting(batch.len(), predicted);
        drop(timer);
        let input = mae::Input {
            batch_weight: Some(1.0 / batch.total as f64),
            ..mask.input(batch.pixels(), batch.len())
        };
        let weight = 1.0 / (batch.total * predicted) as f64;
        let objective = PixelLoss { normalise: settings.norm_pix_loss, weight };
        lanes.sum(plan, |images, acts, grads| {
            let images = batch.places(images);
            objective.gradient(&self.model, params, input.slice(images.start, images.end), acts, grads)
        })
    }

    fn validate(
        &mut self,
        epoch: u64,
        _: &GradLanes<mae::Activations<f32>>,
        params: &[f32],
        stop: StopCheck<'_>,
    ) -> Result<Option<Validation>> {
        let Some(neighbours) = &self.neighbours else { return Ok(None) };
        neighbours.validate([epoch, self.settings.optim.epochs], self.model.layout(), params, stop)
    }

    fn model_files(&self) -> ModelFiles {
        let config = self.settings.config();
        ModelFiles { config, preprocess: self.settings.preprocess.clone(), labels: Vec::new() }
    }

    fn save(&self, path: &Path, params: &[f32]) -> Result<()> {
        weights::save_model(path, self.model.layout(), params, &self.settings()?)
    }

    fn show(&mut self, run: &RunDir, params: &[f32], step: u64) -> Result<()> {
        let shown = reconstruct::Shown {
            model: &self.model,
            params,
            preprocess: &self.settings.preprocess,
            norm_pix_loss: self.settings.norm_pix_loss,
            mask_ratio: self.settings.mask_ratio,
            seed: self.settings.optim.seed,
        };
        run.write(&format!("recon/step-{step}.png"), &shown.png(self.data, 8)?)
    }
}

/// Reads a pretrained run: its last checkpoint.
pub fn load(path: &Path) -> Result<Pretrained> {
    let run = RunDir::open(path)?;
    let ModelFiles { config, preprocess, .. } = run.load_model_files()?;
    load_model(&run.model("last"), config, preprocess)
}

fn load_model(path: &Path, config: ModelConfig, preprocess: Preprocess) -> Result<Pretrained> {
    let unusable = |problem: String| Error::Checkpoint { path: path.into(), problem };
    let decoder = config.decoder.ok_or_else(|| {
        unusable("belongs to a classifier, expected a pretraining run (what `smalti pretrain` wrote)".into())
    })?;
    let model = Mae::new(&MaeConfig { encoder: config.encoder, decoder })?;
    let mut params = model.layout().init::<f32>(0);
    Weights::open(path)?.load(model.layout(), &mut params, Take::Model)?;
    Ok(Pretrained { model, params, preprocess, norm_pix_loss: config.norm_pix_loss.unwrap_or(true) })
}
