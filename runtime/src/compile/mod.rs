//! Our own way through a model: the graph of a vision transformer lowered to few steps over the kernels.
//!
//! [`lower`] turns nodes into steps, [`merge`] moves what follows a step into it, [`rows`] finds what need not be
//! computed, [`slots`] places buffers, [`verify`] checks all of that, [`program`] packs weights, [`exec`] runs, [`tap`]
//! shows values in between. All of that works on the ONNX graph behind the gate, where the exporters' operators and
//! names are still there and every shape is known; a graph with anything else in it runs in tract as a whole.

mod constant;
mod exec;
mod formula;
mod lower;
mod merge;
mod program;
mod resize;
mod rows;
mod slots;
mod step;
mod table;
mod tap;
mod verify;
mod view;

use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{GraphProto, TensorProto};

use crate::gate::Facts;

pub(crate) use exec::Arena;
pub use exec::ImageView;
pub(crate) use program::{Program, Unpacked};

/// A program for a graph that has passed the gate, its weights not packed yet, or why there is none. What is packed and
/// what a session takes stays within `budget` bytes. It shows these values inside the graph, each named once.
pub(crate) fn compile(
    graph: &GraphProto,
    facts: &Facts,
    budget: u64,
    values: &[&str],
) -> Result<Unpacked, String> {
    let mut lowered = lower::lower(graph, facts, budget, values)?;
    merge::merge(&mut lowered);
    Unpacked::new(lowered, budget)
}

/// Puts constants in the place of resized constants, as our own resizing has them.
pub(crate) fn store_resized(graph: &mut GraphProto, facts: &Facts, budget: u64) -> Result<(), String> {
    let resized = lower::constants(graph, facts, budget, "Resize")?;
    let tensor = |(name, values): (&str, Vec<f32>)| {
        let dims = facts.get(name).map_or(&[][..], |fact| &fact.dims);
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        TensorProto::raw(name, DataType::Float, dims, bytes)
    };
    let tensors: Vec<TensorProto> = resized.into_iter().map(tensor).collect();
    graph.node.retain(|node| node.op_type != "Resize");
    graph.initializer.extend(tensors);
    Ok(())
}

/// As [`compile`], a program that does what these values need alone.
pub(crate) fn compile_taps(
    graph: &GraphProto,
    facts: &Facts,
    budget: u64,
    values: &[&str],
) -> Result<Program, String> {
    let mut lowered = lower::lower(graph, facts, budget, values)?;
    lowered.outputs.clear();
    merge::merge(&mut lowered);
    Unpacked::new(lowered, budget)?.pack()
}
