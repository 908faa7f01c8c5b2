//! Which rows of each step's result anyone needs: after the last attention of a model that answers from its class
//! token, that is one.

use std::ops::Range;

use super::lower::Lowered;
use super::step::{Buffer, HeadsAt, Span, Step};

/// For each step the rows of its result that are needed.
pub(super) fn needed(lowered: &Lowered<'_>) -> Vec<Range<usize>> {
    let mut demand = Demand { buffers: &lowered.buffers, rows: vec![0..0; lowered.buffers.len()] };
    for output in &lowered.outputs {
        demand.span(output, 0..output.rows);
    }
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
pub(super) fn of_queries(q: &HeadsAt, rows: Range<usize>, [all, cols]: [usize; 2]) -> Range<usize> {
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
    fn before(&mut self, step: &Step<'_>) -> Range<usize> {
        let rows = self.rows[step.writes()].clone();
        if rows.is_empty() {
            return rows;
        }
        match step {
            Step::Linear { x, residual, .. } => {
                self.span(x, rows.clone());
                residual.iter().for_each(|&buffer| self.add(buffer, rows.clone()));
            }
            Step::Norm { x, .. }
            | Step::Quantize { x, .. }
            | Step::Levels { x, .. }
            | Step::Softmax { x, .. }
            | Step::Constant { a: x, .. } => self.span(x, rows.clone()),
            Step::Add { a, b, .. } => {
                self.span(a, rows.clone());
                self.span(b, rows.clone());
            }
            Step::Pointwise { x, .. } => self.add(*x, rows.clone()),
            Step::Attention { qkv: [q, k, v], .. } => {
                self.add(q.buffer, of_queries(q, rows.clone(), self.buffers[q.buffer]));
                self.all(k.buffer);
                self.all(v.buffer);
            }
            Step::Patches { .. } => {}
            // The others are few and small.
            Step::Copy { .. } | Step::Put { .. } | Step::Mean { .. } => {
                step.reads().into_iter().for_each(|buffer| self.all(buffer));
                return 0..self.buffers[step.writes()][0];
            }
        }
        rows
    }
}
