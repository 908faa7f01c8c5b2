//! Random changes of valid models: structure through the messages, bytes by flipping and cutting.

use fastrand::Rng;
use prost::Message;
use smalti_models::onnx::attribute_proto::AttributeType;
use smalti_models::onnx::tensor_shape_proto::dimension::Value as Dimension;
use smalti_models::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, type_proto};

use super::{file, survive};

/// The models that are changed, in `tests`.
const BASES: [&str; 9] = [
    "models/colours_u8",
    "models/colours_qdq",
    "models/timm_vit",
    "models/deit_distilled_dynamo",
    "models/torch_encoder",
    "operators/graphs/residual_stages_f32",
    "operators/graphs/residual_stages_int8",
    "operators/graphs/convolution_of_a_map_groups",
    "operators/graphs/convolution_int8_depthwise",
];

/// Numbers that break things.
const INTS: [i64; 16] =
    [i64::MIN, -2_147_483_649, -100, -3, -2, -1, 0, 1, 2, 3, 4, 7, 64, 4097, 1 << 40, i64::MAX];
const FLOATS: [f32; 9] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.0, -0.0, 1e-45, 3.4e38, 1e-6];
/// Operators inside and outside the profile.
const OPS: [&str; 34] = [
    "Add",
    "Mul",
    "Div",
    "MatMul",
    "Gemm",
    "Conv",
    "Reshape",
    "Transpose",
    "Softmax",
    "LayerNormalization",
    "Slice",
    "Split",
    "Gather",
    "Concat",
    "Squeeze",
    "Unsqueeze",
    "Expand",
    "Shape",
    "ReduceMean",
    "Where",
    "QuantizeLinear",
    "DequantizeLinear",
    "BatchNormalization",
    "Clip",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "MaxPool",
    "Pad",
    "Relu",
    "Sigmoid",
    "Sub",
    "Loop",
    "NonZero",
];

/// Operators that take each other's place.
const UNARY: [&str; 15] = [
    "Abs",
    "Erf",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "Neg",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Sqrt",
    "Tanh",
    "Neg",
    "Relu",
];
const BINARY: [&str; 5] = ["Add", "Div", "Mul", "Pow", "Sub"];

struct Dice(Rng);

impl Dice {
    /// Below `sides`; 0 if there are none.
    fn roll(&mut self, sides: usize) -> usize {
        self.0.usize(..sides.max(1))
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }

    fn any<'a, T>(&mut self, from: &'a mut [T]) -> Option<&'a mut T> {
        let i = self.roll(from.len());
        from.get_mut(i)
    }
}

/// Some value's name, mostly one that the graph has.
fn a_name(graph: &GraphProto, dice: &mut Dice) -> String {
    let node = graph.node.get(dice.roll(graph.node.len()));
    let weight = graph.initializer.get(dice.roll(graph.initializer.len()));
    match (dice.roll(8), node, weight) {
        (0, _, _) => String::new(),
        (1, _, _) => "nowhere".into(),
        (2, _, _) => "image".into(),
        (3 | 4, _, Some(weight)) => weight.name.clone(),
        (_, Some(node), _) => node.output.first().cloned().unwrap_or_default(),
        _ => "nothing".into(),
    }
}

fn change_node(node: &mut NodeProto, name: String, dice: &mut Dice) {
    match dice.roll(11) {
        9 if UNARY.contains(&&*node.op_type) => node.op_type = dice.pick(&UNARY).into(),
        9 | 10 if BINARY.contains(&&*node.op_type) => node.op_type = dice.pick(&BINARY).into(),
        0 => node.op_type = dice.pick(&OPS).into(),
        1 => node.domain = "com.microsoft".into(),
        2 => drop(node.input.pop()),
        3 => node.input.push(name),
        4 => drop(node.output.pop()),
        5 => node.output.push(name),
        6 => node.input.reverse(),
        7 => dice.any(&mut node.output).into_iter().for_each(|output| *output = name.clone()),
        _ => dice.any(&mut node.input).into_iter().for_each(|input| *input = name.clone()),
    }
}

/// Puts something on single values in front of a node's input: a function, a sum or a product with a number, or a
/// quantization and its counterpart.
fn insert(graph: &mut GraphProto, i: usize, dice: &mut Dice) {
    let count = graph.node[i].input.len();
    let k = dice.roll(count);
    let Some(x) = graph.node[i].input.get(k).cloned() else { return };
    let fresh = format!("mutant.{}.{}", graph.node.len(), graph.initializer.len());
    let node = |op: &str, input: &[&str], output: &str| NodeProto {
        op_type: op.into(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    let mut constant = |step: &str, data_type: i32, raw_data: Vec<u8>| {
        let name = format!("{fresh}.{step}");
        let tensor =
            TensorProto { name: name.clone(), data_type, raw_data: raw_data.into(), ..Default::default() };
        graph.initializer.push(tensor);
        name
    };
    let added = match dice.roll(4) {
        0 | 1 => vec![node(dice.pick(&UNARY), &[&x], &fresh)],
        2 => {
            let number: f32 = dice.pick(&[-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 10.0, 1e-4]);
            let number = constant("number", 1, number.to_le_bytes().to_vec());
            let sides = if dice.roll(2) == 0 { [&*x, &number] } else { [&*number, &x] };
            vec![node(dice.pick(&BINARY), &sides, &fresh)]
        }
        _ => {
            let scale: f32 = dice.pick(&[0.0213, 0.0517, 0.0109, 0.171]);
            let scale = constant("scale", 1, scale.to_le_bytes().to_vec());
            let zero = constant("zero", dice.pick(&[2, 3]), vec![dice.pick(&[0, 3, 100, 128, 200])]);
            let levels = format!("{fresh}.levels");
            let (levels, pair) = (&*levels, [&*scale, &zero]);
            vec![
                node("QuantizeLinear", &[&x, pair[0], pair[1]], levels),
                node("DequantizeLinear", &[levels, pair[0], pair[1]], &fresh),
            ]
        }
    };
    graph.node[i].input[k] = fresh;
    graph.node.splice(i..i, added);
}

fn change_attribute(node: &mut NodeProto, dice: &mut Dice) {
    let (int, float) = (dice.pick(&INTS), dice.pick(&FLOATS));
    let choice = dice.roll(8);
    let Some(attribute) = dice.any(&mut node.attribute) else { return };
    match choice {
        0 => attribute.name = "axis".into(),
        1 => attribute.r#type = AttributeType::Floats as i32,
        2 => attribute.ints.push(int),
        3 => drop(attribute.ints.pop()),
        4 => attribute.t = None,
        5 => {
            let twice = attribute.clone();
            node.attribute.push(twice);
        }
        6 => node.attribute.clear(),
        _ => {
            attribute.f = float;
            attribute.i = int;
            if let Some(one) = dice.any(&mut attribute.ints) {
                *one = int;
            }
            if let Some(tensor) = &mut attribute.t {
                change_weight(tensor, dice);
            }
        }
    }
}

fn change_weight(tensor: &mut TensorProto, dice: &mut Dice) {
    let (int, float) = (dice.pick(&INTS), dice.pick(&FLOATS));
    match dice.roll(9) {
        0 => tensor.dims.push(int),
        1 => drop(tensor.dims.pop()),
        2 => tensor.dims.reverse(),
        3 => tensor.data_type = dice.pick(&[0, 1, 2, 3, 6, 7, 9, 10, 11, 16, 99]),
        4 => tensor.edit_raw(|raw| raw.truncate(dice.roll(raw.len() + 1))),
        5 => tensor.data_location = Some(1),
        6 => dice.any(&mut tensor.dims).into_iter().for_each(|dim| *dim = int),
        7 if tensor.data_type == 7 => {
            let value = int.to_le_bytes();
            tensor.edit_raw(|raw| {
                dice.any(raw.as_chunks_mut::<8>().0).into_iter().for_each(|slot| *slot = value);
            });
        }
        _ => {
            let value = float.to_le_bytes();
            tensor.edit_raw(|raw| {
                dice.any(raw.as_chunks_mut::<4>().0).into_iter().for_each(|slot| *slot = value);
            });
        }
    }
}

fn change_input(graph: &mut GraphProto, dice: &mut Dice) {
    let (int, choice) = (dice.pick(&INTS), dice.roll(5));
    let Some(input) = graph.input.first_mut() else { return };
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
    else {
        return;
    };
    let Some(shape) = &mut tensor.shape else { return };
    match choice {
        0 => tensor.elem_type = dice.pick(&[0, 1, 2, 7, 10, 99]),
        1 => drop(shape.dim.pop()),
        2 => shape.dim.reverse(),
        3 => input.r#type = None,
        _ => {
            if let Some(dim) = dice.any(&mut shape.dim) {
                dim.value = Some(Dimension::DimValue(int));
            }
        }
    }
}

fn change_graph(graph: &mut GraphProto, dice: &mut Dice) {
    let (i, j) = (dice.roll(graph.node.len()), dice.roll(graph.node.len()));
    let name = a_name(graph, dice);
    match dice.roll(22) {
        _ if graph.node.is_empty() => {}
        16.. => insert(graph, i, dice),
        0 => drop(graph.node.remove(i)),
        1 => graph.node.swap(i, j),
        2 => graph.node.push(graph.node[i].clone()),
        3 | 4 => change_input(graph, dice),
        5 => drop(graph.initializer.pop()),
        6 => graph.initializer.extend(graph.initializer.first().cloned()),
        7 => dice.any(&mut graph.output).into_iter().for_each(|output| output.name = name.clone()),
        8 | 9 => dice.any(&mut graph.node).into_iter().for_each(|node| change_node(node, name.clone(), dice)),
        10..=12 => {
            let with_attributes = graph.node.iter_mut().filter(|node| !node.attribute.is_empty());
            let mut nodes: Vec<_> = with_attributes.collect();
            dice.any(&mut nodes).into_iter().for_each(|node| change_attribute(node, dice));
        }
        _ => dice.any(&mut graph.initializer).into_iter().for_each(|weight| change_weight(weight, dice)),
    }
}

/// A model with one to three changes.
fn mutant(mut model: ModelProto, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..1 + dice.roll(3) {
        match (dice.roll(20), &mut model.graph) {
            (0, _) => model.opset_import.iter_mut().for_each(|import| import.version = dice.pick(&INTS)),
            (1, _) => {
                dice.any(&mut model.metadata_props).into_iter().for_each(|entry| entry.value.truncate(7))
            }
            (_, Some(graph)) => change_graph(graph, dice),
            (_, None) => {}
        }
    }
    model.encode_to_vec()
}

/// The bytes of a file with some flipped, or cut off.
fn damaged(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    if dice.roll(4) == 0 {
        bytes.truncate(dice.roll(bytes.len()));
        return bytes;
    }
    for _ in 0..1 + dice.roll(8) {
        let (i, value) = (dice.roll(bytes.len()), dice.roll(256) as u8);
        bytes[i] = value;
    }
    bytes
}

/// The first `count` mutants, of all bases in turn, every fifth damaged as bytes.
fn cases(count: usize) -> impl Iterator<Item = (String, Vec<u8>)> + Send {
    let bases = BASES.map(|name| {
        let bytes = file(&format!("{name}.onnx"));
        (ModelProto::decode(&bytes[..]).unwrap(), bytes)
    });
    (0..count).map(move |seed| {
        let (model, bytes) = &bases[seed % bases.len()];
        let mut dice = Dice(Rng::with_seed(seed as u64));
        let bytes = match (seed / bases.len()) % 5 {
            0 => damaged(bytes.clone(), &mut dice),
            _ => mutant(model.clone(), &mut dice),
        };
        (format!("mutant {seed} of {}", BASES[seed % BASES.len()]), bytes)
    })
}

#[test]
fn a_thousand_mutants() {
    let passed = survive(cases(1000));
    // Some changes are harmless, most are not.
    assert!((100..700).contains(&passed), "{passed} mutants passed the gate");
}

#[test]
#[ignore = "minutes; SMALTI_MUTANTS=100000 cargo test --release -p smalti-runtime --test hostile -- --ignored"]
fn many_mutants() {
    let count = std::env::var("SMALTI_MUTANTS").map_or(100_000, |count| count.parse().unwrap());
    let passed = survive(cases(count));
    println!("{passed} of {count} mutants passed the gate and ran");
}
