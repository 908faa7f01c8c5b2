//! A lowered program is checked once, before it runs, so that a fault in the lowering cannot become a wrong answer:
//! sizes agree, every value is written before it is read, and slots do not overlap while their buffers are in use.

use std::ops::Range;

use smalti_kernels::Windows;
use smalti_kernels::quant_linear::row_stride;

use super::lower::{IMAGE, Lowered};
use super::rows::{of_queries, of_span};
use super::slots::{Slot, Slots};
use super::step::{Buffer, Convolution, HeadsView, ImageMap, Span, Step, Weight};
use super::tap::Tap;
use super::view::View;

type Result<T> = std::result::Result<T, String>;

/// Says what is wrong, if anything. `needed` are the rows that each step computes.
pub(super) fn verify(lowered: &Lowered, needed: &[Range<usize>], slots: &Slots) -> Result<()> {
    let mut check = Check { buffers: &lowered.buffers, written: vec![Vec::new(); lowered.buffers.len()] };
    for (i, (step, rows)) in lowered.steps.iter().zip(needed).enumerate() {
        let step_of = |problem: String| format!("step {i}, {}: {problem}", step.kind());
        check.sizes(step, rows).map_err(step_of)?;
        check.reads(step, rows, slots).map_err(step_of)?;
        check.writes(step, rows);
    }
    for output in &lowered.outputs {
        check.is_written(output, 0..output.rows).map_err(|problem| format!("output: {problem}"))?;
    }
    for tap in &lowered.taps {
        check.tap(tap, slots).map_err(|problem| format!("tap {}: {problem}", tap.index))?;
    }
    lives(lowered, slots)
}

struct Check<'a> {
    buffers: &'a [[usize; 2]],
    /// The values of each buffer that are there, as ranges.
    written: Vec<Vec<Range<usize>>>,
}

/// An error unless it holds.
fn hold(holds: bool, problem: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(problem.to_owned()) }
}

impl Check<'_> {
    fn len(&self, buffer: Buffer) -> usize {
        let [rows, cols] = self.buffers[buffer];
        rows * cols
    }

    fn within(&self, span: &Span) -> Result<()> {
        let end = span.rows.checked_mul(span.cols).and_then(|len| len.checked_add(span.offset));
        hold(end.is_some_and(|end| end <= self.len(span.buffer)), "a span beyond its buffer")
    }

    /// Whether sizes agree.
    fn sizes(&self, step: &Step, needed: &Range<usize>) -> Result<()> {
        let out @ [rows, cols] = self.buffers[step.writes()];
        hold(step.writes() != IMAGE && needed.end <= rows, "rows that are not there")?;
        let same = |x: &Span| {
            self.within(x)?;
            hold([x.rows, x.cols] == out, "a result of another shape")
        };
        match step {
            Step::Patches { image, patch: [height, width], .. } => {
                let &[channels, down, across] = &image.dims[..] else { return Err("no image".into()) };
                let count = (down / height) * (across / width);
                hold(last_place(image) < self.len(IMAGE), "an image beyond its values")?;
                hold([count, channels * height * width] == out, "patches of another shape")
            }
            Step::Linear { x, conv, weight, bias, scale, residual, .. } => {
                let inputs = match conv {
                    Some(conv) => self.convolution(conv, x, out)?,
                    None => {
                        self.within(x)?;
                        hold(x.rows == rows, "a result of another shape")?;
                        x.cols
                    }
                };
                let sizes = match &**weight {
                    Weight::Floats(weight) => weight.dims(),
                    Weight::Bytes(weight, _) => weight.dims(),
                };
                hold(sizes == [cols, inputs], "a weight of another shape")?;
                let scales = scale.as_ref().map_or(cols, Vec::len);
                hold(bias.len() == cols && scales == cols, "a bias or a scale of another length")?;
                hold(residual.is_none_or(|buffer| self.buffers[buffer] == out), "a residual of another shape")
            }
            Step::LayerNorm { x, scale, shift, .. } => {
                same(x)?;
                hold([scale.len(), shift.len()] == [cols; 2], "a scale or a shift of another length")
            }
            Step::Attention { qkv: [q, k, v], shape, maps, .. } => {
                hold(cols == shape.heads * shape.value, "heads of another width")?;
                let biases = maps.bias.as_ref().map_or(0, Vec::len);
                hold(biases == 0 || biases == shape.heads * rows * shape.tokens, "biases of another number")?;
                let ends =
                    [(q, rows, shape.key), (k, shape.tokens, shape.key), (v, shape.tokens, shape.value)];
                ends.iter().try_for_each(|(heads, rows, width)| {
                    let end = heads_end(heads, shape.heads, *rows, *width);
                    hold(end <= self.len(heads.buffer), "heads beyond their buffer")
                })
            }
            Step::Product { a, b, count, .. } => {
                self.within(a).and_then(|()| self.within(b))?;
                let fits = *count > 0 && rows == a.rows && a.rows.is_multiple_of(*count);
                hold(fits && b.rows == count * a.cols && cols == b.cols, "matrices that do not fit")
            }
            Step::Pointwise { x, .. } => hold(self.buffers[*x] == out, "a result of another shape"),
            Step::Levels { x, .. } | Step::Softmax { x, .. } | Step::Quantize { x, .. } => same(x),
            Step::Add { a, b, .. } | Step::Multiply { a, b, .. } => same(a).and_then(|()| same(b)),
            Step::ScaleColumns { x, scales, .. } => {
                same(x).and_then(|()| self.within(scales))?;
                hold([scales.rows, scales.cols] == [1, cols], "scales of another number")
            }
            Step::Affine { a, scale, shift, .. } => {
                same(a)?;
                hold([scale.len(), shift.len()] == [cols; 2], "a scale or a shift of another length")
            }
            Step::MaxPool { x, windows, .. } => {
                self.within(x)?;
                map(windows, [x.rows, x.cols], out)?;
                hold(x.cols == cols, "a result of another shape")
            }
            Step::AddConstant { a, values, .. } | Step::MulConstant { a, values, .. } => {
                same(a)?;
                hold(values.len() == a.cols || values.len() == a.len(), "constants of another number")
            }
            Step::Copy { from, values, at, .. } => {
                hold(values.end() <= self.len(*from), "values beyond their buffer")?;
                hold(at + values.len() <= rows * cols, "a copy beyond its buffer")
            }
            Step::StoreConstant { values, at, .. } => {
                hold(at + values.len() <= rows * cols, "constants beyond their buffer")
            }
            Step::Mean { x, .. } => {
                self.within(x)?;
                hold(out == [1, x.cols], "a mean of another shape")
            }
        }
    }

    /// Whether the sizes of a convolution agree; the length of its inner sums.
    fn convolution(&self, conv: &Convolution, x: &Span, out @ [_, cols]: [usize; 2]) -> Result<usize> {
        let Convolution { windows, groups, channels, image } = conv;
        let pixels = match image {
            None => {
                self.within(x)?;
                [x.rows, x.cols]
            }
            Some(ImageMap { view, .. }) => {
                let &[channels, height, width] = &view.dims[..] else { return Err("no image".into()) };
                hold([height, width] == windows.input, "an image of another shape")?;
                hold(last_place(view) < self.len(IMAGE), "an image beyond its values")?;
                [height * width, channels]
            }
        };
        map(windows, pixels, out)?;
        let fits = groups.checked_mul(*channels) == Some(pixels[1]) && cols.is_multiple_of(*groups);
        hold(fits, "groups that do not divide")?;
        Ok(windows.taps() * channels)
    }

    /// Whether everything is there that the step reads, in the form that it reads.
    fn reads(&self, step: &Step, rows: &Range<usize>, slots: &Slots) -> Result<()> {
        let floats = |buffer: Buffer| matches!(slots.of[buffer], Slot::Floats(_));
        let is_bytes = matches!(step, Step::Linear { weight, .. } if matches!(**weight, Weight::Bytes(..)));
        for (i, buffer) in step.reads().into_iter().enumerate() {
            // Of a layer of bytes the first operand alone is bytes.
            let fits =
                if is_bytes && i == 0 { matches!(slots.of[buffer], Slot::Bytes(_)) } else { floats(buffer) };
            hold(fits, "an operand of another type")?;
        }
        let stored = match step.target().quantize {
            Some(_) => matches!(slots.of[step.writes()], Slot::Bytes(_)),
            None => floats(step.writes()),
        };
        hold(stored, "a result of another type")?;
        match step {
            Step::Patches { .. } | Step::StoreConstant { .. } => Ok(()),
            Step::Linear { x, conv, residual, .. } => {
                match conv.as_deref() {
                    None => self.is_written(x, rows.clone())?,
                    Some(conv) if conv.image.is_none() => {
                        self.is_written(x, conv.windows.pixels_of(rows.clone()))?;
                    }
                    Some(_) => {}
                }
                residual.map_or(Ok(()), |buffer| self.rows_are_written(buffer, rows.clone()))
            }
            Step::LayerNorm { x, .. }
            | Step::Levels { x, .. }
            | Step::Softmax { x, .. }
            | Step::Quantize { x, .. }
            | Step::Affine { a: x, .. }
            | Step::AddConstant { a: x, .. }
            | Step::MulConstant { a: x, .. } => self.is_written(x, rows.clone()),
            Step::MaxPool { x, windows, .. } => self.is_written(x, windows.pixels_of(rows.clone())),
            Step::Add { a, b, .. } | Step::Multiply { a, b, .. } => {
                self.is_written(a, rows.clone())?;
                self.is_written(b, rows.clone())
            }
            Step::ScaleColumns { x, scales, .. } => {
                self.is_written(x, rows.clone())?;
                self.is_written(scales, 0..1)
            }
            Step::Pointwise { x, .. } => self.rows_are_written(*x, rows.clone()),
            Step::Attention { qkv: [q, k, v], .. } => {
                self.rows_are_written(q.buffer, of_queries(q, rows.clone(), self.buffers[q.buffer]))?;
                [k, v].iter().try_for_each(|side| self.all_is_written(side.buffer))
            }
            Step::Copy { from, .. } => self.all_is_written(*from),
            Step::Mean { x, .. } => self.is_written(x, 0..x.rows),
            Step::Product { a, b, .. } => {
                self.is_written(a, 0..a.rows)?;
                self.is_written(b, 0..b.rows)
            }
        }
    }

    /// Whether a value that is shown is there after the last step that writes into its buffer. Till then the buffer
    /// has its slot.
    fn tap(&self, tap: &Tap, slots: &Slots) -> Result<()> {
        let buffer = tap.buffer().unwrap_or(IMAGE);
        hold(last_place(&tap.view) < self.len(buffer), "a value beyond its buffer")?;
        hold(tap.pads == [0; 4] || tap.view.dims.len() == 4, "zeros around something else than a map")?;
        if buffer == IMAGE {
            return Ok(());
        }
        hold(matches!(slots.of[buffer], Slot::Floats(_)), "a value of another type")?;
        self.all_is_written(buffer)
    }

    fn is_written(&self, span: &Span, rows: Range<usize>) -> Result<()> {
        self.within(span)?;
        self.rows_are_written(span.buffer, of_span(span, rows, self.buffers[span.buffer]))
    }

    fn all_is_written(&self, buffer: Buffer) -> Result<()> {
        self.rows_are_written(buffer, 0..self.buffers[buffer][0])
    }

    fn rows_are_written(&self, buffer: Buffer, rows: Range<usize>) -> Result<()> {
        let [_, cols] = self.buffers[buffer];
        let mut from = rows.start * cols;
        // Ranges in order, so that one pass finds the first gap.
        for range in &self.written[buffer] {
            if range.start <= from {
                from = from.max(range.end);
            }
        }
        hold(from >= rows.end * cols, "a value that was not written before")
    }

    /// Notes what a step writes.
    fn writes(&mut self, step: &Step, rows: &Range<usize>) {
        let buffer = step.writes();
        let [_, cols] = self.buffers[buffer];
        let range = match step {
            Step::Copy { values, at, .. } => *at..at + values.len(),
            Step::StoreConstant { values, at, .. } => *at..at + values.len(),
            _ => rows.start * cols..rows.end * cols,
        };
        let written = &mut self.written[buffer];
        written.push(range);
        written.sort_by_key(|range| range.start);
    }
}

/// Whether windows fit the rows that they read, and those that they make.
fn map(windows: &Windows, [pixels, _]: [usize; 2], [rows, _]: [usize; 2]) -> Result<()> {
    let fits =
        windows.are_valid() && windows.input[0] * windows.input[1] == pixels && windows.count() == rows;
    hold(fits, "windows of another shape")
}

/// The largest place that a view shows.
fn last_place(view: &View) -> usize {
    view.offset + view.dims.iter().zip(&view.strides).map(|(dim, stride)| (dim - 1) * stride).sum::<usize>()
}

/// Where the last value of the last head lies, and one.
fn heads_end(at: &HeadsView, heads: usize, rows: usize, width: usize) -> usize {
    at.offset + (heads - 1) * at.head + (rows - 1) * at.row + width
}

/// Whether slots are long enough and hold one buffer at a time.
fn lives(lowered: &Lowered, slots: &Slots) -> Result<()> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; lowered.buffers.len()];
    for (i, step) in lowered.steps.iter().enumerate() {
        for buffer in step.reads().into_iter().chain([step.writes()]) {
            let (first, _) = lives[buffer].unwrap_or((i, i));
            lives[buffer] = Some((first, i));
        }
    }
    for output in &lowered.outputs {
        if let Some((_, last)) = &mut lives[output.buffer] {
            *last = lowered.steps.len();
        }
    }
    let mut used: Vec<(Slot, usize, usize)> = Vec::new();
    for (buffer, life) in lives.iter().enumerate() {
        let (Some((first, last)), [rows, cols]) = (life, lowered.buffers[buffer]) else { continue };
        let (length, wanted) = match slots.of[buffer] {
            Slot::Image => return Err("a step on the image itself".into()),
            Slot::Floats(slot) => (slots.floats.get(slot), rows * cols),
            Slot::Bytes(slot) => (slots.bytes.get(slot), rows * row_stride(cols)),
        };
        hold(length.is_some_and(|&length| length >= wanted), "a slot that is too short")?;
        used.push((slots.of[buffer], *first, *last));
    }
    used.sort_unstable();
    let overlap = |pair: &[(Slot, usize, usize)]| pair[0].0 == pair[1].0 && pair[0].2 >= pair[1].1;
    hold(!used.windows(2).any(overlap), "two values in one slot at a time")
}

#[cfg(test)]
mod tests {
    use super::super::rows::needed;
    use super::super::step::{Pointwise, Values};
    use super::super::tap::Source;
    use super::*;

    /// Two rows of constants (1), twice as much (2), and their sum (3); the image (0) is not read.
    fn program() -> Lowered {
        let span = |buffer| Span { buffer, offset: 0, rows: 2, cols: 2 };
        let steps = vec![
            Step::StoreConstant { values: vec![1.0; 2], out: 1, at: 0 },
            Step::StoreConstant { values: vec![2.0; 2], out: 1, at: 2 },
            Step::Pointwise { x: 1, function: Pointwise::Scale(2.0), out: 2 },
            Step::Add { a: span(1), b: span(2), out: 3 },
        ];
        Lowered { steps, buffers: vec![[1, 4], [2, 2], [2, 2], [2, 2]], outputs: vec![span(3)], taps: vec![] }
    }

    /// What is said of a program with a fault.
    fn fault(damage: impl FnOnce(&mut Lowered)) -> String {
        let mut lowered = program();
        damage(&mut lowered);
        verify(&lowered, &needed(&lowered), &Slots::assign(&lowered)).unwrap_err()
    }

    #[test]
    fn a_right_program_passes_and_each_fault_is_named() {
        let lowered = program();
        verify(&lowered, &needed(&lowered), &Slots::assign(&lowered)).unwrap();
        let unwritten = "not written before";
        assert!(fault(|p| drop(p.steps.remove(0))).contains(unwritten), "half of a buffer");
        assert!(fault(|p| drop(p.steps.remove(2))).contains("another type"), "a whole one has no slot");
        assert!(fault(|p| p.steps.swap(2, 3)).contains(unwritten), "too late");
        assert!(fault(|p| drop(p.steps.pop())).contains("output"));
        assert!(fault(|p| p.buffers[2] = [2, 3]).contains("another shape"));
        assert!(fault(|p| p.outputs[0].rows = 3).contains("not there"));
        let copy =
            |values| move |p: &mut Lowered| p.steps.push(Step::Copy { from: 1, values, out: 3, at: 0 });
        assert!(fault(copy(Values::Places(vec![0, 4]))).contains("beyond their buffer"));
        assert!(fault(copy(Values::Run(1..6))).contains("beyond their buffer"));
        assert!(
            fault(|p| p.steps.push(Step::StoreConstant { values: vec![0.0; 3], out: 3, at: 2 }))
                .contains("beyond")
        );
        let scaled = |offset, rows| {
            move |p: &mut Lowered| {
                let span = |buffer| Span { buffer, offset: 0, rows: 2, cols: 2 };
                let scales = Span { offset, rows, ..span(2) };
                p.steps.push(Step::ScaleColumns { x: span(1), scales, out: 3 });
            }
        };
        assert!(fault(scaled(0, 2)).contains("scales of another number"));
        assert!(fault(scaled(3, 1)).contains("beyond its buffer"));
    }

    #[test]
    fn a_value_that_is_shown_is_there() {
        let shown = |buffer, pads, dims: &[usize]| {
            let (source, view) = (Source::Buffer(buffer), View::whole(dims));
            move |p: &mut Lowered| p.taps = vec![Tap { index: 0, source, view, pads }]
        };
        let mut lowered = program();
        shown(2, [0; 4], &[2, 2])(&mut lowered);
        verify(&lowered, &needed(&lowered), &Slots::assign(&lowered)).unwrap();
        assert!(fault(shown(2, [0; 4], &[5])).contains("tap 0: a value beyond its buffer"));
        assert!(fault(shown(2, [1; 4], &[2, 2])).contains("something else than a map"));
        let mut unwritten = program();
        unwritten.buffers.push([2, 2]);
        shown(4, [0; 4], &[2, 2])(&mut unwritten);
        let why = verify(&unwritten, &needed(&unwritten), &Slots::assign(&unwritten)).unwrap_err();
        assert!(why.contains("another type"), "a buffer that no step writes has no slot: {why}");
    }

    #[test]
    fn slots_are_long_enough_and_hold_one_buffer_at_a_time() {
        let lowered = program();
        let said = |damage: fn(&mut Slots)| {
            let mut slots = Slots::assign(&lowered);
            damage(&mut slots);
            verify(&lowered, &needed(&lowered), &slots).unwrap_err()
        };
        assert!(said(|slots| slots.of[2] = slots.of[1]).contains("two values in one slot"));
        assert!(said(|slots| slots.floats[0] = 3).contains("too short"));
        assert!(said(|slots| slots.of[1] = Slot::Bytes(0)).contains("another type"));
        assert!(said(|slots| slots.of[1] = Slot::Image).contains("another type"));
    }
}
