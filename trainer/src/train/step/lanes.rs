//! The threads that compute the lanes of a batch.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::lock;
use super::plan::BatchPlan;
use super::sum::OrderedSum;
use crate::error::{Error, Result};
use crate::model::grads::Grads;
use crate::train::ranks::Ranks;

/// The threads of a run, each with buffers `W` such as a model's activations, and the sum of a batch's gradients.
pub struct GradLanes<W> {
    pool: rayon::ThreadPool,
    ranks: Option<Arc<Ranks>>,
    buffers: Mutex<Vec<W>>,
    /// Gradient vectors for lanes to reuse.
    spare: Mutex<Vec<Vec<f32>>>,
    len: usize,
    /// The sum over the lanes of this rank and the ranks before it.
    sum: Vec<f32>,
    /// The sum over all lanes; empty with one rank, whose `sum` it is.
    total: Vec<f32>,
    loss: f64,
    waited: Option<Duration>,
}

impl<W: Default + Send> GradLanes<W> {
    /// Starts `threads` threads for gradients of `len` values.
    pub fn new(threads: usize, len: usize) -> Result<GradLanes<W>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("compute-{i}"))
            .build()
            .map_err(|e| Error::Usage(format!("cannot start {threads} threads: {e}")))?;
        Ok(GradLanes {
            pool,
            ranks: None,
            buffers: Mutex::default(),
            spare: Mutex::default(),
            len,
            sum: vec![0.0; len],
            total: Vec::new(),
            loss: 0.0,
            waited: None,
        })
    }

    /// Shares every batch among the ranks of a job, if there are several.
    pub fn among(mut self, ranks: Option<Arc<Ranks>>) -> GradLanes<W> {
        self.ranks = ranks.filter(|ranks| ranks.size() > 1);
        self.total = vec![0.0; if self.ranks.is_some() { self.len } else { 0 }];
        self
    }

    /// The threads.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// With several ranks: the time from the end of this rank's computing to the end of the last sum.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Sums up the gradients of a batch. `run(images, buffers, grads)` adds the gradients of some images, numbered in the
    /// whole batch, and returns their part of the loss.
    ///
    /// # Errors
    ///
    /// With several ranks: when this one is to stop or has lost the others. The sum is then undefined.
    pub fn sum(
        &mut self,
        plan: BatchPlan,
        run: impl Fn(Range<usize>, &mut W, &mut Grads<'_, f32>) -> f64 + Sync,
    ) -> Result<()> {
        if plan.lanes() == 0 {
            (self.loss, self.waited) = (0.0, None);
            self.sum.fill(0.0);
            self.total.fill(0.0);
            return Ok(());
        }
        let ranks = self.ranks.as_deref();
        let own = plan.own_lanes(ranks);
        let job = Job {
            plan,
            next: AtomicUsize::new(own.start),
            halted: AtomicBool::new(false),
            sum: OrderedSum::new(&mut self.sum, own.clone(), ranks, &self.spare),
            ended: Mutex::new(Instant::now()),
            buffers: &self.buffers,
            spare: &self.spare,
            len: self.len,
            ranks,
            own,
            run,
        };
        let total = &mut self.total[..];
        let threads = self.pool.current_num_threads().min(job.own.len());
        let loss = self.pool.in_place_scope(|scope| {
            (0..threads).for_each(|_| scope.spawn(|_| job.work()));
            ranks.map(|ranks| job.sum.exchange(ranks, total, &job.halted)).transpose()
        });
        // With one rank the sum is complete when all threads are done.
        self.loss = loss?.unwrap_or_else(|| job.sum.loss());
        self.waited = ranks.map(|_| lock(&job.ended).elapsed());
        Ok(())
    }

    /// Passes the loss and the gradients of the last [`GradLanes::sum`] to `run`, on the threads of the pool.
    pub fn finish<T: Send>(&mut self, run: impl FnOnce(f64, &mut [f32]) -> T + Send) -> T {
        let grads = if self.ranks.is_some() { &mut self.total } else { &mut self.sum };
        self.pool.install(|| run(self.loss, grads))
    }

    /// Runs `run` on each micro-batch in parallel, without gradients. Returns its results in order.
    pub fn map<T: Send>(
        &self,
        batch: usize,
        micro: usize,
        run: impl Fn(Range<usize>, &mut W) -> T + Sync,
    ) -> Vec<T> {
        let plan = BatchPlan::new(batch, micro);
        let images = |micro: usize| {
            let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
            let result = run(plan.images(micro), &mut buffer);
            lock(&self.buffers).push(buffer);
            result
        };
        self.pool.install(|| (0..plan.micro_batches()).into_par_iter().map(images).collect())
    }
}

/// One batch, for all threads.
struct Job<'a, W, F> {
    plan: BatchPlan,
    /// The lanes of this rank.
    own: Range<usize>,
    /// The lane that the next free thread computes.
    next: AtomicUsize,
    /// Whether all threads are to stop: one panicked, or the other ranks are lost.
    halted: AtomicBool,
    sum: OrderedSum<'a>,
    /// When the last thread was done.
    ended: Mutex<Instant>,
    buffers: &'a Mutex<Vec<W>>,
    spare: &'a Mutex<Vec<Vec<f32>>>,
    len: usize,
    ranks: Option<&'a Ranks>,
    run: F,
}

impl<W: Default, F: Fn(Range<usize>, &mut W, &mut Grads<'_, f32>) -> f64> Job<'_, W, F> {
    /// Computes lanes until none is left.
    fn work(&self) {
        let _guard = HaltOnPanic(&self.halted);
        let mut buffer = lock(self.buffers).pop().unwrap_or_default();
        loop {
            let lane = self.next.fetch_add(1, Ordering::Relaxed);
            if !self.own.contains(&lane) {
                break;
            }
            let Some((grads, loss)) = self.compute(lane, &mut buffer) else { return };
            self.sum.add_lane(lane, grads, loss);
        }
        lock(self.buffers).push(buffer);
        let mut ended = lock(&self.ended);
        *ended = (*ended).max(Instant::now());
    }

    /// The gradients and the loss of a lane; none when the work is to stop.
    fn compute(&self, lane: usize, buffer: &mut W) -> Option<(Vec<f32>, f64)> {
        let mut values = lock(self.spare).pop().unwrap_or_else(|| vec![0.0; self.len]);
        values.fill(0.0);
        let (mut loss, micros) = (0.0, self.plan.micros(lane));
        for micro in micros.clone() {
            if self.halted() {
                return None;
            }
            let last = micro + 1 == micros.end;
            let mut on_grads_ready = |start: usize, grads: &[f32]| self.sum.add_ready(lane, start, grads);
            let mut grads = match last {
                true => Grads::with_listener(&mut values, &mut on_grads_ready),
                false => Grads::new(&mut values),
            };
            loss += (self.run)(self.plan.images(micro), buffer, &mut grads);
        }
        Some((values, loss))
    }

    fn halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed) || self.ranks.is_some_and(|ranks| ranks.stopping().is_some())
    }
}

/// Stops all threads when one panics, so that none waits for it.
struct HaltOnPanic<'a>(&'a AtomicBool);

impl Drop for HaltOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
