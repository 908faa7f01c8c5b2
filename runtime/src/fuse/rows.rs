//! Which rows of each step's result anyone needs: behind the last attention of a model that answers from its class
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

struct Demand<'a> {
    buffers: &'a [[usize; 2]],
    rows: Vec<Range<usize>>,
}

impl Demand<'_> {
    /// Adds rows of a buffer; both parts and what lies between.
    fn add(&mut self, buffer: Buffer, rows: Range<usize>) {
        let so_far = &mut self.rows[buffer];
        *so_far = match (so_far.start == so_far.end, rows.start == rows.end) {
            (_, true) => return,
            (true, _) => rows,
            _ => so_far.start.min(rows.start)..so_far.end.max(rows.end),
        };
    }

    fn all(&mut self, buffer: Buffer) {
        self.add(buffer, 0..self.buffers[buffer][0]);
    }

    /// Adds rows of a span.
    fn span(&mut self, span: &Span, rows: Range<usize>) {
        let [_, cols] = self.buffers[span.buffer];
        let first = span.offset / cols.max(1);
        if span.cols == cols && span.offset.is_multiple_of(cols.max(1)) {
            self.add(span.buffer, first + rows.start..first + rows.end);
        } else {
            self.all(span.buffer);
        }
    }

    /// Adds the queries that the rows need, where a buffer's rows hold those of all heads.
    fn queries(&mut self, q: &HeadsAt, rows: &Range<usize>) {
        let [_, cols] = self.buffers[q.buffer];
        if q.row == cols && q.offset < cols && q.head < cols {
            self.add(q.buffer, rows.clone());
        } else {
            self.all(q.buffer);
        }
    }

    /// What a step must compute; adds what it reads for that.
    fn before(&mut self, step: &Step<'_>) -> Range<usize> {
        let rows = self.rows[step.writes()].clone();
        match step {
            Step::Linear { x, residual, .. } => {
                self.span(x, rows.clone());
                residual.iter().for_each(|&buffer| self.add(buffer, rows.clone()));
            }
            Step::Norm { x, .. } | Step::Quantize { x, .. } => self.span(x, rows.clone()),
            Step::Attention { qkv: [q, k, v], .. } => {
                self.queries(q, &rows);
                self.all(k.buffer);
                self.all(v.buffer);
            }
            // The others are few and small.
            _ => {
                step.reads().into_iter().for_each(|buffer| self.all(buffer));
                return 0..self.buffers[step.writes()][0];
            }
        }
        rows
    }
}
