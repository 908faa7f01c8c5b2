//! Which rows of each step's result anyone needs: after the last attention of a model that answers from its class
//! token, that is one.

use std::ops::Range;

use super::lower::Lowered;
use super::step::{Buffer, HeadsView, Span, Step};
use super::tap::Tap;

/// For each step the rows of its result that are needed.
pub(super) fn needed(lowered: &Lowered) -> Vec<Range<usize>> {
    let mut demand = Demand { buffers: &lowered.buffers, rows: vec![0..0; lowered.buffers.len()] };
    for output in &lowered.outputs {
        demand.span(output, 0..output.rows);
    }
    lowered.taps.iter().filter_map(Tap::buffer).for_each(|buffer| demand.all(buffer));
    let mut needed = vec![0..0; lowered.steps.len()];
    for (step, needed) in lowered.steps.iter().zip(&mut needed).rev() {
        *needed = demand.before(step);
    }
    needed
}

/// The rows of a buffer that rows of a span lie in.
pub(super) fn of_span(span: &Span, rows: Range<usize>, [all, cols]: [usize; 2]) -> Range<usize> {
    if span.cols == cols && span.offset.is_multiple_of(cols.max(1)) {
        let first = span.offset / cols.max(1);
        first + rows.start..first + rows.end
    } else {
        0..all
    }
}

/// The rows of a buffer that the queries of some rows lie in, where a buffer's rows hold those of all heads.
pub(super) fn of_queries(q: &HeadsView, rows: Range<usize>, [all, cols]: [usize; 2]) -> Range<usize> {
    if q.row == cols && q.offset < cols && q.head < cols { rows } else { 0..all }
}

struct Demand<'a> {
    buffers: &'a [[usize; 2]],
    rows: Vec<Range<usize>>,
}

impl Demand<'_> {
    /// Adds rows of a buffer; both parts and what lies between.
    fn add(&mut self, buffer: Buffer, rows: Range<usize>) {
        let so_far = &mut self.rows[buffer];
        *so_far = match (so_far.start == so_far.end, rows.is_empty()) {
            (_, true) => return,
            (true, _) => rows,
            _ => so_far.start.min(rows.start)..so_far.end.max(rows.end),
        };
    }

    fn all(&mut self, buffer: Buffer) {
        self.add(buffer, 0..self.buffers[buffer][0]);
    }

    fn span(&mut self, span: &Span, rows: Range<usize>) {
        self.add(span.buffer, of_span(span, rows, self.buffers[span.buffer]));
    }

    /// What a step must compute; adds what it reads for that.
    fn before(&mut self, step: &Step) -> Range<usize> {
        let rows = self.rows[step.writes()].clone();
        if rows.is_empty() {
            return rows;
        }
        match step {
            Step::Linear { x, conv, residual, .. } => {
                match conv.as_deref() {
                    None => self.span(x, rows.clone()),
                    Some(conv) if conv.image.is_none() => self.span(x, conv.windows.pixels_of(rows.clone())),
                    Some(_) => {}
                }
                residual.iter().for_each(|&buffer| self.add(buffer, rows.clone()));
            }
            Step::LayerNorm { x, .. }
            | Step::Quantize { x, .. }
            | Step::Levels { x, .. }
            | Step::Softmax { x, .. }
            | Step::Affine { a: x, .. }
            | Step::AddConstant { a: x, .. }
            | Step::MulConstant { a: x, .. } => self.span(x, rows.clone()),
            Step::MaxPool { x, windows, .. } => self.span(x, windows.pixels_of(rows.clone())),
            Step::Add { a, b, .. } | Step::Multiply { a, b, .. } => {
                self.span(a, rows.clone());
                self.span(b, rows.clone());
            }
            Step::ScaleColumns { x, scales, .. } => {
                self.span(x, rows.clone());
                self.span(scales, 0..1);
            }
            Step::Pointwise { x, .. } => self.add(*x, rows.clone()),
            Step::Attention { qkv: [q, k, v], .. } => {
                self.add(q.buffer, of_queries(q, rows.clone(), self.buffers[q.buffer]));
                self.all(k.buffer);
                self.all(v.buffer);
            }
            Step::Patches { .. } => {}
            // The others are few and small.
            Step::Copy { .. } | Step::StoreConstant { .. } | Step::Mean { .. } | Step::Product { .. } => {
                step.reads().into_iter().for_each(|buffer| self.all(buffer));
                return 0..self.buffers[step.writes()][0];
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use smalti_kernels::attention::Shape;

    use super::super::step::{Target, Values};
    use super::*;

    /// Rows `offset / 4` on of a buffer of rows of 4.
    fn span(buffer: Buffer, offset: usize, rows: usize) -> Span {
        Span { buffer, offset, rows, cols: 4 }
    }

    fn norm(x: Span, out: Buffer) -> Step {
        Step::LayerNorm {
            x,
            is_centred: true,
            scale: vec![1.0; 4],
            shift: vec![0.0; 4],
            eps: 1e-6,
            out: Target::floats(out),
        }
    }

    fn lowered(steps: Vec<Step>, buffers: Vec<[usize; 2]>, output: Span) -> Lowered {
        Lowered { steps, buffers, outputs: vec![output], taps: vec![] }
    }

    #[test]
    fn a_model_that_answers_from_one_token_computes_its_row_alone() {
        let heads = |head| HeadsView { buffer: 2, offset: 0, head, row: 4 };
        let shape = Shape { heads: 2, tokens: 5, key: 2, value: 2, scale: 1.0 };
        let attention =
            Step::Attention { qkv: [heads(2); 3], shape, maps: Box::default(), out: Target::floats(3) };
        let steps = vec![norm(span(1, 0, 5), 2), attention, norm(span(3, 0, 5), 4), norm(span(4, 8, 1), 5)];
        let buffers = vec![[1, 20], [5, 4], [5, 4], [5, 4], [5, 4], [1, 4]];
        // The third token: its query, but the keys and values of all.
        assert_eq!(needed(&lowered(steps, buffers, span(5, 0, 1))), [0..5, 2..3, 2..3, 0..1]);
    }

    #[test]
    fn rows_between_those_needed_are_computed_too() {
        let steps = vec![
            norm(span(1, 0, 5), 2),
            norm(span(2, 0, 1), 3),
            norm(span(2, 12, 1), 4),
            Step::Add { a: span(3, 0, 1), b: span(4, 0, 1), out: 5 },
        ];
        let buffers = vec![[1, 20], [5, 4], [5, 4], [1, 4], [1, 4], [1, 4]];
        assert_eq!(needed(&lowered(steps, buffers, span(5, 0, 1))), [0..4, 0..1, 0..1, 0..1]);
    }

    #[test]
    fn what_no_output_needs_is_not_computed() {
        let steps = vec![norm(span(1, 0, 5), 2), norm(span(1, 0, 5), 3)];
        let buffers = vec![[1, 20], [5, 4], [5, 4], [5, 4]];
        assert_eq!(needed(&lowered(steps, buffers, span(3, 0, 5))), [0..0, 0..5]);
    }

    #[test]
    fn rows_of_another_length_take_all() {
        let copy = Step::Copy { from: 1, values: Values::Run(0..4), out: 2, at: 0 };
        let buffers = vec![[1, 20], [5, 4], [2, 4], [1, 4]];
        let program = lowered(vec![copy, norm(span(2, 0, 1), 3)], buffers, span(3, 0, 1));
        assert_eq!(needed(&program), [0..2, 0..1]);
        let halves = Span { buffer: 1, offset: 2, rows: 2, cols: 2 };
        assert_eq!(of_span(&halves, 0..1, [5, 4]), 0..5);
        assert_eq!(of_span(&span(1, 8, 2), 1..2, [5, 4]), 3..4);
        let apart = HeadsView { buffer: 1, offset: 0, head: 20, row: 4 };
        assert_eq!(of_queries(&apart, 1..2, [5, 4]), 0..5);
    }
}
