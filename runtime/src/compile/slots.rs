//! Buffers share memory where their lives do not overlap.

use smalti_kernels::quant_linear::row;

use super::lower::{IMAGE, Lowered};

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// The image, which the caller holds.
    Image,
    Floats(usize),
    Bytes(usize),
}

/// A place for every buffer.
#[derive(Debug)]
pub(super) struct Slots {
    /// The place of each buffer.
    pub(super) of: Vec<Slot>,
    /// Lengths of the slots.
    pub(super) floats: Vec<usize>,
    pub(super) bytes: Vec<usize>,
}

/// Slots of one type.
#[derive(Default)]
struct Shelf {
    lengths: Vec<usize>,
    free: Vec<usize>,
}

impl Shelf {
    /// The free slot whose length fits best, or a new one.
    fn take(&mut self, len: usize) -> usize {
        let best = self.free.iter().enumerate().min_by_key(|&(_, &slot)| self.lengths[slot].abs_diff(len));
        let Some((i, &slot)) = best else {
            self.lengths.push(len);
            return self.lengths.len() - 1;
        };
        self.free.swap_remove(i);
        self.lengths[slot] = self.lengths[slot].max(len);
        slot
    }
}

impl Slots {
    /// Bytes of all slots.
    pub(super) fn byte_count(&self) -> u64 {
        let sum = |lengths: &[usize]| lengths.iter().fold(0u64, |sum, &len| sum.saturating_add(len as u64));
        sum(&self.floats).saturating_mul(size_of::<f32>() as u64).saturating_add(sum(&self.bytes))
    }

    /// Walks the steps; a slot is free again after the last step that reads its buffer.
    pub(super) fn assign(lowered: &Lowered<'_>) -> Slots {
        let count = lowered.buffers.len();
        let mut last = vec![0; count];
        for (i, step) in lowered.steps.iter().enumerate() {
            last[step.writes()] = i;
            step.reads().into_iter().for_each(|buffer| last[buffer] = i);
        }
        lowered.outputs.iter().for_each(|output| last[output.buffer] = usize::MAX);
        let (mut floats, mut bytes) = (Shelf::default(), Shelf::default());
        let mut of: Vec<Option<Slot>> = vec![None; count];
        of[IMAGE] = Some(Slot::Image);
        for (i, step) in lowered.steps.iter().enumerate() {
            let out = step.writes();
            let [rows, cols] = lowered.buffers[out];
            if of[out].is_none() {
                of[out] = Some(match step.target().quantize {
                    Some(_) => Slot::Bytes(bytes.take(rows * row(cols))),
                    None => Slot::Floats(floats.take(rows * cols)),
                });
            }
            let mut over = step.reads();
            over.push(out);
            over.sort_unstable();
            over.dedup();
            for buffer in over.into_iter().filter(|&buffer| last[buffer] == i) {
                match of[buffer] {
                    Some(Slot::Floats(slot)) => floats.free.push(slot),
                    Some(Slot::Bytes(slot)) => bytes.free.push(slot),
                    Some(Slot::Image) | None => {}
                }
            }
        }
        let of = of.into_iter().map(|slot| slot.unwrap_or(Slot::Image)).collect();
        Slots { of, floats: floats.lengths, bytes: bytes.lengths }
    }
}
