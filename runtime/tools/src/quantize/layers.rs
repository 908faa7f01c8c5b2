//! Which layers can be quantized: products of something that depends on the image with a fixed matrix.
//!
//! These are `MatMul` with a constant `[K, N]`, `Gemm` with a constant weight, `transA = 0`, `alpha = beta = 1`, and
//! `Conv` with a constant weight whose windows touch but do not overlap: the patch embedding. Attention's own products
//! have no constant operand; they and all else stay float.

use std::collections::{HashMap, HashSet};

use smalti_models::onnx::{GraphProto, NodeProto, TensorProto};

use super::weights::Shape;
use smalti_runtime::gate::{Summary, attribute, windows_touch};

/// ONNX's number of 32-bit floats.
const FLOAT: i32 = 1;

/// Channels, height and width of a window of an image `[1, C, H, W]`.
pub(super) type Patch = [usize; 3];

/// A layer that can be quantized.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layer {
    /// What people call it; unique.
    pub(super) name: String,
    /// The node's place in the graph.
    pub(super) node: usize,
    /// The name of the activation that goes in.
    pub(super) input: String,
    /// The name of the weight.
    pub(super) weight: String,
    pub(super) shape: Shape,
    /// Of a convolution: what one of its windows covers.
    pub(super) patch: Option<Patch>,
    pub(super) multiply_adds: u64,
}

/// The layers of a graph that passed the gate, in order.
pub(super) fn find(graph: &GraphProto, summary: &Summary) -> Vec<Layer> {
    let constants = constants(graph);
    let work: HashMap<&str, u64> =
        summary.nodes.iter().map(|node| (node.name.as_str(), node.multiply_adds)).collect();
    // What depends on the image; other names are weights or follow from weights.
    let moving: HashSet<&str> = graph
        .node
        .iter()
        .filter(|node| node.output.first().is_some_and(|name| work.contains_key(name.as_str())))
        .flat_map(|node| &node.output)
        .chain(graph.input.iter().map(|input| &input.name))
        .map(String::as_str)
        .collect();
    let mut layers: Vec<Layer> = Vec::new();
    for (i, node) in graph.node.iter().enumerate() {
        let [input, weight, ..] = &node.input[..] else { continue };
        let tensor = constants.get(weight.as_str()).filter(|_| moving.contains(input.as_str()));
        let Some((shape, patch)) = tensor.and_then(|tensor| shape(node, tensor)) else { continue };
        // One way to see a value as rows.
        if layers.iter().any(|layer| layer.input == *input && layer.patch != patch) {
            continue;
        }
        let output = node.output.first().map_or("", String::as_str);
        let stem = stem(weight, output);
        let name = if layers.iter().all(|layer| layer.name != stem) { stem } else { output };
        layers.push(Layer {
            name: name.to_owned(),
            node: i,
            input: input.clone(),
            weight: weight.clone(),
            shape,
            patch,
            multiply_adds: work.get(output).copied().unwrap_or_default(),
        });
    }
    layers
}

/// What people call a layer: the weight's name without its ending where it has one, the place in the model where
/// PyTorch's exporter made the output's name of that, or the output's name.
fn stem<'a>(weight: &'a str, output: &'a str) -> &'a str {
    let of_weight = weight.strip_suffix(".weight_t").or_else(|| weight.strip_suffix(".weight"));
    let place = output.strip_suffix("_output_0").map(|place| place.trim_start_matches('/'));
    let place =
        place.and_then(|place| ["/MatMul", "/Gemm", "/Conv"].iter().find_map(|op| place.strip_suffix(op)));
    of_weight.or(place).unwrap_or(output)
}

/// All constants of a graph by name: initializers and `Constant` nodes.
pub(super) fn constants(graph: &GraphProto) -> HashMap<&str, &TensorProto> {
    let initializers = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
    let nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?;
        Some((node.output.first()?.as_str(), tensor))
    });
    initializers.chain(nodes).collect()
}

/// How the weight lies in memory, and what a window covers, if this node is a layer that can be quantized.
fn shape(node: &NodeProto, weight: &TensorProto) -> Option<(Shape, Option<Patch>)> {
    let dims: Vec<usize> = weight.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<_>>()?;
    if weight.data_type != FLOAT || dims.contains(&0) {
        return None;
    }
    let int = |name: &str| attribute(node, name).map_or(0, |attribute| attribute.i);
    let is_one = |name: &str| attribute(node, name).is_none_or(|attribute| attribute.f == 1.0);
    match (&*node.op_type, &dims[..]) {
        ("MatMul", &[inputs, outputs]) => Some((Shape { inputs, outputs, axis: 1 }, None)),
        ("Gemm", &[rows, columns]) if int("transA") == 0 && is_one("alpha") && is_one("beta") => {
            Some(match int("transB") {
                1 => (Shape { inputs: columns, outputs: rows, axis: 0 }, None),
                _ => (Shape { inputs: rows, outputs: columns, axis: 1 }, None),
            })
        }
        ("Conv", &[outputs, channels, height, width]) if windows_touch(node, [height, width]) => {
            let patch = [channels, height, width];
            Some((Shape { inputs: patch.iter().product(), outputs, axis: 0 }, Some(patch)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn layers_are_called_what_people_call_them() {
        assert_eq!(stem("blocks.0.mlp.fc1.weight_t", "blocks.0.mlp.fc1.product"), "blocks.0.mlp.fc1");
        assert_eq!(stem("head.weight", "logits"), "head");
        assert_eq!(
            stem("onnx::MatMul_141", "/blocks/blocks.0/attn/qkv/MatMul_output_0"),
            "blocks/blocks.0/attn/qkv"
        );
        assert_eq!(stem("val_12", "val_13"), "val_13");
    }
}
