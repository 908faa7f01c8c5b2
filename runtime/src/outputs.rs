//! Which of a graph's outputs are computed, and what their numbers are.

use std::collections::HashMap;

use smalti_models::contract::{EMBEDDING, LOGITS};
use smalti_models::onnx::{GraphProto, ModelProto, NodeProto};

use crate::error::{Error, Result};
use crate::gate::{Facts, Port, Summary, attribute};
use crate::load::OpenOptions;
use crate::tokens::TokenGrid;

/// The outputs that are computed.
pub(crate) struct Outputs {
    /// The one that answers.
    pub(crate) classes: Port,
    /// Whether its numbers are probabilities.
    pub(crate) are_probabilities: bool,
    pub(crate) embedding: Option<Port>,
    /// The value inside the graph that is shown besides, where one is asked for.
    pub(crate) tokens: Option<TokenGrid>,
}

impl Outputs {
    /// Picks the output that answers, by name if one is asked for, else `logits`, else the first `[1, K]` of floats; and
    /// `embedding`, if there is one.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that no output of that shape has, and for tokens that the graph does not have;
    /// [`Error::Refused`] where no output is asked for and there is none.
    pub(crate) fn choose(proto: &ModelProto, summary: &Summary, options: &OpenOptions) -> Result<Outputs> {
        let (ports, facts, asked) = (&summary.outputs, &summary.facts, options.output.as_deref());
        let row = |port: &&Port| port.is_float && matches!(port.dims[..], [1, _]);
        let named = |name: &str| ports.iter().find(|port| port.name == name);
        let found = || {
            let found: Vec<_> = ports.iter().map(|port| format!("`{}` {:?}", port.name, port.dims)).collect();
            found.join(", ")
        };
        let classes = match asked {
            Some(name) => named(name).filter(row).ok_or_else(|| {
                let allowed = "one of float32 [1, K], a score for each class";
                Error::Usage(format!("output `{name}`: the model has {}; expected {allowed}", found()))
            })?,
            None => named(LOGITS).or_else(|| ports.iter().find(row)).filter(row).ok_or_else(|| {
                Error::refused("outputs", found(), "float32 [1, K], a score for each class")
            })?,
        };
        let embedding = named(EMBEDDING).filter(row).filter(|port| port.name != classes.name);
        let graph = proto.graph.as_ref();
        let find = |(graph, source)| TokenGrid::choose(graph, facts, &summary.input, source);
        let tokens = graph.zip(options.tokens.as_ref()).map(find).transpose()?;
        Ok(Outputs {
            classes: classes.clone(),
            are_probabilities: graph.is_some_and(|graph| ends_in_softmax(graph, facts, &classes.name)),
            embedding: embedding.cloned(),
            tokens,
        })
    }

    /// Number of classes.
    pub(crate) fn class_count(&self) -> usize {
        self.classes.dims.iter().product()
    }

    /// Values of the embedding; 0 without one.
    pub(crate) fn embedding_len(&self) -> usize {
        self.embedding.as_ref().map_or(0, |port| port.dims.iter().product())
    }

    /// Leaves in the model what runs: these outputs, without what is said about them.
    pub(crate) fn keep_what_runs(&self, proto: &mut ModelProto) {
        proto.metadata_props.clear();
        let Some(graph) = &mut proto.graph else { return };
        graph.value_info.clear();
        let outputs = std::mem::take(&mut graph.output);
        let find = |port: &Port| outputs.iter().find(|output| output.name == port.name).cloned();
        graph.output =
            [Some(&self.classes), self.embedding.as_ref()].into_iter().flatten().filter_map(find).collect();
    }
}

/// Whether an output is a softmax over all its values, moved or quantized at most.
fn ends_in_softmax(graph: &GraphProto, facts: &Facts, output: &str) -> bool {
    let makers: HashMap<&str, &NodeProto> =
        graph.node.iter().flat_map(|node| node.output.iter().map(move |name| (&**name, node))).collect();
    let mut name = output;
    while let Some(node) = makers.get(name) {
        let Some(input) = node.input.first() else { return false };
        match &*node.op_type {
            "Identity" | "Dropout" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze"
            | "QuantizeLinear" | "DequantizeLinear" => name = input,
            "Softmax" => {
                let Some(fact) = facts.get(input) else { return false };
                let axis = attribute(node, "axis").map_or(-1, |attribute| attribute.i);
                let axis = axis.rem_euclid(fact.dims.len().max(1) as i64) as usize;
                return fact.dims.get(axis) == Some(&fact.dims.iter().product());
            }
            _ => return false,
        }
    }
    false
}
