//! The loop that all stages share: batches, gradients, steps, validation, metrics, checkpoints, stops.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use super::exec::ExecConfig;
use super::guard::Fault;
use super::loss::Watchdog;
use super::observer::{Observer, Progress, Score};
use super::optim::{Optimizer, RunningStatistics, Schedule, adamw};
use super::step::GradLanes;
use super::task::{Planner, Task, TaskData, Validation};
use crate::clock::{self, Op};
use crate::data::{Batch, Dataset, Loader, LoaderSettings, Share};
use crate::error::{Error, Result};
use crate::run::{About, Best, Metrics, RunDir};

/// Parts of a run after which it leaves images to look at, besides its end: most changes early.
const SHOWN_AFTER: [u64; 2] = [16, 4];

/// How a stage ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The last parameters.
    pub params: Vec<f32>,
    /// Steps done.
    pub steps: u64,
    /// Seconds of training, over all sessions of the run.
    pub seconds: f64,
    /// Running mean of the loss; NaN if no step was done.
    pub loss: f64,
    /// The best validation.
    pub best: Option<Best>,
}

/// A stage at work.
pub(super) struct Trainer<'a, T: Task> {
    pub(super) task: &'a mut T,
    pub(super) exec: &'a ExecConfig,
    pub(super) run: Option<&'a RunDir>,
    images: Dataset,
    loader: Loader,
    plan: Planner,
    lanes: GradLanes<T::Buffers>,
    pub(super) optimizer: Optimizer,
    statistics: RunningStatistics,
    pub(super) params: Vec<f32>,
    /// What the state says.
    pub(super) about: About,
    schedule: Schedule,
    /// Batches of an epoch.
    pub(super) per_epoch: u64,
}

impl<'a, T: Task> Trainer<'a, T> {
    pub(super) fn new(
        task: &'a mut T,
        exec: &'a ExecConfig,
        run: Option<&'a RunDir>,
        data: &TaskData,
    ) -> Result<Trainer<'a, T>> {
        let plan = task.plan();
        let loader = Loader::new(data.train.clone(), loader_settings(data, exec, &plan))?;
        let per_epoch = loader.batches_per_epoch() as u64;
        let params = task.init(exec.is_first_rank())?;
        let lanes = GradLanes::new(exec.threads, params.len())?.among(exec.ranks.clone());
        let optimizer = Optimizer::new(task.layout(), task.optim());
        let statistics = RunningStatistics::new(task.layout());
        let schedule = task.optim().schedule(per_epoch);
        let about = describe(task, data)?;
        Ok(Trainer {
            task,
            exec,
            run,
            images: data.train.clone(),
            loader,
            plan,
            lanes,
            optimizer,
            statistics,
            params,
            about,
            schedule,
            per_epoch,
        })
    }

    pub(super) fn run(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let mut metrics = self.run.map(|run| run.metrics(self.about.step)).transpose()?;
        let (start, before, first) = (Instant::now(), self.about.seconds, self.about.step);
        let mut saved = Instant::now();
        let mut watchdog = Watchdog::new(self.about.loss, first);
        // A run that was stopped within a validation does it now.
        self.end_epoch(observer, metrics.as_mut())?;
        let (mut batches, mut lap) = (self.loader.stream(self.about.step), Instant::now());
        while !self.about.ended && self.about.step < self.schedule.total {
            let asked = Instant::now();
            let Some(batch) = batches.next().transpose()? else { break };
            let loading = asked.elapsed().as_secs_f64();
            let images = batch.total;
            let (loss, grad_norm, lr) = self.step(batch)?;
            if loss.is_finite() {
                watchdog.note(loss);
            }
            self.about.loss = watchdog.track();
            self.about.seconds = before + start.elapsed().as_secs_f64();
            let progress = Progress {
                step: self.about.step,
                steps: self.schedule.total,
                epoch: self.about.step as f64 / self.per_epoch as f64,
                loss,
                lr,
                grad_norm,
                images,
                images_per_s: images as f64 / lap.elapsed().as_secs_f64().max(1e-9),
                seconds: self.about.seconds,
                loading,
                waited: self.lanes.waited().map(|waited| waited.as_secs_f64()),
            };
            lap = Instant::now();
            if let Some(metrics) = &mut metrics {
                metrics.write(&progress)?;
            }
            observer.step(&progress);
            watchdog.check(self.about.step, self.about.step == self.schedule.total, lr)?;
            self.end_epoch(observer, metrics.as_mut())?;
            if SHOWN_AFTER.iter().any(|part| self.about.step == self.schedule.total / part) {
                self.try_to("image", Trainer::show)?;
            }
            if let Some(code) = observer.stop() {
                self.save()?;
                return Err(Error::Interrupted { step: self.about.step, code });
            }
            if saved.elapsed() >= self.exec.checkpoint_every && self.about.step < self.schedule.total {
                self.try_to("checkpoint", Trainer::save)?;
                saved = Instant::now();
            }
        }
        if self.about.ended && self.about.step == first {
            // It had ended before; its tensors may have been lost between the state and them.
            self.try_to("checkpoint", |trainer| trainer.save_model("last"))?;
            return Ok(());
        }
        self.about.ended = true;
        self.save()?;
        self.try_to("image", Trainer::show)?;
        Ok(())
    }

    /// Writes something that the run can go on without: what the file system refuses is said. Whether it was written.
    fn try_to(&mut self, what: &str, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<bool> {
        match write(self) {
            Err(error @ Error::File { .. }) => {
                log::warn!("step {}: no {what}: {error}; training goes on", self.about.step);
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }

    /// Leaves images to look at in the run.
    fn show(&mut self) -> Result<()> {
        self.run.map_or(Ok(()), |run| self.task.show(run, &self.params, self.about.step))
    }

    /// One step: the loss, the gradient norm and the learning rate.
    fn step(&mut self, batch: Batch) -> Result<(f64, f64, f64)> {
        let (plan, ids) = ((self.plan)(batch.epoch, batch.total), batch.ids.clone());
        match self.task.gradient(&mut self.lanes, &self.params, batch, plan) {
            // With several ranks, within a step that will never be whole.
            Err(Error::Interrupted { code, .. }) => return Err(self.end_job(code)),
            found => found?,
        }
        let lr = self.schedule.rate(self.about.step) * Fault::rate(self.about.setbacks);
        let (loss, grad_norm, fault) = self.update(lr);
        if let Some(fault) = fault {
            let step = self.about.step + 1;
            self.about.setbacks += 1;
            fault.judge(step, self.about.setbacks, lr, &self.images, &ids)?;
            self.optimizer.set_step(step);
        }
        self.about.step = self.optimizer.step();
        self.task.after_step(&mut self.params, self.about.step);
        Ok((loss, grad_norm, lr))
    }

    /// Moves the parameters by the gradients in the lanes, unless these or the loss are no numbers: the loss, the gradient
    /// norm, and what is wrong.
    fn update(&mut self, lr: f64) -> (f64, f64, Option<Fault>) {
        let start = Instant::now();
        let (clip, optimizer, params) = (self.task.optim().clip_grad, &mut self.optimizer, &mut self.params);
        let (statistics, layout) = (&self.statistics, self.task.layout());
        let found = self.lanes.finish(|loss, grads| {
            let moves = statistics.take(grads);
            let norm = adamw::norm(grads);
            let fault = Fault::find(loss, norm, layout, grads);
            if fault.is_none() {
                optimizer.update(lr, adamw::clip_factor(norm, clip), grads, params);
                statistics.update(&moves, params);
            }
            (loss, norm, fault)
        });
        // All threads work on it.
        clock::spend(Op::Optimizer, start.elapsed().as_secs_f64() * self.exec.threads as f64);
        found
    }

    /// Validates after the last step of an epoch. Before any checkpoint: a resumed run has its validation behind it.
    fn end_epoch(&mut self, observer: &mut dyn Observer, metrics: Option<&mut Metrics>) -> Result<()> {
        let (step, epoch) = (self.about.step, self.about.step.div_ceil(self.per_epoch));
        let is_end = step.is_multiple_of(self.per_epoch) || step == self.schedule.total;
        if !is_end || epoch <= self.about.epochs {
            return Ok(());
        }
        let stop = || observer.stop();
        let found = match self.task.validate(epoch, &self.lanes, &self.params, &stop) {
            Err(Error::Interrupted { code, .. }) if self.exec.ranks.is_some() => {
                return Err(self.end_job(code));
            }
            Err(Error::Interrupted { code, .. }) => {
                self.save()?;
                return Err(Error::Interrupted { step: self.about.step, code });
            }
            found => found?,
        };
        self.about.epochs = epoch;
        if let Some(found) = found {
            let line = Score::new(self.about.step, epoch, found);
            if let Some(metrics) = metrics {
                metrics.write(&line)?;
            }
            observer.score(&line);
            if let Validation::Accuracy(score) = found
                && self.about.best.is_none_or(|best| score >= best.score)
            {
                // Where it cannot be written, the file is still that of the one before.
                if self.try_to("checkpoint", |trainer| trainer.save_model("best"))? {
                    self.about.best = Some(Best { score, epoch });
                }
            }
        }
        if self.task.at_epoch_end(epoch, found) == ControlFlow::Break(()) {
            self.about.ended = true;
        }
        Ok(())
    }

    /// Saves after a step in which a rank was lost, or told to stop.
    fn end_job(&mut self, code: u8) -> Error {
        match self.save() {
            Ok(()) => Error::JobEnded { step: self.about.step, code },
            Err(error) => error,
        }
    }

    /// Writes the last checkpoint: the state first, then the model's tensors for others to use.
    fn save(&mut self) -> Result<()> {
        let Some(run) = self.run else { return Ok(()) };
        self.task.at_checkpoint(&self.params, self.about.step)?;
        let mut vectors = vec![("params", &self.params[..])];
        vectors.extend(self.optimizer.vectors());
        vectors.extend(self.task.vectors());
        run.save_state(&self.about, &vectors)?;
        self.save_model("last")
    }

    fn save_model(&self, name: &str) -> Result<()> {
        let Some(run) = self.run else { return Ok(()) };
        run.save_model(name, |path| self.task.save(path, &self.params))
    }
}

/// What the state of a stage says at its start.
fn describe(task: &impl Task, data: &TaskData) -> Result<About> {
    let mut sets = BTreeMap::from([("train".to_string(), data.train.fingerprint())]);
    sets.extend(data.others.iter().map(|(name, data)| (name.to_string(), data.fingerprint())));
    Ok(About { stage: task.name().into(), settings: task.settings()?, data: sets, ..About::default() })
}

/// The task's loader with the threads and the share of this process.
fn loader_settings(data: &TaskData, exec: &ExecConfig, plan: &Planner) -> LoaderSettings {
    let share = exec.ranks.clone().map(|ranks| {
        let plan = plan.clone();
        Share::new(data.mixes, move |epoch, images| plan(epoch, images).share(Some(&ranks)))
    });
    LoaderSettings {
        share,
        threads: exec.loader_threads,
        cache: exec.cache.clone(),
        max_bad: exec.max_bad,
        ..data.loader.clone()
    }
}
