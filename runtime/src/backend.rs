//! What runs a model: our own program where the whole graph is known, the engine, tract, elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SimpleState, TypedFact, TypedOp};

use crate::compile::{self, Arena, ImageView, Program};
use crate::engine::{guarded, guarded_own, rewrite};
use crate::error::{Error, Result};
use crate::gate::{Form, Input, Summary};
use crate::session::Output;

/// A model, ready to run, shared by all sessions.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Program(Arc<Program>),
    /// With the reason why there is no program.
    Engine(Arc<TypedRunnableModel>, Arc<str>),
}

/// A session's part.
pub(crate) enum State {
    Program(Arc<Program>, Box<Arena>),
    Engine {
        plan: Arc<TypedRunnableModel>,
        state: SimpleState<TypedFact, Box<dyn TypedOp>>,
        /// What goes in; the engine gives its share of it back after a run.
        input: Arc<Tensor>,
    },
}

impl Backend {
    /// Prepares a graph that has passed the gate and has nothing in it but what runs. With `engine_only` the
    /// engine runs all of it.
    pub(crate) fn new(proto: ModelProto, summary: &Summary, engine_only: bool) -> Result<Backend> {
        let Some(graph) = &proto.graph else {
            return Err(Error::refused("model", "no graph", "a graph"));
        };
        let budget = summary.budget.running();
        let program = match engine_only {
            true => Err("as asked".into()),
            false => guarded_own("lower the graph", || compile::compile(graph, &summary.facts, budget))?,
        };
        match program {
            Ok(program) => Ok(Backend::Program(Arc::new(program))),
            Err(why) => {
                log::info!("the engine runs this model: {why}");
                check_live(summary)?;
                let backend = Backend::Engine(plan(proto)?, why.into());
                backend.try_out(&summary.input)?;
                Ok(backend)
            }
        }
    }

    /// Runs once, so that what the engine cannot run is refused when it is opened.
    fn try_out(&self, input: &Input) -> Result<()> {
        let mut state = self.state(input, 1)?;
        let (bytes, floats) = (vec![0; input.values()], vec![0.0; input.values()]);
        let image = match input.form {
            Form::U8Nhwc => ImageView::U8(&bytes),
            Form::F32Nchw => ImageView::F32(&floats),
        };
        state.run(input, image, &mut Output::default())
    }

    /// A session's part, on that many threads; the engine takes one.
    pub(crate) fn state(&self, input: &Input, threads: usize) -> Result<State> {
        match self {
            Backend::Program(program) => {
                Ok(State::Program(Arc::clone(program), Box::new(program.arena(threads))))
            }
            Backend::Engine(plan, _) => Ok(State::Engine {
                state: guarded("start a session", || SimpleState::new(plan))?,
                input: Arc::new(guarded("make room for an image", || room(input))?),
                plan: Arc::clone(plan),
            }),
        }
    }
}

/// Refuses a graph whose values between the nodes take more than a file of this size may ask for.
fn check_live(summary: &Summary) -> Result<()> {
    let (bytes, allowed) = (summary.live.saturating_mul(4), summary.budget.running());
    if bytes <= allowed {
        return Ok(());
    }
    let allowed = format!("{allowed} for a file of this size");
    Err(Error::refused("graph", format!("{bytes} bytes of values that are needed at one time"), allowed))
}

/// The engine's own steps, each of which can be looked at on its own, for a graph that has passed the gate.
pub(crate) fn plan(mut proto: ModelProto) -> Result<Arc<TypedRunnableModel>> {
    proto.graph.iter_mut().for_each(rewrite::rewrite);
    // The engine wants names of nodes to be unique; those of values are.
    for node in proto.graph.iter_mut().flat_map(|graph| &mut graph.node) {
        node.name = node.output.first().cloned().unwrap_or_default();
    }
    let parsed = guarded("read the graph", || onnx().model_for_proto_model(&proto))?;
    drop(proto);
    let typed = guarded("infer types and shapes", || parsed.into_typed())?;
    let plain = guarded("simplify the graph", || typed.into_decluttered())?;
    let optimised = guarded("choose kernels", || {
        let mut model = plain;
        model.optimize()?;
        Ok(model)
    })?;
    guarded("plan the run", || optimised.into_runnable())
}

/// A tensor of the input's type and shape.
fn room(input: &Input) -> TractResult<Tensor> {
    let Input { width, height, channels, .. } = *input;
    match input.form {
        Form::U8Nhwc => Tensor::zero::<u8>(&[1, height, width, channels]),
        Form::F32Nchw => Tensor::zero::<f32>(&[1, channels, height, width]),
    }
}

impl State {
    pub(crate) fn program(&self) -> Option<&Program> {
        match self {
            State::Program(program, _) => Some(program),
            State::Engine { .. } => None,
        }
    }

    /// Threads that a run is shared out to.
    pub(crate) fn threads(&self) -> usize {
        match self {
            State::Program(_, arena) => arena.threads(),
            State::Engine { .. } => 1,
        }
    }

    /// Runs the program and adds each step's time to `times`.
    pub(crate) fn time(&mut self, image: ImageView<'_>, times: &mut Vec<Duration>) -> Result<()> {
        let State::Program(program, arena) = self else { return Ok(()) };
        times.resize(program.steps().len(), Duration::ZERO);
        guarded_own("run the model", || program.time(arena, image, times))
    }

    /// Runs the model on as many values as the input has. After a failure the state starts afresh.
    pub(crate) fn run(&mut self, form: &Input, image: ImageView<'_>, output: &mut Output) -> Result<()> {
        match self {
            State::Program(program, arena) => {
                let result = guarded_own("run the model", || {
                    program.run(arena, image);
                    copy(program.output(arena, 0), &mut output.logits);
                    copy_some(program.output(arena, 1), &mut output.embedding);
                });
                if result.is_err() {
                    **arena = program.arena(arena.threads());
                }
                result
            }
            State::Engine { plan, state, input } => {
                let result = guarded("run the model", || run(state, input, form, image));
                if result.is_err() {
                    *state = guarded("start a session", || SimpleState::new(plan))?;
                }
                let outputs = result?;
                copy(outputs.first().map(Vec::as_slice), &mut output.logits);
                copy_some(outputs.get(1).map(Vec::as_slice), &mut output.embedding);
                Ok(())
            }
        }
    }
}

/// One run of the engine.
fn run(
    state: &mut SimpleState<TypedFact, Box<dyn TypedOp>>,
    input: &mut Arc<Tensor>,
    form: &Input,
    image: ImageView<'_>,
) -> TractResult<Vec<Vec<f32>>> {
    if Arc::get_mut(input).is_none() {
        *input = Arc::new(room(form)?);
    }
    if let Some(tensor) = Arc::get_mut(input) {
        let mut room = tensor.try_as_plain_ram_mut()?;
        match image {
            ImageView::U8(values) => room.as_slice_mut::<u8>()?.copy_from_slice(values),
            ImageView::F32(values) => room.as_slice_mut::<f32>()?.copy_from_slice(values),
        }
    }
    let outputs = state.run(tvec!(Arc::clone(input).into_tvalue()))?;
    outputs.iter().map(|value| Ok(value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())).collect()
}

fn copy(from: Option<&[f32]>, to: &mut Vec<f32>) {
    to.clear();
    to.extend_from_slice(from.unwrap_or_default());
}

fn copy_some(from: Option<&[f32]>, to: &mut Option<Vec<f32>>) {
    match from {
        Some(from) => copy(Some(from), to.get_or_insert_default()),
        None => *to = None,
    }
}
