//! The sum of the lanes' gradients and losses in the order of the lanes, over the threads of a rank and over ranks.
//!
//! The vector is divided into parts, each summed for itself. Within a part, lane 0 is copied and lane after lane is added.
//! A lane that is complete before its turn is kept until then. A rank receives each part from the rank before it, adds its
//! own lanes and sends the part on; the last rank sends the total back along the chain.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use super::lock;
use crate::clock::{self, Op};
use crate::error::Result;
use crate::train::ranks::{Kind, Ranks, from_bytes, to_bytes};

/// Values of a part, at least: 128 KiB, which a network of 1 Gbit/s carries in a millisecond.
pub(super) const MIN_PART: usize = 1 << 15;
/// Parts, at most: their numbers fit every MPI's tags.
const MAX_PARTS: usize = 4096;

/// A part of the sum.
struct Part<'a> {
    start: usize,
    values: &'a mut [f32],
    /// The lane that is added next.
    next: usize,
    /// Whether the lanes of the ranks before are in the sum.
    ready: bool,
}

/// The sum of the losses.
struct Losses {
    sum: f64,
    /// This rank's losses by lane.
    lanes: Vec<Option<f64>>,
    next: usize,
    ready: bool,
}

/// A complete lane that waits for its turn.
#[derive(Default)]
struct Waiting {
    grads: RwLock<Option<Vec<f32>>>,
    /// How many of its parts are added.
    added: AtomicUsize,
}

/// The sum of one batch while it is computed.
pub(super) struct OrderedSum<'a> {
    /// The lanes of this rank.
    own: Range<usize>,
    parts: Vec<Mutex<Part<'a>>>,
    waiting: Vec<Waiting>,
    losses: Mutex<Losses>,
    ranks: Option<&'a Ranks>,
    spare: &'a Mutex<Vec<Vec<f32>>>,
}

impl<'a> OrderedSum<'a> {
    /// A sum over the lanes `own`, in `sum`. Vectors of lanes go to `spare` once they are added.
    pub(super) fn new(
        sum: &'a mut [f32],
        own: Range<usize>,
        ranks: Option<&'a Ranks>,
        spare: &'a Mutex<Vec<Vec<f32>>>,
    ) -> OrderedSum<'a> {
        let (ready, next) = (ranks.is_none_or(|ranks| ranks.rank() == 0), own.start);
        let size = part_len(sum.len());
        let part = |(i, values)| Mutex::new(Part { start: i * size, values, next, ready });
        OrderedSum {
            parts: sum.chunks_mut(size).enumerate().map(part).collect(),
            waiting: own.clone().map(|_| Waiting::default()).collect(),
            losses: Mutex::new(Losses { sum: 0.0, lanes: vec![None; own.len()], next, ready }),
            own,
            ranks,
            spare,
        }
    }

    /// The sum of the losses so far.
    pub(super) fn loss(&self) -> f64 {
        lock(&self.losses).sum
    }

    /// Adds the parts of a lane that are complete, from the value `start` on, where it is the lane's turn.
    pub(super) fn add_ready(&self, lane: usize, start: usize, grads: &[f32]) {
        for (i, part) in self.parts.iter().enumerate().rev() {
            let mut part = lock(part);
            if part.start < start {
                break;
            }
            if part.ready && part.next == lane {
                self.add(&mut part, grads);
                self.advance(i, &mut part);
            }
        }
    }

    /// Takes a complete lane.
    pub(super) fn add_lane(&self, lane: usize, grads: Vec<f32>, loss: f64) {
        let place = lane - self.own.start;
        *self.waiting[place].grads.write().unwrap_or_else(PoisonError::into_inner) = Some(grads);
        self.release(place);
        for (i, part) in self.parts.iter().enumerate().rev() {
            self.advance(i, &mut lock(part));
        }
        let mut losses = lock(&self.losses);
        losses.lanes[place] = Some(loss);
        self.advance_losses(&mut losses);
    }

    /// Takes part `i` of the sum of the ranks before; the part after the last one is their loss.
    fn add_ranks_before(&self, i: usize, bytes: &[u8]) {
        match self.parts.get(i) {
            Some(part) => {
                let mut part = lock(part);
                from_bytes(bytes, part.values);
                part.ready = true;
                self.advance(i, &mut part);
            }
            None => {
                let mut losses = lock(&self.losses);
                losses.sum = loss_from_bytes(bytes);
                losses.ready = true;
                self.advance_losses(&mut losses);
            }
        }
    }

    /// Adds the next lane to a part.
    fn add(&self, part: &mut Part<'_>, grads: &[f32]) {
        let _timer = clock::time(Op::Sums);
        let grads = &grads[part.start..part.start + part.values.len()];
        match part.next {
            0 => part.values.copy_from_slice(grads),
            _ => smalti_kernels::elementwise::axpy(smalti_kernels::Isa::best(), 1.0, grads, part.values),
        }
        self.waiting[part.next - self.own.start].added.fetch_add(1, Ordering::AcqRel);
        part.next += 1;
    }

    /// Adds the waiting lanes whose turn it is to part `i`, and sends the part on when this rank's lanes are in it.
    fn advance(&self, i: usize, part: &mut Part<'_>) {
        while part.ready && part.next < self.own.end {
            let place = part.next - self.own.start;
            let grads = self.waiting[place].grads.read().unwrap_or_else(PoisonError::into_inner);
            let Some(values) = &*grads else { return };
            self.add(part, values);
            drop(grads);
            self.release(place);
        }
        if part.ready && part.next == self.own.end {
            part.ready = false;
            if let Some(ranks) = self.ranks {
                send_on(ranks, i, to_bytes(part.values));
            }
        }
    }

    /// [`OrderedSum::advance`] for the losses.
    fn advance_losses(&self, losses: &mut Losses) {
        while losses.ready && losses.next < self.own.end {
            let Some(loss) = losses.lanes[losses.next - self.own.start] else { return };
            losses.sum += loss;
            losses.next += 1;
        }
        if losses.ready && losses.next == self.own.end {
            losses.ready = false;
            if let Some(ranks) = self.ranks {
                send_on(ranks, self.parts.len(), losses.sum.to_le_bytes().to_vec());
            }
        }
    }

    /// Gives a lane's vector back once all its parts are added.
    fn release(&self, place: usize) {
        let waiting = &self.waiting[place];
        if waiting.added.load(Ordering::Acquire) == self.parts.len() {
            let grads = waiting.grads.write().unwrap_or_else(PoisonError::into_inner).take();
            lock(self.spare).extend(grads);
        }
    }

    /// Exchanges parts with the other ranks until `total` is complete. Returns the loss over all lanes. Sets `halted` on an
    /// error, and returns one when it is set.
    pub(super) fn exchange(&self, ranks: &Ranks, total: &mut [f32], halted: &AtomicBool) -> Result<f64> {
        self.receive_total(ranks, total, halted).inspect_err(|_| halted.store(true, Ordering::Relaxed))
    }

    fn receive_total(&self, ranks: &Ranks, total: &mut [f32], halted: &AtomicBool) -> Result<f64> {
        let size = part_len(total.len());
        let mut parts: Vec<&mut [f32]> = total.chunks_mut(size).collect();
        let (mut missing, mut loss) = (parts.len() + 1, 0.0);
        while missing > 0 {
            let wanted = |kind| kind != Kind::Control;
            let message = ranks
                .recv_message_unless(|message| wanted(message.kind), || halted.load(Ordering::Relaxed))?;
            match message.kind {
                Kind::Partial => self.add_ranks_before(message.part, &message.bytes),
                Kind::Total => {
                    match parts.get_mut(message.part) {
                        Some(part) => from_bytes(&message.bytes, part),
                        None => loss = loss_from_bytes(&message.bytes),
                    }
                    missing -= 1;
                    if let Some(before) = ranks.rank().checked_sub(1) {
                        ranks.send_message(before, Kind::Total, message.part, message.bytes)?;
                    }
                }
                Kind::Control => {}
            }
        }
        Ok(loss)
    }
}

/// Sends a part with all lanes up to this rank's to the next rank. At the last rank it is the total.
fn send_on(ranks: &Ranks, i: usize, bytes: Vec<u8>) {
    let last = ranks.rank() + 1 == ranks.size();
    let (to, kind) = if last { (ranks.rank(), Kind::Total) } else { (ranks.rank() + 1, Kind::Partial) };
    // If the connection is lost, the wait for the total ends with an error.
    let _ = ranks.send_message(to, kind, i, bytes);
}

fn loss_from_bytes(bytes: &[u8]) -> f64 {
    bytes.try_into().map_or(f64::NAN, f64::from_le_bytes)
}

/// Values of each part of a sum of `len` values.
fn part_len(len: usize) -> usize {
    MIN_PART.max(len.div_ceil(MAX_PARTS))
}
