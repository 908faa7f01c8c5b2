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
mod norm;
mod products;
mod quantization;
mod reduce;
mod taps;

use std::collections::{HashMap, HashSet};

use smalti_kernels::QuantParams;
use smalti_models::onnx::{GraphProto, NodeProto};

use super::constant::Constant;
use super::step::{Buffer, Span, Step, Target};
use super::tap::Tap;
use super::view::View;
use crate::gate::{Fact, Facts, attribute};
use data::{Data, Function, State};
use norm::Norm;

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
    /// Added to that, of the shape of the scores: a mask, or a bias by relative positions.
    bias: Option<Constant>,
    /// Of the softmax, once there is one.
    probabilities: Option<Function>,
}

impl Scores {
    fn new(q: Data, k: Data) -> Scores {
        Scores { q, k, scores: Function::identity(), bias: None, probabilities: None }
    }

    /// Whether there are biases that a softmax has to follow.
    fn is_biased(&self) -> bool {
        self.probabilities.is_none() && self.bias.is_some()
    }

    /// What the next operator changes; none where that would have to be a function of biased scores.
    fn function(&mut self) -> Option<&mut Function> {
        match (&mut self.probabilities, &self.bias) {
            (Some(probabilities), _) => Some(probabilities),
            (None, None) => Some(&mut self.scores),
            (None, Some(_)) => None,
        }
    }
}

/// What a name of the graph stands for.
#[derive(Clone, Debug)]
enum Value {
    Constant(Constant),
    Data(Data),
    Scores(Box<Scores>, State),
    /// A norm that is written out.
    Norm(Box<Norm>),
    /// Whether each number of a value, named here, is none.
    IsNan(String),
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
    let mut lower = Lower::new(graph, facts, budget, wanted)?;
    for input in &graph.input {
        let fact = lower.fact(&input.name)?;
        let buffer = lower.buffer(1, fact.dims.iter().product());
        let image = Value::Data(Data::image(buffer, &fact.dims, fact.kind));
        lower.values.insert(&input.name, Box::new(image));
        lower.tap(&input.name)?;
    }
    for node in &graph.node {
        lower.named(node)?;
        node.output
            .iter()
            .try_for_each(|name| lower.tap(name))
            .map_err(|why| format!("{}: {why}", place(node)))?;
    }
    let mut outputs = Vec::with_capacity(graph.output.len());
    for output in &graph.output {
        let data = lower.data(&output.name)?;
        outputs.push(lower.span(&data)?);
    }
    lower.check_taps()?;
    Ok(Lowered { steps: lower.steps, buffers: lower.buffers, outputs, taps: lower.taps })
}

/// The values of constant nodes of some operator, by the names of what they give.
pub(super) fn constants<'a>(
    graph: &'a GraphProto,
    facts: &'a Facts,
    budget: u64,
    op: &str,
) -> Result<Vec<(&'a str, Vec<f32>)>> {
    let mut needed = HashSet::new();
    for node in graph.node.iter().rev() {
        if node.op_type == op || node.output.iter().any(|name| needed.contains(&**name)) {
            needed.extend(node.input.iter().chain(&node.output).map(String::as_str));
        }
    }
    let mut found = Vec::new();
    if needed.is_empty() {
        return Ok(found);
    }
    let mut lower = Lower::new(graph, facts, budget, &[])?;
    for node in graph.node.iter().filter(|node| node.output.iter().any(|name| needed.contains(&**name))) {
        lower.named(node)?;
        if let (true, Some(name)) = (node.op_type == op, node.output.first()) {
            let Value::Constant(constant) = lower.value(name)? else {
                return Err(format!("{}: an input that is not constant", place(node)));
            };
            found.push((&**name, lower.floats(&constant)?));
        }
    }
    Ok(found)
}

/// How a reason names a node.
fn place(node: &NodeProto) -> String {
    format!("node `{}` ({})", node.output.first().map_or("", String::as_str), node.op_type)
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
    /// With what the graph stores.
    fn new(graph: &'a GraphProto, facts: &'a Facts, budget: u64, wanted: &'a [&'a str]) -> Result<Lower<'a>> {
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
        Ok(lower)
    }

    /// A node; where it cannot be lowered, why not, with its name.
    fn named(&mut self, node: &'a NodeProto) -> Result<()> {
        self.node(node).map_err(|why| format!("{}: {why}", place(node)))
    }

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

    /// A computed value; products of attention and means that turn out to be something else are computed at once.
    fn data(&mut self, name: &'a str) -> Result<Data> {
        let data = match self.value(name)? {
            Value::Data(data) => return Ok(data),
            Value::Scores(scores, state) => self.scores_as_data(&scores, state)?,
            Value::Norm(norm) => self.norm_as_data(&norm)?,
            _ => return Err("an input of another kind".into()),
        };
        self.values.insert(name, Box::new(Value::Data(data.clone())));
        Ok(data)
    }

    /// A value of which a mean that is no part of a norm is computed at once.
    fn value_or_mean(&mut self, name: &'a str) -> Result<Value> {
        match self.value(name)? {
            Value::Norm(_) => self.data(name).map(Value::Data),
            other => Ok(other),
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
        match &*node.op_type {
            "Constant" => {
                let tensor = attribute(node, "value").and_then(|attribute| attribute.t.as_deref());
                let constant = tensor.and_then(|tensor| Constant::of_tensor(tensor, &fact.dims));
                self.define(node, Value::Constant(need(constant, "a type without kernels")?));
                Ok(())
            }
            "Cast" => self.cast(node),
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
            "Tile" => self.tile(node),
            "Slice" => self.slice(node),
            "Split" => self.split(node),
            "Resize" => self.resize(node),
            "IsNaN" => {
                self.define(node, Value::IsNan(input(node, 0).to_owned()));
                Ok(())
            }
            "Where" => self.choose(node),
            "Gather" => self.gather(node),
            "GatherND" => self.gather_nd(node),
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
            "ReduceMean" | "ReduceSum" => self.reduce(node),
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
        let normed = self.norm_rows(&data, true, [scale, shift], eps)?;
        self.define_data(node, normed);
        Ok(())
    }

    /// A layer norm, or an RMS norm, of each row; scale and shift have a value for each column.
    fn norm_rows(
        &mut self,
        data: &Data,
        is_centred: bool,
        [scale, shift]: [Vec<f32>; 2],
        eps: f32,
    ) -> Result<Data> {
        let x = self.span(data)?;
        let buffer = self.buffer(x.rows, x.cols);
        self.steps.push(Step::LayerNorm { x, is_centred, scale, shift, eps, out: Target::floats(buffer) });
        Ok(Data::new(buffer, View::whole(data.dims())))
    }
}

#[cfg(test)]
mod tests;
