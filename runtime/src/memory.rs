//! How much memory a model takes, told from what it consists of.

use smalti_kernels::ThreadPool;
use smalti_models::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto};

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::gate::{Fact, Form, Summary};
use crate::load::Model;
use crate::pieces::PIECE;

/// An upper bound of the bytes of heap that opening a model and running one session of it on `threads` threads take at
/// any one time. Where images are prepared, `image` is width, height and channels of the largest.
///
/// tract does not say what it takes: for a model that it runs this is a rough estimate. To check a signature of minisign's
/// older form, which is of the file itself and not of its hash, takes twice the file's size before that.
pub fn bound(model: &Model, threads: usize, image: Option<[usize; 3]>) -> Result<u64> {
    let (open, session) = (prepared(model) + described(model), session(model, threads, image)?);
    // First the file is decoded, and goes piece by piece; then the model is made of that, whose weights go one by one; then
    // a session comes.
    let Opening { decoded, grown, raw, largest, noted } = *model.opening();
    let decoding = model.summary().file_bytes + decoded + grown - raw.saturating_sub(PIECE as u64 + largest);
    let preparing = decoded + packing(model) + described(model) + NOTES * noted;
    // What else stays, the record, names, a place among the handles, is less than the notes were.
    Ok((decoding + noted).max(preparing).max(open + session + noted))
}

/// What the gate and the lowering note about tensors, by what the gate does. Found were 1.1 to 3.5 among the tests' graphs and
/// the presets, most for graphs of few nodes.
const NOTES: u64 = 4;

/// What counts the owners of a tensor's bytes, in bytes.
const SHARED: usize = 4 * size_of::<usize>();

/// What is there only while a model is opened, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// The decoded file.
    decoded: u64,
    /// What its lists took for more elements than they have, while they grew.
    grown: u64,
    /// The part of it that was copied from the file as it is.
    raw: u64,
    /// The largest copy.
    largest: u64,
    /// What the gate notes about tensors.
    noted: u64,
}

impl Opening {
    pub(crate) fn of(proto: &ModelProto, summary: &Summary) -> Opening {
        let raw = proto
            .graph
            .iter()
            .flat_map(|graph| &graph.initializer)
            .map(|tensor| tensor.raw_data.len() as u64);
        let largest = raw.clone().max().unwrap_or(0);
        Opening {
            decoded: decoded(proto),
            grown: grown(proto),
            raw: raw.sum(),
            largest,
            noted: noted(summary),
        }
    }
}

/// What a model takes at most, besides the decoded file, while it is made of that.
fn packing(model: &Model) -> u64 {
    match model.backend() {
        Backend::Program(program) => program.packing_bytes() as u64,
        Backend::Tract(..) => prepared(model),
    }
}

/// Of what runs.
fn prepared(model: &Model) -> u64 {
    match model.backend() {
        Backend::Program(program) => program.bytes() as u64,
        // Weights as they are and packed, and what follows from them.
        Backend::Tract(..) => {
            let summary = model.summary();
            2 * summary.weight_bytes.max(4 * summary.parameters) + summary.constant_bytes
        }
    }
}

/// Of a session, and of what it gives.
fn session(model: &Model, threads: usize, image: Option<[usize; 3]>) -> Result<u64> {
    let input = model.input();
    let running = match model.backend() {
        Backend::Program(program) => program.arena_bytes(threads.clamp(1, ThreadPool::MAX)) as u64,
        Backend::Tract(..) => 8 * model.summary().live,
    };
    let normalised = if input.form == Form::F32Nchw { 4 * input.values() } else { 0 };
    let ranked = size_of::<f32>() + size_of::<(usize, f32)>();
    // Once in the graph's order, once in that of places.
    let tokens = model.tokens().map_or(0, |grid| grid.values_in_graph() + grid.values());
    let answers = 4 * (model.embedding_len() + tokens) + ranked * model.labels().len();
    let preparing = match (image, model.preprocess()) {
        (Some([width, height, channels]), Some(preprocess)) => {
            let size = model.input().size();
            preprocess
                .scratch_bytes_to(size, width, height, channels)
                .map_err(|error| Error::data("image", error))?
        }
        _ => 0,
    };
    Ok(running + (normalised + answers) as u64 + preparing)
}

/// Of what is known about an open model: labels (here and once more behind the C interface), steps.
fn described(model: &Model) -> u64 {
    let labels = model.labels().iter().map(|label| 2 * (label.len() + size_of::<String>()));
    let nodes = model.summary().nodes.iter().map(|node| node.name.len() + node.op.len() + size_of_val(node));
    (labels.sum::<usize>() + nodes.sum::<usize>()) as u64
}

/// Of what the gate notes about tensors and nodes.
fn noted(summary: &Summary) -> u64 {
    let facts = summary.facts.iter().map(|(name, fact)| {
        let ints = fact.ints.as_ref().map_or(0, |ints| size_of_val(&ints[..]) + 2 * size_of::<usize>());
        name.capacity() + list(&fact.dims) + ints
    });
    let places = summary.facts.capacity() * 8 / 7 * (size_of::<(String, Fact)>() + 1);
    let nodes = summary.nodes.iter().map(|node| node.name.capacity() + node.op.capacity());
    (facts.sum::<usize>() + places + nodes.sum::<usize>() + list(&summary.nodes)) as u64
        + summary.folded_bytes
}

/// Of a list's own memory.
fn list<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

/// Of a decoded file.
fn decoded(model: &ModelProto) -> u64 {
    let Some(graph) = &model.graph else { return 0 };
    let metadata = model.metadata_props.iter().map(|entry| entry.key.capacity() + entry.value.capacity());
    let lists = list(&model.metadata_props) + list(&graph.node) + list(&graph.initializer);
    let values = list(&graph.value_info) + list(&graph.output);
    let nodes = graph.node.iter().map(node).sum::<usize>();
    let weights = graph.initializer.iter().map(tensor).sum::<usize>();
    (metadata.sum::<usize>() + lists + values + nodes + weights) as u64
}

/// Of what [`ModelProto::shrink`] gave back.
fn grown(model: &ModelProto) -> u64 {
    let Some(graph) = &model.graph else { return 0 };
    let lists =
        graph.node.iter().map(|node| spare(&node.input) + spare(&node.output) + spare(&node.attribute));
    (spare(&graph.node) + spare(&graph.initializer) + lists.sum::<usize>()) as u64
}

/// What a list has besides its elements after it grew one by one: from 4 on, it doubles.
fn spare<T>(list: &[T]) -> usize {
    let len = list.len();
    if len == 0 { 0 } else { (len.next_power_of_two().max(4) - len) * size_of::<T>() }
}

fn node(node: &NodeProto) -> usize {
    let names = node.input.iter().chain(&node.output).chain([&node.name, &node.op_type, &node.doc_string]);
    let lists = list(&node.input) + list(&node.output) + list(&node.attribute);
    names.map(String::capacity).sum::<usize>() + lists + node.attribute.iter().map(attribute).sum::<usize>()
}

fn attribute(attribute: &AttributeProto) -> usize {
    let text = attribute.name.capacity() + attribute.doc_string.capacity() + list(&attribute.s);
    text + list(&attribute.ints) + attribute.t.as_deref().map_or(0, |t| size_of_val(t) + tensor(t))
}

fn tensor(tensor: &TensorProto) -> usize {
    let floats = list(&tensor.float_data) + list(&tensor.int32_data) + list(&tensor.int64_data);
    tensor.name.capacity() + list(&tensor.dims) + tensor.raw_data.len() + SHARED + floats
}
