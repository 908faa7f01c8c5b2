//! tract, which runs the graphs that [`crate::compile`] does not know. Its errors become ours and its panics do not get
//! out.
//!
//! [`rewrite`] goes around what it gets wrong, [`convert`] makes its messages of ours.

mod convert;
mod rewrite;

use std::sync::Arc;

use smalti_models::onnx::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SimpleState, TypedFact, TypedOp};

use crate::compile::ImageView;
use crate::error::{Error, Result};
use crate::gate::{Form, Input};
use crate::guard::guard;
use crate::text::one_line;

/// A graph, ready to run, shared by all runners.
#[derive(Clone, Debug)]
pub(crate) struct Plan(Arc<TypedRunnableModel>);

/// What one thread runs a [`Plan`] with.
pub(crate) struct Runner {
    plan: Plan,
    state: SimpleState<TypedFact, Box<dyn TypedOp>>,
    form: Input,
    /// What goes in; tract gives its share of it back after a run.
    input: Arc<Tensor>,
}

/// Runs one step of tract.
fn guarded<T>(step: &'static str, work: impl FnOnce() -> TractResult<T>) -> Result<T> {
    guard(step, work)?.map_err(|error| Error::Engine { step, problem: one_line(&format!("{error:#}")) })
}

impl Plan {
    /// tract's own steps, each of which can be looked at on its own, for a graph that has passed the gate.
    pub(crate) fn new(mut proto: ModelProto, _why: &str) -> Result<Plan> {
        proto.graph.iter_mut().for_each(rewrite::rewrite);
        // tract wants names of nodes to be unique; those of values are.
        for node in proto.graph.iter_mut().flat_map(|graph| &mut graph.node) {
            node.name = node.output.first().cloned().unwrap_or_default();
        }
        let proto = convert::model(proto);
        let parsed = guarded("read the graph", || onnx().model_for_proto_model(&proto))?;
        drop(proto);
        let typed = guarded("infer types and shapes", || parsed.into_typed())?;
        let plain = guarded("simplify the graph", || typed.into_decluttered())?;
        let optimised = guarded("choose kernels", || {
            let mut model = plain;
            model.optimize()?;
            Ok(model)
        })?;
        guarded("plan the run", || optimised.into_runnable()).map(Plan)
    }

    /// What one thread runs the graph with, on images of that form.
    pub(crate) fn runner(&self, form: &Input) -> Result<Runner> {
        Ok(Runner {
            state: guarded("start a session", || SimpleState::new(&self.0))?,
            input: Arc::new(guarded("make room for an image", || empty(form))?),
            form: form.clone(),
            plan: self.clone(),
        })
    }
}

impl Runner {
    /// Runs the graph on as many values as the input has, and shows each output: its number, values, shape. After a
    /// failure the next run starts afresh.
    pub(crate) fn run(
        &mut self,
        image: ImageView<'_>,
        mut show: impl FnMut(usize, &[f32], &[usize]) -> Result<()>,
    ) -> Result<()> {
        let Runner { plan, state, form, input } = self;
        let result = guarded("run the model", || run(state, input, form, image));
        if result.is_err() {
            *state = guarded("start a session", || SimpleState::new(&plan.0))?;
        }
        for (i, output) in result?.iter().enumerate() {
            let plain = guarded("read a value", || output.try_as_plain_ram())?;
            show(i, guarded("read a value", || plain.as_slice::<f32>())?, output.shape())?;
        }
        Ok(())
    }
}

/// A tensor of the input's type and shape.
fn empty(input: &Input) -> TractResult<Tensor> {
    let Input { width, height, channels, .. } = *input;
    match input.form {
        Form::U8Nhwc => Tensor::zero::<u8>(&[1, height, width, channels]),
        Form::F32Nchw => Tensor::zero::<f32>(&[1, channels, height, width]),
    }
}

/// One run.
fn run(
    state: &mut SimpleState<TypedFact, Box<dyn TypedOp>>,
    input: &mut Arc<Tensor>,
    form: &Input,
    image: ImageView<'_>,
) -> TractResult<TVec<TValue>> {
    if Arc::get_mut(input).is_none() {
        *input = Arc::new(empty(form)?);
    }
    if let Some(tensor) = Arc::get_mut(input) {
        let mut plain = tensor.try_as_plain_ram_mut()?;
        match image {
            ImageView::U8(values) => plain.as_slice_mut::<u8>()?.copy_from_slice(values),
            ImageView::F32(values) => plain.as_slice_mut::<f32>()?.copy_from_slice(values),
        }
    }
    state.run(tvec!(Arc::clone(input).into_tvalue()))
}
