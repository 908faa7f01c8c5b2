//! Other forms of what the gate checks, brought into its own: half precision becomes f32, an image is taken in the layout
//! of [`Form`](super::Form), an open batch is 1. What cannot be brought into form is left for the gate to refuse.

use std::collections::HashSet;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use smalti_models::onnx::attribute_proto::AttributeType;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::tensor_shape_proto::dimension::Value as Dimension;
use smalti_models::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto,
    type_proto,
};

use super::summary::Port;

/// The numbers of channels that an image may have.
const CHANNELS: [Option<i64>; 2] = [Some(1), Some(3)];

/// Brings a model into the gate's form, as far as that takes.
pub(super) fn adapt(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    drop_weights_from_inputs(graph);
    widen_graph(graph);
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(tensor) = tensor_of(info)
            && is_half(tensor.elem_type.into())
        {
            tensor.elem_type = DataType::Float as i32;
        }
    }
    graph.value_info.clear();
    if let [image] = &mut graph.input[..] {
        close_batch(image);
    }
    turn_image(graph);
}

/// Numbers of a graph and of the branches in it, in the gate's form.
fn widen_graph(graph: &mut GraphProto) {
    graph.initializer.iter_mut().for_each(widen);
    for node in &mut graph.node {
        number_as_tensor(node);
        for attribute in &mut node.attribute {
            attribute.t.as_deref_mut().into_iter().for_each(widen);
            attribute.g.as_deref_mut().into_iter().for_each(widen_graph);
            let is_cast = node.op_type == "Cast" && attribute.name == "to";
            if is_cast && is_half(attribute.i) {
                attribute.i = DataType::Float as i64;
            }
        }
    }
}

/// Says of the outputs what the gate found: a shape that follows from an open batch may be open in the file.
pub(super) fn declare(graph: &mut GraphProto, ports: &[Port]) {
    for (output, port) in graph.output.iter_mut().zip(ports) {
        if let Some(tensor) = tensor_of(output) {
            let whole = ValueInfoProto::tensor("", DataType::Float, Some(&port.dims));
            tensor.shape =
                whole.r#type.and_then(|mut of| tensor_in(&mut of.value).and_then(|t| t.shape.take()));
        }
    }
}

fn tensor_of(info: &mut ValueInfoProto) -> Option<&mut type_proto::Tensor> {
    tensor_in(&mut info.r#type.as_mut()?.value)
}

fn tensor_in(value: &mut Option<type_proto::Value>) -> Option<&mut type_proto::Tensor> {
    value.as_mut().map(|type_proto::Value::TensorType(tensor)| tensor)
}

/// Old exporters name weights among the inputs too.
fn drop_weights_from_inputs(graph: &mut GraphProto) {
    let weights: HashSet<&str> = graph.initializer.iter().map(|tensor| &*tensor.name).collect();
    graph.input.retain(|input| !weights.contains(&*input.name));
}

/// Whether a data type is `float16` or `bfloat16`.
fn is_half(data_type: i64) -> bool {
    data_type == DataType::Float16 as i64 || data_type == DataType::Bfloat16 as i64
}

/// The constants of GELU and of its approximation, which half precision rounds: √2, 1/√2, √(2/π), 0.044715.
const ROUNDED: [f32; 4] = [SQRT_2, FRAC_1_SQRT_2, 0.797_884_6, 0.044_715];

/// Numbers of half precision as f32, which holds each of them. A single number that is a constant of GELU, rounded, is that
/// constant again: a function with the rounded one would be another, which no kernel has.
fn widen(tensor: &mut TensorProto) {
    let (exact, step): (fn(u16) -> f32, f32) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float16) => (f16_to_f32, 1.0 / 2048.0),
        Ok(DataType::Bfloat16) => (|bits| f32::from_bits(u32::from(bits) << 16), 1.0 / 256.0),
        _ => return,
    };
    let is_single = tensor.dims.iter().all(|&dim| dim == 1);
    let widen = |bits: u16| {
        let value = exact(bits);
        let constant = ROUNDED.into_iter().find(|of| is_single && (value - of).abs() <= of * step);
        constant.unwrap_or(value)
    };
    tensor.data_type = DataType::Float as i32;
    let raw = tensor.raw_data.as_chunks::<2>();
    if raw.1.is_empty() {
        let wide = raw.0.iter().flat_map(|bytes| widen(u16::from_le_bytes(*bytes)).to_le_bytes());
        tensor.raw_data = wide.collect::<Vec<u8>>().into();
    }
    // Each number is in the lower half of an integer.
    tensor.float_data.extend(tensor.int32_data.drain(..).map(|bits| widen(bits as u16)));
}

/// IEEE 754 binary16 as binary32. By bits: how exact `powi` is, Rust does not say.
fn f16_to_f32(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, u32::from(bits >> 10 & 31), bits & 0x3ff);
    let size = match (exponent, fraction) {
        (0, _) => f32::from(fraction) / (1 << 24) as f32,
        (31, 0) => f32::INFINITY,
        (31, _) => f32::NAN,
        // The exponents' biases are 15 and 127.
        _ => f32::from_bits(((exponent + 112) << 23) | (u32::from(fraction) << 13)),
    };
    if sign == 1 { -size } else { size }
}

/// `Constant` with a number or a list of integers says the same with a tensor.
fn number_as_tensor(node: &mut NodeProto) {
    if node.op_type != "Constant" || node.attribute.len() != 1 {
        return;
    }
    let Some(attribute) = node.attribute.first_mut() else { return };
    let longs = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (data_type, dims, raw) = match &*attribute.name {
        "value_float" => (DataType::Float, vec![], attribute.f.to_le_bytes().to_vec()),
        "value_int" => (DataType::Int64, vec![], longs(&[attribute.i])),
        "value_ints" => (DataType::Int64, vec![attribute.ints.len() as i64], longs(&attribute.ints)),
        _ => return,
    };
    let tensor =
        TensorProto { dims, data_type: data_type as i32, raw_data: raw.into(), ..Default::default() };
    *attribute = AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(tensor.into()),
        ..Default::default()
    };
}

/// The axes that an image is declared with; none if they are no four.
pub(crate) fn image_axes(info: &mut ValueInfoProto) -> Option<&mut TensorShapeProto> {
    tensor_of(info)?.shape.as_mut().filter(|shape| shape.dim.len() == 4)
}

/// The length of an axis, if it is fixed.
pub(crate) fn fixed(shape: &TensorShapeProto, axis: usize) -> Option<i64> {
    match shape.dim.get(axis)?.value {
        Some(Dimension::DimValue(length)) if length > 0 => Some(length),
        _ => None,
    }
}

/// An open batch is one image.
fn close_batch(info: &mut ValueInfoProto) {
    if let Some(shape) = image_axes(info)
        && fixed(shape, 0).is_none()
    {
        shape.dim[0].value = Some(Dimension::DimValue(1));
    }
}

/// Whether an image's channels are last by its declared axes.
pub(crate) fn channels_are_last(shape: &TensorShapeProto) -> bool {
    CHANNELS.contains(&fixed(shape, 3)) && !CHANNELS.contains(&fixed(shape, 1))
}

/// Whether an image's channels come before height and width by its declared axes.
fn channels_are_first(shape: &TensorShapeProto) -> bool {
    CHANNELS.contains(&fixed(shape, 1)) && !CHANNELS.contains(&fixed(shape, 3))
}

/// Floats with channels last and bytes with channels first are taken the other way round, and turned in the graph.
fn turn_image(graph: &mut GraphProto) {
    let [info] = &mut graph.input[..] else { return };
    let data_type = tensor_of(info).map(|tensor| tensor.elem_type);
    let Some(shape) = image_axes(info) else { return };
    // Where each axis of the new input lies in the old one, and the way back.
    let (from, back) = if data_type == Some(DataType::Float as i32) && channels_are_last(shape) {
        ([0, 3, 1, 2], [0, 2, 3, 1])
    } else if data_type == Some(DataType::Uint8 as i32) && channels_are_first(shape) {
        ([0, 2, 3, 1], [0, 3, 1, 2])
    } else {
        return;
    };
    shape.dim = from.map(|axis: usize| shape.dim[axis].clone()).to_vec();
    let (name, turned) = (info.name.clone(), format!("{}:turned", info.name));
    let inputs = graph.node.iter_mut().flat_map(|node| &mut node.input);
    inputs.filter(|input| **input == name).for_each(|input| input.clone_from(&turned));
    let turn = NodeProto {
        op_type: "Transpose".into(),
        input: vec![name],
        output: vec![turned],
        attribute: vec![AttributeProto::ints("perm", &back)],
        ..Default::default()
    };
    graph.node.insert(0, turn);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(data_type: DataType, halves: &[u16]) -> TensorProto {
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        let dims = vec![halves.len() as i64];
        TensorProto { dims, data_type: data_type as i32, raw_data: bytes.into(), ..Default::default() }
    }

    #[test]
    fn halves_keep_their_values() {
        // 1, -2, the largest, the smallest normal, the smallest of all, and 0 with a sign.
        let halves = [0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x8000];
        let floats = [1.0, -2.0, 65504.0, 1.0 / 16384.0, 1.0 / 16_777_216.0, -0.0];
        let mut stored = raw(DataType::Float16, &halves);
        widen(&mut stored);
        assert_eq!(super::super::floats(&stored).collect::<Vec<_>>(), floats);
        let mut listed = TensorProto { int32_data: vec![0x3c00], ..raw(DataType::Float16, &[]) };
        widen(&mut listed);
        assert_eq!((listed.float_data, listed.data_type), (vec![1.0], 1));
        let mut brain = raw(DataType::Bfloat16, &[0x3f80, 0xc0a0]);
        widen(&mut brain);
        assert_eq!(super::super::floats(&brain).collect::<Vec<_>>(), [1.0, -5.0]);
        let root = |dims: &[i64]| {
            let mut root = TensorProto { dims: dims.to_vec(), ..raw(DataType::Bfloat16, &[0x3fb5]) };
            widen(&mut root);
            super::super::floats(&root).next().unwrap()
        };
        assert_eq!((root(&[]), root(&[1])), (SQRT_2, SQRT_2));
        let mut weights = raw(DataType::Bfloat16, &[0x3fb5, 0x3fb5]);
        widen(&mut weights);
        assert_eq!(super::super::floats(&weights).collect::<Vec<_>>(), [1.414_062_5; 2]);
        assert!(f16_to_f32(0x7c00).is_infinite() && f16_to_f32(0x7c01).is_nan());
    }

    fn graph(elements: DataType, dims: &[usize]) -> GraphProto {
        let node = NodeProto { input: vec!["x".into()], output: vec!["y".into()], ..Default::default() };
        GraphProto {
            input: vec![ValueInfoProto::tensor("x", elements, Some(dims))],
            node: vec![node],
            ..Default::default()
        }
    }

    #[test]
    fn an_image_of_the_other_layout_is_turned() {
        for (elements, dims, wanted) in [
            (DataType::Float, [1, 8, 6, 3], Some([1, 3, 8, 6])),
            (DataType::Uint8, [1, 3, 8, 6], Some([1, 8, 6, 3])),
            (DataType::Float, [1, 3, 8, 6], None),
            (DataType::Float, [1, 3, 8, 3], None),
            (DataType::Uint8, [1, 8, 6, 3], None),
        ] {
            let mut graph = graph(elements, &dims);
            turn_image(&mut graph);
            let found = ValueInfoProto::tensor("x", elements, Some(&wanted.unwrap_or(dims)));
            assert_eq!(graph.input, [found]);
            let names: Vec<&str> = graph.node.iter().map(|node| &*node.input[0]).collect();
            assert_eq!(names, if wanted.is_some() { &["x", "x:turned"][..] } else { &["x"] });
        }
    }

    #[test]
    fn an_open_batch_is_one_image() {
        let mut graph = graph(DataType::Float, &[1, 3, 8, 8]);
        for open in [None, Some(Dimension::DimValue(-1)), Some(Dimension::DimParam("batch".into()))] {
            image_axes(&mut graph.input[0]).unwrap().dim[0].value = open;
            close_batch(&mut graph.input[0]);
            assert_eq!(graph.input, [ValueInfoProto::tensor("x", DataType::Float, Some(&[1, 3, 8, 8]))]);
        }
        image_axes(&mut graph.input[0]).unwrap().dim[0].value = Some(Dimension::DimValue(4));
        close_batch(&mut graph.input[0]);
        assert_eq!(
            fixed(image_axes(&mut graph.input[0]).unwrap(), 0),
            Some(4),
            "several images stay several"
        );
    }
}
