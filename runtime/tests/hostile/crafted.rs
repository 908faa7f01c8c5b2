//! Attacks with a name, each refused with words that point at it.

use prost::Message;
use smalti_models::onnx::attribute_proto::AttributeType;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::tensor_shape_proto::dimension::Value as Dimension;
use smalti_models::onnx::{
    AttributeProto, FunctionProto, GraphProto, Ignored, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto, type_proto,
};
use smalti_runtime::Model;

use super::{proto, survive};

/// A change of a model and a word of the refusal.
type Attack = (&'static str, fn(&mut ModelProto), &'static str);

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

/// The first node of that operator.
fn node<'a>(model: &'a mut ModelProto, op: &str) -> &'a mut NodeProto {
    graph(model).node.iter_mut().find(|node| node.op_type == op).unwrap()
}

fn attribute<'a>(model: &'a mut ModelProto, op: &str, name: &str) -> &'a mut AttributeProto {
    node(model, op).attribute.iter_mut().find(|attribute| attribute.name == name).unwrap()
}

/// An attribute of the first convolution, new if it has none of that name.
fn conv_attribute<'a>(model: &'a mut ModelProto, name: &str, kind: AttributeType) -> &'a mut AttributeProto {
    let attributes = &mut node(model, "Conv").attribute;
    attributes.retain(|attribute| attribute.name != name);
    attributes.push(AttributeProto { name: name.into(), r#type: kind as i32, ..Default::default() });
    attributes.last_mut().unwrap()
}

fn conv_ints(model: &mut ModelProto, name: &str, ints: &[i64]) {
    conv_attribute(model, name, AttributeType::Ints).ints = ints.to_vec();
}

fn conv_int(model: &mut ModelProto, name: &str, i: i64) {
    conv_attribute(model, name, AttributeType::Int).i = i;
}

/// A hard sigmoid in the place of the first softmax.
fn hard_sigmoid(model: &mut ModelProto, name: &str, f: f32) {
    let node = node(model, "Softmax");
    let kind = AttributeType::Float as i32;
    node.attribute = vec![AttributeProto { name: name.into(), r#type: kind, f, ..Default::default() }];
    node.op_type = "HardSigmoid".into();
}

fn weight<'a>(model: &'a mut ModelProto, name: &str) -> &'a mut TensorProto {
    graph(model).initializer.iter_mut().find(|weight| weight.name == name).unwrap()
}

fn set_float(model: &mut ModelProto, name: &str, value: f32) {
    weight(model, name).edit_raw(|raw| raw[..4].copy_from_slice(&value.to_le_bytes()));
}

fn set_int(model: &mut ModelProto, name: &str, i: usize, value: i64) {
    weight(model, name).edit_raw(|raw| raw[8 * i..8 * i + 8].copy_from_slice(&value.to_le_bytes()));
}

fn input_dim(model: &mut ModelProto, i: usize, value: Dimension) {
    let tensor_type = graph(model).input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
    let type_proto::Value::TensorType(tensor) = tensor_type;
    tensor.shape.as_mut().unwrap().dim[i].value = Some(value);
}

/// A node in the branch of an `If` that is always taken, with its output called so.
fn in_a_branch(node: NodeProto, output: String) -> NodeProto {
    let (input, before) = (vec!["truth".into()], node.output.clone());
    let ports = vec![ValueInfoProto::tensor(&output, DataType::Float, None)];
    let node = NodeProto { output: vec![output], ..node };
    let other = GraphProto { output: ports, ..Default::default() };
    let graph = GraphProto { node: vec![node], ..other.clone() };
    let branch = |(name, graph): (&str, GraphProto)| AttributeProto {
        name: name.into(),
        r#type: AttributeType::Graph as i32,
        g: Some(graph.into()),
        ..Default::default()
    };
    let attribute = [("then_branch", graph), ("else_branch", other)].map(branch).into();
    NodeProto { op_type: "If".into(), input, output: before, attribute, ..Default::default() }
}

/// The float model with its first softmax in a branch.
fn branched() -> ModelProto {
    let mut model = proto("colours_f32.onnx");
    graph(&mut model).initializer.push(truth(&[]));
    let softmax = node(&mut model, "Softmax");
    *softmax = in_a_branch(softmax.clone(), "inside".into());
    model
}

/// The branch that is taken.
fn taken(model: &mut ModelProto) -> &mut GraphProto {
    attribute(model, "If", "then_branch").g.as_mut().unwrap()
}

/// Attacks on the branch of an `If`, and on what chooses it.
const BRANCHES: &[Attack] = &[
    ("no branches", |m| node(m, "If").attribute.clear(), "no then_branch"),
    ("only the other branch", |m| drop(node(m, "If").attribute.remove(0)), "no then_branch"),
    ("a branch that is none", |m| attribute(m, "If", "then_branch").g = None, "then_branch"),
    ("a branch without outputs", |m| taken(m).output.clear(), "0 outputs"),
    ("a branch with inputs", |m| taken(m).input.push(ValueInfoProto::default()), "inputs"),
    ("a branch that computes nothing", |m| taken(m).node.clear(), "without its output"),
    ("a branch that defines a value again", |m| taken(m).node[0].output[0] = "truth".into(), "again"),
    ("a loop in a branch", |m| taken(m).node[0].op_type = "Loop".into(), "Loop"),
    ("an operator far out in a branch", |m| taken(m).node[0].attribute[0].i = 40, "axis"),
    ("sparse weights in a branch", |m| taken(m).sparse_initializer.push(Ignored {}), "sparse"),
    ("a weight in a branch cut off", |m| taken(m).initializer.push(cut_off()), "no data"),
    ("nodes without end in branches", |m| taken(m).node = vec![NodeProto::default(); 10_000], "nodes"),
    ("two conditions", |m| *weight(m, "truth") = truth(&[2]), "a condition"),
    ("no condition", |m| *weight(m, "truth") = TensorProto { data_type: 6, ..truth(&[]) }, "truth"),
    ("a real number as condition", |m| node(m, "If").input[0] = "head.weight".into(), "bool"),
    ("branches in branches", |m| nest(m, 40), "deep"),
];

fn truth(dims: &[usize]) -> TensorProto {
    TensorProto::raw("truth", DataType::Bool, dims, vec![1; dims.iter().product()])
}

fn cut_off() -> TensorProto {
    TensorProto::raw("cut off", DataType::Float, &[2], Vec::new())
}

fn nest(model: &mut ModelProto, times: usize) {
    let branch = node(model, "If");
    (0..times).for_each(|i| *branch = in_a_branch(branch.clone(), format!("inside {i}")));
}

#[test]
fn a_branch_that_is_always_taken_changes_nothing() {
    let answer = |model: &ModelProto| {
        let model = Model::from_bytes(&model.encode_to_vec()).unwrap();
        assert_eq!(model.fallback_reason(), None);
        model.session().unwrap().run_floats(&vec![0.5; model.input().values()]).unwrap().logits
    };
    let plain = answer(&proto("colours_f32.onnx"));
    assert_eq!(answer(&branched()), plain);
    let mut deep = branched();
    nest(&mut deep, 20);
    assert_eq!(answer(&deep), plain);
}

/// Attacks on the float model in the exporter's form.
const ATTACKS: &[Attack] = &[
    ("layer norm axis", |m| attribute(m, "LayerNormalization", "axis").i = 3, "axis 3"),
    ("layer norm axis far out", |m| attribute(m, "LayerNormalization", "axis").i = i64::MIN, "axis"),
    ("negative epsilon", |m| attribute(m, "LayerNormalization", "epsilon").f = -1.0, "epsilon"),
    ("epsilon NaN", |m| attribute(m, "LayerNormalization", "epsilon").f = f32::NAN, "epsilon"),
    ("softmax axis", |m| attribute(m, "Softmax", "axis").i = 4, "axis 4"),
    ("transpose axis twice", |m| attribute(m, "Transpose", "perm").ints = vec![0, 1, 1], "twice"),
    ("transpose of fewer axes", |m| attribute(m, "Transpose", "perm").ints = vec![0, 1], "permutation"),
    ("stride zero", |m| attribute(m, "Conv", "strides").ints = vec![0, 4], "strides"),
    ("negative stride", |m| attribute(m, "Conv", "strides").ints = vec![-4, 4], "strides"),
    ("stride of 2^40", |m| attribute(m, "Conv", "strides").ints = vec![1 << 40, 4], "strides"),
    ("negative pads", |m| conv_ints(m, "pads", &[0, -1, 0, 0]), "pads"),
    ("pads of 2^40", |m| conv_ints(m, "pads", &[0, 0, 1 << 40, 0]), "pads"),
    ("pads in two numbers", |m| conv_ints(m, "pads", &[1, 1]), "pads"),
    ("pads without end", |m| conv_ints(m, "pads", &[i64::MAX; 4]), "pads"),
    ("dilation zero", |m| conv_ints(m, "dilations", &[0, 1]), "dilations"),
    ("dilation of 2^40", |m| conv_ints(m, "dilations", &[1 << 40; 2]), "dilations"),
    ("windows beyond the image", |m| conv_ints(m, "dilations", &[4096; 2]), "window"),
    ("no groups", |m| conv_int(m, "group", 0), "group"),
    ("negative groups", |m| conv_int(m, "group", -3), "group"),
    ("groups that do not divide", |m| conv_int(m, "group", 2), "group"),
    ("more groups than channels", |m| conv_int(m, "group", 65_536), "group"),
    ("groups without end", |m| conv_int(m, "group", i64::MAX), "group"),
    (
        "padding of its own kind",
        |m| conv_attribute(m, "auto_pad", AttributeType::String).s = b"MORE".to_vec(),
        "auto_pad",
    ),
    ("kernel shape", |m| attribute(m, "Conv", "kernel_shape").ints = vec![4, 5], "kernel_shape"),
    (
        "attribute twice",
        |m| {
            let a = node(m, "Conv").attribute[0].clone();
            node(m, "Conv").attribute.push(a)
        },
        "twice",
    ),
    (
        "attribute of another type",
        |m| attribute(m, "Softmax", "axis").r#type = AttributeType::Float as i32,
        "type",
    ),
    ("slope that is no number", |m| hard_sigmoid(m, "alpha", f32::NAN), "alpha"),
    ("slope beyond bounds", |m| hard_sigmoid(m, "alpha", -2e6), "alpha"),
    ("shift without end", |m| hard_sigmoid(m, "beta", f32::INFINITY), "beta"),
    ("attribute of another operator", |m| hard_sigmoid(m, "gamma", 1.0), "`gamma`"),
    ("unknown attribute", |m| attribute(m, "Softmax", "axis").name = "axes".into(), "`axes`"),
    ("axes out of range", |m| attribute(m, "ReduceMean", "axes").ints = vec![3], "axis 3"),
    ("axes twice", |m| attribute(m, "ReduceMean", "axes").ints = vec![1, -2], "twice"),
    ("reshape to other size", |m| set_int(m, "patches.shape", 1, 9), "elements"),
    ("reshape overflow", |m| set_int(m, "patches.shape", 1, i64::MAX), "elements"),
    ("reshape below -1", |m| set_int(m, "patches.shape", 1, -7), "elements"),
    (
        "two rests in a shape",
        |m| {
            set_int(m, "patches.shape", 1, -1);
            set_int(m, "patches.shape", 2, -1)
        },
        "elements",
    ),
    (
        "slice backwards",
        |m| {
            set_int(m, "pool.from", 0, 4);
            set_int(m, "pool.to", 0, 1)
        },
        "not empty",
    ),
    ("squeeze of a long axis", |m| set_int(m, "blocks.0.attn.axis", 0, 3), "length 1"),
    ("split in wrong parts", |m| drop(node(m, "Split").output.pop()), "parts"),
    ("huge image", |m| input_dim(m, 2, Dimension::DimValue(1 << 40)), "input"),
    ("negative image", |m| input_dim(m, 2, Dimension::DimValue(-8)), "static"),
    ("no image", |m| input_dim(m, 2, Dimension::DimValue(0)), "input"),
    ("large batch", |m| input_dim(m, 0, Dimension::DimValue(2)), "[1, C, H, W]"),
    ("open width", |m| input_dim(m, 2, Dimension::DimParam("width".into())), "width"),
    ("unknown dimension", |m| input_dim(m, 1, Dimension::DimParam(String::new())), "dimension"),
    ("weight NaN", |m| set_float(m, "head.weight", f32::NAN), "head.weight"),
    ("weight infinite", |m| set_float(m, "head.weight", f32::INFINITY), "finite"),
    ("weight cut off", |m| weight(m, "head.weight").edit_raw(|raw| raw.truncate(8)), "24 float32"),
    ("weight too long", |m| weight(m, "head.weight").edit_raw(|raw| raw.extend([0; 4])), "24 float32"),
    ("weight negative", |m| weight(m, "head.weight").dims[0] = -3, "shape"),
    ("weight overflowing", |m| weight(m, "head.weight").dims = vec![1 << 32, 1 << 32], "shape"),
    ("weight of doubles", |m| weight(m, "head.weight").data_type = 11, "double"),
    ("weight of strings", |m| weight(m, "head.weight").data_type = 8, "string"),
    ("weight elsewhere", |m| weight(m, "head.weight").data_location = Some(1), "another file"),
    (
        "weight twice",
        |m| {
            let w = weight(m, "head.weight").clone();
            graph(m).initializer.push(w)
        },
        "again",
    ),
    ("weight gone", |m| graph(m).initializer.retain(|w| w.name != "head.weight"), "defined before"),
    (
        "node twice",
        |m| {
            let n = graph(m).node[0].clone();
            graph(m).node.push(n)
        },
        "again",
    ),
    ("cycle", |m| node(m, "Conv").input[0] = "logits".into(), "defined before"),
    (
        "node feeds itself",
        |m| {
            let out = node(m, "Conv").output[0].clone();
            node(m, "Conv").input[0] = out
        },
        "defined before",
    ),
    ("nodes in reverse", |m| graph(m).node.reverse(), "defined before"),
    ("no nodes", |m| graph(m).node.clear(), "output"),
    ("no graph", |m| m.graph = None, "no graph"),
    ("no outputs", |m| graph(m).output.clear(), "0 outputs"),
    ("output of nothing", |m| graph(m).output[0].name = "nowhere".into(), "nowhere"),
    ("output twice", |m| graph(m).output[0].name = "logits".into(), "twice"),
    ("output is the weight", |m| graph(m).output[1].name = "head.bias".into(), "constant"),
    (
        "two inputs",
        |m| {
            let i = graph(m).input[0].clone();
            graph(m).input.push(i)
        },
        "2 inputs",
    ),
    ("no input", |m| graph(m).input.clear(), "0 inputs"),
    ("loop", |m| node(m, "Add").op_type = "Loop".into(), "Loop"),
    ("foreign domain", |m| node(m, "Add").domain = "com.microsoft".into(), "com.microsoft"),
    ("old opset", |m| m.opset_import[0].version = 7, "opset 7"),
    ("future opset", |m| m.opset_import[0].version = 99, "opset 99"),
    ("no opset", |m| m.opset_import.clear(), "no opset"),
    (
        "two opsets",
        |m| m.opset_import.push(OperatorSetIdProto { domain: "ai.onnx".into(), version: 17 }),
        "two opsets",
    ),
    ("layer norm before opset 17", |m| m.opset_import[0].version = 13, "opset 17"),
    ("training", |m| m.training_info.push(Ignored {}), "training"),
    ("function", |m| m.functions.push(FunctionProto::default()), "function"),
    ("subgraph", |m| attribute(m, "Softmax", "axis").g = Some(Box::default()), "subgraph"),
    ("cast to strings", |m| attribute(m, "Softmax", "axis").i = 8, "axis"),
    ("labels for other classes", |m| entry(m, "names").value = "{0: 'one'}".into(), ""),
    ("record cut off", |m| entry(m, "golden").value.truncate(9), "golden"),
    (
        "preprocessing of another size",
        |m| {
            let v = entry(m, "preprocessor_config");
            v.value = v.value.replace(": 8", ": 9")
        },
        "",
    ),
];

/// Attacks on the quantized model.
const QUANTIZED: &[Attack] = &[
    ("scale NaN", |m| scale(m, f32::NAN), "finite"),
    ("scale zero", |m| scale(m, 0.0), "scale 0"),
    ("scale negative", |m| scale(m, -0.5), "scale -0.5"),
    ("scale denormal", |m| scale(m, 1e-45), "scale"),
    (
        "zero point of another type",
        |m| {
            let name = node(m, "QuantizeLinear").input[2].clone();
            weight(m, &name).data_type = 6;
            weight(m, &name).raw_data = vec![0; 4].into();
            weight(m, &name).int32_data.clear();
        },
        "zero point",
    ),
];

fn entry<'a>(model: &'a mut ModelProto, key: &str) -> &'a mut StringStringEntryProto {
    model.metadata_props.iter_mut().find(|entry| entry.key == key).unwrap()
}

/// Changes the scale of the first quantization.
fn scale(model: &mut ModelProto, value: f32) {
    let name = node(model, "QuantizeLinear").input[1].clone();
    let scale = weight(model, &name);
    scale.float_data.clear();
    scale.raw_data = value.to_le_bytes().to_vec().into();
}

#[test]
fn every_attack_is_refused_by_name() {
    let (float, quantized) = (proto("colours_f32.onnx"), proto("colours_qdq.onnx"));
    for (model, attacks) in [(float, ATTACKS), (quantized, QUANTIZED), (branched(), BRANCHES)] {
        for (name, attack, word) in attacks {
            let mut model = model.clone();
            attack(&mut model);
            let error = match Model::from_bytes(&model.encode_to_vec()) {
                Ok(_) => panic!("{name}: passed"),
                Err(error) => error,
            };
            assert_eq!(error.exit_code(), 3, "{name}: {error}");
            let message = error.to_string();
            assert!(message.contains(word) && !message.contains('\n'), "{name}: {message}");
        }
    }
}

/// A model around a chain of nodes that all do the same.
fn chain(op: &str, length: usize) -> Vec<u8> {
    let mut model = proto("colours_f32.onnx");
    let graph = graph(&mut model);
    let last = graph.node.len() - 1;
    let mut before = graph.node[last].output[0].clone();
    for i in 0..length {
        let output = if i + 1 == length { "logits".to_owned() } else { format!("chain{i}") };
        if i == 0 {
            before = "chain_in".into();
            graph.node[last].output[0] = before.clone();
        }
        let input = if op == "Add" { vec![before.clone(); 2] } else { vec![before.clone()] };
        graph.node.push(NodeProto {
            input,
            output: vec![output.clone()],
            op_type: op.into(),
            ..Default::default()
        });
        before = output;
    }
    model.encode_to_vec()
}

#[test]
fn depth_breadth_and_size_are_bounded() {
    // Deep enough to break recursion, not the budget.
    let deep = ["Identity", "Tanh", "Neg"].map(|op| (format!("2000 x {op}"), chain(op, 2000)));
    // Doubling 2000 times is infinite, which is an answer, not a crash.
    let cases = deep.into_iter().chain([("2000 x Add".to_owned(), chain("Add", 2000))]);
    assert!(survive(cases) >= 3);
    let error = Model::from_bytes(&chain("Tanh", 20_000)).unwrap_err();
    assert!(error.to_string().contains("nodes"), "{error}");
}

#[test]
fn memory_is_refused_before_it_is_taken() {
    // Each shape is legal; together they ask for more than the budgets.
    let grow = |wanted: i64| {
        let mut model = proto("colours_f32.onnx");
        let graph = graph(&mut model);
        let shape = [wanted, wanted, 1, 1, 1].iter().flat_map(|dim: &i64| dim.to_le_bytes()).collect();
        graph.initializer.push(TensorProto {
            name: "large".into(),
            dims: vec![5],
            data_type: 7,
            raw_data: shape,
            ..Default::default()
        });
        let input = vec!["cls_token".into(), "large".into()];
        let node =
            NodeProto { input, output: vec!["much".into()], op_type: "Expand".into(), ..Default::default() };
        graph.node.push(node);
        Model::from_bytes(&model.encode_to_vec())
    };
    assert!(grow(10).is_ok());
    for wanted in [10_000, 1 << 40, i64::MAX] {
        let message = grow(wanted).unwrap_err().to_string();
        assert!(message.contains("Expand"), "{message}");
    }
}

#[test]
fn numbers_that_are_known_are_bounded() {
    let ranges = |count: usize, numbers: i64| {
        let mut model = proto("colours_f32.onnx");
        let graph = graph(&mut model);
        for (name, value) in [("start", 0i64), ("limit", numbers), ("step", 1)] {
            let raw_data = value.to_le_bytes().to_vec().into();
            graph.initializer.push(TensorProto {
                name: name.into(),
                data_type: 7,
                raw_data,
                ..Default::default()
            });
        }
        for i in 0..count {
            graph.node.push(NodeProto {
                input: ["start", "limit", "step"].map(str::to_owned).to_vec(),
                output: vec![format!("range{i}")],
                op_type: "Range".into(),
                ..Default::default()
            });
        }
        Model::from_bytes(&model.encode_to_vec()).map(|_| ()).map_err(|error| error.to_string())
    };
    ranges(3, 1 << 18).unwrap();
    let message = ranges(5000, 1 << 18).unwrap_err();
    assert!(message.contains("computed constants"), "{message}");
    let message = ranges(1, 1 << 40).unwrap_err();
    assert!(message.contains("Range") && message.contains("to 262144 numbers"), "{message}");
}
