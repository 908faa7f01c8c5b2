//! What runs a model: our own program where the whole graph is known, tract elsewhere.
//!
//! Only this module knows whether tract is in the build.

#[cfg(not(feature = "tract"))]
mod without_tract;

use std::sync::Arc;
use std::time::Duration;

use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{ModelProto, ValueInfoProto};

use crate::compile::{self, Arena, ImageView, Program};
use crate::error::{Error, Result};
use crate::gate::{Form, Input, Summary};
use crate::guard::guard;
use crate::session::Output;
use crate::tokens::TokenGrid;

#[cfg(feature = "tract")]
pub(crate) use crate::engine::{Plan, Runner};
#[cfg(not(feature = "tract"))]
pub(crate) use without_tract::{Plan, Runner};

/// A model, ready to run, shared by all sessions.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Program(Arc<Program>),
    /// With the reason why there is no program.
    Tract(Plan, Arc<str>),
}

/// A session's part.
pub(crate) enum State {
    Program(Arc<Program>, Box<Arena>, Option<Shown>),
    Tract(Box<Runner>, Option<TokenGrid>),
}

/// Tokens that a program shows.
pub(crate) struct Shown {
    grid: TokenGrid,
    /// A place for values that do not lie in the graph's order.
    values: Vec<f32>,
}

impl Backend {
    /// Prepares a graph that has passed the gate and has nothing in it but what runs, to show `tokens` besides its outputs.
    /// With `engine_only` tract runs all of it.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no program and no tract in this build, or values between the nodes that take
    /// more than a file of this size may ask for; [`Error::Engine`] where tract cannot take the graph.
    pub(crate) fn new(
        proto: ModelProto,
        summary: &Summary,
        tokens: Option<&TokenGrid>,
        engine_only: bool,
    ) -> Result<Backend> {
        let Some(graph) = &proto.graph else {
            return Err(Error::refused("model", "no graph", "a graph"));
        };
        let budget = summary.budget.running();
        let wanted: Vec<&str> = tokens.iter().map(|grid| &*grid.name).collect();
        let unpacked = match engine_only {
            true => Err("as asked".into()),
            false => guard("lower the graph", || compile::compile(graph, &summary.facts, budget, &wanted))?,
        };
        // Only tract would ask for the file's weights again.
        let mut proto = cfg!(feature = "tract").then_some(proto).unwrap_or_default();
        let program = match unpacked {
            Ok(unpacked) => guard("pack the weights", || unpacked.pack())?,
            Err(why) => Err(why),
        };
        match program {
            Ok(program) => Ok(Backend::Program(Arc::new(program))),
            Err(why) => {
                log::info!("our kernels do not run this model: {why}");
                check_live(summary)?;
                if let Some((grid, graph)) = tokens.zip(proto.graph.as_mut()) {
                    graph.output.push(ValueInfoProto::tensor(&grid.name, DataType::Float, None));
                }
                let backend = Backend::Tract(plan(proto, summary, &why)?, why.into());
                backend.try_out(&summary.input)?;
                Ok(backend)
            }
        }
    }

    /// Runs once, so that what tract cannot run is refused when it is opened.
    fn try_out(&self, input: &Input) -> Result<()> {
        let mut state = self.state(input, None, 1)?;
        let (bytes, floats) = (vec![0; input.values()], vec![0.0; input.values()]);
        let image = match input.form {
            Form::U8Nhwc => ImageView::U8(&bytes),
            Form::F32Nchw => ImageView::F32(&floats),
        };
        state.run(image, &mut Output::default())
    }

    /// A session's part, on that many threads; tract takes one. `tokens` are those that the graph shows.
    pub(crate) fn state(&self, input: &Input, tokens: Option<&TokenGrid>, threads: usize) -> Result<State> {
        let grid = tokens.cloned();
        match self {
            Backend::Program(program) => {
                let shown =
                    grid.map(|grid| Shown { values: Vec::with_capacity(grid.values_in_graph()), grid });
                Ok(State::Program(Arc::clone(program), Box::new(program.arena(threads)), shown))
            }
            Backend::Tract(plan, _) => plan.runner(input).map(|runner| State::Tract(Box::new(runner), grid)),
        }
    }
}

/// What runs a graph, which has passed the gate, in tract: with constants in the place of resized ones. `why` there is no
/// program.
pub(crate) fn plan(mut proto: ModelProto, summary: &Summary, why: &str) -> Result<Plan> {
    if let Some(graph) = proto.graph.as_mut() {
        let budget = summary.budget.running();
        guard("resize constants", || compile::store_resized(graph, &summary.facts, budget))?
            .map_err(|why| Error::refused("graph", why, "constants that can be resized"))?;
    }
    Plan::new(proto, why)
}

/// Refuses a graph whose values between the nodes take more than a file of this size may ask for.
fn check_live(summary: &Summary) -> Result<()> {
    // tract copies a map that it pads, twice.
    let live = summary.live.saturating_add(summary.padding.saturating_mul(2));
    let (bytes, allowed) = (live.saturating_mul(4), summary.budget.running());
    if bytes <= allowed {
        return Ok(());
    }
    let allowed = format!("{allowed} for a file of this size");
    Err(Error::refused("graph", format!("{bytes} bytes of values that are needed at one time"), allowed))
}

impl State {
    pub(crate) fn program(&self) -> Option<&Program> {
        match self {
            State::Program(program, ..) => Some(program),
            State::Tract(..) => None,
        }
    }

    /// Threads that a run is shared out to.
    pub(crate) fn threads(&self) -> usize {
        match self {
            State::Program(_, arena, _) => arena.threads(),
            State::Tract(..) => 1,
        }
    }

    /// Runs the program and adds each step's time to `times`.
    pub(crate) fn time(&mut self, image: ImageView<'_>, times: &mut Vec<Duration>) -> Result<()> {
        let State::Program(program, arena, _) = self else { return Ok(()) };
        times.resize(program.steps().len(), Duration::ZERO);
        guard("run the model", || program.time(arena, image, times))
    }

    /// Runs the model on as many values as the input has. After a failure the state starts afresh.
    pub(crate) fn run(&mut self, image: ImageView<'_>, output: &mut Output) -> Result<()> {
        match self {
            State::Program(program, arena, shown) => {
                let result = guard("run the model", || {
                    program.run(arena, image, |tap, arena| {
                        let Some(Shown { grid, values }) = shown else { return };
                        let values = tap.read(arena, image, values);
                        grid.collect(values, output.tokens.get_or_insert_default());
                    });
                    copy(program.output(arena, 0), &mut output.logits);
                    copy_some(program.output(arena, 1), &mut output.embedding);
                });
                if result.is_err() {
                    **arena = program.arena(arena.threads());
                }
                result
            }
            State::Tract(runner, grid) => {
                let mut embedded = false;
                runner.run(image, |i, values, shape| {
                    match (i, &*grid) {
                        (0, _) => copy(Some(values), &mut output.logits),
                        // Tokens come last, and alone are no row.
                        (_, Some(grid)) if shape.len() > 2 => {
                            grid.collect(values, output.tokens.get_or_insert_default());
                        }
                        _ => {
                            embedded = true;
                            copy_some(Some(values), &mut output.embedding);
                        }
                    }
                    Ok(())
                })?;
                if !embedded {
                    output.embedding = None;
                }
                Ok(())
            }
        }
    }
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
