//! The gate: a strict profile of ONNX, checked wholly before the engine sees anything of a file.
//!
//! A model that passes has
//! - one file without external data, training information, functions or subgraphs, within [`Limits`];
//! - operators of ONNX's main domain at opset 13 to 18, from a short list, with every attribute checked by
//!   name, type and range (PyTorch's newer exporter writes 18 where it cannot convert down to 17);
//! - one image as input, `uint8 [1, H, W, C]` or `float32 [1, C, H, W]`, and only static shapes: every
//!   shape that is computed in the graph follows from constants;
//! - nodes in topological order, each value defined once, each input defined before;
//! - finite weights whose data has the length that their shape says, positive quantization scales.
//!
//! Each refusal names the node or tensor, what was found, and what is allowed.

mod attributes;
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

pub use attributes::{find as attribute, windows_touch};
pub use limits::Limits;
pub(crate) use summary::{Fact, Facts};
pub use summary::{Form, Input, NodeSummary, Port, Summary};
pub(crate) use value::Kind;
pub use weights::floats;
pub(crate) use weights::integers;
pub use windows::{WindowFacts, windows};

use prost::Message as _;
use prost::bytes::Buf as _;
use smalti_models::onnx::ModelProto;

use crate::error::{Error, Result};
use crate::pieces::Pieces;

/// The opsets that the gate lets through.
pub const OPSETS: std::ops::RangeInclusive<i64> = 13..=18;

/// Decodes and checks a model file. What comes back is safe to hand to the engine.
pub fn open(bytes: &[u8], limits: &Limits) -> Result<(ModelProto, Summary)> {
    open_pieces(bytes.into(), limits)
}

/// As [`open`], of bytes in pieces, which go while they are decoded.
pub(crate) fn open_pieces(file: Pieces<'_>, limits: &Limits) -> Result<(ModelProto, Summary)> {
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
    let model = ModelProto::decode(file)
        .map_err(|problem| Error::refused("file", problem.to_string(), "an ONNX model"))?;
    let mut summary = check(&model, limits)?;
    summary.file_bytes = size;
    Ok((model, summary))
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
