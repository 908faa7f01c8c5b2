//! What the gate knows about each tensor of the graph while it walks the nodes.

use std::sync::Arc;

use smalti_models::onnx::TensorProto;
use smalti_models::onnx::tensor_proto::DataType;

use super::weights;

/// The element types that a model may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    U8,
    I8,
    I32,
    I64,
    Bool,
}

impl Kind {
    /// The kind behind an ONNX data type number, where the profile has it.
    pub(crate) fn from_onnx(number: i32) -> Option<Kind> {
        Some(match DataType::try_from(number).ok()? {
            DataType::Float => Kind::F32,
            DataType::Uint8 => Kind::U8,
            DataType::Int8 => Kind::I8,
            DataType::Int32 => Kind::I32,
            DataType::Int64 => Kind::I64,
            DataType::Bool => Kind::Bool,
            _ => return None,
        })
    }

    /// Bytes an element in the file's raw data, and in memory.
    pub(super) fn bytes(self) -> usize {
        match self {
            Kind::F32 | Kind::I32 => 4,
            Kind::I64 => 8,
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
        }
    }

    /// The name that messages use.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::F32 => "float32",
            Kind::U8 => "uint8",
            Kind::I8 => "int8",
            Kind::I32 => "int32",
            Kind::I64 => "int64",
            Kind::Bool => "bool",
        }
    }
}

/// The name of any ONNX data type, for messages about those that are refused.
pub(super) fn type_name(number: i32) -> String {
    match DataType::try_from(number) {
        Ok(known) => known.name(),
        Err(_) => format!("data type {number}"),
    }
}

/// One tensor: its type, its shape, and its values as far as the graph's own shape arithmetic needs them.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    pub(super) kind: Kind,
    pub(super) dims: Vec<usize>,
    /// Whether it follows from weights alone.
    pub(super) constant: bool,
    /// The values of integers or booleans that are known before running.
    pub(super) ints: Option<Arc<[i64]>>,
    /// The values of real numbers that shape arithmetic has computed.
    pub(super) floats: Option<Arc<[f32]>>,
    /// The initialiser or constant that it is, unchanged.
    pub(super) tensor: Option<&'a TensorProto>,
}

impl<'a> Value<'a> {
    /// A tensor that is computed from others.
    pub(super) fn computed(kind: Kind, dims: Vec<usize>) -> Value<'a> {
        Value { kind, dims, constant: false, ints: None, floats: None, tensor: None }
    }

    /// Known integers or booleans.
    pub(super) fn known(kind: Kind, dims: Vec<usize>, ints: Vec<i64>) -> Value<'a> {
        let ints = (ints.len() <= KNOWN).then(|| ints.into());
        Value { kind, dims, constant: true, ints, floats: None, tensor: None }
    }

    /// Known real numbers.
    pub(super) fn known_floats(dims: Vec<usize>, floats: Vec<f32>) -> Value<'a> {
        let floats = (floats.len() <= KNOWN).then(|| floats.into());
        Value { kind: Kind::F32, dims, constant: true, ints: None, floats, tensor: None }
    }

    /// Real numbers that are known before running: those of shape arithmetic, and of what is stored no more than
    /// `stored`. Weights are not decoded for it.
    pub(super) fn floats(&self, stored: usize) -> Option<Arc<[f32]>> {
        let few = |_: &&TensorProto| self.kind == Kind::F32 && self.elements() <= stored as u64;
        match (&self.floats, self.tensor.filter(few)) {
            (Some(floats), _) => Some(Arc::clone(floats)),
            (None, Some(tensor)) => Some(weights::floats(tensor).collect()),
            (None, None) => None,
        }
    }

    /// Whether its numbers are known before running, as shape arithmetic has computed them.
    pub(super) fn is_known(&self) -> bool {
        self.ints.is_some() || self.floats.is_some()
    }

    /// Number of axes.
    pub(super) fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements; the gate has made sure that it cannot overflow.
    pub(super) fn elements(&self) -> u64 {
        elements(&self.dims)
    }

    /// Type and shape for messages: `float32 [1, 3, 8, 8]`.
    pub(super) fn describe(&self) -> String {
        format!("{} {:?}", self.kind.name(), self.dims)
    }
}

/// The most numbers that shape arithmetic computes in one tensor: indices of relative positions between 14 x 14 patches,
/// masks of shifted windows. What is stored in the file may have more.
pub(super) const KNOWN: usize = 1 << 18;
/// The most stored real numbers that any operator takes for shape arithmetic; more are weights.
pub(super) const FEW: usize = 64;

/// Product of dimensions, saturating.
pub(super) fn elements(dims: &[usize]) -> u64 {
    dims.iter().fold(1u64, |product, &dim| product.saturating_mul(dim as u64))
}
