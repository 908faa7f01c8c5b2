//! What is in a model file.

use std::borrow::Cow;

use smalti_models::ModelRecord;
use smalti_models::contract::weights_digest;
use smalti_models::onnx::{ModelProto, TensorProto};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gate::{self, Limits, Summary};
use crate::load::{Model, OpenOptions};

/// A model file, looked at without preparing it for running.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The program that wrote the file, and its version.
    pub producer: String,
    /// What the gate learned about the graph.
    pub summary: Summary,
    /// What our exporter wrote about the model; none for a foreign file.
    pub record: Option<ModelRecord>,
    /// SHA-256 over the weights as they are in the file.
    pub weights_sha256: String,
    /// The output that answers if no other is chosen.
    pub output: String,
    /// Whether that output is probabilities already.
    pub gives_probabilities: bool,
    /// Why tract runs the model instead of our own kernels; none where those run all of it.
    pub fallback_reason: Option<String>,
}

impl Inspection {
    /// Whether the weights are those that the record was written for; none without a record.
    pub fn weights_intact(&self) -> Option<bool> {
        self.record.as_ref().map(|record| record.weights_sha256 == self.weights_sha256)
    }

    /// Fails if the record says that the weights were other ones.
    pub fn judge_weights(&self) -> Result<()> {
        if self.weights_intact() != Some(false) {
            return Ok(());
        }
        let recorded = self.record.as_ref().map_or("", |record| &record.weights_sha256);
        Err(Error::GateFailed(format!(
            "the weights have SHA-256 {}, the file's record says {recorded}: the file is damaged or was edited",
            self.weights_sha256
        )))
    }

    /// The part of the multiply-adds that our own kernels compute: all or nothing.
    pub fn kernels_share(&self) -> f64 {
        if self.fallback_reason.is_none() { 1.0 } else { 0.0 }
    }

    /// The bytes that intermediate tensors take at most while the model runs.
    pub fn activation_bytes(&self) -> u64 {
        4 * self.summary.live
    }
}

/// Looks at a model file's bytes.
///
/// # Errors
/// Those of [`Model::from_bytes`]: a model that would not run is refused.
pub fn inspect(bytes: &[u8]) -> Result<Inspection> {
    let (proto, summary) = gate::open(bytes, &Limits::default())?;
    let pairs = proto.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()));
    let record = ModelRecord::from_metadata(pairs)?;
    let producer = format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned();
    let weights_sha256 = weights_sha256(&proto);
    // What cannot run is refused here, as where it would run.
    let model = Model::new(proto, summary.clone(), Digest::of(bytes), &OpenOptions::default())?;
    Ok(Inspection {
        file_bytes: bytes.len() as u64,
        producer,
        summary,
        record,
        weights_sha256,
        output: model.output_name().to_owned(),
        gives_probabilities: model.gives_probabilities(),
        fallback_reason: model.fallback_reason().map(str::to_owned),
    })
}

/// SHA-256 over all weights in the order of the file, in hexadecimal, as the exporter takes it.
pub fn weights_sha256(proto: &ModelProto) -> String {
    let weights = proto.graph.iter().flat_map(|graph| &graph.initializer);
    let data: Vec<(&str, Cow<'_, [u8]>)> =
        weights.map(|tensor| (tensor.name.as_str(), data(tensor))).collect();
    weights_digest(data.iter().map(|(name, bytes)| (*name, bytes.as_ref())))
}

/// A tensor's data as little-endian bytes, in whichever field it stands.
fn data(tensor: &TensorProto) -> Cow<'_, [u8]> {
    if !tensor.raw_data.is_empty() {
        return Cow::Borrowed(&tensor.raw_data);
    }
    let floats = tensor.float_data.iter().flat_map(|value| value.to_le_bytes());
    let longs = tensor.int64_data.iter().flat_map(|value| value.to_le_bytes());
    let ints = tensor.int32_data.iter().flat_map(|value| value.to_le_bytes());
    Cow::Owned(floats.chain(longs).chain(ints).collect())
}
