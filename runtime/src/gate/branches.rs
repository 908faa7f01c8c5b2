//! `If` with a condition that is known before anything runs: the branch that it takes stands in its place.
//!
//! PyTorch's older exporter writes such nodes where it does not follow a tensor's rank or sign (`torch.tile`, say).

use smalti_models::onnx::{AttributeProto, GraphProto, NodeProto};

use super::attributes::{self, Attribute, Check};
use super::node::Node;
use super::summary::Facts;
use super::value::{Kind, Value};
use crate::error::Result;

/// What an `If` may carry.
pub(super) const ATTRIBUTES: &[Attribute] = &[
    Attribute { name: "else_branch", check: Check::Graph },
    Attribute { name: "then_branch", check: Check::Graph },
];

/// The attribute with the branch that is taken.
fn name(condition: bool) -> &'static str {
    if condition { "then_branch" } else { "else_branch" }
}

/// The branch that a checked `If` takes.
pub(super) fn taken<'a>(node: &Node<'a>) -> Result<&'a GraphProto> {
    let condition = node.input_of(0, Kind::Bool)?;
    let Some(&[condition]) = condition.ints.as_deref() else {
        return node.refuse(
            format!("a condition ({}) that is computed while running", condition.describe()),
            "one truth value that is known beforehand (export with a fixed size, or with dynamo=True)",
        );
    };
    let branch = attributes::find(node.proto, name(condition != 0)).and_then(|found| found.g.as_deref());
    let Some(branch) = branch else {
        return node.refuse(format!("no {}", name(condition != 0)), "both branches");
    };
    if !branch.input.is_empty() {
        return node.refuse("a branch with inputs", "branches that read the graph around them");
    }
    if branch.output.len() != node.proto.output.len() {
        let found = format!("a branch with {} outputs", branch.output.len());
        return node.refuse(found, node.proto.output.len().to_string());
    }
    Ok(branch)
}

/// Checks that a branch is taken. What comes out of it is known once the walk has been through it.
pub(super) fn infer<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    taken(node).map(|_| Vec::new())
}

/// Puts the branches of a checked graph in the place of the nodes that take them; whether there was any.
pub(super) fn inline(graph: &mut GraphProto, facts: &Facts) -> bool {
    if graph.node.iter().all(|node| node.op_type != "If") {
        return false;
    }
    for node in std::mem::take(&mut graph.node) {
        place(node, graph, facts);
    }
    true
}

/// Adds a node to the graph; an `If` as what its branch consists of.
fn place(mut node: NodeProto, graph: &mut GraphProto, facts: &Facts) {
    let condition = node.input.first().and_then(|name| facts.get(name)?.ints.as_deref()?.first().copied());
    let branch = condition.filter(|_| node.op_type == "If").and_then(|condition| {
        let is_taken = |attribute: &&mut AttributeProto| attribute.name == name(condition != 0);
        node.attribute.iter_mut().find(is_taken)?.g.take()
    });
    let Some(branch) = branch else {
        graph.node.push(node);
        return;
    };
    graph.initializer.extend(branch.initializer);
    for inner in branch.node {
        place(inner, graph, facts);
    }
    graph.node.extend(branch.output.into_iter().zip(node.output).map(|(value, output)| NodeProto {
        name: output.clone(),
        input: vec![value.name],
        output: vec![output],
        op_type: "Identity".into(),
        ..NodeProto::default()
    }));
}
