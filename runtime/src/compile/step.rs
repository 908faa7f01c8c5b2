//! The steps that a model is lowered to: what is computed from which buffers.

use std::ops::Range;
use std::rc::Rc;

use smalti_kernels::attention::Shape;
use smalti_kernels::{Activation, LevelMap, QuantParams, Windows};

use super::constant::{Constant, QuantWeight};
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

impl Span {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.rows * self.cols
    }
}

/// A matrix for each head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HeadsView {
    pub(super) buffer: Buffer,
    pub(super) offset: usize,
    pub(super) head: usize,
    pub(super) row: usize,
}

/// Values of a buffer, in order.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Run(Range<usize>),
    Strided(View),
    Places(Vec<usize>),
}

impl Values {
    /// Those that a view shows.
    pub(super) fn of(view: &View) -> Values {
        match view.is_contiguous() {
            true => Values::Run(view.offset..view.offset + view.len()),
            false => Values::Strided(view.simple()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Values::Run(run) => run.len(),
            Values::Strided(view) => view.len(),
            Values::Places(places) => places.len(),
        }
    }

    /// The largest place and one.
    pub(super) fn end(&self) -> usize {
        match self {
            Values::Run(run) => run.end,
            Values::Strided(view) => view.end(),
            Values::Places(places) => places.iter().max().map_or(0, |place| place + 1),
        }
    }

    /// Bytes of heap.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Values::Run(_) | Values::Strided(_) => 0,
            Values::Places(places) => size_of_val(&places[..]),
        }
    }
}

/// What makes a linear layer of the windows of a map a convolution. The weight's inputs are in the file's order: channel,
/// then the pixels of a window line by line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Convolution {
    pub(super) windows: Windows,
    /// Groups of channels that do not meet.
    pub(super) groups: usize,
    /// Input channels of one group.
    pub(super) channels: usize,
    /// Where the image is read, if the map is that and no buffer of pixels' rows.
    pub(super) image: Option<ImageMap>,
}

/// An image `[C, H, W]` and what its values stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ImageMap {
    pub(super) view: View,
    pub(super) values: PixelValues,
}

/// What is made of the values of an image.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PixelValues {
    /// `x · scale + shift` of floats.
    Floats { scale: f32, shift: f32 },
    /// A number for each byte.
    Bytes(Box<[f32; 256]>),
}

/// A linear layer's weight, `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    Floats(Constant),
    /// For activations in bytes.
    Bytes(QuantWeight, QuantParams),
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
    pub(super) quantize: Option<QuantParams>,
}

impl Target {
    /// A buffer of floats.
    pub(super) fn floats(buffer: Buffer) -> Target {
        Target { buffer, quantize: None }
    }
}

/// What is done to the scores of attention, and to their softmax.
#[derive(Clone, Debug, Default)]
pub(super) struct ScoreMaps {
    /// By a quantized model, to the scores.
    pub(super) scores: Option<LevelMap>,
    /// Added to the scores before their factor: `[heads, queries, tokens]`.
    pub(super) bias: Option<Vec<f32>>,
    /// By a quantized model, to the softmax.
    pub(super) probabilities: Option<LevelMap>,
}

impl ScoreMaps {
    /// Bytes of heap.
    pub(super) fn bytes(&self) -> usize {
        let levels = [&self.scores, &self.probabilities].into_iter().flatten().count();
        self.bias.as_ref().map_or(0, |bias| size_of_val(&bias[..])) + levels * 256 * size_of::<f32>()
    }
}

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The image's patches, one a row, in the order channel, row, column; `image` is `[C, H, W]`. Of an image of bytes,
    /// `bytes` says what each stands for, if not for itself.
    Patches { image: View, patch: [usize; 2], bytes: Option<Rc<[f32; 256]>>, out: Target },
    /// `act(x Wᵀ · scale + b) + residual`, or `act` of the sum; the scale goes into the weight. Of a convolution, `x` is
    /// the map, a row for each pixel.
    Linear {
        name: String,
        x: Span,
        conv: Option<Box<Convolution>>,
        weight: Box<Weight>,
        /// Rounded to f32 at the end, like the scale: a batch norm is in them.
        bias: Vec<f64>,
        scale: Option<Vec<f64>>,
        activation: Activation,
        residual: Option<Buffer>,
        activate_sum: bool,
        out: Target,
    },
    /// Layer norm of each row; RMS norm if rows are not centred.
    LayerNorm { x: Span, is_centred: bool, scale: Vec<f32>, shift: Vec<f32>, eps: f32, out: Target },
    /// Attention of all heads.
    Attention { qkv: [HeadsView; 3], shape: Shape, maps: Box<ScoreMaps>, out: Target },
    /// `a b` for each of `count` pairs of matrices `[m, k]` and `[k, n]`, which lie one after the other.
    Product { a: Span, b: Span, count: usize, out: Buffer },
    /// A function of each value.
    Pointwise { x: Buffer, function: Pointwise, out: Buffer },
    /// A function of each value's level.
    Levels { x: Span, map: Box<LevelMap>, out: Target },
    /// Softmax of each row.
    Softmax { x: Span, out: Buffer },
    /// `a + b`.
    Add { a: Span, b: Span, out: Buffer },
    /// `a · b`, value by value.
    Multiply { a: Span, b: Span, out: Buffer },
    /// `x · scales`, one computed value a column: what squeeze-and-excitation does to a map (arXiv 1709.01507).
    ScaleColumns { x: Span, scales: Span, out: Buffer },
    /// `a + values`: one value a column, or one a place.
    AddConstant { a: Span, values: Vec<f32>, out: Buffer },
    /// `a · values`, as many.
    MulConstant { a: Span, values: Vec<f32>, out: Buffer },
    /// `a · scale + shift`, a value of each for a column: a batch norm.
    Affine { a: Span, scale: Vec<f64>, shift: Vec<f64>, out: Buffer },
    /// The largest values of windows of a map with a row for each pixel.
    MaxPool { x: Span, windows: Windows, out: Target },
    /// Values of a buffer in order, from a place of `out` on.
    Copy { from: Buffer, values: Values, out: Buffer, at: usize },
    /// Constant values, from a place of `out` on.
    StoreConstant { values: Vec<f32>, out: Buffer, at: usize },
    /// The mean over rows.
    Mean { x: Span, out: Buffer },
    /// Values as bytes.
    Quantize { x: Span, out: Buffer, quantize: QuantParams },
}

impl Step {
    /// What is written, and how it is stored.
    pub(super) fn target(&self) -> Target {
        match self {
            Step::Patches { out, .. }
            | Step::Linear { out, .. }
            | Step::LayerNorm { out, .. }
            | Step::Attention { out, .. }
            | Step::MaxPool { out, .. }
            | Step::Levels { out, .. } => *out,
            Step::Quantize { out, quantize, .. } => Target { buffer: *out, quantize: Some(*quantize) },
            Step::Pointwise { out, .. }
            | Step::Product { out, .. }
            | Step::Softmax { out, .. }
            | Step::Add { out, .. }
            | Step::Multiply { out, .. }
            | Step::ScaleColumns { out, .. }
            | Step::AddConstant { out, .. }
            | Step::MulConstant { out, .. }
            | Step::Affine { out, .. }
            | Step::Copy { out, .. }
            | Step::StoreConstant { out, .. }
            | Step::Mean { out, .. } => Target::floats(*out),
        }
    }

    /// The buffer that is written.
    pub(super) fn writes(&self) -> Buffer {
        self.target().buffer
    }

    /// The buffers that are read.
    pub(super) fn reads(&self) -> Vec<Buffer> {
        match self {
            Step::Patches { .. } | Step::StoreConstant { .. } => vec![],
            Step::Linear { x, conv, residual, .. } => {
                let is_image = conv.as_ref().is_some_and(|conv| conv.image.is_some());
                (!is_image).then_some(x.buffer).into_iter().chain(*residual).collect()
            }
            Step::LayerNorm { x, .. }
            | Step::MaxPool { x, .. }
            | Step::Mean { x, .. }
            | Step::Quantize { x, .. }
            | Step::Levels { x, .. }
            | Step::Softmax { x, .. } => vec![x.buffer],
            Step::Attention { qkv, .. } => qkv.iter().map(|heads| heads.buffer).collect(),
            Step::Pointwise { x, .. } => vec![*x],
            Step::Add { a, b, .. } | Step::Multiply { a, b, .. } | Step::Product { a, b, .. } => {
                vec![a.buffer, b.buffer]
            }
            Step::ScaleColumns { x, scales, .. } => vec![x.buffer, scales.buffer],
            Step::AddConstant { a, .. } | Step::MulConstant { a, .. } | Step::Affine { a, .. } => {
                vec![a.buffer]
            }
            Step::Copy { from, .. } => vec![*from],
        }
    }

    /// Bytes of the file's that go with the step, as nothing else holds them.
    pub(super) fn sole_bytes(&self) -> usize {
        let Step::Linear { weight, .. } = self else { return 0 };
        match &**weight {
            Weight::Floats(weight) => weight.sole_bytes(),
            Weight::Bytes(weight, _) => weight.sole_bytes(),
        }
    }

    /// What the step is called in reports.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Step::Patches { .. } => "patches",
            Step::Linear { weight, conv, .. } => match (&**weight, conv) {
                (Weight::Floats(_), None) => "linear f32",
                (Weight::Bytes(..), None) => "linear int8",
                (Weight::Floats(_), Some(_)) => "convolution f32",
                (Weight::Bytes(..), Some(_)) => "convolution int8",
            },
            Step::LayerNorm { is_centred: true, .. } => "layer norm",
            Step::LayerNorm { .. } => "RMS norm",
            Step::Product { .. } => "product",
            Step::Attention { .. } => "attention",
            Step::Pointwise { .. } => "pointwise",
            Step::Softmax { .. } => "softmax",
            Step::Add { .. } | Step::AddConstant { .. } | Step::Affine { .. } => "add",
            Step::Multiply { .. } | Step::MulConstant { .. } | Step::ScaleColumns { .. } => "multiply",
            Step::MaxPool { .. } => "max pool",
            Step::Copy { .. } | Step::StoreConstant { .. } => "copy",
            Step::Mean { .. } => "mean",
            Step::Levels { .. } | Step::Quantize { .. } => "quantize",
        }
    }
}
