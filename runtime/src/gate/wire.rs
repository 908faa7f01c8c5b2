//! How much memory a file asks for once decoded, told from its bytes alone.
//!
//! Two bytes of protobuf can stand for a message of hundreds of bytes in memory. This walk over the raw
//! fields adds up an upper estimate before anything is decoded, so that no file can ask for more than its
//! budget.

use prost::bytes::Buf;
use smalti_models::onnx::TensorProto;

use crate::error::{Error, Result};

/// The messages whose fields the walk knows.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
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
    /// A message of small messages: a declared type, an opset.
    Small,
    /// Not decoded at all, such as the metadata of nodes and values that PyTorch's exporter writes, or decoded to
    /// nothing: what is refused wherever it occurs.
    Skipped,
}

/// What a decoded message costs beside its contents: the largest of them, twice, as lists grow by doubling.
const MESSAGE: u64 = 2 * size_of::<TensorProto>() as u64;
/// What a message of small messages costs, and what a byte of it can cost.
const SMALL: (u64, u64) = (512, 128);
/// What a string or byte field costs beside its contents.
const STRING: u64 = 32;

/// The fields that [`smalti_models::onnx`] decodes (numbers of `onnx.proto`); all others are skipped.
fn field(message: Message, number: u64) -> Field {
    use Field::{Bytes, Nested, Packed, Skipped, Small};
    match (message, number) {
        (Message::Model, 7) => Nested(Message::Graph),
        (Message::Model, 14) => Nested(Message::Entry),
        (Message::Model, 2..=4 | 6) => Bytes,
        (Message::Model, 8 | 25) => Small,
        (Message::Graph, 1) => Nested(Message::Node),
        (Message::Graph, 5) => Nested(Message::Tensor),
        (Message::Graph, 11..=13) => Nested(Message::Value),
        (Message::Graph, 2 | 10) => Bytes,
        (Message::Node, 5) => Nested(Message::Attribute),
        (Message::Node, 1..=4 | 6 | 7) => Bytes,
        (Message::Attribute, 5) => Nested(Message::Tensor),
        (Message::Attribute, 6) => Nested(Message::Graph),
        (Message::Attribute, 1 | 4 | 13 | 21) => Bytes,
        (Message::Attribute, 8) => Packed,
        (Message::Tensor, 6 | 8 | 9 | 12) => Bytes,
        (Message::Tensor, 1 | 4 | 5 | 7 | 10 | 11) => Packed,
        (Message::Tensor, 13) => Nested(Message::Entry),
        (Message::Value, 1 | 3) => Bytes,
        (Message::Value, 2) => Small,
        (Message::Entry, 1 | 2) => Bytes,
        _ => Skipped,
    }
}

/// The error for bytes that are no protobuf.
fn malformed(problem: &str) -> Error {
    Error::refused("file", problem, "an ONNX model (protobuf)")
}

/// A message's bytes, the next of the file's.
struct Inside<'f, B> {
    file: &'f mut B,
    /// What the file has left behind the message.
    end: usize,
}

impl<B: Buf> Inside<'_, B> {
    fn left(&self) -> usize {
        self.file.remaining().saturating_sub(self.end)
    }

    /// Reads a base-128 varint.
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.left() == 0 {
                return Err(malformed("bytes that end inside a number"));
            }
            let byte = self.file.get_u8();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a number of more than ten bytes"))
    }

    /// The next `length` bytes.
    fn field(&mut self, length: u64) -> Result<Inside<'_, B>> {
        let length = usize::try_from(length).ok().filter(|&length| length <= self.left());
        let length =
            length.ok_or_else(|| malformed("a field longer than the file (cut off, or no model)"))?;
        Ok(Inside { end: self.file.remaining() - length, file: self.file })
    }

    /// Passes over what is left.
    fn skip(self) {
        self.file.advance(self.left());
    }
}

/// How deep messages may lie in one another, as prost has it: branches hold graphs.
const DEPTH: usize = 100;

/// An upper estimate of the memory that decoding one message takes; stops early above `limit`. `depth` messages are
/// around it.
fn cost(message: Message, inside: &mut Inside<'_, impl Buf>, limit: u64, depth: usize) -> Result<u64> {
    if depth > DEPTH {
        return Err(malformed("graphs in graphs, too deep"));
    }
    let mut sum = MESSAGE;
    while inside.left() > 0 && sum <= limit {
        let key = inside.varint()?;
        sum = sum.saturating_add(match key & 7 {
            0 => inside.varint().map(|_| 8)?,
            1 => inside.field(8).map(Inside::skip).map(|()| 8)?,
            5 => inside.field(4).map(Inside::skip).map(|()| 8)?,
            2 => {
                let length = inside.varint()?;
                let mut contents = inside.field(length)?;
                let cost = match field(message, key >> 3) {
                    Field::Nested(inner) => cost(inner, &mut contents, limit, depth + 1)?,
                    Field::Bytes => STRING + length,
                    Field::Packed => 8 * length,
                    Field::Small => SMALL.0 + SMALL.1 * length,
                    Field::Skipped => 0,
                };
                contents.skip();
                cost
            }
            _ => return Err(malformed("a field of a kind that protobuf does not have")),
        });
    }
    Ok(sum)
}

/// An upper estimate of the memory that decoding `file` as an ONNX model takes, in bytes; exact walking stops
/// above `limit`.
pub(super) fn decoded_size(mut file: impl Buf, limit: u64) -> Result<u64> {
    cost(Message::Model, &mut Inside { file: &mut file, end: 0 }, limit, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use smalti_models::onnx as pb;

    #[test]
    fn a_flood_of_empty_nodes_is_seen_before_decoding() {
        let graph = pb::GraphProto { node: vec![pb::NodeProto::default(); 1000], ..Default::default() };
        let model = pb::ModelProto { graph: Some(graph), ..Default::default() };
        let bytes = model.encode_to_vec();
        assert!(bytes.len() < 3000);
        assert!(decoded_size(&*bytes, u64::MAX).unwrap() >= 1000 * size_of::<pb::NodeProto>() as u64);
        assert!(decoded_size(&*bytes, 1000).unwrap() > 1000);
    }

    #[test]
    fn raw_weights_cost_what_they_are() {
        let tensor = TensorProto { raw_data: vec![1; 100_000].into(), ..Default::default() };
        let graph = pb::GraphProto { initializer: vec![tensor], ..Default::default() };
        let model = pb::ModelProto { graph: Some(graph), ..Default::default() };
        let size = decoded_size(&*model.encode_to_vec(), u64::MAX).unwrap();
        assert!((100_000..120_000).contains(&size), "{size}");
    }

    #[test]
    fn no_message_is_larger_in_memory_than_the_estimate_allows() {
        assert!(size_of::<pb::AttributeProto>() as u64 * 2 <= MESSAGE);
        assert!(size_of::<pb::NodeProto>() as u64 * 2 <= MESSAGE);
        assert_eq!(size_of::<pb::Ignored>(), 0);
        let small = [
            size_of::<pb::ValueInfoProto>(),
            size_of::<pb::StringStringEntryProto>(),
            size_of::<pb::OperatorSetIdProto>(),
            size_of::<pb::FunctionProto>(),
        ];
        assert!(small.iter().all(|&size| size as u64 * 2 <= SMALL.0.min(MESSAGE)), "{small:?}");
        let inside = [size_of::<pb::TypeProto>(), size_of::<pb::tensor_shape_proto::Dimension>()];
        assert!(inside.iter().all(|&size| size as u64 <= 2 * SMALL.1), "{inside:?}");
    }

    /// A message with one more field of that number.
    fn with_field(mut message: Vec<u8>, number: u8, contents: &[u8]) -> Vec<u8> {
        prost::encoding::encode_key(number.into(), prost::encoding::WireType::LengthDelimited, &mut message);
        prost::encoding::encode_varint(contents.len() as u64, &mut message);
        message.extend(contents);
        message
    }

    #[test]
    fn metadata_that_is_not_decoded_costs_nothing() {
        let value = "x".repeat(4000);
        let entry = pb::StringStringEntryProto { key: "pkg.torch.onnx.stack_trace".into(), value };
        let model = |metadata: bool| {
            let add = |message, number| match metadata {
                true => with_field(message, number, &entry.encode_to_vec()),
                false => message,
            };
            let (node, value) = (pb::NodeProto::default(), pb::ValueInfoProto::default());
            let (node, value) = (add(node.encode_to_vec(), 9), add(value.encode_to_vec(), 4));
            let tensor = add(TensorProto::default().encode_to_vec(), 16);
            let mut graph = add(Vec::new(), 16);
            for _ in 0..100 {
                graph = with_field(with_field(with_field(graph, 1, &node), 13, &value), 5, &tensor);
            }
            with_field(Vec::new(), 7, &graph)
        };
        let [with, without] = [model(true), model(false)];
        assert!(with.len() > 1_000_000);
        let size = |model: &[u8]| decoded_size(model, u64::MAX).unwrap();
        assert_eq!(size(&with), size(&without));
        // And it is indeed left out.
        let decode = |model: &[u8]| pb::ModelProto::decode(model).unwrap();
        assert_eq!(decode(&with), decode(&without));
    }

    #[test]
    fn graphs_in_graphs_are_counted_and_not_followed_without_end() {
        let nested = |depth: usize, weight: usize| {
            let tensor = TensorProto { raw_data: vec![1; weight].into(), ..Default::default() };
            let mut graph = with_field(Vec::new(), 5, &tensor.encode_to_vec());
            for _ in 0..depth {
                let attribute = with_field(Vec::new(), 6, &graph);
                graph = with_field(Vec::new(), 1, &with_field(Vec::new(), 5, &attribute));
            }
            with_field(Vec::new(), 7, &graph)
        };
        let size = decoded_size(&*nested(20, 100_000), u64::MAX).unwrap();
        assert!((100_000..200_000).contains(&size), "{size}");
        assert!(pb::ModelProto::decode(&*nested(20, 8)).is_ok());
        for depth in [40, 3000] {
            let error = decoded_size(&*nested(depth, 8), u64::MAX).unwrap_err();
            assert!(error.to_string().contains("too deep"), "{error}");
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        for bytes in [&[0x3a, 0xff, 0x01][..], &[0x80; 12], &[0x0f]] {
            assert_eq!(decoded_size(bytes, u64::MAX).unwrap_err().exit_code(), 3);
        }
    }
}
