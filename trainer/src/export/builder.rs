//! A small builder of ONNX graphs: nodes in the order of the data, weights in the order of their first use.
//!
//! Every node has one output, or some, and is named after its first.

use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// The graph under construction.
#[derive(Debug, Default)]
pub(super) struct Builder {
    graph: GraphProto,
}

impl Builder {
    /// A graph's input.
    pub(super) fn input(&mut self, name: &str, elements: DataType, shape: &[usize]) -> String {
        self.graph.input.push(ValueInfoProto::tensor(name, elements, Some(shape)));
        name.into()
    }

    /// Makes a value an output of the graph.
    pub(super) fn output(&mut self, name: &str, shape: &[usize]) {
        self.graph.output.push(ValueInfoProto::tensor(name, DataType::Float, Some(shape)));
    }

    /// Stored numbers.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.stored(name, DataType::Float, shape, bytes)
    }

    /// A stored list of sizes.
    pub(super) fn sizes(&mut self, name: &str, values: &[usize]) -> String {
        let bytes = values.iter().flat_map(|&value| (value as i64).to_le_bytes()).collect();
        self.stored(name, DataType::Int64, &[values.len()], bytes)
    }

    /// A stored place on an axis.
    pub(super) fn index(&mut self, name: &str, value: i64) -> String {
        self.stored(name, DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    fn stored(&mut self, name: &str, elements: DataType, shape: &[usize], raw_data: Vec<u8>) -> String {
        let dims = shape.iter().map(|&size| size as i64).collect();
        let data_type = elements as i32;
        let tensor = TensorProto {
            name: name.into(),
            dims,
            data_type,
            raw_data: raw_data.into(),
            ..Default::default()
        };
        self.graph.initializer.push(tensor);
        name.into()
    }

    /// A node with one output; returns that output's name.
    pub(super) fn node<S: AsRef<str>>(
        &mut self,
        op: &str,
        output: &str,
        inputs: &[S],
        attribute: Vec<AttributeProto>,
    ) -> String {
        let [output] = self.split(op, [output.into()], inputs, attribute);
        output
    }

    /// A node with several outputs; returns their names.
    pub(super) fn split<S: AsRef<str>, const N: usize>(
        &mut self,
        op: &str,
        outputs: [String; N],
        inputs: &[S],
        attribute: Vec<AttributeProto>,
    ) -> [String; N] {
        self.graph.node.push(NodeProto {
            name: outputs.first().cloned().unwrap_or_default(),
            op_type: op.into(),
            input: inputs.iter().map(|input| input.as_ref().to_owned()).collect(),
            output: outputs.to_vec(),
            attribute,
            ..Default::default()
        });
        outputs
    }

    /// The graph.
    pub(super) fn finish(mut self, name: &str) -> GraphProto {
        self.graph.name = name.into();
        self.graph
    }
}
