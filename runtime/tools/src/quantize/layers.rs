//! Which layers can be quantized: products of something that depends on the image with a fixed matrix.
//!
//! These are `MatMul` with a constant `[K, N]`, `Gemm` with a constant weight, `transA = 0`, `alpha = beta = 1`, and
//! `Conv` with a constant weight and one group, but for overlapping windows of the image. Attention's own products have
//! no constant operand; they and all else, depthwise convolutions among them, stay float.

use std::collections::{HashMap, HashSet};

use smalti_models::onnx::{GraphProto, NodeProto, TensorProto};

use super::weights::Shape;
use smalti_kernels::quant_linear::row_stride;
use smalti_runtime::gate::{Summary, attribute, windows, windows_touch};

/// ONNX's number of 32-bit floats.
const FLOAT: i32 = 1;

/// The windows of a convolution of a map `[1, C, H, W]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Patch {
    pub(super) channels: usize,
    /// Height and width of a window.
    pub(super) kernel: [usize; 2],
    /// The node's attributes: where windows lie.
    node: NodeProto,
    /// Whether these are patches of the image, whose kernel reads them in the file's order: channel, row, column. Other
    /// windows it reads in the order row, column, channel, with channels filled up.
    in_file_order: bool,
}

impl Patch {
    /// The most channels of an image.
    const IMAGE: usize = 3;

    fn new(node: &NodeProto, [channels, height, width]: [usize; 3]) -> Patch {
        let kernel = [height, width];
        let is_patch = windows_touch(node, kernel) && channels <= Patch::IMAGE;
        let node = NodeProto { attribute: node.attribute.clone(), ..Default::default() };
        Patch { channels, kernel, node, in_file_order: is_patch }
    }

    /// Channels of a row.
    fn filled(&self) -> usize {
        if self.in_file_order { self.channels } else { row_stride(self.channels) }
    }

    /// Values of a window's row.
    pub(super) fn row(&self) -> usize {
        self.filled() * self.kernel[0] * self.kernel[1]
    }

    /// Where a row's value stands in the file's order; none of those that fill up.
    fn at(&self, k: usize) -> Option<usize> {
        let taps = self.kernel[0] * self.kernel[1];
        match self.in_file_order {
            true => Some(k),
            false => {
                Some(k % self.filled()).filter(|&c| c < self.channels).map(|c| c * taps + k / self.filled())
            }
        }
    }

    /// A weight `[outputs, C, height, width]` in the order of rows, `[outputs, row]`.
    pub(super) fn to_rows(&self, weight: &[f32]) -> Vec<f32> {
        let inputs = self.channels * self.kernel[0] * self.kernel[1];
        let value = |from: &[f32], k| self.at(k).and_then(|at| from.get(at)).copied().unwrap_or_default();
        weight.chunks_exact(inputs).flat_map(|from| (0..self.row()).map(move |k| value(from, k))).collect()
    }

    /// And back.
    pub(super) fn to_file(&self, rows: &[i8]) -> Vec<i8> {
        let inputs = self.channels * self.kernel[0] * self.kernel[1];
        let mut weight = vec![0; rows.len() / self.row() * inputs];
        for (to, from) in weight.chunks_exact_mut(inputs).zip(rows.chunks_exact(self.row())) {
            for (k, &value) in from.iter().enumerate() {
                if let Some(to) = self.at(k).and_then(|at| to.get_mut(at)) {
                    *to = value;
                }
            }
        }
        weight
    }

    /// The windows of a map `[C, H, W]`, each a row. None where windows do not fit.
    pub(super) fn rows(
        &self,
        map: &[f32],
        sides @ [height, width]: [usize; 2],
        rows: &mut Vec<f32>,
    ) -> Option<()> {
        let facts = windows(&self.node, sides, self.kernel).ok()?;
        let [_, across] = facts.output;
        let row = self.row();
        rows.clear();
        rows.resize(facts.output[0] * across * row, 0.0);
        let order: Vec<Option<[usize; 3]>> = (0..row)
            .map(|k| {
                let (at, taps) = (self.at(k)?, self.kernel[0] * self.kernel[1]);
                Some([at / taps, at % taps / self.kernel[1], at % self.kernel[1]])
            })
            .collect();
        for (window, to) in rows.chunks_exact_mut(row).enumerate() {
            let corner = [window / across, window % across];
            for (to, from) in to.iter_mut().zip(&order) {
                let Some([channel, ky, kx]) = *from else { continue };
                let place = |i: usize, k: usize| {
                    (corner[i] * facts.stride[i] + k * facts.dilation[i]).checked_sub(facts.padding[i])
                };
                if let (Some(y), Some(x)) = (place(0, ky), place(1, kx))
                    && y < height
                    && x < width
                {
                    *to = map.get((channel * height + y) * width + x).copied().unwrap_or_default();
                }
            }
        }
        Some(())
    }
}

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
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_deref())?;
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
        ("Conv", &[outputs, channels, height, width]) if int("group") <= 1 => {
            let patch = Patch::new(node, [channels, height, width]);
            // Overlapping windows of the image: a kernel of floats reads it where it lies, and there is little to multiply.
            (channels > Patch::IMAGE || patch.in_file_order)
                .then_some((Shape { inputs: patch.row(), outputs, axis: 0 }, Some(patch)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use smalti_models::onnx::AttributeProto;

    use super::*;

    fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto { name: name.into(), ints: ints.to_vec(), ..Default::default() }
    }

    #[test]
    fn patches_are_rows_in_the_files_order() {
        // Two channels of 2 x 4 in patches of 2 x 2.
        let node = NodeProto { attribute: vec![ints("strides", &[2, 2])], ..Default::default() };
        let patch = Patch::new(&node, [2, 2, 2]);
        let image: Vec<f32> = (0..16u8).map(f32::from).collect();
        let mut rows = vec![9.0];
        patch.rows(&image, [2, 4], &mut rows).unwrap();
        assert_eq!(rows, [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15u8].map(f32::from));
        assert_eq!(patch.to_rows(&image), image);
    }

    #[test]
    fn windows_are_rows_in_the_order_of_the_kernel() {
        // Two channels of 2 x 2, windows of 1 x 2 with a column of padding before them.
        let node = NodeProto { attribute: vec![ints("pads", &[0, 1, 0, 0])], ..Default::default() };
        let patch = Patch::new(&node, [2, 1, 2]);
        let mut rows = Vec::new();
        patch.rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [2, 2], &mut rows).unwrap();
        let want = [
            [0.0, 0.0, 0.0, 0.0, 1.0, 5.0, 0.0, 0.0],
            [1.0, 5.0, 0.0, 0.0, 2.0, 6.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 3.0, 7.0, 0.0, 0.0],
            [3.0, 7.0, 0.0, 0.0, 4.0, 8.0, 0.0, 0.0],
        ];
        assert_eq!(rows, want.as_flattened());
        let weight = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(patch.to_rows(&weight), [1.0, 3.0, 0.0, 0.0, 2.0, 4.0, 0.0, 0.0]);
        assert_eq!(patch.to_file(&[1, 3, 0, 0, 2, 4, 0, 0]), [1, 2, 3, 4]);
    }

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
