//! What small graphs are lowered to. The graphs go through the gate, whose shapes the lowering takes.

mod arithmetic;
mod attention;
mod convolution;
mod data;
mod folded;
mod layout;
mod products;
mod quantization;
mod taps;

use prost::Message as _;
use smalti_models::onnx::attribute_proto::AttributeType;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::tensor_shape_proto::{Dimension, dimension};
use smalti_models::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

use super::{Lowered, lower};
use crate::compile::step::Step;
use crate::compile::{ImageView, compile};
use crate::error::Error;
use crate::gate::{self, Limits, Summary};

/// Bytes that constants may take.
const BUDGET: u64 = 1 << 20;

/// A graph on an image `[1, 3, 4, 4]`.
struct Graph(GraphProto);

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let ints = ints.to_vec();
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints, ..Default::default() }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f, ..Default::default() }
}

impl Graph {
    fn new() -> Graph {
        let dim = |dim| Dimension { value: Some(dimension::Value::DimValue(dim)), ..Default::default() };
        let shape = TensorShapeProto { dim: [1, 3, 4, 4].map(dim).to_vec() };
        let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        let input = ValueInfoProto { name: "image".into(), r#type: Some(r#type), ..Default::default() };
        Graph(GraphProto { input: vec![input], ..Default::default() })
    }

    /// With its four patches as `tokens`, `[1, 4, 6]`: of a patch's 12 values the first 6.
    fn tokens() -> Graph {
        let mut graph = Graph::new();
        graph.floats("w", &[6, 3, 2, 2], |i| f32::from(u8::from(i / 12 == i % 12)));
        graph.ints("columns", &[3], &[1, 6, 4]);
        graph.node("Conv", &["image", "w"], "patches", [ints("strides", &[2, 2])]);
        graph.node("Reshape", &["patches", "columns"], "turned", []);
        graph.node("Transpose", &["turned"], "tokens", [ints("perm", &[0, 2, 1])]);
        graph
    }

    fn constant(&mut self, name: &str, data_type: DataType, dims: &[i64], raw_data: Vec<u8>) {
        let (name, dims, data_type) = (name.to_owned(), dims.to_vec(), data_type as i32);
        self.0.initializer.push(TensorProto {
            name,
            dims,
            data_type,
            raw_data: raw_data.into(),
            ..Default::default()
        });
    }

    fn floats(&mut self, name: &str, dims: &[i64], value: impl Fn(usize) -> f32) {
        let count = dims.iter().product::<i64>() as usize;
        let bytes = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
        self.constant(name, DataType::Float, dims, bytes);
    }

    fn ints(&mut self, name: &str, dims: &[i64], values: &[i64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, DataType::Int64, dims, bytes);
    }

    fn node<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: [AttributeProto; N],
    ) {
        self.0.node.push(NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: output.split(' ').map(str::to_owned).collect(),
            attribute: attribute.to_vec(),
            ..Default::default()
        });
    }

    /// The graph with these outputs, separated by blanks, and what the gate says of it.
    fn checked(self, outputs: &str) -> (GraphProto, Summary) {
        self.opened(outputs).unwrap()
    }

    fn opened(mut self, outputs: &str) -> Result<(GraphProto, Summary), Error> {
        let port = |name: &str| ValueInfoProto { name: name.into(), ..Default::default() };
        self.0.output = outputs.split(' ').map(port).collect();
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
        let model = ModelProto { opset_import, graph: Some(self.0), ..Default::default() };
        let (model, summary) = gate::open(&model.encode_to_vec(), &Limits::default())?;
        Ok((model.graph.unwrap(), summary))
    }

    /// What the graph is lowered to.
    fn lowered<T>(self, outputs: &str, look: impl FnOnce(Lowered) -> T) -> T {
        let (graph, summary) = self.checked(outputs);
        look(lower(&graph, &summary.facts, BUDGET, &[]).unwrap())
    }

    /// The kinds of the steps behind the patch embedding.
    fn kinds(self, outputs: &str) -> Vec<&'static str> {
        self.lowered(outputs, |lowered| lowered.steps.iter().skip(2).map(Step::kind).collect())
    }

    /// Why the graph is not lowered.
    fn refusal(self, outputs: &str) -> String {
        let (graph, summary) = self.checked(outputs);
        lower(&graph, &summary.facts, BUDGET, &[]).map(|lowered| lowered.steps.len()).unwrap_err()
    }

    /// The output of the whole compiler's program for an image that counts from 0.
    fn run(self, output: &str) -> Vec<f32> {
        let (graph, summary) = self.checked(output);
        let program = compile(&graph, &summary.facts, BUDGET, &[]).unwrap().pack().unwrap();
        let mut arena = program.arena(1);
        let image: Vec<f32> = (0..48).map(|i| i as f32).collect();
        program.run(&mut arena, ImageView::F32(&image), |_, _| ());
        program.output(&arena, 0).unwrap().to_vec()
    }
}

/// The tokens of the image that counts from 0.
const TOKENS: [[f32; 6]; 4] = [
    [0.0, 1.0, 4.0, 5.0, 16.0, 17.0],
    [2.0, 3.0, 6.0, 7.0, 18.0, 19.0],
    [8.0, 9.0, 12.0, 13.0, 24.0, 25.0],
    [10.0, 11.0, 14.0, 15.0, 26.0, 27.0],
];

#[test]
fn tokens_are_patches() {
    assert!(Graph::tokens().kinds("tokens").is_empty(), "moving values takes no step");
    assert_eq!(Graph::tokens().run("tokens"), TOKENS.concat());
}

#[test]
fn what_is_not_known_is_named_with_its_node() {
    let mut graph = Graph::tokens();
    graph.node("Tanh", &["tokens"], "squashed", []);
    graph.node("ReduceMean", &["squashed"], "mean", [ints("axes", &[1]), int("keepdims", 0)]);
    let why = graph.refusal("mean");
    assert!(why.starts_with("node `mean` (ReduceMean): "), "{why}");
}

#[test]
fn layer_norms_are_of_rows() {
    let norm = |axis: i64, dims: &[i64]| {
        let mut graph = Graph::tokens();
        graph.floats("scale", dims, |_| 1.0);
        graph.node(
            "LayerNormalization",
            &["tokens", "scale"],
            "norm",
            [int("axis", axis), float("epsilon", 0.25)],
        );
        graph
    };
    norm(-1, &[6]).lowered("norm", |lowered| {
        let Some(Step::LayerNorm { scale, shift, eps, .. }) = lowered.steps.last() else { panic!("no norm") };
        assert_eq!((&scale[..], &shift[..], *eps), (&[1.0; 6][..], &[0.0; 6][..], 0.25));
    });
    assert!(norm(1, &[4, 6]).refusal("norm").contains("other axes"));
}

#[test]
fn means_are_over_the_rows_of_an_image() {
    let mean = |axes: &[i64]| {
        let mut graph = Graph::tokens();
        graph.node("ReduceMean", &["tokens"], "mean", [ints("axes", axes), int("keepdims", 0)]);
        graph
    };
    assert_eq!(mean(&[1]).kinds("mean"), ["mean"]);
    assert_eq!(mean(&[-2]).run("mean"), [5.0, 6.0, 9.0, 10.0, 21.0, 22.0]);
    assert_eq!(mean(&[2]).run("mean"), TOKENS.map(|token| token.iter().sum::<f32>() / 6.0));
    assert_eq!(mean(&[1, 2]).run("mean"), [TOKENS.concat().iter().sum::<f32>() / 24.0]);
}

#[test]
fn constants_stay_within_the_budget() {
    let mut graph = Graph::tokens();
    graph.floats("a", &[1, 4, 6], |i| i as f32);
    graph.node("Neg", &["a"], "constant", []);
    graph.node("Add", &["tokens", "constant"], "sum", []);
    let (graph, summary) = graph.checked("sum");
    assert!(lower(&graph, &summary.facts, 400, &[]).is_ok());
    let why = lower(&graph, &summary.facts, 100, &[]).map(|lowered| lowered.steps.len()).unwrap_err();
    assert!(why.contains("more memory than the file's size allows"), "{why}");
}
