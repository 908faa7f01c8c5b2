//! Gradients of a batch over threads and ranks, the same bits for any number of them.
//!
//! A batch is cut into micro-batches of a fixed size. They are dealt out in order to a fixed number of lanes, each
//! with a gradient vector of its own; a rank has a share of the lanes, and a thread takes a whole lane. The lanes are
//! added in order. Which numbers are added, and when, follows from the batch alone.
//!
//! The sum is made in parts. A part of a lane can be added as soon as the way back through the layers is past it, which
//! starts at the vector's end: with several ranks ([`crate::train::ranks`]) it travels while the rest is being computed.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::clock::{self, Op};
use crate::error::{Error, Result};
use crate::train::ranks::{Kind, Ranks, from_bytes, to_bytes};

/// GradLanes of a batch: as many threads of all ranks together can work at once.
const LANES: usize = 8;
/// GradLanes of a large batch, at most.
const MOST_LANES: usize = 64;
/// A large batch has a lane for each so many micro-batches.
const LONG: usize = 2;
/// Tokens of one micro-batch, about: its activations should stay near the processor.
const MICRO_TOKENS: usize = 1040;
/// Values of a part of the sum, at least: 128 KiB, which a network of 1 Gbit/s carries in a millisecond.
const PART: usize = 1 << 15;
/// Parts of the sum, at most: their numbers fit every MPI's tags.
const MOST_PARTS: usize = 4096;

/// Images of a micro-batch when each has this many tokens.
pub fn micro_batch(tokens: usize) -> usize {
    (MICRO_TOKENS / tokens.max(1)).clamp(1, 32)
}

/// How `batch` images, `micro` at a time, are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    batch: usize,
    micro: usize,
    micros: usize,
    lanes: usize,
}

impl BatchPlan {
    /// Deals a batch out.
    pub fn new(batch: usize, micro: usize) -> BatchPlan {
        let micros = batch.div_ceil(micro.max(1));
        let lanes = micros.min((micros / LONG).clamp(LANES, MOST_LANES));
        BatchPlan { batch, micro, micros, lanes }
    }

    /// Number of lanes.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The micro-batches of a lane.
    fn micros(&self, lane: usize) -> Range<usize> {
        lane * self.micros / self.lanes.max(1)..(lane + 1) * self.micros / self.lanes.max(1)
    }

    /// The images of a micro-batch.
    fn images(&self, micro: usize) -> Range<usize> {
        micro * self.micro..((micro + 1) * self.micro).min(self.batch)
    }

    /// The lanes of this rank.
    fn own(&self, ranks: Option<&Ranks>) -> Range<usize> {
        ranks.map_or(0..self.lanes, |ranks| ranks.share(self.lanes))
    }

    /// The images of this rank.
    pub fn share(&self, ranks: Option<&Ranks>) -> Range<usize> {
        let own = self.own(ranks);
        let start = |lane: usize| (self.micros(lane).start * self.micro).min(self.batch);
        start(own.start)..start(own.end)
    }
}

/// Told on the way back through the layers: from this value on the gradients are complete.
pub type Settled<'a, R> = &'a mut dyn FnMut(usize, &[R]);

/// The threads of a run, with their buffers `W`, and the sum of its gradients.
pub struct GradLanes<W> {
    pool: rayon::ThreadPool,
    ranks: Option<Arc<Ranks>>,
    buffers: Mutex<Vec<W>>,
    /// Gradient vectors of lanes, to be used again.
    spare: Mutex<Vec<Vec<f32>>>,
    len: usize,
    /// The sum over the lanes of this rank and those before it.
    sum: Vec<f32>,
    /// The sum over all lanes, where there are other ranks.
    total: Vec<f32>,
    loss: f64,
    waited: Option<Duration>,
}

impl<W: Default + Send> GradLanes<W> {
    /// Threads for gradients of `len` values.
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

    /// Shares every batch with the other ranks of a job, if there are any.
    pub fn among(mut self, ranks: Option<Arc<Ranks>>) -> GradLanes<W> {
        self.ranks = ranks.filter(|ranks| ranks.size() > 1);
        self.total = vec![0.0; if self.ranks.is_some() { self.len } else { 0 }];
        self
    }

    /// The threads.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// How long the last sum took after this rank's own share was computed, where there are other ranks.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Sums up the gradients of a batch: `run(images, buffers, grads, settled)` adds those of some images, counted in
    /// the whole batch, and returns their share of the loss. Errors: with several ranks, when this one is to stop or has
    /// lost the others; the sum is then of no use.
    pub fn sum(
        &mut self,
        deal: BatchPlan,
        run: impl Fn(Range<usize>, &mut W, &mut [f32], Settled<'_, f32>) -> f64 + Sync,
    ) -> Result<()> {
        let (buffers, spare, ranks, len) = (&self.buffers, &self.spare, self.ranks.as_deref(), self.len);
        if deal.lanes == 0 {
            (self.loss, self.waited) = (0.0, None);
            self.sum.fill(0.0);
            self.total.fill(0.0);
            return Ok(());
        }
        let own = deal.own(ranks);
        let (next, halted) = (AtomicUsize::new(own.start), AtomicBool::new(false));
        let sum = Sum::new(&mut self.sum, own.clone(), ranks, spare);
        let ended = Mutex::new(Instant::now());
        let halt = || halted.load(Ordering::Relaxed) || ranks.is_some_and(|ranks| ranks.stopping().is_some());
        let work = || {
            let mut buffer = lock(buffers).pop().unwrap_or_default();
            loop {
                let lane = next.fetch_add(1, Ordering::Relaxed);
                if !own.contains(&lane) {
                    break;
                }
                let mut grads = lock(spare).pop().unwrap_or_else(|| vec![0.0; len]);
                grads.fill(0.0);
                let (mut loss, micros) = (0.0, deal.micros(lane));
                for micro in micros.clone() {
                    if halt() {
                        return;
                    }
                    let mut settled = |from: usize, grads: &[f32]| {
                        if micro + 1 == micros.end {
                            sum.settled(lane, from, grads);
                        }
                    };
                    loss += run(deal.images(micro), &mut buffer, &mut grads, &mut settled);
                }
                sum.done(lane, grads, loss);
            }
            lock(buffers).push(buffer);
            let mut ended = lock(&ended);
            *ended = (*ended).max(Instant::now());
        };
        let total = &mut self.total[..];
        let found = self.pool.in_place_scope(|scope| {
            for _ in 0..self.pool.current_num_threads().min(own.len()) {
                scope.spawn(|_| {
                    let _guard = Guard(&halted);
                    work();
                });
            }
            match ranks {
                Some(ranks) => {
                    sum.chain(ranks, total, &halted).inspect_err(|_| halted.store(true, Ordering::Relaxed))
                }
                None => Ok(None),
            }
        });
        // Without ranks the sum is complete when all threads are done.
        self.loss = found?.unwrap_or_else(|| lock(&sum.losses).sum);
        self.waited = ranks.map(|_| lock(&ended).elapsed());
        Ok(())
    }

    /// Gives `run` the loss and the gradients of the last [`GradLanes::sum`], on the threads of the pool.
    pub fn finish<T: Send>(&mut self, run: impl FnOnce(f64, &[f32]) -> T + Send) -> T {
        let grads = if self.ranks.is_some() { &self.total } else { &self.sum };
        self.pool.install(|| run(self.loss, grads))
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

/// Halts all threads when one panics, so that nobody waits for it.
struct Guard<'a>(&'a AtomicBool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A part of the sum.
struct Part<'a> {
    start: usize,
    values: &'a mut [f32],
    /// The lane that is added next.
    next: usize,
    /// Whether the lanes of the ranks before are in.
    ready: bool,
}

/// The sum of the losses, in the order of the lanes.
struct Losses {
    sum: f64,
    /// This rank's, by lane.
    lanes: Vec<Option<f64>>,
    next: usize,
    ready: bool,
}

/// A lane that waits until it can be added.
#[derive(Default)]
struct Parked {
    grads: RwLock<Option<Vec<f32>>>,
    /// How many parts of it are added.
    added: AtomicUsize,
}

/// A sum while it is being made.
struct Sum<'a> {
    own: Range<usize>,
    parts: Vec<Mutex<Part<'a>>>,
    parked: Vec<Parked>,
    losses: Mutex<Losses>,
    ranks: Option<&'a Ranks>,
    spare: &'a Mutex<Vec<Vec<f32>>>,
}

impl<'a> Sum<'a> {
    fn new(
        sum: &'a mut [f32],
        own: Range<usize>,
        ranks: Option<&'a Ranks>,
        spare: &'a Mutex<Vec<Vec<f32>>>,
    ) -> Sum<'a> {
        let (ready, next) = (ranks.is_none_or(|ranks| ranks.rank() == 0), own.start);
        let size = part_len(sum.len());
        let part = |(i, values)| Mutex::new(Part { start: i * size, values, next, ready });
        Sum {
            parts: sum.chunks_mut(size).enumerate().map(part).collect(),
            parked: own.clone().map(|_| Parked::default()).collect(),
            losses: Mutex::new(Losses { sum: 0.0, lanes: vec![None; own.len()], next, ready }),
            own,
            ranks,
            spare,
        }
    }

    /// Adds what can be added of a lane whose gradients are complete from `from` on.
    fn settled(&self, lane: usize, from: usize, grads: &[f32]) {
        for (i, part) in self.parts.iter().enumerate().rev() {
            let mut part = lock(part);
            if part.start < from {
                break;
            }
            if part.ready && part.next == lane {
                self.add(&mut part, grads);
                self.go_on(i, &mut part);
            }
        }
    }

    /// Takes in a lane that is complete.
    fn done(&self, lane: usize, grads: Vec<f32>, loss: f64) {
        let place = lane - self.own.start;
        *self.parked[place].grads.write().unwrap_or_else(PoisonError::into_inner) = Some(grads);
        self.release(place);
        for (i, part) in self.parts.iter().enumerate().rev() {
            self.go_on(i, &mut lock(part));
        }
        let mut losses = lock(&self.losses);
        losses.lanes[place] = Some(loss);
        self.go_on_with_losses(&mut losses);
    }

    /// Takes in the sum of the ranks before.
    fn before(&self, i: usize, bytes: &[u8]) {
        match self.parts.get(i) {
            Some(part) => {
                let mut part = lock(part);
                from_bytes(bytes, part.values);
                part.ready = true;
                self.go_on(i, &mut part);
            }
            None => {
                let mut losses = lock(&self.losses);
                losses.sum = double(bytes);
                losses.ready = true;
                self.go_on_with_losses(&mut losses);
            }
        }
    }

    /// Adds one lane's part.
    fn add(&self, part: &mut Part<'_>, grads: &[f32]) {
        let _timer = clock::time(Op::Sums);
        let grads = &grads[part.start..part.start + part.values.len()];
        match part.next {
            0 => part.values.copy_from_slice(grads),
            _ => smalti_kernels::elementwise::axpy(smalti_kernels::Isa::best(), 1.0, grads, part.values),
        }
        self.parked[part.next - self.own.start].added.fetch_add(1, Ordering::AcqRel);
        part.next += 1;
    }

    /// Adds the lanes that wait for their turn, and sends a part on when it is whole.
    fn go_on(&self, i: usize, part: &mut Part<'_>) {
        while part.ready && part.next < self.own.end {
            let place = part.next - self.own.start;
            let grads = self.parked[place].grads.read().unwrap_or_else(PoisonError::into_inner);
            let Some(values) = &*grads else { return };
            self.add(part, values);
            drop(grads);
            self.release(place);
        }
        if part.ready && part.next == self.own.end {
            part.ready = false;
            if let Some(ranks) = self.ranks {
                self.send_on(ranks, i, to_bytes(part.values));
            }
        }
    }

    fn go_on_with_losses(&self, losses: &mut Losses) {
        while losses.ready && losses.next < self.own.end {
            let Some(loss) = losses.lanes[losses.next - self.own.start] else { return };
            losses.sum += loss;
            losses.next += 1;
        }
        if losses.ready && losses.next == self.own.end {
            losses.ready = false;
            if let Some(ranks) = self.ranks {
                self.send_on(ranks, self.parts.len(), losses.sum.to_le_bytes().to_vec());
            }
        }
    }

    /// Gives the vector of a lane back once all of it is added.
    fn release(&self, place: usize) {
        let parked = &self.parked[place];
        if parked.added.load(Ordering::Acquire) == self.parts.len() {
            let grads = parked.grads.write().unwrap_or_else(PoisonError::into_inner).take();
            lock(self.spare).extend(grads);
        }
    }

    /// Sends a sum over all lanes so far to the next rank; at the last one it is the total.
    fn send_on(&self, ranks: &Ranks, i: usize, bytes: Vec<u8>) {
        let last = ranks.rank() + 1 == ranks.size();
        let (to, kind) = if last { (ranks.rank(), Kind::Total) } else { (ranks.rank() + 1, Kind::Partial) };
        // A lost way to the others ends the wait for their answer.
        let _ = ranks.send(to, kind, i, bytes);
    }

    /// Passes sums along the chain until the total is here; returns its loss.
    fn chain(&self, ranks: &Ranks, total: &mut [f32], halted: &AtomicBool) -> Result<Option<f64>> {
        let size = part_len(total.len());
        let mut parts: Vec<&mut [f32]> = total.chunks_mut(size).collect();
        let (mut missing, mut loss) = (parts.len() + 1, 0.0);
        while missing > 0 {
            let message = ranks
                .receive_unless(|message| message.kind != Kind::Word, || halted.load(Ordering::Relaxed))?;
            match message.kind {
                Kind::Partial => self.before(message.part, &message.bytes),
                Kind::Total => {
                    match parts.get_mut(message.part) {
                        Some(part) => from_bytes(&message.bytes, part),
                        None => loss = double(&message.bytes),
                    }
                    missing -= 1;
                    if let Some(before) = ranks.rank().checked_sub(1) {
                        ranks.send(before, Kind::Total, message.part, message.bytes)?;
                    }
                }
                Kind::Word => {}
            }
        }
        Ok(Some(loss))
    }
}

/// A loss as it travels.
fn double(bytes: &[u8]) -> f64 {
    bytes.try_into().map_or(f64::NAN, f64::from_le_bytes)
}

/// Values of each part of a sum of `len` values.
fn part_len(len: usize) -> usize {
    PART.max(len.div_ceil(MOST_PARTS))
}

/// The lock; a panic elsewhere leaves what it guards whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 3 * PART + 7;

    /// One batch's share of the numbers, whose order of addition shows in the last bits.
    fn share(images: Range<usize>, grads: &mut [f32], settled: Settled<'_, f32>) -> f64 {
        for i in images.clone() {
            grads.iter_mut().enumerate().for_each(|(j, g)| *g += 1.0 / (1 + i * 7 + j) as f32);
        }
        // From the end on, as a model does.
        [LEN - 5, 2 * PART, PART + 1, PART].into_iter().for_each(|from| settled(from, grads));
        images.map(|i| 1.0 / (i + 1) as f64).sum()
    }

    fn total(threads: usize, batch: usize, ranks: Option<Arc<Ranks>>) -> (f64, Vec<f32>) {
        let mut lanes = GradLanes::<()>::new(threads, LEN).unwrap().among(ranks);
        // Twice: the second sum finds the first one's buffers.
        for _ in 0..2 {
            lanes
                .sum(BatchPlan::new(batch, 3), |images, (), grads, settled| share(images, grads, settled))
                .unwrap();
        }
        lanes.finish(|loss, grads| (loss, grads.to_vec()))
    }

    /// GradLanes added in order, as plainly as can be.
    fn plain(batch: usize) -> (f64, Vec<f32>) {
        let deal = BatchPlan::new(batch, 3);
        let (mut loss, mut sum) = (0.0, vec![0.0; LEN]);
        for lane in 0..deal.lanes() {
            let (mut lane_loss, mut grads) = (0.0, vec![0.0; LEN]);
            for micro in deal.micros(lane) {
                lane_loss += share(deal.images(micro), &mut grads, &mut |_, _| {});
            }
            loss += lane_loss;
            sum.iter_mut().zip(grads).for_each(|(sum, g)| *sum += g);
        }
        (loss, sum)
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        for batch in [1, 2, 17, 64, 250] {
            let want = plain(batch);
            [1, 2, 5].into_iter().for_each(|threads| assert_eq!(total(threads, batch, None), want));
            let sum: f64 = (0..batch).map(|i| 1.0 / (i + 1) as f64).sum();
            assert!((want.0 - sum).abs() < 1e-9);
        }
    }

    #[test]
    fn ranks_do_not_change_a_bit() {
        for (size, batch) in [(2, 64), (3, 64), (4, 5), (5, 2), (3, 250)] {
            let want = plain(batch);
            let ranks: Vec<_> = Ranks::threads(size).into_iter().map(Arc::new).collect();
            std::thread::scope(|scope| {
                let jobs =
                    ranks.iter().map(|ranks| scope.spawn(move || total(2, batch, Some(Arc::clone(ranks)))));
                for job in jobs.collect::<Vec<_>>() {
                    assert!(job.join().unwrap() == want, "{size} ranks, {batch} images");
                }
            });
        }
    }

    #[test]
    fn every_image_is_dealt_once() {
        for (batch, micro, lanes) in
            [(128, 16, 8), (256, 16, 8), (1024, 16, 32), (5000, 1, 64), (3, 2, 2), (0, 4, 0)]
        {
            let deal = BatchPlan::new(batch, micro);
            assert_eq!(deal.lanes(), lanes);
            let dealt: Vec<usize> =
                (0..lanes).flat_map(|lane| deal.micros(lane)).flat_map(|micro| deal.images(micro)).collect();
            assert_eq!(dealt, (0..batch).collect::<Vec<_>>());
            let shares: Vec<usize> =
                Ranks::threads(3).iter().flat_map(|ranks| deal.share(Some(ranks))).collect();
            assert_eq!(shares, dealt);
        }
    }

    #[test]
    fn a_lost_rank_ends_the_wait() {
        let mut ranks = Ranks::threads(2).into_iter().map(Arc::new);
        let first = ranks.next().unwrap();
        first.heed(|| Some(143));
        let mut lanes = GradLanes::<()>::new(2, LEN).unwrap().among(Some(first));
        let error =
            lanes.sum(BatchPlan::new(64, 3), |images, (), grads, settled| share(images, grads, settled));
        assert!(matches!(error, Err(Error::Interrupted { code: 143, .. })));
    }

    #[test]
    fn map_keeps_the_order() {
        let lanes = GradLanes::<u8>::new(3, 1).unwrap();
        let parts = lanes.map(10, 4, |images, _| images);
        assert_eq!(parts, [0..4, 4..8, 8..10]);
    }
}
