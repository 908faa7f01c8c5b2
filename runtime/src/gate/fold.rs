//! Shape arithmetic, which the walk has computed, becomes constants: what runs the graph meets none of it.

use std::collections::HashSet;
use std::mem::size_of_val;

use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{GraphProto, NodeProto, TensorProto};

use super::summary::{Fact, Facts};
use super::value::Kind;

/// Puts constants in the place of nodes whose results are known, and leaves out constant nodes and weights that nothing reads
/// any more. Gives the bytes of known numbers that went with them.
pub(super) fn fold(graph: &mut GraphProto, facts: &mut Facts) -> u64 {
    let is_known = |node: &NodeProto| {
        node.op_type != "Constant" && node.output.iter().all(|name| facts.get(name).is_some_and(is_folded))
    };
    let (known, mut rest): (Vec<NodeProto>, Vec<NodeProto>) =
        std::mem::take(&mut graph.node).into_iter().partition(is_known);
    for node in rest.iter_mut().filter(|node| node.op_type == "Concat") {
        node.input.retain(|name| {
            facts.get(name).is_none_or(|fact| fact.kind != Kind::F32 || !fact.dims.contains(&0))
        });
    }
    let mut needed: HashSet<&str> = graph.output.iter().map(|output| &*output.name).collect();
    let mut is_kept = vec![true; rest.len()];
    for (node, kept) in rest.iter().zip(&mut is_kept).rev() {
        let is_constant = node.output.iter().all(|name| facts.get(name).is_some_and(|fact| fact.constant));
        *kept = !is_constant || node.output.iter().any(|name| needed.contains(&**name));
        if *kept {
            needed.extend(node.input.iter().map(String::as_str));
        }
    }
    graph.initializer.retain(|tensor| needed.contains(&*tensor.name));
    let results = || known.iter().flat_map(|node| &node.output);
    let tensors = results().filter(|name| needed.contains(&***name));
    graph.initializer.extend(tensors.filter_map(|name| Some(tensor(name, facts.get(name)?))));
    let dead = rest.iter().zip(&is_kept).filter(|(_, kept)| !**kept).flat_map(|(node, _)| &node.output);
    let gone: Vec<String> =
        results().chain(dead).filter(|name| !needed.contains(&***name)).cloned().collect();
    let gone = gone.into_iter().filter_map(|name| facts.remove(&name)).map(|fact| bytes(&fact)).sum::<u64>();
    let mut kept = is_kept.into_iter();
    rest.retain(|_| kept.next().unwrap_or(true));
    graph.node = rest;
    // What is left of real numbers is stored in the graph.
    gone + facts
        .values_mut()
        .filter_map(|fact| fact.floats.take())
        .map(|floats| size_of_val(&*floats) as u64)
        .sum::<u64>()
}

/// Whether a tensor's numbers are known.
fn is_folded(fact: &Fact) -> bool {
    fact.constant && if fact.kind == Kind::F32 { fact.floats.is_some() } else { fact.ints.is_some() }
}

/// Bytes of a tensor's known numbers.
fn bytes(fact: &Fact) -> u64 {
    let ints = fact.ints.as_deref().map_or(0, size_of_val);
    (ints + fact.floats.as_deref().map_or(0, size_of_val)) as u64
}

/// A tensor of known numbers.
fn tensor(name: &str, fact: &Fact) -> TensorProto {
    let ints = || fact.ints.iter().flat_map(|ints| ints.iter().copied());
    let (data_type, raw): (DataType, Vec<u8>) = match fact.kind {
        Kind::I64 => (DataType::Int64, ints().flat_map(i64::to_le_bytes).collect()),
        Kind::I32 => (DataType::Int32, ints().flat_map(|int| (int as i32).to_le_bytes()).collect()),
        Kind::Bool => (DataType::Bool, ints().map(|int| u8::from(int != 0)).collect()),
        Kind::U8 => (DataType::Uint8, ints().map(|int| int as u8).collect()),
        Kind::I8 => (DataType::Int8, ints().map(|int| int as u8).collect()),
        Kind::F32 => {
            let floats = fact.floats.iter().flat_map(|floats| floats.iter().copied());
            (DataType::Float, floats.flat_map(f32::to_le_bytes).collect())
        }
    };
    TensorProto::raw(name, data_type, &fact.dims, raw)
}
