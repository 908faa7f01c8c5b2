//! Distillation: a compact encoder learns a frozen teacher's embeddings of the user's own images, labels unused.
//!
//! Student and teacher see the same crops, each at its own size ("consistent teaching", arXiv 2106.05237, section 3). The
//! teacher sees each of them once ([`Cache`]); colours change for the student alone.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use smalti_models::{Pooling, Preprocess, VitConfig};
use toml::Table;

use super::neighbours::Neighbours;
use super::{flags, to_json};
use crate::data::{Augment, Batch, Dataset, LoaderSettings, Mix, View};
use crate::error::{Error, Result};
use crate::model::classifier;
use crate::model::params::Layout;
use crate::model::student::{self, Student};
use crate::model::weights::{self, Take, Weights};
use crate::objective::{FeatureLoss, Mask};
use crate::rng::{Rng, stream};
use crate::run::{ModelConfig, ModelFiles, RunDir};
use crate::teacher::cache::Crops;
use crate::teacher::{Cache, TeacherConfig, TokenTargets};
use crate::train::step::{BatchPlan, GradLanes};
use crate::train::{
    ExecConfig, Observer, OptimConfig, Outcome, Planner, StopCheck, Task, TaskData, Validation, train,
};

/// Everything that decides what a distillation computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DistilSettings {
    /// The student.
    pub encoder: VitConfig,
    /// How its tokens become one vector.
    pub pool: Pooling,
    /// Its input.
    pub preprocess: Preprocess,
    /// How parameters move.
    pub optim: OptimConfig,
    /// Changes to each image. Crop and flip repeat after [`Crops::passes`] epochs.
    pub augment: Augment,
    /// Mixtures of images, and of their targets.
    pub mix: Mix,
    /// The crops that the teacher sees.
    pub crops: Crops,
    /// The teacher.
    pub teacher: TeacherConfig,
    /// Values of each token's target, of a teacher that has a vector for each place of the image; 0 if embeddings alone are
    /// learned.
    #[serde(default)]
    pub token_values: usize,
}

impl DistilSettings {
    /// Refuses what cannot be carried out.
    pub fn check(&self) -> Result<()> {
        self.encoder.check()?;
        self.preprocess.check()?;
        self.optim.check()?;
        self.mix.check()?;
        if !(1..=1000).contains(&self.crops.passes) {
            return Err(Error::Usage(format!("crops is {}: expected 1 to 1000", self.crops.passes)));
        }
        if self.token_values > 0 && self.mix.cutmix > 0.0 {
            return Err(Error::Usage(
                "cutmix mixes places, of which tokens say each its own: give --no-token-targets or --cutmix 0".into(),
            ));
        }
        if self.encoder.channels != self.teacher.preprocess.channels {
            return Err(Error::Usage(format!(
                "the teacher's images have {} channels, the student's {}: give --channels {0}",
                self.teacher.preprocess.channels, self.encoder.channels
            )));
        }
        Ok(())
    }

    /// The targets of the student's tokens.
    pub fn tokens(&self) -> Option<TokenTargets> {
        let targets = TokenTargets { side: self.encoder.grid(), values: self.token_values };
        (targets.values > 0).then_some(targets)
    }

    /// The flags of `smalti distil`.
    fn flags(&self) -> Result<Table> {
        let mut table = Table::new();
        flags::encoder(&mut table, &self.encoder)?;
        flags::preprocess(&mut table, &self.preprocess)?;
        flags::augment(&mut table, &self.augment)?;
        flags::optim(&mut table, &self.optim)?;
        flags::put(&mut table, "crops", self.crops.passes)?;
        flags::put(&mut table, "mixup", self.mix.mixup)?;
        flags::put(&mut table, "cutmix", self.mix.cutmix)?;
        flags::put(&mut table, "token-targets", self.token_values > 0)?;
        Ok(table)
    }
}

/// Distils the cached embeddings of `data`'s images into a student; with a run folder, metrics and checkpoints go there.
/// `init` names a file of weights to start from.
///
/// # Errors
/// As [`train`].
pub fn distil(
    settings: &DistilSettings,
    exec: &ExecConfig,
    data: &Dataset,
    cache: Cache,
    init: Option<&Path>,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    train(&mut Distilling::new(settings, exec, data, cache, init)?, exec, run, observer)
}

/// Distillation as a stage.
pub struct Distilling<'a> {
    student: Student,
    settings: &'a DistilSettings,
    data: &'a Dataset,
    cache: Cache,
    init: Option<&'a Path>,
    neighbours: Option<Neighbours>,
}

impl<'a> Distilling<'a> {
    /// Refuses settings that cannot be carried out.
    pub fn new(
        settings: &'a DistilSettings,
        exec: &ExecConfig,
        data: &'a Dataset,
        cache: Cache,
        init: Option<&'a Path>,
    ) -> Result<Distilling<'a>> {
        settings.check()?;
        let precision = settings.optim.precision;
        let student = Student::new(&settings.encoder, cache.width(), settings.token_values, precision)?;
        let neighbours = Neighbours::new(&settings.encoder, &settings.preprocess, data, exec)?;
        Ok(Distilling { student, settings, data, cache, init, neighbours })
    }
}

impl Task for Distilling<'_> {
    type Buffers = student::Activations<f32>;

    fn name(&self) -> &'static str {
        "distil"
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
        let settings = self.settings;
        let (optim, preprocess) = (&settings.optim, settings.preprocess.clone());
        let batch = optim.batch_size.min(self.data.len());
        let view = View {
            cut_from: Some(settings.crops.cut_from),
            ..View::new(settings.augment, preprocess.clone())
        };
        let loader = LoaderSettings {
            views: vec![view],
            crops: Some(settings.crops.passes),
            ..LoaderSettings::training(batch, preprocess, settings.augment, settings.crops.seed)
        };
        TaskData {
            train: self.data.clone(),
            loader,
            mixes: settings.mix != Mix::default(),
            others: Vec::new(),
        }
    }

    fn plan(&self) -> Planner {
        let vit = self.settings.encoder.clone();
        Arc::new(move |_, images| BatchPlan::of(&vit, vit.patches(), images))
    }

    fn layout(&self) -> &Layout {
        self.student.layout()
    }

    fn init(&mut self, is_first_rank: bool) -> Result<Vec<f32>> {
        let mut params = self.student.layout().init(self.settings.optim.seed);
        if let Some(path) = self.init.filter(|_| is_first_rank) {
            Weights::open(path)?.load(self.student.layout(), &mut params, Take::Encoder)?;
        }
        Ok(params)
    }

    fn gradient(
        &mut self,
        lanes: &mut GradLanes<student::Activations<f32>>,
        params: &[f32],
        mut batch: Batch,
        plan: BatchPlan,
    ) -> Result<()> {
        let (vit, count) = (&self.settings.encoder, batch.len());
        let mut targets = self.cache.targets(batch.epoch, &batch.ids)?;
        let width = targets.len() / count.max(1);
        let mut rng = Rng::new(self.settings.optim.seed, stream::MIX, [batch.epoch, batch.index]);
        self.settings.mix.apply(batch.pixels_mut(), &mut targets, count, vit.img_size, &mut rng);
        let visible = Mask::none(count, vit.patches()).visible;
        let weight = 1.0 / batch.total as f64;
        let input = classifier::Input {
            pixels: batch.pixels(),
            visible: &visible,
            drop: None,
            batch: count,
            batch_weight: Some(weight),
        };
        lanes.sum(plan, |images, acts, grads| {
            let images = batch.places(images);
            let input = input.slice(images.start, images.end);
            let targets = &targets[images.start * width..images.end * width];
            FeatureLoss { targets, weight }.gradient(&self.student, params, input, acts, grads)
        })
    }

    fn validate(
        &mut self,
        epoch: u64,
        _: &GradLanes<student::Activations<f32>>,
        params: &[f32],
        stop: StopCheck<'_>,
    ) -> Result<Option<Validation>> {
        let Some(neighbours) = &self.neighbours else { return Ok(None) };
        neighbours.validate([epoch, self.settings.optim.epochs], self.student.layout(), params, stop)
    }

    fn model_files(&self) -> ModelFiles {
        let (config, preprocess) = (
            ModelConfig::pooled(&self.settings.encoder, self.settings.pool),
            self.settings.preprocess.clone(),
        );
        ModelFiles { config, preprocess, labels: Vec::new() }
    }

    /// The encoder alone: the projection is of no use to anybody.
    fn save(&self, path: &Path, params: &[f32]) -> Result<()> {
        let tensors = self.student.layout().without_head();
        let tensors = tensors.map(|(spec, slot)| (spec.name.as_str(), &spec.shape[..], slot.of(params)));
        weights::save(path, tensors, &self.settings()?)
    }
}
