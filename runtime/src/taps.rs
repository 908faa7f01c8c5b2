//! Values inside a model while it runs, such as a quantizer calibrates on.

use smalti_models::image::View;
use smalti_models::onnx::{GraphProto, NodeProto, TypeProto, ValueInfoProto, type_proto};
use smalti_models::preprocess::Scratch;

use crate::backend::{Plan, Runner};
use crate::compile::ImageView;
use crate::error::{Error, Result};
use crate::gate::{self, Form, Limits};
use crate::load::Model;

/// A model, run by tract, that shows values inside it.
pub struct Taps {
    model: Model,
    runner: Runner,
    scratch: Scratch,
    /// Normalised pixels of the last image.
    floats: Vec<f32>,
}

impl std::fmt::Debug for Taps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taps").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Taps {
    /// Prepares the model file `bytes` to show these float values, each named once. `model` is the same file, opened;
    /// its preprocessing prepares the images.
    ///
    /// # Errors
    /// [`Error::Refused`] for a model outside the profile of [`crate::gate`], and for every model in a build without the
    /// feature `tract`; [`Error::Engine`] where tract does not know one of the values or cannot run the model.
    pub fn new(bytes: &[u8], model: &Model, values: &[&str]) -> Result<Taps> {
        let (mut proto, _) = gate::open(bytes, &Limits::default())?;
        proto.metadata_props.clear();
        if let Some(graph) = &mut proto.graph {
            graph.value_info.clear();
            graph.output = values.iter().map(|name| float(&tap(graph, name))).collect();
        }
        let runner = Plan::new(proto, "values inside the model are asked for")?.runner(model.input())?;
        let floats = vec![0.0; if model.input().form == Form::F32Nchw { model.input().values() } else { 0 }];
        Ok(Taps { model: model.clone(), runner, scratch: Scratch::default(), floats })
    }

    /// Prepares an image as the model's preprocessing says, runs the model, and shows each value: its place among those
    /// that were asked for, its elements, its shape.
    ///
    /// # Errors
    /// [`Error::Usage`] for a model without preprocessing, [`Error::Data`] for an image that cannot be prepared,
    /// [`Error::Engine`] if tract fails, and whatever `show` returns.
    pub fn run_image(
        &mut self,
        image: View<'_>,
        show: impl FnMut(usize, &[f32], &[usize]) -> Result<()>,
    ) -> Result<()> {
        let Some(preprocess) = self.model.preprocess() else {
            let problem =
                "the model file does not say how to prepare images; give preprocessing (mean, std, fit)";
            return Err(Error::Usage(problem.into()));
        };
        let (input, unusable) = (self.model.input(), |error| Error::data("image", error));
        let pixels = preprocess.apply_to(input.size(), image, &mut self.scratch).map_err(unusable)?;
        let image = match input.form {
            Form::U8Nhwc => ImageView::U8(pixels),
            Form::F32Nchw => {
                preprocess.normalise_to(input.size(), pixels, &mut self.floats).map_err(unusable)?;
                ImageView::F32(&self.floats)
            }
        };
        self.runner.run(image, show)
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
