//! How much memory a file asks for once decoded, told from its bytes alone.
//!
//! Two bytes of protobuf can stand for a message of hundreds of bytes in memory. This walk over the raw
//! fields adds up an upper estimate before anything is decoded, so that no file can ask for more than its
//! budget.

use tract_onnx::pb::AttributeProto;

use crate::error::{Error, Result};

/// The messages whose fields the walk knows.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Entry,
}

/// What one length-delimited field costs.
enum Field {
    /// A message to walk into.
    Nested(Message),
    /// Text or raw bytes: as long as they are.
    Bytes,
    /// Packed numbers of at most eight bytes each from at least one byte each.
    Packed,
    /// A message of small messages: a declared type, an annotation.
    Small,
    /// Anything else: a bound on what tiny nested messages can blow up to.
    Other,
}

/// What a decoded message costs beside its contents: the largest of them, twice, as lists grow by doubling.
const MESSAGE: u64 = 2 * size_of::<AttributeProto>() as u64;
/// What a byte of an unknown field can cost: an empty message takes two.
const UNKNOWN: u64 = MESSAGE / 2;
/// What a message of small messages costs, and what a byte of it can cost.
const SMALL: (u64, u64) = (512, 128);
/// What a string or byte field costs beside its contents.
const STRING: u64 = 32;

/// The ONNX schema as far as it matters here (field numbers of `onnx.proto`).
fn field(message: Message, number: u64) -> Field {
    use Field::{Bytes, Nested, Other, Packed, Small};
    match (message, number) {
        (Message::Model, 7) => Nested(Message::Graph),
        (Message::Model, 14) => Nested(Message::Entry),
        (Message::Graph, 1) => Nested(Message::Node),
        (Message::Graph, 5) => Nested(Message::Tensor),
        (Message::Node, 5) => Nested(Message::Attribute),
        (Message::Attribute, 5 | 10) => Nested(Message::Tensor),
        (Message::Model, 2..=4 | 6) | (Message::Graph, 2 | 10) | (Message::Node, 1..=4 | 6 | 7) => Bytes,
        (Message::Attribute, 1 | 4 | 9 | 13 | 21) | (Message::Tensor, 6 | 8 | 9 | 12) => Bytes,
        (Message::Entry, 1 | 2) => Bytes,
        (Message::Model, 8) | (Message::Graph, 11..=14) => Small,
        (Message::Attribute, 7 | 8) | (Message::Tensor, 1 | 4 | 5 | 7 | 10 | 11) => Packed,
        _ => Other,
    }
}

/// The error for bytes that are no protobuf.
fn malformed(problem: &str) -> Error {
    Error::refused("file", problem, "an ONNX model (protobuf)")
}

/// Reads a base-128 varint off the front.
fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| malformed("bytes that end inside a number"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed("a number of more than ten bytes"))
}

/// Takes `length` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let length = usize::try_from(length).ok().filter(|&length| length <= bytes.len());
    let length = length.ok_or_else(|| malformed("a field longer than the file (cut off, or no model)"))?;
    let (front, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(front)
}

/// An upper estimate of the memory that decoding one message takes; stops early above `limit`.
fn cost(message: Message, mut bytes: &[u8], limit: u64) -> Result<u64> {
    let mut sum = MESSAGE;
    while !bytes.is_empty() && sum <= limit {
        let key = varint(&mut bytes)?;
        sum = sum.saturating_add(match key & 7 {
            0 => varint(&mut bytes).map(|_| 8)?,
            1 => take(&mut bytes, 8).map(|_| 8)?,
            5 => take(&mut bytes, 4).map(|_| 8)?,
            2 => {
                let length = varint(&mut bytes)?;
                let inside = take(&mut bytes, length)?;
                match field(message, key >> 3) {
                    Field::Nested(inner) => cost(inner, inside, limit)?,
                    Field::Bytes => STRING + length,
                    Field::Packed => 8 * length,
                    Field::Small => SMALL.0 + SMALL.1 * length,
                    Field::Other => MESSAGE + UNKNOWN * length,
                }
            }
            _ => return Err(malformed("a field of a kind that protobuf does not have")),
        });
    }
    Ok(sum)
}

/// An upper estimate of the memory that decoding `bytes` as an ONNX model takes, in bytes; exact walking stops
/// above `limit`.
pub(super) fn decoded_size(bytes: &[u8], limit: u64) -> Result<u64> {
    cost(Message::Model, bytes, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use tract_onnx::pb;

    #[test]
    fn a_flood_of_empty_nodes_is_seen_before_decoding() {
        let graph = pb::GraphProto { node: vec![pb::NodeProto::default(); 1000], ..Default::default() };
        let model = pb::ModelProto { graph: Some(graph), ..Default::default() };
        let bytes = model.encode_to_vec();
        assert!(bytes.len() < 3000);
        assert!(decoded_size(&bytes, u64::MAX).unwrap() >= 1000 * size_of::<pb::NodeProto>() as u64);
        assert!(decoded_size(&bytes, 1000).unwrap() > 1000);
    }

    #[test]
    fn raw_weights_cost_what_they_are() {
        let tensor = pb::TensorProto { raw_data: vec![1; 100_000], ..Default::default() };
        let graph = pb::GraphProto { initializer: vec![tensor], ..Default::default() };
        let model = pb::ModelProto { graph: Some(graph), ..Default::default() };
        let size = decoded_size(&model.encode_to_vec(), u64::MAX).unwrap();
        assert!((100_000..120_000).contains(&size), "{size}");
    }

    #[test]
    fn no_message_is_larger_in_memory_than_the_estimate_allows() {
        assert!(size_of::<pb::TensorProto>() as u64 * 2 <= MESSAGE);
        assert!(size_of::<pb::NodeProto>() as u64 * 2 <= MESSAGE);
        assert!(size_of::<pb::SparseTensorProto>() as u64 * 2 <= MESSAGE);
        let small = [size_of::<pb::ValueInfoProto>(), size_of::<pb::StringStringEntryProto>()];
        assert!(small.iter().all(|&size| size as u64 * 2 <= SMALL.0), "{small:?}");
        let inside = [size_of::<pb::TypeProto>(), size_of::<pb::tensor_shape_proto::Dimension>()];
        assert!(inside.iter().all(|&size| size as u64 <= 2 * SMALL.1), "{inside:?}");
    }

    #[test]
    fn damaged_bytes_are_refused() {
        for bytes in [&[0x3a, 0xff, 0x01][..], &[0x80; 12], &[0x0f]] {
            assert_eq!(decoded_size(bytes, u64::MAX).unwrap_err().exit_code(), 3);
        }
    }
}
