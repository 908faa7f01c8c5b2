//! What a stage of training has to say. Everything else, [`super::trainer`] does once for all stages.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::optim::OptimConfig;
use super::step::{BatchPlan, GradLanes};
use crate::data::{Batch, Dataset, LoaderSettings};
use crate::error::Result;
use crate::model::params::Layout;
use crate::run::{ModelFiles, RunDir};

/// How the batch of an epoch with so many images is cut up and shared out.
pub type Planner = Arc<dyn Fn(u64, usize) -> BatchPlan + Send + Sync>;

/// Says the exit code to stop with, if the run is to save and end now.
pub type StopCheck<'a> = &'a dyn Fn() -> Option<u8>;

/// What a stage finds out about itself after an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Validation {
    /// The accuracy on validation images: the best one chooses a checkpoint.
    Accuracy(f64),
    /// Of a stage without labels: how often neighbours are of one class ([`crate::evaluate::probe::leave_one_out`]). Shown,
    /// and chooses nothing.
    Neighbours(f64),
}

impl Validation {
    /// The number, 0 to 1.
    pub fn score(self) -> f64 {
        match self {
            Validation::Accuracy(score) | Validation::Neighbours(score) => score,
        }
    }
}

/// What a stage learns from.
#[derive(Clone, Debug)]
pub struct TaskData {
    /// The images to learn from.
    pub train: Dataset,
    /// How batches are made of them: size, views, order. Threads and ranks are the trainer's.
    pub loader: LoaderSettings,
    /// Whether images of a batch are mixed with each other, so that ranks need each other's.
    pub mixes: bool,
    /// Other data sets that decide the outcome, by what they are used for.
    pub others: Vec<(&'static str, Dataset)>,
}

/// A stage of training: pretraining, fine-tuning.
pub trait Task {
    /// The buffers of one thread, such as saved activations.
    type Buffers: Default + Send;

    /// The stage's name: its command's, which a run remembers.
    fn name(&self) -> &'static str;
    /// Everything that decides what is computed, as a JSON object. A resumed run must have the same.
    fn settings(&self) -> Result<Value>;
    /// The same as the text of a settings file, with the flags' names.
    fn settings_file(&self) -> Result<String>;
    /// How parameters move.
    fn optim(&self) -> &OptimConfig;
    /// Its data.
    fn data(&self) -> TaskData;
    /// How batches are cut up.
    fn plan(&self) -> Planner;

    /// The tensors that are trained.
    fn layout(&self) -> &Layout;
    /// The parameters to start from. With several ranks, only the first one's count.
    fn init(&mut self, is_first_rank: bool) -> Result<Vec<f32>>;
    /// Adds up the gradients of a batch in the lanes, averaged over its images.
    fn gradient(
        &mut self,
        lanes: &mut GradLanes<Self::Buffers>,
        params: &[f32],
        batch: Batch,
        plan: BatchPlan,
    ) -> Result<()>;

    /// What can be said after epoch `epoch` (from 1), if anything. Long ones ask `stop` now and then and end with
    /// [`Error::Interrupted`](crate::Error::Interrupted).
    fn validate(
        &mut self,
        _epoch: u64,
        _lanes: &GradLanes<Self::Buffers>,
        _params: &[f32],
        _stop: StopCheck<'_>,
    ) -> Result<Option<Validation>> {
        Ok(None)
    }

    /// What the model is, for the files next to its checkpoints.
    fn model_files(&self) -> ModelFiles;
    /// Writes a checkpoint's tensors.
    fn save(&self, path: &Path, params: &[f32]) -> Result<()>;
    /// Early on and at the end: images to look at.
    fn show(&mut self, _run: &RunDir, _params: &[f32], _step: u64) -> Result<()> {
        Ok(())
    }

    /// Hook after each step, such as for an average of the weights.
    fn after_step(&mut self, _params: &mut [f32], _step: u64) {}
    /// Hook before each checkpoint is written.
    fn at_checkpoint(&mut self, _params: &[f32], _step: u64) -> Result<()> {
        Ok(())
    }
    /// Hook after each epoch and its validation: `Break` ends the stage.
    fn at_epoch_end(&mut self, _epoch: u64, _found: Option<Validation>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// What the task changes from step to step, by name: part of the run's state, next to `params` and the
    /// optimizer's vectors.
    fn vectors(&self) -> Vec<(&'static str, &[f32])> {
        Vec::new()
    }
    /// [`Task::vectors`], to restore them.
    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        Vec::new()
    }
}
