//! Buffers share memory where their lives do not overlap.

use smalti_kernels::quant_linear::row_stride;

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
    pub(super) fn assign(lowered: &Lowered) -> Slots {
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
                    Some(_) => Slot::Bytes(bytes.take(rows * row_stride(cols))),
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

#[cfg(test)]
mod tests {
    use smalti_kernels::QuantParams;

    use super::super::step::{Pointwise, Span, Step};
    use super::*;

    fn scale(x: usize, out: usize) -> Step {
        Step::Pointwise { x, function: Pointwise::Scale(2.0), out }
    }

    fn span(buffer: usize, [rows, cols]: [usize; 2]) -> Span {
        Span { buffer, offset: 0, rows, cols }
    }

    #[test]
    fn a_chain_takes_two_slots() {
        let buffers = vec![[1, 8], [2, 4], [2, 4], [2, 4], [3, 4]];
        let first = Step::StoreConstant { values: vec![1.0; 8], out: 1, at: 0 };
        let steps = vec![first, scale(1, 2), scale(2, 3), scale(3, 4)];
        let slots = Slots::assign(&Lowered { steps, outputs: vec![span(4, [3, 4])], buffers, taps: vec![] });
        use Slot::{Floats, Image};
        assert_eq!(slots.of, [Image, Floats(0), Floats(1), Floats(0), Floats(1)]);
        // As long as the longest that lies there.
        assert_eq!((&slots.floats[..], slots.byte_count()), (&[8, 12][..], 80));
    }

    #[test]
    fn what_is_read_later_and_outputs_keep_their_slots() {
        let buffers = vec![[1, 4]; 5];
        let first = Step::StoreConstant { values: vec![1.0; 4], out: 1, at: 0 };
        let last = Step::Add { a: span(1, [1, 4]), b: span(3, [1, 4]), out: 4 };
        let steps = vec![first, scale(1, 2), scale(2, 3), last];
        let outputs = vec![span(2, [1, 4]), span(4, [1, 4])];
        let slots = Slots::assign(&Lowered { steps, buffers, outputs, taps: vec![] });
        let mut of: Vec<Slot> = slots.of[1..].to_vec();
        of.sort_unstable();
        of.dedup();
        assert_eq!(of.len(), 4, "{:?}", slots.of);
    }

    #[test]
    fn the_slot_that_fits_best_is_taken() {
        let buffers = vec![[1, 4], [1, 100], [1, 10], [1, 1], [1, 9]];
        let put = |out, len| Step::StoreConstant { values: vec![1.0; len], out, at: 0 };
        // Both are free when the last buffer needs a place.
        let ends = |buffer: usize, len| Step::Mean { x: span(buffer, [1, len]), out: 3 };
        let steps = vec![put(1, 100), put(2, 10), ends(1, 100), ends(2, 10), put(4, 9)];
        let slots = Slots::assign(&Lowered { steps, buffers, outputs: vec![span(4, [1, 9])], taps: vec![] });
        assert_eq!(slots.of[4], slots.of[2]);
    }

    #[test]
    fn bytes_lie_apart_from_floats() {
        let quantize = QuantParams::new(1.0, 0).unwrap();
        let first = Step::StoreConstant { values: vec![1.0; 6], out: 1, at: 0 };
        let steps = vec![first, Step::Quantize { x: span(1, [2, 3]), out: 2, quantize }];
        let buffers = vec![[1, 4], [2, 3], [2, 3]];
        let slots = Slots::assign(&Lowered { steps, buffers, outputs: vec![], taps: vec![] });
        assert_eq!(slots.of[1..], [Slot::Floats(0), Slot::Bytes(0)]);
        // Rows of bytes are padded for the kernels.
        assert_eq!((&slots.floats[..], &slots.bytes[..]), (&[6][..], &[2 * row_stride(3)][..]));
    }
}
