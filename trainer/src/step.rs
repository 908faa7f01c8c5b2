//! Gradients of a batch over threads, the same bits for any number of them.
//!
//! A batch is cut into micro-batches of a fixed size. They are dealt out in order to a fixed number of lanes, each
//! with a gradient vector of its own; a thread takes a whole lane. The lanes are then added in order. Which numbers
//! are added, and when, follows from the batch alone.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Lanes of a large batch: as many threads can work at once.
const LANES: usize = 8;
/// Tokens of one micro-batch, about: its activations should stay near the processor.
const MICRO_TOKENS: usize = 1040;
/// Values that one task adds.
const CHUNK: usize = 1 << 14;

/// Pictures of a micro-batch when each has this many tokens.
pub fn micro_batch(tokens: usize) -> usize {
    (MICRO_TOKENS / tokens.max(1)).clamp(1, 32)
}

/// One lane: a gradient and the loss that belongs to it.
#[derive(Clone, Debug, Default)]
struct Lane {
    grads: Vec<f32>,
    loss: f64,
}

/// The threads of a run, with their lanes and buffers `W`.
pub struct Lanes<W> {
    pool: rayon::ThreadPool,
    lanes: Vec<Lane>,
    buffers: Mutex<Vec<W>>,
    len: usize,
}

impl<W: Default + Send> Lanes<W> {
    /// Threads and lanes for gradients of `len` values.
    pub fn new(threads: usize, len: usize) -> Result<Lanes<W>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("compute-{i}"))
            .build()
            .map_err(|e| Error::Usage(format!("cannot start {threads} threads: {e}")))?;
        Ok(Lanes { pool, lanes: Vec::new(), buffers: Mutex::new(Vec::new()), len })
    }

    /// The threads.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// Forgets all gradients: a new step begins.
    pub fn begin(&mut self) {
        self.pool.install(|| {
            self.lanes.par_iter_mut().for_each(|lane| {
                lane.grads.fill(0.0);
                lane.loss = 0.0;
            });
        });
    }

    /// Adds the gradients of `batch` pictures: `run(pictures, buffers, grads)` returns their share of the loss.
    pub fn add(
        &mut self,
        batch: usize,
        micro: usize,
        run: impl Fn(Range<usize>, &mut W, &mut [f32]) -> f64 + Sync,
    ) {
        let micros = batch.div_ceil(micro);
        let lanes = micros.min(LANES);
        if self.lanes.len() < lanes {
            self.lanes.resize_with(lanes, || Lane { grads: vec![0.0; self.len], loss: 0.0 });
        }
        let buffers = &self.buffers;
        self.pool.install(|| {
            self.lanes[..lanes].par_iter_mut().enumerate().for_each(|(i, lane)| {
                let mut buffer = lock(buffers).pop().unwrap_or_default();
                for part in i * micros / lanes..(i + 1) * micros / lanes {
                    let pictures = part * micro..((part + 1) * micro).min(batch);
                    lane.loss += run(pictures, &mut buffer, &mut lane.grads);
                }
                lock(buffers).push(buffer);
            });
        });
    }

    /// Adds the lanes up and gives `run` the loss and the gradients of everything since [`Lanes::begin`], on the
    /// threads of the pool.
    pub fn finish<T: Send>(&mut self, run: impl FnOnce(f64, &[f32]) -> T + Send) -> T {
        let loss = self.lanes.iter().map(|lane| lane.loss).sum();
        let lanes = &mut self.lanes;
        self.pool.install(|| {
            let Some((first, rest)) = lanes.split_first_mut() else { return run(0.0, &[]) };
            let isa = smalti_kernels::Isa::best();
            first.grads.par_chunks_mut(CHUNK).enumerate().for_each(|(i, sum)| {
                let range = i * CHUNK..i * CHUNK + sum.len();
                for lane in &*rest {
                    smalti_kernels::elementwise::axpy(isa, 1.0, &lane.grads[range.clone()], sum);
                }
            });
            run(loss, &first.grads)
        })
    }

    /// Runs `run` on each micro-batch without gradients, in parallel, and returns what it returned, in order.
    pub fn map<T: Send>(
        &self,
        batch: usize,
        micro: usize,
        run: impl Fn(Range<usize>, &mut W) -> T + Sync,
    ) -> Vec<T> {
        let buffers = &self.buffers;
        self.pool.install(|| {
            let parts = (0..batch.div_ceil(micro)).into_par_iter();
            parts
                .map(|part| {
                    let mut buffer = lock(buffers).pop().unwrap_or_default();
                    let found = run(part * micro..((part + 1) * micro).min(batch), &mut buffer);
                    lock(buffers).push(buffer);
                    found
                })
                .collect()
        })
    }
}

/// The lock; a panic elsewhere leaves the list of buffers whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of numbers whose order of addition shows in the last bits.
    fn total(threads: usize, batch: usize) -> (f64, Vec<f32>) {
        let mut lanes = Lanes::<()>::new(threads, 40_000).unwrap();
        lanes.begin();
        for _ in 0..2 {
            lanes.add(batch, 3, |pictures, (), grads| {
                for i in pictures.clone() {
                    grads.iter_mut().enumerate().for_each(|(j, g)| *g += 1.0 / (1 + i * 7 + j) as f32);
                }
                pictures.map(|i| 1.0 / (i + 1) as f64).sum()
            });
        }
        lanes.finish(|loss, grads| (loss, grads.to_vec()))
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        for batch in [1, 2, 17, 64, 100] {
            let one = total(1, batch);
            assert_eq!(one, total(2, batch));
            assert_eq!(one, total(5, batch));
            let want: f64 = (0..batch).map(|i| 2.0 / (i + 1) as f64).sum();
            assert!((one.0 - want).abs() < 1e-9);
        }
    }

    #[test]
    fn map_keeps_the_order() {
        let lanes = Lanes::<u8>::new(3, 1).unwrap();
        let parts = lanes.map(10, 4, |pictures, _| pictures);
        assert_eq!(parts, [0..4, 4..8, 8..10]);
    }
}
