//! What the gate learned about a model on its way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::limits::Budget;
use super::value::Kind;

/// How an image goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `uint8 [1, H, W, C]`: pixels as they are; mean, deviation and 255 are inside the model.
    U8Nhwc,
    /// `float32 [1, C, H, W]`: normalised pixels.
    F32Nchw,
}

impl Form {
    /// The name that `--input` of the exporter knows.
    pub fn name(self) -> &'static str {
        match self {
            Form::U8Nhwc => "u8-nhwc",
            Form::F32Nchw => "f32-nchw",
        }
    }
}

/// The image that a model takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The input's name in the file.
    pub name: String,
    /// How the image goes in.
    pub form: Form,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
}

impl Input {
    /// Width and height.
    pub fn size(&self) -> [usize; 2] {
        [self.width, self.height]
    }

    /// Values of one image.
    pub fn values(&self) -> usize {
        self.width * self.height * self.channels
    }
}

/// A named tensor and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name in the file.
    pub name: String,
    /// The shape.
    pub dims: Vec<usize>,
    /// Whether its elements are 32-bit floats.
    pub is_float: bool,
}

/// One node's part of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// The name of its first output.
    pub name: String,
    /// The operator.
    pub op: String,
    /// Multiply-adds, for products.
    pub multiply_adds: u64,
}

/// What is known of one tensor before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fact {
    /// The shape.
    pub(crate) dims: Vec<usize>,
    /// Whether it follows from weights alone.
    pub(crate) constant: bool,
    /// Its elements.
    pub(crate) kind: Kind,
    /// Its values, where they are integers that do.
    pub(crate) ints: Option<Arc<[i64]>>,
    /// Its values, where they are real numbers that shape arithmetic has computed.
    pub(crate) floats: Option<Arc<[f32]>>,
}

/// Facts by the tensors' names.
pub(crate) type Facts = HashMap<String, Fact>;

/// What a model that passed the gate consists of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The opset of ONNX's main domain.
    pub opset: i64,
    /// The image that goes in.
    pub input: Input,
    /// What comes out, in the file's order.
    pub outputs: Vec<Port>,
    /// Elements of all weights.
    pub parameters: u64,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Multiply-adds of one run, as far as they depend on the image.
    pub multiply_adds: u64,
    /// The most elements of intermediate tensors needed at one time.
    pub live: u64,
    /// The most elements that a convolution or a pooling adds to its map as padding. Our kernels keep none of them, tract
    /// does.
    pub(crate) padding: u64,
    /// The nodes that depend on the image, in order.
    pub nodes: Vec<NodeSummary>,
    /// What is known of every tensor.
    pub(crate) facts: Facts,
    /// Bytes of constants that follow from others.
    pub(crate) constant_bytes: u64,
    /// Bytes of numbers of shape arithmetic that were known on the way.
    pub(crate) folded_bytes: u64,
    /// What the model may ask for.
    pub(crate) budget: Budget,
}

impl Summary {
    /// How often each operator occurs, shape arithmetic left out.
    pub fn operators(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            *counts.entry(node.op.as_str()).or_default() += 1;
        }
        counts
    }
}
