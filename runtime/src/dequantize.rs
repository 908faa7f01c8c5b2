//! A detour around an error of the engine: `DequantizeLinear` written out as cast, subtraction, product.
//!
//! tract 0.23.9 takes whatever stands between a `DequantizeLinear` and a `QuantizeLinear` for an operation on
//! single elements if it keeps the shape, and puts a table of 256 answers in its place. For a softmax that is
//! wrong, silently. It does not look through the written-out form, which computes the same.

use std::collections::HashMap;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Rewrites every `DequantizeLinear` with one scale. The graph has passed the gate; those with a scale for each
/// channel stay as they are, the engine writes them out itself.
pub(crate) fn write_out(graph: &mut GraphProto) {
    let sizes = sizes(graph);
    let nodes = std::mem::take(&mut graph.node);
    for (i, node) in nodes.into_iter().enumerate() {
        let scales = node.input.get(1).and_then(|scale| sizes.get(scale));
        match (&*node.op_type, scales) {
            ("DequantizeLinear", Some(1)) => graph.node.extend(written_out(&node, i)),
            _ => graph.node.push(node),
        }
    }
}

/// Elements of the constants, by name: weights, constant nodes, and other names for them.
fn sizes(graph: &GraphProto) -> HashMap<String, i64> {
    let elements = |tensor: &TensorProto| tensor.dims.iter().product();
    let mut sizes: HashMap<String, i64> =
        graph.initializer.iter().map(|tensor| (tensor.name.clone(), elements(tensor))).collect();
    for node in &graph.node {
        let size = match &*node.op_type {
            "Constant" => node.attribute.iter().find_map(|attribute| attribute.t.as_ref()).map(elements),
            "Identity" => node.input.first().and_then(|input| sizes.get(input)).copied(),
            _ => None,
        };
        if let (Some(size), Some(output)) = (size, node.output.first()) {
            sizes.insert(output.clone(), size);
        }
    }
    sizes
}

/// `(x - zero) * scale` in floats. Colons in the new names keep them apart from all others.
fn written_out(node: &NodeProto, i: usize) -> Vec<NodeProto> {
    let name = |step: &str| format!("dequantize:{i}:{step}");
    let at = |i: usize| node.input.get(i).map_or("", String::as_str);
    let output = node.output.first().map_or("", String::as_str);
    let mut nodes = vec![cast(at(0), &name("float"))];
    let mut last = name("float");
    if !at(2).is_empty() {
        nodes.push(cast(at(2), &name("zero")));
        nodes.push(operator("Sub", &[&last, &name("zero")], &name("shifted")));
        last = name("shifted");
    }
    nodes.push(operator("Mul", &[&last, at(1)], output));
    nodes
}

fn operator(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let input = inputs.iter().map(|name| (*name).to_owned()).collect();
    NodeProto { op_type: op.into(), input, output: vec![output.into()], ..Default::default() }
}

fn cast(input: &str, output: &str) -> NodeProto {
    let to = AttributeProto {
        name: "to".into(),
        r#type: AttributeType::Int as i32,
        i: DataType::Float as i64,
        ..Default::default()
    };
    NodeProto { attribute: vec![to], ..operator("Cast", &[input], output) }
}
