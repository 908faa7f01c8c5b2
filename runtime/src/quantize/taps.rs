//! Looks at values inside a model while it runs.

use std::sync::Arc;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SimpleState, TypedFact, TypedOp};

use super::prepare::Pixels;
use crate::backend;
use crate::engine::guarded;
use crate::error::Result;
use crate::gate::{Form, Input};

/// A model whose outputs are the values to look at.
pub(super) struct Taps {
    state: SimpleState<TypedFact, Box<dyn TypedOp>>,
    input: Input,
}

impl Taps {
    /// Prepares a model that passed the gate to show these float values, each named once.
    pub(super) fn new(proto: &ModelProto, input: &Input, values: &[&str]) -> Result<Taps> {
        let mut proto = proto.clone();
        proto.metadata_props.clear();
        if let Some(graph) = &mut proto.graph {
            graph.value_info.clear();
            let outputs = values.iter().map(|name| float(&tap(graph, name))).collect();
            graph.output = outputs;
        }
        let plan = backend::plan(proto)?;
        let state = guarded("start a session", || SimpleState::new(&plan))?;
        Ok(Taps { state, input: input.clone() })
    }

    /// Runs one image and shows each value with its number and its shape.
    pub(super) fn run(
        &mut self,
        pixels: &Pixels,
        mut show: impl FnMut(usize, &[f32], &[usize]) -> Result<()>,
    ) -> Result<()> {
        let Input { width, height, channels, form, .. } = self.input;
        let state = &mut self.state;
        let outputs = guarded("run the model", || {
            let tensor = match (pixels, form) {
                (Pixels::Bytes(bytes), Form::U8Nhwc) => {
                    Tensor::from_shape(&[1, height, width, channels], bytes)
                }
                (Pixels::Floats(floats), Form::F32Nchw) => {
                    Tensor::from_shape(&[1, channels, height, width], floats)
                }
                _ => TractResult::Err(TractError::msg("an image in another form than the input")),
            };
            state.run(tvec!(Arc::new(tensor?).into_tvalue()))
        })?;
        for (i, output) in outputs.iter().enumerate() {
            let values =
                guarded("read a value", || Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))?;
            show(i, &values, output.shape())?;
        }
        Ok(())
    }
}

/// The name under which a value can be an output: an image itself cannot, a copy can.
fn tap(graph: &mut GraphProto, name: &str) -> String {
    if graph.input.iter().all(|input| input.name != name) {
        return name.to_owned();
    }
    let taken = |name: &String| graph.node.iter().any(|node| node.output.contains(name));
    let copy = (0..).map(|i| format!("{name}.copy{i}")).find(|name| !taken(name)).unwrap_or_default();
    graph.node.push(NodeProto {
        name: copy.clone(),
        op_type: "Identity".into(),
        input: vec![name.to_owned()],
        output: vec![copy.clone()],
        ..Default::default()
    });
    copy
}

/// An output of floats, of whatever shape.
fn float(name: &str) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: 1, shape: None };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}
