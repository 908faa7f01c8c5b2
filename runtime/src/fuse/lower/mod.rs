//! From an ONNX graph to steps, node by node.
//!
//! Operators that only move values become views; products with weights, layer norms and attention become steps.
//! Attention is known by what it computes, `softmax(scale · q kᵀ) v`, whatever reshapes and transposes lie around
//! it, so that all exporters' forms of it are one.

mod arithmetic;
mod attention;
mod layout;
mod products;

use std::collections::HashMap;

use smalti_kernels::Quantize;
use tract_onnx::pb::{GraphProto, NodeProto};

use super::constant::Constant;
use super::pointwise::{Function, Known};
use super::step::{Buffer, Pointwise, Span, Step, Target};
use super::view::View;
use crate::gate::{Fact, Facts, attribute};

/// The image.
pub(super) const IMAGE: Buffer = 0;

/// Why a graph is left to the engine.
pub(super) type Unknown = String;
type Result<T> = std::result::Result<T, Unknown>;

/// Values of a buffer, seen through a view and a function.
#[derive(Clone, Debug)]
struct Data {
    buffer: Buffer,
    view: View,
    function: Function,
    /// How it was turned into bytes, where it was. Only linear layers compute on those; elsewhere the values before
    /// are used, which are closer to what was meant.
    quantize: Option<Quantize>,
}

/// Products of queries and keys on their way through attention.
#[derive(Clone, Debug)]
struct Scores {
    q: Data,
    k: Data,
    scale: f64,
    is_softmax: bool,
}

/// What a name of the graph stands for.
#[derive(Clone, Debug)]
enum Value<'a> {
    Constant(Constant<'a>),
    Data(Data),
    Scores(Box<Scores>),
}

/// A lowered graph.
#[derive(Debug)]
pub(super) struct Lowered<'a> {
    pub(super) steps: Vec<Step<'a>>,
    /// Rows and columns of each buffer, the image first.
    pub(super) buffers: Vec<[usize; 2]>,
    /// Where the graph's outputs lie.
    pub(super) outputs: Vec<Span>,
}

/// A graph on its way.
struct Lower<'a> {
    facts: &'a Facts,
    values: HashMap<&'a str, Value<'a>>,
    steps: Vec<Step<'a>>,
    buffers: Vec<[usize; 2]>,
    /// Results of functions that were computed already.
    computed: Vec<(Buffer, Pointwise, Buffer)>,
    /// Bytes that were computed already.
    quantized: Vec<(Span, Quantize, Buffer)>,
}

/// Lowers a graph that has passed the gate; says why where that is not possible.
pub(super) fn lower<'a>(graph: &'a GraphProto, facts: &'a Facts) -> Result<Lowered<'a>> {
    let mut lower = Lower {
        facts,
        values: HashMap::new(),
        steps: Vec::new(),
        buffers: Vec::new(),
        computed: Vec::new(),
        quantized: Vec::new(),
    };
    for tensor in &graph.initializer {
        let dims = &lower.fact(&tensor.name)?.dims;
        if let Some(constant) = Constant::of_tensor(tensor, dims) {
            lower.values.insert(&tensor.name, Value::Constant(constant));
        }
    }
    for input in &graph.input {
        let dims = &lower.fact(&input.name)?.dims;
        let buffer = lower.buffer(1, dims.iter().product());
        lower.values.insert(&input.name, Value::Data(Data::new(buffer, View::whole(dims))));
    }
    for node in &graph.node {
        lower.node(node).map_err(|why| {
            let name = node.output.first().map_or("", String::as_str);
            format!("node `{name}` ({}): {why}", node.op_type)
        })?;
    }
    let outputs = graph.output.iter().map(|output| {
        let data = lower.data(&output.name)?;
        lower.span(&data)
    });
    let outputs = outputs.collect::<Result<_>>()?;
    Ok(Lowered { steps: lower.steps, buffers: lower.buffers, outputs })
}

impl Data {
    fn new(buffer: Buffer, view: View) -> Data {
        Data { buffer, view, function: Function::IDENTITY, quantize: None }
    }

    fn is_plain(&self) -> bool {
        self.function == Function::IDENTITY
    }

    /// The same values seen otherwise.
    fn map(&self, change: impl Fn(&View) -> Option<View>) -> Option<Data> {
        Some(Data { view: change(&self.view)?, ..self.clone() })
    }
}

/// `x` or why it is missing.
fn need<T>(x: Option<T>, why: &str) -> Result<T> {
    x.ok_or_else(|| why.to_owned())
}

impl<'a> Lower<'a> {
    fn fact(&self, name: &str) -> Result<&'a Fact> {
        need(self.facts.get(name), "an unknown tensor")
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

    fn value(&self, name: &str) -> Result<Value<'a>> {
        need(self.values.get(name).cloned(), "an input that no kernel computes")
    }

    fn data(&self, name: &str) -> Result<Data> {
        match self.value(name)? {
            Value::Data(data) => Ok(data),
            _ => Err("an input of another kind".into()),
        }
    }

    fn constant(&self, node: &NodeProto, i: usize) -> Result<Constant<'a>> {
        match node.input.get(i).map(|name| self.value(name)) {
            Some(Ok(Value::Constant(constant))) => Ok(constant),
            _ => Err(format!("input {i} that is not constant")),
        }
    }

    /// Known integers.
    fn ints(&self, node: &NodeProto, i: usize) -> Result<&'a [i64]> {
        let fact = self.fact(node.input.get(i).map_or("", String::as_str))?;
        need(fact.ints.as_deref(), "integers that are not known")
    }

    /// The shape of the node's first result.
    fn dims(&self, node: &NodeProto) -> Result<&'a [usize]> {
        Ok(&self.fact(node.output.first().map_or("", String::as_str))?.dims)
    }

    fn define(&mut self, node: &'a NodeProto, value: Value<'a>) {
        if let Some(name) = node.output.first() {
            self.values.insert(name, value);
        }
    }

    /// A value with its function computed, which is a kernel's.
    fn plain(&mut self, data: &Data) -> Result<Data> {
        if data.is_plain() {
            return Ok(data.clone());
        }
        let function = match data.function.known() {
            Some(Known::Activation(activation)) => Pointwise::Activation(activation),
            Some(Known::Scale(factor)) => Pointwise::Scale(factor as f32),
            None => return Err("a function of single values that there is no kernel for".into()),
        };
        let done = self.computed.iter().find(|(x, f, _)| (*x, *f) == (data.buffer, function));
        let out = match done {
            Some((.., out)) => *out,
            None => {
                let [rows, cols] = self.buffers[data.buffer];
                let out = self.buffer(rows, cols);
                self.steps.push(Step::Pointwise { x: data.buffer, function, out });
                self.computed.push((data.buffer, function, out));
                out
            }
        };
        Ok(Data { buffer: out, function: Function::IDENTITY, ..data.clone() })
    }

    /// A value as rows without a gap, in the order of its view.
    fn span(&mut self, data: &Data) -> Result<Span> {
        let data = self.plain(data)?;
        if data.buffer == IMAGE {
            return Err("the image itself".into());
        }
        let cols = data.view.dims.last().copied().unwrap_or(1);
        let rows = data.view.len() / cols.max(1);
        if data.view.is_contiguous() {
            return Ok(Span { buffer: data.buffer, offset: data.view.offset, rows, cols });
        }
        let out = self.buffer(rows, cols);
        self.steps.push(Step::Copy { from: data.buffer, view: data.view, out, at: 0 });
        Ok(Span { buffer: out, offset: 0, rows, cols })
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<()> {
        let fact = self.fact(node.output.first().map_or("", String::as_str))?;
        if fact.constant && fact.ints.is_some() && node.op_type != "Cast" && node.op_type != "Constant" {
            return Ok(()); // Shape arithmetic, done by the gate.
        }
        let input = |i: usize| node.input.get(i).map_or("", String::as_str);
        match &*node.op_type {
            "Constant" => {
                let tensor = attribute(node, "value").and_then(|attribute| attribute.t.as_ref());
                let constant = tensor.and_then(|tensor| Constant::of_tensor(tensor, &fact.dims));
                self.define(node, Value::Constant(need(constant, "a type without kernels")?));
                Ok(())
            }
            "Cast" => self.cast(node, fact),
            "Identity" | "Dropout" => {
                let value = self.value(input(0))?;
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
            "MatMul" => self.mat_mul(node),
            "Gemm" => self.gemm(node),
            "Softmax" => self.softmax(node),
            "LayerNormalization" => self.layer_norm(node),
            "ReduceMean" => self.mean(node),
            "QuantizeLinear" => self.quantize(node),
            "DequantizeLinear" => self.dequantize(node),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" => self.binary(node),
            op => match self.value(input(0))? {
                Value::Data(data) => {
                    let function = need(data.function.then(op), "an operator without kernels")?;
                    self.define(node, Value::Data(Data { function, ..data }));
                    Ok(())
                }
                Value::Constant(constant) => {
                    let x = need(constant.single(), "constants that are not folded")?;
                    let y = Function::constant(f64::from(x)).then(op);
                    let y = need(y.and_then(|y| y.at_any()), "an operator without kernels")?;
                    self.define(node, Value::Constant(Constant::owned(vec![y as f32], &fact.dims)));
                    Ok(())
                }
                Value::Scores(_) => Err("attention with more in it".into()),
            },
        }
    }

    fn layer_norm(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        let data = self.data(node.input.first().map_or("", String::as_str))?;
        let scale = self.constant(node, 1)?.floats();
        let cols = scale.len();
        let shift = self.bias(node, cols)?;
        if axis(node, -1, dims.len()) + 1 != dims.len() || dims.last() != Some(&cols) {
            return Err("other axes than the last".into());
        }
        let eps = attribute(node, "epsilon").map_or(1e-5, |attribute| attribute.f);
        let x = self.span(&data)?;
        let buffer = self.buffer(x.rows, cols);
        self.steps.push(Step::Norm { x, scale, shift, eps, out: Target { buffer, quantize: None } });
        self.define(node, Value::Data(Data::new(buffer, View::whole(dims))));
        Ok(())
    }

    /// The mean over the rows of one image.
    fn mean(&mut self, node: &'a NodeProto) -> Result<()> {
        let data = self.data(node.input.first().map_or("", String::as_str))?;
        let axes = match node.input.get(1) {
            Some(_) => self.ints(node, 1)?.to_vec(),
            None => attribute(node, "axes").map(|attribute| attribute.ints.clone()).unwrap_or_default(),
        };
        if !matches!((&data.view.dims[..], &axes[..]), (&[1, _, _], &[1] | &[-2])) {
            return Err("other axes than the rows".into());
        }
        let (x, dims) = (self.span(&data)?, self.dims(node)?);
        let out = self.buffer(1, x.cols);
        self.steps.push(Step::Mean { x, out });
        self.define(node, Value::Data(Data::new(out, View::whole(dims))));
        Ok(())
    }
}

/// The attribute `axis`, counted from the front.
fn axis(node: &NodeProto, default: i64, rank: usize) -> usize {
    let axis = attribute(node, "axis").map_or(default, |attribute| attribute.i);
    (if axis < 0 { axis + rank as i64 } else { axis }) as usize
}
