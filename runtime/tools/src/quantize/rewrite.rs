//! Puts quantization into the graph, in ONNX's own form (QDQ).
//!
//! ```text
//! x ─ QuantizeLinear(x, x.scale, x.zero_point u8) = x.quantized ─ DequantizeLinear = x.dequantized ─┐
//! w.int8 s8, same shape ─ DequantizeLinear(w.int8, w.scale, w.zero_point, axis) = w.dequantized ────┴ MatMul / Gemm / Conv
//! ```
//! Both are written once, however many layers share them. Biases stay as they are. Nodes are named after their
//! output. Weights and constants that nothing reads any more are dropped.

use std::collections::{HashMap, HashSet};

use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::layers::Layer;
use super::step::Step;
use super::weights::Weight;

/// One layer to be quantized.
pub(super) struct Change<'a> {
    pub(super) layer: &'a Layer,
    pub(super) step: Step,
    pub(super) weight: &'a Weight,
}

/// Rewrites a graph that passed the gate; the layers are in the order of their nodes.
pub(super) fn rewrite(graph: &mut GraphProto, changes: &[Change<'_>]) {
    let mut editor = Editor { taken: names(graph), done: HashMap::new(), weights: Vec::new() };
    let mut at: HashMap<usize, &Change<'_>> =
        changes.iter().map(|change| (change.layer.node, change)).collect();
    let mut nodes = Vec::with_capacity(graph.node.len() + 3 * changes.len());
    for (i, mut node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        if let Some(change) = at.remove(&i) {
            let activation = editor.activation(change, &mut nodes);
            let weight = editor.weight(change, &mut nodes);
            node.input.splice(..2, [activation, weight]);
        }
        nodes.push(node);
    }
    graph.node = nodes;
    graph.initializer.append(&mut editor.weights);
    drop_unused(graph, changes);
}

/// Every name of a graph.
fn names(graph: &GraphProto) -> HashSet<String> {
    let values = graph.node.iter().flat_map(|node| node.output.iter().chain([&node.name]));
    let weights = graph.initializer.iter().map(|tensor| &tensor.name);
    values.chain(weights).chain(graph.input.iter().map(|input| &input.name)).cloned().collect()
}

/// What has been added so far.
struct Editor {
    taken: HashSet<String>,
    /// The float value that stands for an activation (no axis) or a weight (its axis) from now on.
    done: HashMap<(String, Option<usize>), String>,
    weights: Vec<TensorProto>,
}

impl Editor {
    /// `NAME.PART`, with a number behind if that is taken.
    fn fresh(&mut self, name: &str, part: &str) -> String {
        let plain = format!("{name}.{part}");
        let numbered = (2..).map(|i| format!("{plain}_{i}"));
        let fresh = [plain.clone()].into_iter().chain(numbered).find(|name| !self.taken.contains(name));
        let fresh = fresh.unwrap_or(plain);
        self.taken.insert(fresh.clone());
        fresh
    }

    /// Stores a constant.
    fn store(&mut self, name: &str, part: &str, kind: DataType, dims: &[usize], raw_data: Vec<u8>) -> String {
        let name = self.fresh(name, part);
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        let tensor = TensorProto {
            name: name.clone(),
            dims,
            data_type: kind as i32,
            raw_data: raw_data.into(),
            ..Default::default()
        };
        self.weights.push(tensor);
        name
    }

    /// Quantizes the layer's input, unless that is done, and gives the float value behind.
    fn activation(&mut self, change: &Change<'_>, nodes: &mut Vec<NodeProto>) -> String {
        let (name, step) = (change.layer.input.as_str(), change.step);
        let key = (name.to_owned(), None);
        if let Some(done) = self.done.get(&key) {
            return done.clone();
        }
        let scale = self.store(name, "scale", DataType::Float, &[], step.scale.to_le_bytes().to_vec());
        let zero = self.store(name, "zero_point", DataType::Uint8, &[], vec![step.zero]);
        let quantized = self.fresh(name, "quantized");
        let output = self.fresh(name, "dequantized");
        nodes.push(node("QuantizeLinear", [name, &scale, &zero], &quantized, None));
        nodes.push(node("DequantizeLinear", [&quantized, &scale, &zero], &output, None));
        self.done.insert(key, output.clone());
        output
    }

    /// Stores the layer's weight in 8 bits, unless that is done, and gives the float value behind.
    fn weight(&mut self, change: &Change<'_>, nodes: &mut Vec<NodeProto>) -> String {
        let (name, shape, weight) = (change.layer.weight.as_str(), change.layer.shape, change.weight);
        let key = (name.to_owned(), Some(shape.axis));
        if let Some(done) = self.done.get(&key) {
            return done.clone();
        }
        let dims = match &change.layer.patch {
            Some(patch) => vec![shape.outputs, patch.channels, patch.kernel[0], patch.kernel[1]],
            None if shape.axis == 1 => vec![shape.inputs, shape.outputs],
            None => vec![shape.outputs, shape.inputs],
        };
        let bytes = weight.values.iter().map(|value| value.to_le_bytes()[0]).collect();
        let values = self.store(name, "int8", DataType::Int8, &dims, bytes);
        let bytes = weight.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let scale = self.store(name, "scale", DataType::Float, &[shape.outputs], bytes);
        let zero = self.store(name, "zero_point", DataType::Int8, &[shape.outputs], vec![0; shape.outputs]);
        let output = self.fresh(name, "dequantized");
        nodes.push(node("DequantizeLinear", [&values, &scale, &zero], &output, Some(shape.axis)));
        self.done.insert(key, output.clone());
        output
    }
}

fn node(op: &str, inputs: [&str; 3], output: &str, axis: Option<usize>) -> NodeProto {
    let axis = axis.map(|axis| AttributeProto::int("axis", axis as i64));
    NodeProto {
        name: output.into(),
        op_type: op.into(),
        input: inputs.map(String::from).to_vec(),
        output: vec![output.into()],
        attribute: axis.into_iter().collect(),
        ..Default::default()
    }
}

/// Drops the float weights that nothing reads any more.
fn drop_unused(graph: &mut GraphProto, changes: &[Change<'_>]) {
    let read: HashSet<&str> = graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    let outputs = graph.output.iter().map(|output| output.name.as_str());
    let read: HashSet<&str> = read.into_iter().chain(outputs).collect();
    let unread = |name: &str| !read.contains(name);
    let dropped: HashSet<String> =
        changes.iter().map(|change| &change.layer.weight).filter(|name| unread(name)).cloned().collect();
    graph.initializer.retain(|tensor| !dropped.contains(&tensor.name));
    graph.value_info.retain(|info| !dropped.contains(&info.name));
    graph.node.retain(|node| !node.output.iter().any(|output| dropped.contains(output)));
}
