//! Detours around what tract 0.23.9 gets wrong: the same graph in other words.
//!
//! - It takes whatever stands between a `DequantizeLinear` and a `QuantizeLinear` for an operation on single elements if
//!   it keeps the shape, and puts a table of 256 answers in its place. For a softmax that is wrong. It does not look
//!   through a `DequantizeLinear` that is written out as cast, difference, product.
//! - Its `QuantizeLinear` multiplies by a rounded reciprocal, and wraps around for values of 2^31 levels and more. Written
//!   out as quotient, round, sum, clip it does neither.
//! - It takes `x (1 + erf(c x)) h` for GELU if the constants are GELU's to four digits. An `Erf` among constants that are
//!   not GELU's exactly is written as `-erf(-x)`, which it does not know.
//! - It takes zeros of 64 bits for the default of `ConstantOfShape`.
//! - It cuts the bounds of a `Slice` off to 32 bits. Those beyond become the nearest that fit.
//! - It moves a difference or a quotient with one number a channel into a convolution before it, but for `c - conv(x)`
//!   with the wrong sign of the kernel, and `c / conv(x)` as if it were linear. Both are written as `c + -y` and
//!   `c · (1 / y)`.
//! - It panics where the last input of a convolution is left out by an empty name.

use std::collections::HashMap;

use smalti_models::onnx::attribute_proto::AttributeType;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

use crate::gate::{Kind, attribute, floats, integers};

/// How far a constant may be from GELU's, in relation to it: a few roundings to f32.
const ROUNDED: f32 = 1e-6;
/// Within this tract takes a constant for GELU's; a little more than it does.
const MISTAKEN: f32 = 2e-3;

/// Rewrites a graph that has passed the gate.
pub(crate) fn rewrite(graph: &mut GraphProto) {
    let index = Index::of(graph);
    let mut out = Vec::with_capacity(graph.node.len());
    let mut constants = Vec::new();
    for (i, node) in graph.node.iter().enumerate() {
        let is_single = node.input.get(1).is_some_and(|scale| index.elements(scale) == Some(1));
        match &*node.op_type {
            "DequantizeLinear" if is_single => out.extend(dequantize(node, i)),
            "QuantizeLinear" if is_single => {
                let is_signed = node.input.get(2).is_some_and(|zero| index.is_signed(zero));
                out.extend(quantize(node, i, is_signed, &mut constants));
            }
            "ConstantOfShape" if node.attribute.is_empty() => out.push(zeros(node)),
            "Slice" => out.push(slice(node, i, &index, &mut constants)),
            "Erf" if !index.is_gelu(node) => out.extend(erf(node, i)),
            "Sub" | "Div" if !index.is_constant(node, 1) => out.extend(second(node, i)),
            _ => out.push(node.clone()),
        }
    }
    for node in &mut out {
        let named = node.input.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        node.input.truncate(named);
    }
    graph.node = out;
    graph.initializer.append(&mut constants);
}

/// What a graph consists of, by the names of its values.
struct Index<'a> {
    /// Constants: weights, constant nodes, and other names for them.
    tensors: HashMap<&'a str, &'a TensorProto>,
    makers: HashMap<&'a str, &'a NodeProto>,
    readers: HashMap<&'a str, Vec<&'a NodeProto>>,
}

impl<'a> Index<'a> {
    fn of(graph: &'a GraphProto) -> Index<'a> {
        let mut tensors: HashMap<&str, &TensorProto> =
            graph.initializer.iter().map(|tensor| (&*tensor.name, tensor)).collect();
        let (mut makers, mut readers) = (HashMap::new(), HashMap::<&str, Vec<&NodeProto>>::new());
        for node in &graph.node {
            let tensor = match &*node.op_type {
                "Constant" => attribute(node, "value").and_then(|attribute| attribute.t.as_deref()),
                "Identity" => node.input.first().and_then(|input| tensors.get(&**input)).copied(),
                _ => None,
            };
            if let (Some(tensor), Some(output)) = (tensor, node.output.first()) {
                tensors.insert(output, tensor);
            }
            makers.extend(node.output.iter().map(|name| (&**name, node)));
            node.input.iter().for_each(|name| readers.entry(name).or_default().push(node));
        }
        Index { tensors, makers, readers }
    }

    fn is_constant(&self, node: &NodeProto, i: usize) -> bool {
        node.input.get(i).is_some_and(|name| self.tensors.contains_key(&**name))
    }

    fn elements(&self, name: &str) -> Option<i64> {
        self.tensors.get(name).map(|tensor| tensor.dims.iter().product())
    }

    fn is_signed(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|tensor| tensor.data_type == DataType::Int8 as i32)
    }

    /// The number of a constant with one element.
    fn number(&self, name: &str) -> Option<f32> {
        let tensor = self.tensors.get(name).filter(|tensor| tensor.data_type == DataType::Float as i32)?;
        if tensor.dims.iter().product::<i64>() == 1 { floats(tensor).next() } else { None }
    }

    fn readers(&self, node: &NodeProto) -> &[&'a NodeProto] {
        let output = node.output.first().map_or("", String::as_str);
        self.readers.get(output).map_or(&[], Vec::as_slice)
    }

    fn makers(&self, node: &'a NodeProto) -> impl Iterator<Item = &'a NodeProto> {
        node.input.iter().filter_map(|name| self.makers.get(&**name)).copied()
    }

    /// Whether all constants around an `Erf` are GELU's, or nowhere near them: those of the factor before it, the sum
    /// after it, the product with that, and a factor before or after the product.
    fn is_gelu(&self, erf: &'a NodeProto) -> bool {
        let sums = self.readers(erf).iter().copied();
        let products = || sums.clone().flat_map(|sum| self.readers(sum)).copied();
        let factors = products().flat_map(|product| self.readers(product)).copied();
        let before = products().flat_map(|product| self.makers(product));
        let around = self.makers(erf).chain(sums.clone()).chain(products()).chain(factors).chain(before);
        let is_known = |node: &NodeProto| {
            // A quantized constant may be anything.
            let is_computed = matches!(&*node.op_type, "DequantizeLinear" | "QuantizeLinear");
            !is_computed && node.input.iter().filter_map(|name| self.number(name)).all(is_gelu_constant)
        };
        around.into_iter().all(is_known)
    }
}

/// Whether a number is one of GELU's constants, or none that could be taken for one.
fn is_gelu_constant(number: f32) -> bool {
    use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
    let constants = [0.5, 1.0, 2.0, SQRT_2, FRAC_1_SQRT_2];
    let distance = |constant: &f32| (number - constant).abs() / constant;
    constants.iter().all(|constant| !(ROUNDED..MISTAKEN).contains(&distance(constant)))
}

/// Names of what a node is written out to. Colons keep them apart from all others.
struct Names<'a> {
    node: &'a NodeProto,
    place: usize,
}

impl Names<'_> {
    fn step(&self, step: &str) -> String {
        format!("rewritten:{}:{step}", self.place)
    }

    fn input(&self, i: usize) -> &str {
        self.node.input.get(i).map_or("", String::as_str)
    }

    fn output(&self) -> &str {
        self.node.output.first().map_or("", String::as_str)
    }
}

/// `(x - zero) * scale` in floats.
fn dequantize(node: &NodeProto, place: usize) -> Vec<NodeProto> {
    let names = Names { node, place };
    let mut nodes = vec![cast(names.input(0), &names.step("float"), DataType::Float)];
    let mut last = names.step("float");
    if !names.input(2).is_empty() {
        nodes.push(cast(names.input(2), &names.step("zero"), DataType::Float));
        nodes.push(operator("Sub", &[&last, &names.step("zero")], &names.step("shifted")));
        last = names.step("shifted");
    }
    nodes.push(operator("Mul", &[&last, names.input(1)], names.output()));
    nodes
}

/// `clip(round(x / scale) + zero)` in floats, then as bytes; ties go to even.
fn quantize(
    node: &NodeProto,
    place: usize,
    is_signed: bool,
    constants: &mut Vec<TensorProto>,
) -> Vec<NodeProto> {
    let names = Names { node, place };
    let (kind, range) = match is_signed {
        true => (DataType::Int8, [-128.0f32, 127.0]),
        false => (DataType::Uint8, [0.0, 255.0]),
    };
    for (name, value) in ["lowest", "highest"].into_iter().zip(range) {
        constants.push(TensorProto {
            name: names.step(name),
            data_type: DataType::Float as i32,
            float_data: vec![value],
            ..Default::default()
        });
    }
    let mut nodes = vec![
        operator("Div", &[names.input(0), names.input(1)], &names.step("steps")),
        operator("Round", &[&names.step("steps")], &names.step("rounded")),
    ];
    let mut last = names.step("rounded");
    if !names.input(2).is_empty() {
        nodes.push(cast(names.input(2), &names.step("zero"), DataType::Float));
        nodes.push(operator("Add", &[&last, &names.step("zero")], &names.step("shifted")));
        last = names.step("shifted");
    }
    let range = [&*last, &names.step("lowest"), &names.step("highest")];
    nodes.push(operator("Clip", &range, &names.step("clipped")));
    nodes.push(cast(&names.step("clipped"), names.output(), kind));
    nodes
}

/// `-erf(-x)`.
fn erf(node: &NodeProto, place: usize) -> Vec<NodeProto> {
    let names = Names { node, place };
    vec![
        operator("Neg", &[names.input(0)], &names.step("negative")),
        operator("Erf", &[&names.step("negative")], &names.step("erf")),
        operator("Neg", &[&names.step("erf")], names.output()),
    ]
}

/// `ConstantOfShape` with its default said: zeros of 32 bits.
fn zeros(node: &NodeProto) -> NodeProto {
    let zero = TensorProto {
        dims: vec![1],
        data_type: DataType::Float as i32,
        float_data: vec![0.0],
        ..Default::default()
    };
    let value = AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(zero.into()),
        ..Default::default()
    };
    NodeProto { attribute: vec![value], ..node.clone() }
}

/// The same `Slice` with constant bounds that fit into 32 bits.
fn slice(node: &NodeProto, place: usize, index: &Index<'_>, constants: &mut Vec<TensorProto>) -> NodeProto {
    let (names, mut slice) = (Names { node, place }, node.clone());
    for (i, bound) in [(1, "from"), (2, "to")] {
        let tensor = index.tensors.get(names.input(i));
        let Some(tensor) = tensor.filter(|tensor| tensor.data_type == DataType::Int64 as i32) else {
            continue;
        };
        let bounds = integers(tensor, Kind::I64);
        let near = |&bound: &i64| bound.clamp(i32::MIN.into(), i32::MAX.into());
        if bounds.iter().any(|bound| near(bound) != *bound) {
            slice.input[i] = names.step(bound);
            constants.push(TensorProto {
                name: names.step(bound),
                dims: tensor.dims.clone(),
                data_type: DataType::Int64 as i32,
                int64_data: bounds.iter().map(near).collect(),
                ..Default::default()
            });
        }
    }
    slice
}

/// `a + -b` for `a - b`, `a · (1 / b)` for `a / b`.
fn second(node: &NodeProto, place: usize) -> Vec<NodeProto> {
    let names = Names { node, place };
    let (inverse, op) = if node.op_type == "Sub" { ("Neg", "Add") } else { ("Reciprocal", "Mul") };
    vec![
        operator(inverse, &[names.input(1)], &names.step("inverse")),
        operator(op, &[names.input(0), &names.step("inverse")], names.output()),
    ]
}

fn operator(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let input = inputs.iter().map(|name| (*name).to_owned()).collect();
    NodeProto { op_type: op.into(), input, output: vec![output.into()], ..Default::default() }
}

fn cast(input: &str, output: &str, kind: DataType) -> NodeProto {
    NodeProto {
        attribute: vec![AttributeProto::int("to", kind as i64)],
        ..operator("Cast", &[input], output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_constants_that_could_be_mistaken_are() {
        for known in
            [0.5, 1.0, 2.0, std::f32::consts::SQRT_2, std::f32::consts::FRAC_1_SQRT_2, 3.0, 0.1, 0.72]
        {
            assert!(is_gelu_constant(known), "{known}");
        }
        for near in [0.5001, 0.9999, 1.4146, 0.7073] {
            assert!(!is_gelu_constant(near), "{near}");
        }
    }
}
