//! The steps that a model is lowered to: what is computed from which buffers.

use smalti_kernels::attention::Shape;
use smalti_kernels::{Activation, Quantize};

use super::constant::{Bytes, Constant};
use super::view::View;

/// A buffer's number. Buffers are written by one step, or piecewise by copies.
pub(super) type Buffer = usize;

/// Rows of a buffer without a gap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) buffer: Buffer,
    /// The first value's place.
    pub(super) offset: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// A matrix for each head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HeadsAt {
    pub(super) buffer: Buffer,
    pub(super) offset: usize,
    pub(super) head: usize,
    pub(super) row: usize,
}

/// A linear layer's weight, `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub(super) enum Weight<'a> {
    Floats(Constant<'a>),
    /// For activations in bytes.
    Bytes(Bytes<'a>, Quantize),
}

/// A function of single values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pointwise {
    Activation(Activation),
    Scale(f32),
}

/// A step's result, and how it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) buffer: Buffer,
    /// As bytes.
    pub(super) quantize: Option<Quantize>,
}

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step<'a> {
    /// The image's patches, one a row, in the order channel, row, column; `image` is `[C, H, W]`.
    Patches { image: View, patch: [usize; 2], out: Target },
    /// `act(x Wᵀ + b) · gain + residual`; the gain is in the weight.
    Linear {
        name: String,
        x: Span,
        weight: Box<Weight<'a>>,
        bias: Vec<f32>,
        gain: Option<Vec<f32>>,
        activation: Activation,
        residual: Option<Buffer>,
        out: Target,
    },
    /// Layer norm of each row.
    Norm { x: Span, scale: Vec<f32>, shift: Vec<f32>, eps: f32, out: Target },
    /// Attention of all heads.
    Attention { qkv: [HeadsAt; 3], shape: Shape, out: Target },
    /// A function of each value.
    Pointwise { x: Buffer, function: Pointwise, out: Buffer },
    /// `a + b`.
    Add { a: Span, b: Span, out: Buffer },
    /// `a + values`, or `a · values`: one value a column, or one a place.
    Constant { a: Span, values: Vec<f32>, multiply: bool, out: Buffer },
    /// A view's values in order, from a place of `out` on.
    Copy { from: Buffer, view: View, out: Buffer, at: usize },
    /// Constant values, from a place of `out` on.
    Put { values: Vec<f32>, out: Buffer, at: usize },
    /// The mean over rows.
    Mean { x: Span, out: Buffer },
    /// Values as bytes.
    Quantize { x: Span, out: Buffer, quantize: Quantize },
}

impl Step<'_> {
    /// The buffer that is written.
    pub(super) fn writes(&self) -> Buffer {
        match self {
            Step::Patches { out, .. }
            | Step::Linear { out, .. }
            | Step::Norm { out, .. }
            | Step::Attention { out, .. } => out.buffer,
            Step::Pointwise { out, .. }
            | Step::Add { out, .. }
            | Step::Constant { out, .. }
            | Step::Copy { out, .. }
            | Step::Put { out, .. }
            | Step::Mean { out, .. }
            | Step::Quantize { out, .. } => *out,
        }
    }

    /// The buffers that are read.
    pub(super) fn reads(&self) -> Vec<Buffer> {
        match self {
            Step::Patches { .. } | Step::Put { .. } => vec![],
            Step::Linear { x, residual, .. } => std::iter::once(x.buffer).chain(*residual).collect(),
            Step::Norm { x, .. } | Step::Mean { x, .. } | Step::Quantize { x, .. } => vec![x.buffer],
            Step::Attention { qkv, .. } => qkv.iter().map(|heads| heads.buffer).collect(),
            Step::Pointwise { x, .. } => vec![*x],
            Step::Add { a, b, .. } => vec![a.buffer, b.buffer],
            Step::Constant { a, .. } => vec![a.buffer],
            Step::Copy { from, .. } => vec![*from],
        }
    }

    /// What the step is called in reports.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Step::Patches { .. } => "patches",
            Step::Linear { weight, .. } => match **weight {
                Weight::Floats(_) => "linear f32",
                Weight::Bytes(..) => "linear int8",
            },
            Step::Norm { .. } => "layer norm",
            Step::Attention { .. } => "attention",
            Step::Pointwise { .. } => "pointwise",
            Step::Add { .. } | Step::Constant { .. } => "add",
            Step::Copy { .. } | Step::Put { .. } => "copy",
            Step::Mean { .. } => "mean",
            Step::Quantize { .. } => "quantize",
        }
    }
}
