//! From an ONNX graph to steps, node by node.
//!
//! Operators that only move values become views; products with weights, layer norms and attention become steps.
//! Attention is known by what it computes, `softmax(scale · q kᵀ) v`, whatever reshapes and transposes lie around
//! it, so that all exporters' forms of it are one.
//!
//! Functions of single values are carried along and computed when another operator needs them: a [`Formula`] of real
//! numbers, or a [`Table`] of the levels of a quantization. A quantized graph is computed as it is written: every
//! `QuantizeLinear` rounds and clips, whatever follows it.

mod arithmetic;
mod attention;
mod convolution;
mod data;
mod layout;
mod products;
mod quantization;
mod taps;

use std::collections::HashMap;

use smalti_kernels::QuantParams;
use smalti_models::onnx::{GraphProto, NodeProto};

use super::constant::Constant;
use super::step::{Buffer, Span, Step, Target};
use super::tap::Tap;
use super::view::View;
use crate::gate::{Fact, Facts, Kind, attribute};
use data::{Data, Function, State};

/// The image.
pub(super) const IMAGE: Buffer = 0;

/// Why a graph is left to tract.
pub(super) type Unknown = String;
type Result<T> = std::result::Result<T, Unknown>;

/// Products of queries and keys on their way through attention.
#[derive(Clone, Debug)]
struct Scores {
    q: Data,
    k: Data,
    /// Of `q kᵀ`.
    scores: Function,
    /// Of the softmax, once there is one.
    probabilities: Option<Function>,
}

impl Scores {
    /// What the next operator changes.
    fn function(&mut self) -> &mut Function {
        self.probabilities.as_mut().unwrap_or(&mut self.scores)
    }
}

/// What a name of the graph stands for.
#[derive(Clone, Debug)]
enum Value {
    Constant(Constant),
    Data(Data),
    Scores(Box<Scores>, State),
    /// An image within zeros: lines above, columns to the left, lines below, columns to the right.
    Padded(Data, [usize; 4]),
}

/// A lowered graph.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) steps: Vec<Step>,
    /// Rows and columns of each buffer, the image first.
    pub(super) buffers: Vec<[usize; 2]>,
    /// Where the graph's outputs lie.
    pub(super) outputs: Vec<Span>,
    /// Values that are shown while the program runs.
    pub(super) taps: Vec<Tap>,
}

/// A graph on its way.
struct Lower<'a> {
    facts: &'a Facts,
    /// In boxes, so that a table with room for more takes little.
    values: HashMap<&'a str, Box<Value>>,
    steps: Vec<Step>,
    buffers: Vec<[usize; 2]>,
    /// Results of functions that were computed already.
    computed: Vec<(Buffer, Function, Buffer)>,
    /// Bytes that were computed already.
    quantized: Vec<(Span, Function, QuantParams, Buffer)>,
    /// Bytes that constants and lists of places may still take.
    budget: u64,
    /// Names of the values to show.
    wanted: &'a [&'a str],
    taps: Vec<Tap>,
}

/// Lowers a graph that has passed the gate; says why where that is not possible. Constants that are computed on the way
/// take at most `budget` bytes. Values named in `wanted` become taps.
pub(super) fn lower<'a>(
    graph: &'a GraphProto,
    facts: &'a Facts,
    budget: u64,
    wanted: &'a [&'a str],
) -> Result<Lowered> {
    let mut lower = Lower {
        facts,
        values: HashMap::new(),
        steps: Vec::new(),
        buffers: Vec::new(),
        computed: Vec::new(),
        quantized: Vec::new(),
        budget,
        wanted,
        taps: Vec::new(),
    };
    for tensor in &graph.initializer {
        let dims = &lower.fact(&tensor.name)?.dims;
        if let Some(constant) = Constant::of_tensor(tensor, dims) {
            lower.values.insert(&tensor.name, Box::new(Value::Constant(constant)));
        }
    }
    for input in &graph.input {
        let fact = lower.fact(&input.name)?;
        let buffer = lower.buffer(1, fact.dims.iter().product());
        let image = Value::Data(Data::image(buffer, &fact.dims, fact.kind));
        lower.values.insert(&input.name, Box::new(image));
        lower.tap(&input.name)?;
    }
    for node in &graph.node {
        let lowered = lower.node(node).and_then(|()| node.output.iter().try_for_each(|name| lower.tap(name)));
        lowered.map_err(|why| {
            let name = node.output.first().map_or("", String::as_str);
            format!("node `{name}` ({}): {why}", node.op_type)
        })?;
    }
    let outputs = graph.output.iter().map(|output| {
        let data = lower.data(&output.name)?;
        lower.span(&data)
    });
    let outputs = outputs.collect::<Result<_>>()?;
    lower.check_taps()?;
    Ok(Lowered { steps: lower.steps, buffers: lower.buffers, outputs, taps: lower.taps })
}

/// `x` or why it is missing.
fn need<T>(x: Option<T>, why: &str) -> Result<T> {
    x.ok_or_else(|| why.to_owned())
}

/// The name of an input; empty if it is left out.
fn input(node: &NodeProto, i: usize) -> &str {
    node.input.get(i).map_or("", String::as_str)
}

/// The attribute `axis`, counted from the front.
fn axis(node: &NodeProto, default: i64, rank: usize) -> usize {
    let axis = attribute(node, "axis").map_or(default, |attribute| attribute.i);
    (if axis < 0 { axis + rank as i64 } else { axis }) as usize
}

impl<'a> Lower<'a> {
    fn fact(&self, name: &str) -> Result<&'a Fact> {
        need(self.facts.get(name), "an unknown tensor")
    }

    /// Accounts for bytes before they are allocated.
    fn spend(&mut self, bytes: usize) -> Result<()> {
        let left = self.budget.checked_sub(bytes as u64);
        self.budget = need(left, "constants that take more memory than the file's size allows")?;
        Ok(())
    }

    /// A new buffer.
    fn buffer(&mut self, rows: usize, cols: usize) -> Buffer {
        self.buffers.push([rows, cols]);
        self.buffers.len() - 1
    }

    /// A new buffer for a tensor: its last axis is a row.
    fn buffer_of(&mut self, dims: &[usize]) -> Buffer {
        let cols = dims.last().copied().unwrap_or(1);
        self.buffer(dims.iter().product::<usize>() / cols.max(1), cols)
    }

    fn value(&self, name: &str) -> Result<Value> {
        need(self.values.get(name).map(|value| (**value).clone()), "an input that no kernel computes")
    }

    fn data(&self, name: &str) -> Result<Data> {
        match self.value(name)? {
            Value::Data(data) => Ok(data),
            _ => Err("an input of another kind".into()),
        }
    }

    fn constant(&self, node: &NodeProto, i: usize) -> Result<Constant> {
        match node.input.get(i).map(|name| self.value(name)) {
            Some(Ok(Value::Constant(constant))) => Ok(constant),
            _ => Err(format!("input {i} that is not constant")),
        }
    }

    /// An input that may be left out.
    fn optional(&self, node: &NodeProto, i: usize) -> Result<Option<Constant>> {
        if input(node, i).is_empty() { Ok(None) } else { self.constant(node, i).map(Some) }
    }

    /// All values of a constant.
    fn floats(&mut self, constant: &Constant) -> Result<Vec<f32>> {
        self.spend(size_of::<f32>() * constant.len())?;
        Ok(constant.floats())
    }

    /// Known integers.
    fn ints(&self, node: &NodeProto, i: usize) -> Result<&'a [i64]> {
        let fact = self.fact(input(node, i))?;
        need(fact.ints.as_deref(), "integers that are not known")
    }

    /// The shape of the node's first result.
    fn dims(&self, node: &NodeProto) -> Result<&'a [usize]> {
        Ok(&self.fact(node.output.first().map_or("", String::as_str))?.dims)
    }

    fn define(&mut self, node: &'a NodeProto, value: Value) {
        if let Some(name) = node.output.first() {
            self.values.insert(name, Box::new(value));
        }
    }

    fn define_data(&mut self, node: &'a NodeProto, data: Data) {
        self.define(node, Value::Data(data));
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<()> {
        let fact = self.fact(node.output.first().map_or("", String::as_str))?;
        let is_shape = fact.constant && fact.ints.is_some() && matches!(fact.kind, Kind::I64 | Kind::Bool);
        if is_shape && !matches!(&*node.op_type, "Cast" | "Constant") {
            return Ok(()); // Shape arithmetic, done by the gate.
        }
        match &*node.op_type {
            "Constant" => {
                let tensor = attribute(node, "value").and_then(|attribute| attribute.t.as_ref());
                let constant = tensor.and_then(|tensor| Constant::of_tensor(tensor, &fact.dims));
                self.define(node, Value::Constant(need(constant, "a type without kernels")?));
                Ok(())
            }
            "Cast" => self.cast(node, fact),
            "Identity" | "Dropout" => {
                let value = self.value(input(node, 0))?;
                self.define(node, value);
                Ok(())
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(node),
            "Transpose" => {
                let rank = fact.dims.len();
                let perm = attribute(node, "perm").map(|attribute| attribute.ints.clone());
                let perm = perm.unwrap_or_else(|| (0..rank as i64).rev().collect());
                let order: Vec<usize> = perm.iter().map(|&axis| axis as usize).collect();
                self.layout(node, |view| view.transpose(&order))
            }
            "Expand" => self.layout(node, |view| view.broadcast(&fact.dims)),
            "Slice" => self.slice(node),
            "Split" => self.split(node),
            "Gather" => self.gather(node),
            "Concat" => self.concat(node),
            "Conv" => self.conv(node),
            "Pad" => self.pad(node),
            "MaxPool" => self.max_pool(node),
            "BatchNormalization" => self.batch_norm(node),
            "Clip" => self.clip(node),
            "GlobalAveragePool" => self.global_average(node),
            "MatMul" => self.mat_mul(node),
            "Gemm" => self.gemm(node),
            "Softmax" => self.softmax(node),
            "LayerNormalization" => self.layer_norm(node),
            "ReduceMean" => self.mean(node),
            "QuantizeLinear" => self.quantize(node),
            "DequantizeLinear" => self.dequantize(node),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" => self.binary(node),
            _ => self.unary(node),
        }
    }

    fn layer_norm(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        let data = self.data(input(node, 0))?;
        let scale = self.constant(node, 1)?;
        let (scale, cols) = (self.floats(&scale)?, scale.len());
        let shift = match self.optional(node, 2)? {
            Some(shift) if shift.len() != cols => return Err("a shift of another size".into()),
            Some(shift) => self.floats(&shift)?,
            None => vec![0.0; cols],
        };
        if axis(node, -1, dims.len()) + 1 != dims.len() || dims.last() != Some(&cols) {
            return Err("other axes than the last".into());
        }
        let eps = attribute(node, "epsilon").map_or(1e-5, |attribute| attribute.f);
        let x = self.span(&data)?;
        let buffer = self.buffer(x.rows, cols);
        self.steps.push(Step::LayerNorm { x, scale, shift, eps, out: Target::floats(buffer) });
        self.define_data(node, Data::new(buffer, View::whole(dims)));
        Ok(())
    }

    /// The mean over the rows of one image.
    fn mean(&mut self, node: &'a NodeProto) -> Result<()> {
        let data = self.data(input(node, 0))?;
        let axes = match node.input.get(1) {
            Some(_) => self.ints(node, 1)?.to_vec(),
            None => attribute(node, "axes").map(|attribute| attribute.ints.clone()).unwrap_or_default(),
        };
        if matches!((data.dims(), &axes[..]), (&[1, _, _, _], &[2 | -2, 3 | -1] | &[3 | -1, 2 | -2])) {
            return self.average(node, &data);
        }
        if !matches!((data.dims(), &axes[..]), (&[1, _, _], &[1] | &[-2])) {
            return Err("other axes than the rows".into());
        }
        let (x, dims) = (self.span(&data)?, self.dims(node)?);
        let out = self.buffer(1, x.cols);
        self.steps.push(Step::Mean { x, out });
        self.define_data(node, Data::new(out, View::whole(dims)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
