//! The gate: a strict profile of ONNX, checked wholly before the engine sees anything of a file.
//!
//! A model that passes has
//! - one file without external data, training information or functions, and without subgraphs but for the branches
//!   of an `If` whose condition is known, within [`Limits`];
//! - operators of ONNX's main domain at opset 11 to 21, from a short list, with every attribute checked by
//!   name, type and range;
//! - one image as input, `uint8 [1, H, W, C]` or `float32 [1, C, H, W]` (the other layouts are turned, an open batch
//!   is one image, half precision is widened), and only static shapes: every shape that is computed in the graph
//!   follows from constants;
//! - nodes in topological order, each value defined once, each input defined before;
//! - finite weights whose data has the length that their shape says, positive quantization scales.
//!
//! Each refusal names the node or tensor, what was found, and what is allowed.

mod adapt;
mod attributes;
mod branches;
mod fold;
mod limits;
mod node;
mod rules;
mod shapes;
mod summary;
mod value;
mod walk;
mod weights;
mod windows;
mod wire;

pub(crate) use adapt::{channels_are_last, fixed, image_axes};
pub use attributes::{find as attribute, windows_touch};
pub use limits::Limits;
pub(crate) use summary::{Fact, Facts};
pub use summary::{Form, Input, NodeSummary, Port, Summary};
pub(crate) use value::Kind;
pub use weights::floats;
pub(crate) use weights::{MAX_RANK, integers};
pub use windows::{WindowFacts, windows};

use prost::Message as _;
use prost::bytes::Buf as _;
use smalti_models::foreign::{Wanted, recognize};
use smalti_models::onnx::ModelProto;

use crate::error::{Error, Result};
use crate::pieces::Pieces;

/// Bytes that tell what a file is.
const START: usize = 1024;

/// The opsets that the gate lets through.
pub const OPSETS: std::ops::RangeInclusive<i64> = 11..=21;

/// Decodes and checks a model file, in the form that the profile has. What comes back is safe to hand to the engine.
pub fn open(bytes: &[u8], limits: &Limits) -> Result<(ModelProto, Summary)> {
    open_pieces(bytes.into(), limits)
}

/// As [`open`], of bytes in pieces, which go while they are decoded.
pub(crate) fn open_pieces(file: Pieces<'_>, limits: &Limits) -> Result<(ModelProto, Summary)> {
    let size = file.remaining() as u64;
    let mut model = decode(file, limits)?;
    adapt::adapt(&mut model);
    let mut summary = check(&model, limits)?;
    if model.graph.as_mut().is_some_and(|graph| branches::inline(graph, &summary.facts)) {
        summary = check(&model, limits)?;
    }
    summary.file_bytes = size;
    if let Some(graph) = &mut model.graph {
        adapt::declare(graph, &summary.outputs);
        summary.folded_bytes += fold::fold(graph, &mut summary.facts);
    }
    Ok((model, summary))
}

/// Decodes a file that is no larger than a model may be. What is no model at all is called by its name.
pub(crate) fn decode(file: Pieces<'_>, limits: &Limits) -> Result<ModelProto> {
    let start = file.chunk();
    let start = start[..start.len().min(START)].to_vec();
    decode_model(file, limits).map_err(|error| match recognize(&start, Wanted::Model) {
        Some((what, remedy)) => Error::refused("file", what, format!("an ONNX model; {remedy}")),
        None => error,
    })
}

fn decode_model(file: Pieces<'_>, limits: &Limits) -> Result<ModelProto> {
    let size = file.remaining() as u64;
    if size == 0 {
        return Err(Error::refused("file", "0 bytes", "an ONNX model"));
    }
    if size > limits.file_bytes {
        return Err(Error::refused("file", format!("{size} bytes"), format!("{} bytes", limits.file_bytes)));
    }
    let budget = size.saturating_add(limits.overhead_bytes);
    if wire::decoded_size(file.borrowed(), budget)? > budget {
        let allowed = format!("about {budget} bytes of memory once decoded");
        return Err(Error::refused("file", "more nodes, names or texts than a model has", allowed));
    }
    let model = ModelProto::decode(file);
    let mut model = model.map_err(|problem| Error::refused("file", problem.to_string(), "an ONNX model"))?;
    model.shrink();
    Ok(model)
}

/// Checks a decoded model against the profile.
pub fn check(model: &ModelProto, limits: &Limits) -> Result<Summary> {
    let refuse = |found: String, allowed: &str| Err(Error::refused("model", found, allowed));
    if !model.training_info.is_empty() {
        return refuse("training information".into(), "a model for inference only");
    }
    if let Some(function) = model.functions.first() {
        let name = function.name.as_deref().unwrap_or_default();
        return refuse(
            format!("function `{name}`"),
            "operators of ONNX itself (export with functions inlined)",
        );
    }
    let mut main = model.opset_import.iter().filter(|import| is_main(&import.domain));
    let opset = match (main.next(), main.next()) {
        (Some(import), None) => import.version,
        (found, _) => {
            let found = if found.is_some() { "two opsets" } else { "no opset" };
            return refuse(found.into(), "one opset of ONNX's main domain");
        }
    };
    if !OPSETS.contains(&opset) {
        return refuse(format!("opset {opset}"), &format!("{} to {}", OPSETS.start(), OPSETS.end()));
    }
    match &model.graph {
        Some(graph) => walk::check(graph, opset, limits),
        None => refuse("no graph".into(), "a graph"),
    }
}

/// Whether a domain name stands for ONNX's own operators.
fn is_main(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}
