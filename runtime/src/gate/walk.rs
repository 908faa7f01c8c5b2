//! The walk over the graph: definitions, order, budgets.

use std::collections::HashMap;
use std::rc::Rc;

use smalti_models::onnx::tensor_shape_proto::dimension::Value as Dimension;
use smalti_models::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use super::limits::{Budget, Limits};
use super::node::{Node, place};
use super::rules::{self, Cost, Rule};
use super::shapes::product;
use super::summary::{Fact, Form, Input, NodeSummary, Port, Summary};
use super::value::{Kind, Value, elements, type_name};
use super::{attributes, branches, weights};
use crate::error::{Error, Result};

/// The largest side of an image in pixels.
const MAX_SIDE: usize = 4096;
/// How many multiply-adds of a matrix product take as long as copying one element.
const COPY: u64 = 16;
/// What an image's shape may be.
const STATIC: &str =
    "static shapes: export with a fixed batch of 1 and a fixed size, or fix the size with --img-size";
/// The most outputs of a model.
const MAX_OUTPUTS: usize = 64;

/// What is known so far.
struct Walk<'a> {
    limits: &'a Limits,
    opset: i64,
    values: HashMap<&'a str, Rc<Value<'a>>>,
    budget: Budget,
    /// Nodes of the graph and of the branches taken.
    count: usize,
    /// Elements of everything that follows from weights alone.
    constants: u64,
    /// Bytes of what of that is not stored in the file.
    constant_bytes: u64,
    work: u64,
    /// Work on constants.
    folding: u64,
    multiply_adds: u64,
    /// The most elements that padding adds to one map.
    padding: u64,
    nodes: Vec<NodeSummary>,
}

/// Checks a graph and everything in it.
pub(super) fn check(graph: &GraphProto, opset: i64, limits: &Limits) -> Result<Summary> {
    let mut walk = Walk {
        limits,
        opset,
        values: HashMap::new(),
        budget: Budget { stored: stored(graph), input: 0 },
        count: 0,
        constants: 0,
        constant_bytes: 0,
        work: 0,
        folding: 0,
        multiply_adds: 0,
        padding: 0,
        nodes: Vec::new(),
    };
    let (parameters, weight_bytes) = walk.enter(graph)?;
    let input = walk.input(graph)?;
    walk.budget.input = input.values() as u64;
    for node in &graph.node {
        walk.node(node)?;
    }
    let outputs = walk.outputs(graph)?;
    let live = walk.most_live(graph)?;
    let Walk { multiply_adds, padding, nodes, values, budget, constant_bytes, .. } = walk;
    let facts = values.into_iter().map(|(name, value)| (name.to_owned(), fact(&value))).collect();
    let file_bytes = 0; // only `open` has seen the file
    Ok(Summary {
        file_bytes,
        opset,
        input,
        outputs,
        parameters,
        weight_bytes,
        multiply_adds,
        live,
        padding,
        nodes,
        facts,
        constant_bytes,
        folded_bytes: 0, // by `open`, too
        budget,
    })
}

/// Bytes of all tensors that a graph stores, in its nodes and their branches too.
fn stored(graph: &GraphProto) -> u64 {
    let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
    let attached = attributes().filter_map(|attribute| attribute.t.as_deref());
    let inside: u64 = attributes().filter_map(|attribute| attribute.g.as_deref()).map(stored).sum();
    inside + graph.initializer.iter().chain(attached).map(data_bytes).sum::<u64>()
}

/// Bytes of a tensor's data as it is stored.
fn data_bytes(tensor: &TensorProto) -> u64 {
    let numbers = 4 * (tensor.float_data.len() + tensor.int32_data.len()) + 8 * tensor.int64_data.len();
    (tensor.raw_data.len() + numbers) as u64
}

/// What others may know of a tensor.
fn fact(value: &Value<'_>) -> Fact {
    let Value { kind, dims, constant, ints, floats, .. } = value;
    Fact { dims: dims.clone(), constant: *constant, kind: *kind, ints: ints.clone(), floats: floats.clone() }
}

impl<'a> Walk<'a> {
    /// Defines a value, once.
    fn define(&mut self, place: &str, name: &'a str, value: Value<'a>) -> Result<()> {
        if name.is_empty() {
            return Err(Error::refused(place, "a tensor without a name", "names"));
        }
        if value.elements() > self.limits.tensor || value.rank() > weights::MAX_RANK {
            let allowed = format!("{} axes and {} elements", weights::MAX_RANK, self.limits.tensor);
            return Err(Error::refused(place, format!("a tensor {}", value.describe()), allowed));
        }
        if value.constant {
            self.constants = self.constants.saturating_add(value.elements());
            if self.constants > self.limits.weights {
                let found = format!("{} elements of weights and constants so far", self.constants);
                return Err(Error::refused(place, found, self.limits.weights.to_string()));
            }
        }
        if self.values.insert(name, Rc::new(value)).is_some() {
            return Err(Error::refused(place, format!("tensor `{name}` defined again"), "unique names"));
        }
        Ok(())
    }

    /// Checks what a graph, or a branch of one, has beside its nodes; gives the number of elements and bytes of its weights.
    fn enter(&mut self, graph: &'a GraphProto) -> Result<(u64, u64)> {
        self.count += graph.node.len();
        if self.count > self.limits.nodes {
            let found = format!("{} nodes", self.count);
            return Err(Error::refused("graph", found, self.limits.nodes.to_string()));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(Error::refused("graph", "sparse weights", "dense weights"));
        }
        self.weights(graph)
    }

    /// Checks all weights; gives their number of elements and bytes.
    fn weights(&mut self, graph: &'a GraphProto) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for tensor in &graph.initializer {
            let place = format!("weight `{}`", tensor.name);
            let value = weights::check(&place, tensor, self.limits)?;
            count += value.elements();
            bytes += value.elements() * value.kind.bytes() as u64;
            self.define(&place, &tensor.name, value)?;
        }
        Ok((count, bytes))
    }

    /// Checks that the graph takes one image.
    fn input(&mut self, graph: &'a GraphProto) -> Result<Input> {
        let [info] = &graph.input[..] else {
            let names: Vec<_> = graph.input.iter().take(8).map(|info| info.name.as_str()).collect();
            let found = format!("{} inputs ({})", graph.input.len(), names.join(", "));
            return Err(Error::refused(
                "graph",
                found,
                "one input, the image (weights only as initialisers)",
            ));
        };
        let place = format!("input `{}`", info.name);
        let (number, dims) = declared(&place, info)?;
        let allowed =
            format!("uint8 [1, H, W, C] or float32 [1, C, H, W], sides to {MAX_SIDE}, 1 or 3 channels");
        let refuse = || Error::refused(&place, format!("{} {dims:?}", type_name(number)), allowed.as_str());
        let (kind, form, [height, width, channels]) = match (Kind::from_onnx(number), &dims[..]) {
            (Some(Kind::U8), &[1, h, w, c]) => (Kind::U8, Form::U8Nhwc, [h, w, c]),
            (Some(Kind::F32), &[1, c, h, w]) => (Kind::F32, Form::F32Nchw, [h, w, c]),
            _ => return Err(refuse()),
        };
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&height) || !sides.contains(&width) || !matches!(channels, 1 | 3) {
            return Err(refuse());
        }
        self.define(&place, &info.name, Value::computed(kind, dims))?;
        Ok(Input { name: info.name.clone(), form, width, height, channels })
    }

    /// Checks one node and defines its outputs.
    fn node(&mut self, proto: &'a NodeProto) -> Result<()> {
        let place = place(proto);
        let rule = rules::find(&proto.op_type).filter(|_| super::is_main(&proto.domain));
        let Some(rule) = rule else {
            let found = match proto.domain.as_str() {
                "" => format!("operator {}", proto.op_type),
                domain => format!("operator {} of domain {domain}", proto.op_type),
            };
            return Err(Error::refused(place, found, rules::allowed(&proto.op_type)));
        };
        let node = self.inputs(place, proto, rule)?;
        attributes::check(&node.place, proto, rule.attributes)?;
        let outputs = (rule.infer)(&node)?;
        if rule.op == "If" {
            return self.branch(&node);
        }
        if outputs.len() != proto.output.len() {
            return node.refuse(format!("{} outputs", proto.output.len()), outputs.len().to_string());
        }
        // Shapes are constants even where they are those of the image.
        let constant = node.inputs.iter().flatten().all(|input| input.constant);
        let outputs: Vec<_> =
            outputs.into_iter().map(|out| Value { constant: constant || out.constant, ..out }).collect();
        self.padding = self.padding.max(product::padding(&node));
        self.account(&node, rule, &outputs)?;
        self.account_constants(&node, rule, &outputs)?;
        for (name, value) in proto.output.iter().zip(outputs) {
            self.define(&node.place, name, value)?;
        }
        Ok(())
    }

    /// Checks the branch that a node takes, and defines the node's outputs as the branch's.
    fn branch(&mut self, node: &Node<'a>) -> Result<()> {
        let branch = branches::taken(node)?;
        self.enter(branch)?;
        for inner in &branch.node {
            self.node(inner)?;
        }
        for (info, output) in branch.output.iter().zip(&node.proto.output) {
            let Some(value) = self.values.get(info.name.as_str()) else {
                return node.refuse(format!("a branch without its output `{}`", info.name), "a node for it");
            };
            let value = Value::clone(value);
            self.define(&node.place, output, value)?;
        }
        Ok(())
    }

    /// Looks the inputs up; checks their number, the number of outputs and the opset.
    fn inputs(&self, place: String, proto: &'a NodeProto, rule: &Rule) -> Result<Node<'a>> {
        let refuse = |found: String, allowed: String| Err(Error::refused(place.as_str(), found, allowed));
        if self.opset < rule.since {
            return refuse(format!("opset {}", self.opset), format!("opset {} or later", rule.since));
        }
        let (least, most) = rule.inputs;
        if !(least..=most).contains(&proto.input.len()) {
            return refuse(format!("{} inputs", proto.input.len()), format!("{least} to {most}"));
        }
        if !(1..=rule.outputs).contains(&proto.output.len()) {
            return refuse(format!("{} outputs", proto.output.len()), format!("1 to {}", rule.outputs));
        }
        let mut inputs = Vec::with_capacity(proto.input.len());
        for (i, name) in proto.input.iter().enumerate() {
            inputs.push(match self.values.get(name.as_str()) {
                Some(value) if value.kind == Kind::F32 && value.elements() == 0 && !takes_empty(rule.op) => {
                    return refuse(
                        format!("input `{name}`, {}", value.describe()),
                        "a tensor that is not empty".into(),
                    );
                }
                Some(value) => Some(Rc::clone(value)),
                None if name.is_empty() && i >= least => None,
                None => {
                    let allowed = "a tensor that is defined before the node".to_string();
                    return refuse(format!("input `{name}`"), allowed);
                }
            });
        }
        Ok(Node { place, proto, opset: self.opset, limits: self.limits, inputs })
    }

    /// Adds a node's work to the bill.
    fn account(&mut self, node: &Node<'a>, rule: &Rule, outputs: &[Value<'a>]) -> Result<()> {
        let sum = |values: &mut dyn Iterator<Item = u64>| values.fold(0u64, u64::saturating_add);
        let written = sum(&mut outputs.iter().map(Value::elements));
        let read = sum(&mut node.inputs.iter().flatten().map(|input| input.elements()));
        let (work, multiply_adds) = match rule.cost {
            Cost::Free => (0, 0),
            Cost::Element(each) => (written.max(read).saturating_mul(each * COPY), 0),
            Cost::Product => {
                let work = product::work(node, written);
                (work, work)
            }
            Cost::Windows => (product::covered(node, written).max(read).saturating_mul(COPY), 0),
        };
        self.work = self.work.saturating_add(work);
        let allowed = self.limits.work.min(self.budget.work());
        if self.work > allowed {
            let found = format!("about {} operations up to here", self.work);
            return node.refuse(found, format!("{allowed} for a file of this size"));
        }
        if outputs.iter().all(|out| out.constant) {
            self.folding = self.folding.saturating_add(work);
            let allowed = self.budget.folding();
            if self.folding > allowed {
                let found = format!("about {} operations on constants up to here", self.folding);
                return node.refuse(found, format!("{allowed} for a file of this size"));
            }
        }
        if outputs.iter().any(|out| !out.constant) {
            self.multiply_adds += multiply_adds;
            let name = node.proto.output.first().cloned().unwrap_or_default();
            self.nodes.push(NodeSummary { name, op: node.proto.op_type.clone(), multiply_adds });
        }
        Ok(())
    }

    /// Adds the bytes of constants that a node computes.
    fn account_constants(&mut self, node: &Node<'a>, rule: &Rule, outputs: &[Value<'a>]) -> Result<()> {
        // What costs nothing gives its input another name or another shape.
        if matches!(rule.cost, Cost::Free) {
            return Ok(());
        }
        let bytes = |out: &Value<'_>| out.elements().saturating_mul(out.kind.bytes() as u64);
        let constants = outputs.iter().filter(|out| out.constant).map(bytes);
        self.constant_bytes = constants.fold(self.constant_bytes, u64::saturating_add);
        let allowed = self.budget.constants();
        if self.constant_bytes > allowed {
            let found = format!("{} bytes of computed constants up to here", self.constant_bytes);
            return node.refuse(found, format!("{allowed} for a file of this size"));
        }
        Ok(())
    }

    /// Checks that the outputs are there.
    fn outputs(&self, graph: &'a GraphProto) -> Result<Vec<Port>> {
        if !(1..=MAX_OUTPUTS).contains(&graph.output.len()) {
            let found = format!("{} outputs", graph.output.len());
            return Err(Error::refused("graph", found, format!("1 to {MAX_OUTPUTS}")));
        }
        let port = |(i, info): (usize, &ValueInfoProto)| {
            let place = format!("output `{}`", info.name);
            if graph.output.iter().take(i).any(|earlier| earlier.name == info.name) {
                return Err(Error::refused(place, "the name twice", "unique names"));
            }
            match self.values.get(info.name.as_str()) {
                Some(value) if !value.constant => {
                    let (dims, is_float) = (value.dims.clone(), value.kind == Kind::F32);
                    Ok(Port { name: info.name.clone(), dims, is_float })
                }
                Some(_) => Err(Error::refused(place, "a constant", "a tensor that depends on the image")),
                None => Err(Error::refused(place, "no node that computes it", "a tensor of the graph")),
            }
        };
        graph.output.iter().enumerate().map(port).collect()
    }

    /// The most elements that are needed at one time, in the order of the nodes.
    fn most_live(&self, graph: &'a GraphProto) -> Result<u64> {
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            last.extend(node.input.iter().map(|name| (name.as_str(), i)));
        }
        last.extend(graph.output.iter().map(|output| (output.name.as_str(), graph.node.len())));
        let size = |name: &str| match self.values.get(name) {
            Some(value) if !value.constant => value.elements(),
            _ => 0,
        };
        let (mut live, mut most) = (graph.input.iter().map(|input| size(&input.name)).sum::<u64>(), 0);
        for (i, node) in graph.node.iter().enumerate() {
            live = node.output.iter().fold(live, |live, name| live.saturating_add(size(name)));
            most = live.max(most);
            if most > self.limits.live {
                let found = format!("{most} elements in use at one time");
                return Err(Error::refused(place(node), found, self.limits.live.to_string()));
            }
            let mut done: Vec<&str> = node.input.iter().chain(&node.output).map(String::as_str).collect();
            done.sort_unstable();
            done.dedup();
            let over = done.into_iter().filter(|name| last.get(name).is_none_or(|&last| last == i));
            live = live.saturating_sub(over.map(size).sum());
        }
        Ok(most)
    }
}

/// Whether an operator may read real numbers of which there are none: parts to join, and what is left out by that.
fn takes_empty(op: &str) -> bool {
    matches!(op, "Concat" | "Identity" | "Resize")
}

/// The declared type and static shape of the graph's input.
fn declared(place: &str, info: &ValueInfoProto) -> Result<(i32, Vec<usize>)> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err(Error::refused(place, "no tensor type", "an image"));
    };
    let mut dims = Vec::new();
    for dim in tensor.shape.iter().flat_map(|shape| &shape.dim) {
        match &dim.value {
            Some(Dimension::DimValue(value)) if usize::try_from(*value).is_ok() => dims.push(*value as usize),
            Some(Dimension::DimParam(name)) => {
                return Err(Error::refused(place, format!("the open dimension `{name}`"), STATIC));
            }
            found => {
                let length = match found {
                    Some(Dimension::DimValue(length)) => length.to_string(),
                    _ => "left open".into(),
                };
                let found = format!("dimension {} {length}", dims.len());
                return Err(Error::refused(place, found, STATIC));
            }
        }
    }
    if dims.len() > weights::MAX_RANK || elements(&dims) == u64::MAX {
        return Err(Error::refused(place, format!("shape {dims:?}"), "an image"));
    }
    Ok((tensor.elem_type, dims))
}
