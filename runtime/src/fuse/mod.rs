//! Our own way through a model: the graph of a vision transformer lowered to few steps over the kernels.
//!
//! [`lower`] turns nodes into steps, [`merge`] moves what follows a step into it, [`rows`] finds what need not be
//! computed, [`slots`] places buffers, [`program`] packs weights and runs. All of that works on the ONNX graph behind
//! the gate, where the exporters' operators and names are still there and every shape is known; a graph with
//! anything else in it runs in the engine as a whole.

mod constant;
mod lower;
mod merge;
mod pointwise;
mod program;
mod rows;
mod slots;
mod step;
mod view;

use tract_onnx::pb::GraphProto;

use crate::gate::Facts;

pub(crate) use program::{Arena, ImageView, Program, gather};
pub(crate) use view::View;

/// A program for a graph that has passed the gate, or why there is none.
pub(crate) fn compile(graph: &GraphProto, facts: &Facts) -> Result<Program, String> {
    let mut lowered = lower::lower(graph, facts)?;
    merge::merge(&mut lowered);
    Program::new(lowered)
}
