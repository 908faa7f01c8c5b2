//! The loop that pretraining and fine-tuning share: batches, gradients, steps, metrics, checkpoints, stops.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::data::{Batch, Loader};
use crate::error::{Error, Result};
use crate::run::RunDir;
use crate::run::checkpoint::{About, State};
use crate::stages::pretrain::ExecConfig;
use crate::train::optim::{Optimizer, adamw};
use crate::train::ranks::{Ranks, from_bytes, to_bytes};
use crate::train::step::GradLanes;

pub use crate::train::optim::OptimConfig;

/// One step, as `metrics.jsonl` and progress bars tell it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    #[serde(skip)]
    pub steps: u64,
    /// Epochs done, with a fraction.
    pub epoch: f64,
    /// The step's loss, before its update.
    pub loss: f64,
    /// The step's learning rate.
    pub lr: f64,
    /// The length of all gradients, before clipping.
    pub grad_norm: f64,
    /// Images a second in this step.
    pub images_per_s: f64,
    /// Seconds of training so far, over all sessions of the run.
    pub seconds: f64,
    /// Seconds of this step that it waited for its images to be decoded.
    pub loading: f64,
    /// Of several ranks: the seconds of this step that the first one waited for the sum of all gradients, once its own
    /// were computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited: Option<f64>,
}

/// What an epoch's end brought: a score on held-out images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Share of held-out images that the model gets right.
    pub val_accuracy: f64,
}

/// Who watches a run, and may stop it.
pub trait Observer {
    /// After each step.
    fn step(&mut self, _progress: &Progress) {}
    /// After each epoch that was scored.
    fn score(&mut self, _score: &Score) {}
    /// The exit code to stop with, if the run is to save and end now.
    fn stop(&self) -> Option<u8> {
        None
    }
}

/// Nobody watches.
impl Observer for () {}

/// What is trained, with everything that changes while it is.
pub struct Training<'a> {
    /// How.
    pub optim: &'a OptimConfig,
    /// The batches.
    pub loader: &'a Loader,
    /// Where metrics and checkpoints go, if anywhere.
    pub run: Option<&'a RunDir>,
    /// The settings that checkpoints keep, and that a resumed run must share.
    pub settings: serde_json::Value,
    /// The parameters.
    pub params: Vec<f32>,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Seconds of earlier sessions.
    seconds: f64,
    /// The best score so far.
    best: Option<f64>,
}

/// What the loop asks of a model.
pub trait Task<W> {
    /// Sums up the gradients of a batch in the lanes, averaged over its images.
    fn gradient(&mut self, lanes: &mut GradLanes<W>, params: &[f32], batch: Batch) -> Result<()>;
    /// Writes the model's checkpoint under this name.
    fn save(&self, run: &RunDir, name: &str, params: &[f32]) -> Result<()>;
    /// The score on held-out images after an epoch, if there are any.
    fn score(&mut self, _lanes: &GradLanes<W>, _params: &[f32]) -> Result<Option<f64>> {
        Ok(None)
    }
    /// At each checkpoint and at the end: images to look at.
    fn show(&mut self, _lanes: &GradLanes<W>, _run: &RunDir, _params: &[f32], _step: u64) -> Result<()> {
        Ok(())
    }
}

impl<'a> Training<'a> {
    /// A training at its start.
    pub fn new(
        optim: &'a OptimConfig,
        loader: &'a Loader,
        run: Option<&'a RunDir>,
        settings: serde_json::Value,
        params: Vec<f32>,
        optimizer: Optimizer,
    ) -> Training<'a> {
        Training { optim, loader, run, settings, params, optimizer, seconds: 0.0, best: None }
    }

    /// Begins, or goes on where the run's last checkpoint is if `exec` say so. Settings that change results must
    /// be the same. Several ranks all begin where rank 0 does.
    pub fn start(&mut self, exec: &ExecConfig) -> Result<()> {
        if exec.resume {
            self.resume()?;
        }
        exec.ranks.as_ref().map_or(Ok(()), |ranks| self.join(ranks))
    }

    fn resume(&mut self) -> Result<()> {
        let Some(run) = self.run else { return Ok(()) };
        let path = run.state();
        let state = State::load(&path, self.params.len())?;
        if let Some(key) = first_difference(&state.settings, &self.settings) {
            let problem = format!(
                "was trained with {key} = {}, now {}: a run is continued with the same settings",
                state.settings[&key], self.settings[&key]
            );
            return Err(Error::Checkpoint { path, problem });
        }
        let adamw = &mut self.optimizer.adamw;
        (self.params, adamw.m, adamw.v) = (state.params, state.m, state.v);
        (adamw.step, self.seconds, self.best) = (state.step, state.seconds, state.best);
        Ok(())
    }

    /// Sees that all ranks compute the same, and takes over rank 0's state.
    fn join(&mut self, ranks: &Ranks) -> Result<()> {
        let same = [
            ("version", env!("CARGO_PKG_VERSION").into(), "install the same smalti everywhere"),
            ("settings", self.settings.to_string(), "install the same smalti everywhere"),
            (
                "instruction set",
                smalti_kernels::Isa::best().name().into(),
                "their sums differ in the last bits; set SMALTI_FORCE_ISA to one that all have",
            ),
            (
                "images",
                self.loader.data().len().to_string(),
                "every rank needs the same data set under the path of --data",
            ),
        ];
        same.iter().try_for_each(|(what, mine, advice)| ranks.assert_same(what, mine, advice))?;
        let adamw = &mut self.optimizer.adamw;
        let best = self.best.unwrap_or(f64::NAN);
        let mut about = adamw.step.to_le_bytes().to_vec();
        about.extend([self.seconds, best].iter().flat_map(|x| x.to_le_bytes()));
        let about = ranks.broadcast(about)?;
        let numbers = about.as_chunks::<8>().0;
        adamw.step = u64::from_le_bytes(numbers[0]);
        self.seconds = f64::from_le_bytes(numbers[1]);
        self.best = Some(f64::from_le_bytes(numbers[2])).filter(|best| !best.is_nan());
        for values in [&mut self.params, &mut adamw.m, &mut adamw.v] {
            from_bytes(&ranks.broadcast(to_bytes(values))?, values);
        }
        Ok(())
    }

    /// Trains to the end of the optim, or until the observer stops it.
    pub fn run<W: Default + Send>(
        &mut self,
        lanes: &mut GradLanes<W>,
        task: &mut impl Task<W>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let per_epoch = self.loader.batches_per_epoch() as u64;
        if per_epoch == 0 {
            return Err(Error::data(
                self.loader.data().root(),
                format!("has too few images for one batch of {}", self.optim.batch_size),
            ));
        }
        let schedule = self.optim.schedule(per_epoch);
        let mut metrics = self.run.map(|run| run.metrics(self.optimizer.adamw.step)).transpose()?;
        let (start, before) = (Instant::now(), self.seconds);
        let mut saved = Instant::now();
        let every = Duration::from_secs_f64((self.optim.checkpoint_minutes * 60.0).min(1e9));
        while self.optimizer.adamw.step < schedule.total {
            let (epoch, first) =
                (self.optimizer.adamw.step / per_epoch, self.optimizer.adamw.step % per_epoch);
            let mut lap = Instant::now();
            let mut batches = self.loader.epoch(epoch, first as usize);
            loop {
                let asked = Instant::now();
                let Some(batch) = batches.next().transpose()? else { break };
                let loading = asked.elapsed().as_secs_f64();
                let images = batch.total;
                match task.gradient(lanes, &self.params, batch) {
                    // Of several ranks, within a step that will never be whole.
                    Err(Error::Interrupted { code, .. }) => {
                        self.save(task)?;
                        return Err(Error::JobEnded { step: self.optimizer.adamw.step, code });
                    }
                    found => found?,
                }
                let rate = schedule.rate(self.optimizer.adamw.step);
                let (loss, grad_norm) = self.update(lanes, rate)?;
                self.seconds = before + start.elapsed().as_secs_f64();
                let progress = Progress {
                    step: self.optimizer.adamw.step,
                    steps: schedule.total,
                    epoch: self.optimizer.adamw.step as f64 / per_epoch as f64,
                    loss,
                    lr: rate,
                    grad_norm,
                    images_per_s: images as f64 / lap.elapsed().as_secs_f64().max(1e-9),
                    seconds: self.seconds,
                    loading,
                    waited: lanes.waited().map(|waited| waited.as_secs_f64()),
                };
                lap = Instant::now();
                if let Some(metrics) = &mut metrics {
                    metrics.write(&progress)?;
                }
                observer.step(&progress);
                // Before any checkpoint: a run that goes on from here has its score behind it.
                if self.optimizer.adamw.step.is_multiple_of(per_epoch) {
                    self.end_epoch(lanes, task, observer, metrics.as_mut(), epoch + 1)?;
                }
                if let Some(code) = observer.stop() {
                    self.save(task)?;
                    return Err(Error::Interrupted { step: self.optimizer.adamw.step, code });
                }
                if saved.elapsed() >= every && self.optimizer.adamw.step < schedule.total {
                    self.save(task)?;
                    saved = Instant::now();
                }
            }
        }
        self.save(task)?;
        match self.run {
            Some(run) => task.show(lanes, run, &self.params, self.optimizer.adamw.step),
            None => Ok(()),
        }
    }

    /// One step of the optimizer over the gradients in the lanes: loss and gradient length.
    fn update<W: Default + Send>(&mut self, lanes: &mut GradLanes<W>, rate: f64) -> Result<(f64, f64)> {
        let clip = self.optim.clip_grad;
        let (optimizer, params) = (&mut self.optimizer, &mut self.params);
        let (loss, norm) = lanes.finish(|loss, grads| {
            let norm = adamw::norm(grads);
            if loss.is_finite() && norm.is_finite() {
                optimizer.update(rate, adamw::clip_factor(norm, clip), grads, params);
            }
            (loss, norm)
        });
        if loss.is_finite() && norm.is_finite() {
            return Ok((loss, norm));
        }
        Err(Error::Diverged(format!(
            "step {}: the loss is {loss}, its gradient's length {norm}: the learning rate {rate:.2e} is too high for \
             these images; start again with a lower --lr or --blr, or with --clip-grad 1",
            self.optimizer.adamw.step + 1
        )))
    }

    fn end_epoch<W: Default + Send>(
        &mut self,
        lanes: &GradLanes<W>,
        task: &mut impl Task<W>,
        observer: &mut dyn Observer,
        metrics: Option<&mut crate::run::Metrics>,
        epoch: u64,
    ) -> Result<()> {
        let Some(val_accuracy) = task.score(lanes, &self.params)? else { return Ok(()) };
        let score = Score { step: self.optimizer.adamw.step, epoch, val_accuracy };
        if let Some(metrics) = metrics {
            metrics.write(&score)?;
        }
        observer.score(&score);
        if self.best.is_none_or(|best| val_accuracy > best) {
            self.best = Some(val_accuracy);
            if let Some(run) = self.run {
                task.save(run, "best", &self.params)?;
            }
        }
        Ok(())
    }

    /// Writes the last checkpoint: the state first, then the model's tensors for others to use.
    fn save<W>(&self, task: &impl Task<W>) -> Result<()> {
        let Some(run) = self.run else { return Ok(()) };
        let about = About { seconds: self.seconds, best: self.best, settings: self.settings.clone() };
        State::save(&run.state(), &self.params, &self.optimizer.adamw, &about)?;
        task.save(run, "last", &self.params)
    }
}

/// The first key of two objects whose values differ.
fn first_difference(a: &serde_json::Value, b: &serde_json::Value) -> Option<String> {
    let (a, b) = (a.as_object()?, b.as_object()?);
    a.keys().chain(b.keys()).find(|key| a.get(*key) != b.get(*key)).cloned()
}
