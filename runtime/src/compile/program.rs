//! A model's steps with packed weights and a place for every buffer.

use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smalti_kernels::attention::Shape;
use smalti_kernels::conv::ScratchSizes;
use smalti_kernels::{
    Activation, Aligned, Conv, ConvSizes, Depthwise, Isa, LevelMap, Linear, QuantConv, QuantDepthwise,
    QuantLinear, QuantParams, Windows,
};

use super::exec::{Arena, ImageView};
use super::lower::{IMAGE, Lowered, Unknown};
use super::slots::{Slot, Slots};
use super::step::{
    Buffer, Convolution, HeadsView, ImageMap, Pointwise, ScoreMaps, Span, Step, Target, Values, Weight,
};
use super::tap::{PlacedTap, Tap};
use super::view::View;
use super::{rows, verify};

/// Rows in a slot; the offset counts values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location {
    pub(super) slot: Slot,
    pub(super) offset: usize,
    pub(super) cols: usize,
}

/// A packed weight.
#[derive(Debug)]
pub(super) enum Layer {
    Floats(Linear),
    Bytes(QuantLinear),
    Conv(Conv),
    QuantConv(QuantConv),
    Depthwise(Depthwise),
    QuantDepthwise(QuantDepthwise),
}

impl Layer {
    fn bytes(&self) -> usize {
        match self {
            Layer::Floats(layer) => layer.bytes(),
            Layer::Bytes(layer) => layer.bytes(),
            Layer::Conv(layer) => layer.bytes(),
            Layer::QuantConv(layer) => layer.bytes(),
            Layer::Depthwise(layer) => layer.bytes(),
            Layer::QuantDepthwise(layer) => layer.bytes(),
        }
    }
}

/// What follows a layer's product.
#[derive(Debug)]
pub(super) struct After {
    pub(super) activation: Activation,
    pub(super) residual: Option<Location>,
    pub(super) activate_sum: bool,
}

/// What each thread of a session writes into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScratchLen {
    pub(super) floats: usize,
    pub(super) conv: ScratchSizes,
}

/// One step, ready to run.
#[derive(Debug)]
pub(super) enum Op {
    Patches { image: View, patch: [usize; 2], bytes: Option<Box<[f32; 256]>> },
    Linear { x: Location, layer: Box<Layer>, image: Option<Box<ImageMap>>, after: After },
    Affine { a: Location, scale: Vec<f32>, shift: Vec<f32> },
    MaxPool { x: Location, windows: Windows },
    LayerNorm { x: Location, is_centred: bool, scale: Vec<f32>, shift: Vec<f32>, eps: f32 },
    Product { a: Location, b: Location, count: usize, size: [usize; 3] },
    Attention { qkv: [Location; 3], strides: [[usize; 2]; 3], shape: Shape, maps: Box<ScoreMaps> },
    Pointwise { x: Location, function: Pointwise },
    Levels { x: Location, map: Box<LevelMap> },
    Softmax { x: Location },
    Add { a: Location, b: Location },
    Multiply { a: Location, b: Location },
    ScaleColumns { x: Location, scales: Location },
    AddConstant { a: Location, values: Vec<f32> },
    MulConstant { a: Location, values: Vec<f32> },
    Copy { from: Location, values: Values, at: usize },
    StoreConstant { values: Vec<f32>, at: usize },
    Mean { x: Location, rows: usize },
    Quantize { x: Location },
}

/// One step with its result.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) op: Op,
    name: String,
    kind: &'static str,
    multiply_adds: u64,
    pub(super) out: Slot,
    pub(super) quantize: Option<QuantParams>,
    /// Rows of the result that are computed, and values in each.
    pub(super) rows: Range<usize>,
    pub(super) cols: usize,
}

/// A model, ready to run.
#[derive(Debug)]
pub(crate) struct Program {
    stages: Vec<Stage>,
    floats: Vec<usize>,
    bytes: Vec<usize>,
    outputs: Vec<(Location, usize)>,
    /// In the order of the steps.
    taps: Vec<PlacedTap>,
    scratch: ScratchLen,
    packing_bytes: usize,
}

/// A checked program whose weights are still as the file has them.
#[derive(Debug)]
pub(crate) struct Unpacked {
    lowered: Lowered,
    /// The rows of each step's result that are computed.
    needed: Vec<Range<usize>>,
    slots: Slots,
    scratch: ScratchSizes,
}

impl Unpacked {
    /// Places the buffers of a lowered graph. Once packed, all of it takes at most `budget` bytes.
    pub(super) fn new(mut lowered: Lowered, budget: u64) -> Result<Unpacked, Unknown> {
        let mut needed = rows::needed(&lowered);
        // What no output needs is not computed.
        let mut kept = needed.iter().map(|rows| !rows.is_empty());
        lowered.steps.retain(|_| kept.next().unwrap_or(true));
        needed.retain(|rows| !rows.is_empty());
        let slots = Slots::assign(&lowered);
        verify::verify(&lowered, &needed, &slots).map_err(|problem| {
            format!("the lowered program is wrong ({problem}); please report it with the model")
        })?;
        let scratch = lowered.steps.iter().map(conv_scratch).fold(ScratchSizes::default(), ScratchSizes::max);
        let fixed = slots.byte_count().saturating_add(scratch.byte_count() as u64);
        let wanted = lowered.steps.iter().map(packed_bytes).fold(fixed, u64::saturating_add);
        if wanted > budget {
            return Err(format!(
                "{wanted} bytes for its steps, {budget} are allowed for a file of this size"
            ));
        }
        Ok(Unpacked { lowered, needed, slots, scratch })
    }

    /// Packs the weights. Each is given up as soon as it is packed, so that both take little more than one of them where
    /// nobody else holds the file's.
    pub(crate) fn pack(self) -> Result<Program, Unknown> {
        let Unpacked { lowered, needed, slots, scratch: conv } = self;
        let Lowered { steps, buffers, outputs, taps } = lowered;
        let place = Place { slots: &slots, buffers: &buffers };
        let mut taps: Vec<PlacedTap> = taps.into_iter().map(|tap| place.tap(tap, &steps)).collect();
        taps.sort_by_key(PlacedTap::after);
        let mut stages = Vec::with_capacity(steps.len());
        let (mut packed, mut freed, mut packing_bytes) = (0usize, 0, 0);
        for (step, rows) in steps.into_iter().zip(needed) {
            let frees = step.sole_bytes();
            let stage = place.stage(step, rows)?;
            packed += stage.bytes();
            packing_bytes = packing_bytes.max(packed.saturating_sub(freed));
            freed += frees;
            stages.push(stage);
        }
        let outputs = outputs.iter().map(|span| (place.at(span), span.len())).collect();
        let scratch = stages.iter().map(|stage| match &stage.op {
            Op::Attention { shape, .. } => shape.scratch(),
            Op::Patches { .. } => stage.cols,
            Op::Softmax { .. } => super::exec::softmax_row(stage.cols),
            _ => 0,
        });
        let scratch = ScratchLen { floats: scratch.max().unwrap_or(0), conv };
        let Slots { floats, bytes, .. } = slots;
        Ok(Program { stages, floats, bytes, outputs, taps, scratch, packing_bytes })
    }
}

impl Program {
    /// The buffers of a session on that many threads.
    pub(crate) fn arena(&self, threads: usize) -> Arena {
        Arena::new(&self.floats, &self.bytes, self.scratch, threads)
    }

    /// Bytes of the steps and their weights.
    pub(crate) fn bytes(&self) -> usize {
        self.stages.iter().map(Stage::bytes).sum()
    }

    /// The most bytes that the steps and their weights took while weights were packed, less what was given up of the
    /// file's.
    pub(crate) fn packing_bytes(&self) -> usize {
        self.packing_bytes
    }

    /// Bytes of an [`Arena`].
    pub(crate) fn arena_bytes(&self, threads: usize) -> usize {
        let floats = self.floats.iter().sum::<usize>() + threads * self.scratch.floats;
        let buffers = self.floats.len() + self.bytes.len() + 2 * threads;
        floats * size_of::<f32>()
            + self.bytes.iter().sum::<usize>()
            + threads * self.scratch.conv.byte_count()
            + buffers * Aligned::<f32>::EXTRA_BYTES
    }

    /// Runs all steps on an image; values that it shows are there when `show` is called.
    pub(crate) fn run(
        &self,
        arena: &mut Arena,
        image: ImageView<'_>,
        mut show: impl FnMut(&PlacedTap, &Arena),
    ) {
        let mut done = 0;
        for tap in &self.taps {
            self.run_steps(done..tap.after(), arena, image);
            done = tap.after();
            show(tap, arena);
        }
        self.run_steps(done..self.stages.len(), arena, image);
    }

    /// Runs some of the steps, after those before them.
    pub(crate) fn run_steps(&self, steps: Range<usize>, arena: &mut Arena, image: ImageView<'_>) {
        arena.begin();
        self.stages[steps].iter().for_each(|stage| stage.run(arena, image));
    }

    /// The values that are shown, in the order of the steps after which they are there.
    pub(crate) fn taps(&self) -> &[PlacedTap] {
        &self.taps
    }

    /// Runs all steps and adds each one's time to `times`.
    pub(crate) fn time(&self, arena: &mut Arena, image: ImageView<'_>, times: &mut [Duration]) {
        arena.begin();
        for (stage, time) in self.stages.iter().zip(times) {
            let start = Instant::now();
            stage.run(arena, image);
            *time += start.elapsed();
        }
    }

    /// Name, kind and multiply-adds of each step.
    pub(crate) fn steps(&self) -> impl ExactSizeIterator<Item = (&str, &'static str, u64)> {
        self.stages.iter().map(|stage| (&*stage.name, stage.kind, stage.multiply_adds))
    }

    /// An output of the last run.
    pub(crate) fn output<'a>(&self, arena: &'a Arena, i: usize) -> Option<&'a [f32]> {
        let (at, len) = self.outputs.get(i)?;
        arena.read(at).get(..*len)
    }
}

/// What a thread needs for a step.
fn conv_scratch(step: &Step) -> ScratchSizes {
    let Step::Linear { conv: Some(conv), weight, bias, .. } = step else { return ScratchSizes::default() };
    let sizes = conv_sizes(conv, bias.len());
    match **weight {
        _ if is_depthwise(&sizes) => ScratchSizes::default(),
        Weight::Floats(_) => Conv::scratch(&conv.windows, &sizes),
        Weight::Bytes(..) => QuantConv::scratch(&conv.windows, &sizes),
    }
}

/// Whether each channel has a window of its own.
fn is_depthwise(sizes: &ConvSizes) -> bool {
    sizes.channels == 1 && sizes.groups == sizes.outputs && sizes.groups > 1
}

/// Bytes that a step takes once packed.
fn packed_bytes(step: &Step) -> u64 {
    let bytes = match step {
        Step::Linear { x, conv, bias, weight, .. } => {
            let outputs = bias.len();
            let conv = conv.as_ref().map(|conv| (conv.windows, conv_sizes(conv, outputs)));
            match (&**weight, conv) {
                (Weight::Floats(_), None) => Linear::packed_bytes([outputs, x.cols]),
                (Weight::Bytes(..), None) => QuantLinear::packed_bytes(Isa::best(), [outputs, x.cols]),
                (Weight::Floats(_), Some((windows, sizes))) if is_depthwise(&sizes) => {
                    Depthwise::packed_bytes(&windows, outputs)
                }
                (Weight::Bytes(..), Some((windows, sizes))) if is_depthwise(&sizes) => {
                    QuantDepthwise::packed_bytes(&windows, outputs)
                }
                (Weight::Floats(_), Some((windows, sizes))) => Conv::packed_bytes(&windows, &sizes),
                (Weight::Bytes(..), Some((windows, sizes))) => {
                    QuantConv::packed_bytes(Isa::best(), &windows, &sizes)
                }
            }
        }
        Step::LayerNorm { scale, shift, .. } => size_of_val(&scale[..]) + size_of_val(&shift[..]),
        Step::Affine { scale, shift, .. } => size_of_val(&scale[..]) + size_of_val(&shift[..]),
        Step::AddConstant { values, .. }
        | Step::MulConstant { values, .. }
        | Step::StoreConstant { values, .. } => size_of_val(&values[..]),
        Step::Copy { values, .. } => values.bytes(),
        Step::Attention { maps, .. } => maps.bytes(),
        _ => 0,
    };
    bytes as u64
}

/// Where everything lies.
struct Place<'a> {
    slots: &'a Slots,
    buffers: &'a [[usize; 2]],
}

impl Place<'_> {
    fn at(&self, span: &Span) -> Location {
        Location { slot: self.slots.of[span.buffer], offset: span.offset, cols: span.cols }
    }

    fn whole(&self, buffer: Buffer) -> Location {
        Location { slot: self.slots.of[buffer], offset: 0, cols: self.buffers[buffer][1] }
    }

    fn tap(&self, tap: Tap, steps: &[Step]) -> PlacedTap {
        let Some(buffer) = tap.buffer() else { return PlacedTap::new(tap, self.whole(IMAGE), 0) };
        let last = steps.iter().rposition(|step| step.writes() == buffer);
        PlacedTap::new(tap, self.whole(buffer), last.map_or(0, |last| last + 1))
    }

    fn heads(&self, heads: &HeadsView) -> (Location, [usize; 2]) {
        (Location { offset: heads.offset, ..self.whole(heads.buffer) }, [heads.head, heads.row])
    }

    fn stage(&self, step: Step, rows: Range<usize>) -> Result<Stage, Unknown> {
        let (Target { buffer, quantize }, kind) = (step.target(), step.kind());
        let [_, cols] = self.buffers[buffer];
        let (mut name, mut multiply_adds) = (kind.to_owned(), 0);
        let op = match step {
            Step::Patches { image, patch, bytes, .. } => {
                Op::Patches { image, patch, bytes: bytes.map(|bytes| Box::new(Rc::unwrap_or_clone(bytes))) }
            }
            Step::Linear {
                name: layer,
                x,
                conv,
                weight,
                bias,
                scale,
                activation,
                residual,
                activate_sum,
                ..
            } => {
                name = layer;
                let inputs = conv.as_ref().map_or(x.cols, |conv| conv.windows.taps() * conv.channels);
                multiply_adds = (rows.len() * inputs * cols) as u64;
                let layer = pack(*weight, [cols, inputs], conv.as_deref(), &bias, scale.as_deref());
                let layer = Box::new(layer.ok_or_else(|| format!("layer `{name}`: sizes without kernels"))?);
                let image = conv.and_then(|conv| conv.image).map(Box::new);
                let after = After { activation, residual: residual.map(|b| self.whole(b)), activate_sum };
                Op::Linear { x: self.at(&x), layer, image, after }
            }
            Step::Affine { a, scale, shift, .. } => {
                let rounded = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
                Op::Affine { a: self.at(&a), scale: rounded(scale), shift: rounded(shift) }
            }
            Step::MaxPool { x, windows, .. } => Op::MaxPool { x: self.at(&x), windows },
            Step::LayerNorm { x, is_centred, scale, shift, eps, .. } => {
                Op::LayerNorm { x: self.at(&x), is_centred, scale, shift, eps }
            }
            Step::Product { a, b, count, .. } => {
                let size = [a.rows / count, a.cols, b.cols];
                multiply_adds = (a.len() * b.cols) as u64;
                Op::Product { a: self.at(&a), b: self.at(&b), count, size }
            }
            Step::Attention { qkv, shape, maps, .. } => {
                multiply_adds = (rows.len() * shape.tokens * shape.heads * (shape.key + shape.value)) as u64;
                let [q, k, v] = qkv.map(|heads| self.heads(&heads));
                Op::Attention { qkv: [q.0, k.0, v.0], strides: [q.1, k.1, v.1], shape, maps }
            }
            Step::Pointwise { x, function, .. } => Op::Pointwise { x: self.whole(x), function },
            Step::Levels { x, map, .. } => Op::Levels { x: self.at(&x), map },
            Step::Softmax { x, .. } => Op::Softmax { x: self.at(&x) },
            Step::Add { a, b, .. } => Op::Add { a: self.at(&a), b: self.at(&b) },
            Step::Multiply { a, b, .. } => Op::Multiply { a: self.at(&a), b: self.at(&b) },
            Step::ScaleColumns { x, scales, .. } => {
                Op::ScaleColumns { x: self.at(&x), scales: self.at(&scales) }
            }
            Step::AddConstant { a, values, .. } => Op::AddConstant { a: self.at(&a), values },
            Step::MulConstant { a, values, .. } => Op::MulConstant { a: self.at(&a), values },
            Step::Copy { from, values, at, .. } => Op::Copy { from: self.whole(from), values, at },
            Step::StoreConstant { values, at, .. } => Op::StoreConstant { values, at },
            Step::Mean { x, .. } => Op::Mean { x: self.at(&x), rows: x.rows },
            Step::Quantize { x, .. } => Op::Quantize { x: self.at(&x) },
        };
        Ok(Stage { op, name, kind, multiply_adds, out: self.slots.of[buffer], quantize, rows, cols })
    }
}

/// Packs a weight `[outputs, inputs]`. What goes into it is computed in f64 and rounded once.
fn pack(
    weight: Weight,
    sizes: [usize; 2],
    conv: Option<&Convolution>,
    bias: &[f64],
    scale: Option<&[f64]>,
) -> Option<Layer> {
    let factor = |j: usize| scale.and_then(|scale| scale.get(j)).copied();
    let scaled = |value: f32, j: usize| factor(j).map_or(value, |factor| (f64::from(value) * factor) as f32);
    let bias: Vec<f32> = bias.iter().map(|&bias| bias as f32).collect();
    match weight {
        Weight::Floats(weight) => {
            let at = weight.matrix()?;
            let at = |j: usize, i: usize| scaled(at(j, i), j);
            let Some(conv) = conv else { return Linear::new(sizes, at, &bias).map(Layer::Floats) };
            let (windows, sizes) = (conv.windows, conv_sizes(conv, sizes[0]));
            if is_depthwise(&sizes) {
                return Depthwise::new(windows, sizes.outputs, at, &bias).map(Layer::Depthwise);
            }
            let at = |j: usize, tap: usize, channel: usize| at(j, channel * windows.taps() + tap);
            Conv::new(windows, sizes, at, &bias).map(Layer::Conv)
        }
        Weight::Bytes(bytes, x) => {
            let scales: Vec<f32> =
                bytes.scales.iter().enumerate().map(|(j, &scale)| scaled(scale, j)).collect();
            let at = bytes.matrix();
            let Some(conv) = conv else {
                return QuantLinear::new(Isa::best(), sizes, at, &scales, &bias, x).map(Layer::Bytes);
            };
            let (windows, sizes) = (conv.windows, conv_sizes(conv, sizes[0]));
            if is_depthwise(&sizes) {
                let layer = QuantDepthwise::new(windows, sizes.outputs, at, (&scales, &bias), x);
                return layer.map(Layer::QuantDepthwise);
            }
            let at = |j: usize, tap: usize, channel: usize| at(j, channel * windows.taps() + tap);
            QuantConv::new(Isa::best(), windows, sizes, at, (&scales, &bias), x).map(Layer::QuantConv)
        }
    }
}

fn conv_sizes(conv: &Convolution, outputs: usize) -> ConvSizes {
    ConvSizes { groups: conv.groups, channels: conv.channels, outputs }
}

impl Stage {
    fn bytes(&self) -> usize {
        let values = match &self.op {
            Op::Linear { layer, image, .. } => {
                layer.bytes()
                    + image.as_ref().map_or(0, |image| size_of_val(&**image) + 256 * size_of::<f32>())
            }
            Op::Affine { scale, shift, .. } => size_of_val(&scale[..]) + size_of_val(&shift[..]),
            Op::LayerNorm { scale, shift, .. } => size_of_val(&scale[..]) + size_of_val(&shift[..]),
            Op::AddConstant { values, .. }
            | Op::MulConstant { values, .. }
            | Op::StoreConstant { values, .. } => size_of_val(&values[..]),
            Op::Copy { values, .. } => values.bytes(),
            Op::Levels { .. } | Op::Patches { bytes: Some(_), .. } => {
                size_of::<LevelMap>() + 256 * size_of::<f32>()
            }
            Op::Attention { maps, .. } => size_of_val(&**maps) + maps.bytes(),
            _ => 0,
        };
        values + size_of::<Stage>() + self.name.len()
    }
}

#[cfg(test)]
mod tests;
