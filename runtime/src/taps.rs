//! Values inside a model while it runs, such as a quantizer calibrates on.

use smalti_models::image::View;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use smalti_models::preprocess::Scratch;

use crate::backend::{Runner, plan};
use crate::compile::{self, Arena, ImageView, Program};
use crate::error::{Error, Result};
use crate::gate::{self, Form, Limits, Summary};
use crate::guard::guard;
use crate::load::Model;

/// A model that shows values inside it.
pub struct Taps {
    model: Model,
    runs: Runs,
    scratch: Scratch,
    /// Normalised pixels of the last image.
    floats: Vec<f32>,
}

/// What runs the model up to the values.
enum Runs {
    /// With a place for values that do not lie in the graph's order.
    Program(Program, Box<Arena>, Vec<f32>),
    /// With the reason why there is no program.
    Tract(Box<Runner>, Box<str>),
}

impl std::fmt::Debug for Taps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taps").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Taps {
    /// Prepares the model file `bytes` to show these float values, each named once. `model` is the same file, opened;
    /// its preprocessing prepares the images. Our own kernels compute the values; tract does where there are none for
    /// the graph or a value.
    ///
    /// # Errors
    /// [`Error::Refused`] for a model outside the profile of [`crate::gate`], and in a build without the feature `tract`
    /// for one that our kernels do not run up to the values; [`Error::Engine`] where tract does not know one of the
    /// values or cannot run the model.
    pub fn new(bytes: &[u8], model: &Model, values: &[&str]) -> Result<Taps> {
        let (proto, summary) = gate::open(bytes, &Limits::default())?;
        let runs = match program(&proto, &summary, values)? {
            Ok(program) => {
                let arena = Box::new(program.arena(1));
                Runs::Program(program, arena, Vec::new())
            }
            Err(why) => {
                log::info!("our kernels do not show the values inside the model: {why}");
                on_tract(proto, &summary, model, values, &why)?
            }
        };
        Ok(Taps::of(model, runs))
    }

    /// As [`Taps::new`], but tract runs the model even where our own kernels could: to compare both.
    ///
    /// # Errors
    /// As [`Taps::new`], and [`Error::Refused`] for every model in a build without the feature `tract`.
    pub fn new_on_tract(bytes: &[u8], model: &Model, values: &[&str]) -> Result<Taps> {
        let (proto, summary) = gate::open(bytes, &Limits::default())?;
        Ok(Taps::of(model, on_tract(proto, &summary, model, values, "as asked")?))
    }

    fn of(model: &Model, runs: Runs) -> Taps {
        let floats = vec![0.0; if model.input().form == Form::F32Nchw { model.input().values() } else { 0 }];
        Taps { model: model.clone(), runs, scratch: Scratch::default(), floats }
    }

    /// Why tract computes the values instead of our own kernels; none if it does not.
    pub fn fallback_reason(&self) -> Option<&str> {
        match &self.runs {
            Runs::Program(..) => None,
            Runs::Tract(_, why) => Some(why),
        }
    }

    /// Prepares an image as the model's preprocessing says, runs the model, and shows each value: its place among those
    /// that were asked for, its elements in the graph's order, its shape in the graph. Values come in the order in which
    /// they are computed.
    ///
    /// # Errors
    /// [`Error::Usage`] for a model without preprocessing, [`Error::Data`] for an image that cannot be prepared,
    /// [`Error::Engine`] if tract fails, and whatever `show` returns.
    pub fn run_image(
        &mut self,
        image: View<'_>,
        show: impl FnMut(usize, &[f32], &[usize]) -> Result<()>,
    ) -> Result<()> {
        let preprocess = self.model.known_preprocess()?;
        let (input, unusable) = (self.model.input(), |error| Error::data("image", error));
        let pixels = preprocess.apply_to(input.size(), image, &mut self.scratch).map_err(unusable)?;
        let image = match input.form {
            Form::U8Nhwc => ImageView::U8(pixels),
            Form::F32Nchw => {
                preprocess.normalise_to(input.size(), pixels, &mut self.floats).map_err(unusable)?;
                ImageView::F32(&self.floats)
            }
        };
        match &mut self.runs {
            Runs::Tract(runner, _) => runner.run(image, show),
            Runs::Program(program, arena, copy) => {
                let result = run(program, arena, image, copy, show);
                if result.is_err() {
                    **arena = program.arena(1);
                }
                result
            }
        }
    }
}

/// A program that shows the values, or why there is none.
fn program(proto: &ModelProto, summary: &Summary, values: &[&str]) -> Result<Result<Program, String>> {
    let Some(graph) = &proto.graph else { return Ok(Err("no graph".into())) };
    let budget = summary.budget.running();
    guard("lower the graph", || compile::compile_taps(graph, &summary.facts, budget, values))
}

/// Runs a program from value to value.
fn run(
    program: &Program,
    arena: &mut Arena,
    image: ImageView<'_>,
    copy: &mut Vec<f32>,
    mut show: impl FnMut(usize, &[f32], &[usize]) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    for tap in program.taps() {
        guard("run the model", || program.run_steps(done..tap.after(), arena, image))?;
        done = tap.after();
        let values = guard("read a value", || tap.read(arena, image, copy))?;
        show(tap.index(), values, tap.dims())?;
    }
    Ok(())
}

/// tract, with the values as the graph's outputs.
fn on_tract(
    mut proto: ModelProto,
    summary: &Summary,
    model: &Model,
    values: &[&str],
    why: &str,
) -> Result<Runs> {
    proto.metadata_props.clear();
    if let Some(graph) = &mut proto.graph {
        graph.value_info.clear();
        let float = |name: &&str| ValueInfoProto::tensor(&tap(graph, name), DataType::Float, None);
        graph.output = values.iter().map(float).collect();
    }
    plan(proto, summary, why)?.runner(model.input()).map(|runner| Runs::Tract(Box::new(runner), why.into()))
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
