//! A model's steps with packed weights and a place for every buffer, and how they run.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use smalti_kernels::attention::{Heads, Shape, attention};
use smalti_kernels::quant_linear::row;
use smalti_kernels::{
    Activation, Epilogue, Isa, Linear, Out, Pool, QuantLinear, Quantize, elementwise, gelu, layer_norm,
    linear, quant_linear, quantize,
};

use super::lower::{Lowered, Unknown};
use super::rows;
use super::slots::{Slot, Slots};
use super::step::{Buffer, HeadsAt, Pointwise, Span, Step, Target, Weight};
use super::view::View;

/// An image in the model's form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ImageView<'a> {
    U8(&'a [u8]),
    F32(&'a [f32]),
}

/// Rows in a slot; the offset counts values.
#[derive(Clone, Copy, Debug)]
struct At {
    slot: Slot,
    offset: usize,
    cols: usize,
}

/// A packed weight.
#[derive(Debug)]
enum Layer {
    Floats(Linear),
    Bytes(QuantLinear),
}

/// Values of a slot, in order.
#[derive(Debug)]
enum Values {
    Run(Range<usize>),
    Places(Vec<usize>),
}

impl Values {
    fn of(view: &View) -> Values {
        match view.is_contiguous() {
            true => Values::Run(view.offset..view.offset + view.len()),
            false => Values::Places(view.places().collect()),
        }
    }
}

/// One step, ready to run.
#[derive(Debug)]
enum Op {
    Patches { image: View, patch: [usize; 2] },
    Linear { x: At, layer: Box<Layer>, activation: Activation, residual: Option<At> },
    Norm { x: At, scale: Vec<f32>, shift: Vec<f32>, eps: f32 },
    Attention { qkv: [At; 3], strides: [[usize; 2]; 3], shape: Shape },
    Pointwise { x: At, function: Pointwise },
    Add { a: At, b: At },
    Constant { a: At, values: Vec<f32>, multiply: bool },
    Copy { from: At, values: Values, at: usize },
    Put { values: Vec<f32>, at: usize },
    Mean { x: At, rows: usize },
    Quantize { x: At },
}

/// One step with its result.
#[derive(Debug)]
struct Stage {
    op: Op,
    name: String,
    kind: &'static str,
    multiply_adds: u64,
    out: Slot,
    quantize: Option<Quantize>,
    /// Rows of the result that are computed, and values in each.
    rows: Range<usize>,
    cols: usize,
}

/// A model, ready to run.
#[derive(Debug)]
pub(crate) struct Program {
    stages: Vec<Stage>,
    floats: Vec<usize>,
    bytes: Vec<usize>,
    outputs: Vec<(At, usize)>,
    scratch: usize,
}

/// What one session's runs write into; nothing in it grows after the first run.
#[derive(Debug)]
pub(crate) struct Arena {
    floats: Vec<Vec<f32>>,
    bytes: Vec<Vec<u8>>,
    /// One for each thread.
    scratch: Vec<Mutex<Vec<f32>>>,
    pool: Pool,
    isa: Isa,
}

impl Program {
    /// Packs the weights of a lowered graph and places its buffers.
    pub(super) fn new(lowered: Lowered<'_>) -> Result<Program, Unknown> {
        let needed = rows::needed(&lowered);
        let slots = Slots::assign(&lowered);
        let Lowered { steps, buffers, outputs } = lowered;
        let place = Place { slots: &slots, buffers: &buffers };
        let mut stages = Vec::with_capacity(steps.len());
        for (step, rows) in steps.into_iter().zip(needed) {
            // Taken apart one by one: a weight is decoded only while it is packed.
            stages.push(place.stage(step, rows)?);
        }
        let outputs = outputs.iter().map(|span| (place.at(span), span.rows * span.cols)).collect();
        let scratch = stages.iter().map(|stage| match &stage.op {
            Op::Attention { shape, .. } => shape.scratch(),
            Op::Patches { .. } => stage.cols,
            _ => 0,
        });
        let scratch = scratch.max().unwrap_or(0);
        Ok(Program { stages, floats: slots.floats, bytes: slots.bytes, outputs, scratch })
    }

    /// The buffers of a session on that many threads.
    pub(crate) fn arena(&self, threads: usize) -> Arena {
        let pool = Pool::new(threads);
        Arena {
            floats: self.floats.iter().map(|&len| vec![0.0; len]).collect(),
            bytes: self.bytes.iter().map(|&len| vec![0; len]).collect(),
            scratch: (0..pool.threads()).map(|_| Mutex::new(vec![0.0; self.scratch])).collect(),
            pool,
            isa: Isa::best(),
        }
    }

    /// Bytes of the steps and their weights.
    pub(crate) fn bytes(&self) -> usize {
        self.stages.iter().map(Stage::bytes).sum()
    }

    /// Bytes of an [`Arena`].
    pub(crate) fn arena_bytes(&self, threads: usize) -> usize {
        let floats = self.floats.iter().sum::<usize>() + threads * self.scratch;
        floats * size_of::<f32>() + self.bytes.iter().sum::<usize>()
    }

    /// Runs all steps on an image.
    pub(crate) fn run(&self, arena: &mut Arena, image: ImageView<'_>) {
        for stage in &self.stages {
            stage.run(arena, image);
        }
    }

    /// Runs all steps and adds each one's time to `times`.
    pub(crate) fn time(&self, arena: &mut Arena, image: ImageView<'_>, times: &mut [Duration]) {
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

/// Where everything lies.
struct Place<'a> {
    slots: &'a Slots,
    buffers: &'a [[usize; 2]],
}

impl Place<'_> {
    fn at(&self, span: &Span) -> At {
        At { slot: self.slots.of[span.buffer], offset: span.offset, cols: span.cols }
    }

    fn whole(&self, buffer: Buffer) -> At {
        At { slot: self.slots.of[buffer], offset: 0, cols: self.buffers[buffer][1] }
    }

    fn heads(&self, heads: &HeadsAt) -> (At, [usize; 2]) {
        (At { offset: heads.offset, ..self.whole(heads.buffer) }, [heads.head, heads.row])
    }

    fn stage(&self, step: Step<'_>, rows: Range<usize>) -> Result<Stage, Unknown> {
        let (buffer, kind) = (step.writes(), step.kind());
        let [_, cols] = self.buffers[buffer];
        let (mut name, mut quantize, mut multiply_adds) = (kind.to_owned(), None, 0);
        let mut stored = |out: Target| quantize = out.quantize;
        let op = match step {
            Step::Patches { image, patch, out } => {
                stored(out);
                Op::Patches { image, patch }
            }
            Step::Linear { name: layer, x, weight, bias, gain, activation, residual, out } => {
                name = layer;
                multiply_adds = (rows.len() * x.cols * cols) as u64;
                stored(out);
                let layer = pack(*weight, [cols, x.cols], &bias, gain.as_deref());
                let layer = Box::new(layer.ok_or_else(|| format!("layer `{name}`: sizes without kernels"))?);
                Op::Linear { x: self.at(&x), layer, activation, residual: residual.map(|b| self.whole(b)) }
            }
            Step::Norm { x, scale, shift, eps, out } => {
                stored(out);
                Op::Norm { x: self.at(&x), scale, shift, eps }
            }
            Step::Attention { qkv, shape, out } => {
                stored(out);
                multiply_adds = (rows.len() * shape.tokens * shape.heads * (shape.key + shape.value)) as u64;
                let [q, k, v] = qkv.map(|heads| self.heads(&heads));
                Op::Attention { qkv: [q.0, k.0, v.0], strides: [q.1, k.1, v.1], shape }
            }
            Step::Pointwise { x, function, .. } => Op::Pointwise { x: self.whole(x), function },
            Step::Add { a, b, .. } => Op::Add { a: self.at(&a), b: self.at(&b) },
            Step::Constant { a, values, multiply, .. } => Op::Constant { a: self.at(&a), values, multiply },
            Step::Copy { from, view, at, .. } => {
                Op::Copy { from: self.whole(from), values: Values::of(&view), at }
            }
            Step::Put { values, at, .. } => Op::Put { values, at },
            Step::Mean { x, .. } => Op::Mean { x: self.at(&x), rows: x.rows },
            Step::Quantize { x, quantize: how, out } => {
                stored(Target { buffer: out, quantize: Some(how) });
                Op::Quantize { x: self.at(&x) }
            }
        };
        Ok(Stage { op, name, kind, multiply_adds, out: self.slots.of[buffer], quantize, rows, cols })
    }
}

/// Packs a weight `[outputs, inputs]`.
fn pack(weight: Weight<'_>, sizes: [usize; 2], bias: &[f32], gain: Option<&[f32]>) -> Option<Layer> {
    let gain = |j: usize| gain.and_then(|gain| gain.get(j)).copied().unwrap_or(1.0);
    match weight {
        Weight::Floats(weight) => {
            let at = weight.matrix()?;
            Linear::new(sizes, |j, i| at(j, i) * gain(j), bias).map(Layer::Floats)
        }
        Weight::Bytes(bytes, x) => {
            let scales: Vec<f32> =
                bytes.scales.iter().enumerate().map(|(j, scale)| scale * gain(j)).collect();
            QuantLinear::new(Isa::best(), sizes, bytes.matrix(), &scales, bias, x).map(Layer::Bytes)
        }
    }
}

impl Arena {
    /// Threads that a run is shared out to.
    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The floats at a place.
    fn read(&self, at: &At) -> &[f32] {
        match at.slot {
            Slot::Floats(slot) => &self.floats[slot][at.offset..],
            Slot::Bytes(_) | Slot::Image => &[],
        }
    }
}

impl Stage {
    fn bytes(&self) -> usize {
        let values = match &self.op {
            Op::Linear { layer, .. } => match &**layer {
                Layer::Floats(layer) => layer.bytes(),
                Layer::Bytes(layer) => layer.bytes(),
            },
            Op::Norm { scale, shift, .. } => size_of_val(&scale[..]) + size_of_val(&shift[..]),
            Op::Constant { values, .. } | Op::Put { values, .. } => size_of_val(&values[..]),
            Op::Copy { values: Values::Places(places), .. } => size_of_val(&places[..]),
            _ => 0,
        };
        values + size_of::<Stage>() + self.name.len()
    }

    /// Runs the step. Sizes were checked when the program was made.
    fn run(&self, arena: &mut Arena, image: ImageView<'_>) {
        match (self.out, self.quantize) {
            (Slot::Floats(slot), _) => {
                let mut out = std::mem::take(&mut arena.floats[slot]);
                // The slot may be longer: other buffers lie in it at other times.
                self.write(arena, image, &mut out[..self.rows.end * self.cols]);
                arena.floats[slot] = out;
            }
            (Slot::Bytes(slot), Some(quantize)) => {
                let mut out = std::mem::take(&mut arena.bytes[slot]);
                let stride = row(self.cols);
                let piece = &mut out[self.rows.start * stride..self.rows.end * stride];
                self.rows(arena, image, Out::U8(piece, quantize));
                arena.bytes[slot] = out;
            }
            _ => {}
        }
    }

    /// Writes floats.
    fn write(&self, arena: &mut Arena, image: ImageView<'_>, out: &mut [f32]) {
        let isa = arena.isa;
        match &self.op {
            Op::Pointwise { x, function } => {
                let x = &arena.read(x)[..out.len()];
                match function {
                    Pointwise::Activation(Activation::None) => out.copy_from_slice(x),
                    Pointwise::Activation(Activation::Gelu) => gelu::forward(isa, x, out),
                    Pointwise::Activation(Activation::GeluTanh) => gelu::forward_tanh(isa, x, out),
                    Pointwise::Scale(factor) => {
                        out.fill(0.0);
                        elementwise::axpy(isa, *factor, x, out);
                    }
                }
            }
            Op::Add { a, b } => {
                let len = self.rows.len() * self.cols;
                out[..len].copy_from_slice(&arena.read(a)[..len]);
                elementwise::axpy(isa, 1.0, &arena.read(b)[..len], &mut out[..len]);
            }
            Op::Constant { a, values, multiply } => {
                let len = self.rows.len() * self.cols;
                let rows =
                    arena.read(a)[..len].chunks_exact(values.len()).zip(out.chunks_exact_mut(values.len()));
                for (a, out) in rows {
                    let each = out.iter_mut().zip(a).zip(values);
                    if *multiply {
                        each.for_each(|((out, a), value)| *out = a * value);
                    } else {
                        each.for_each(|((out, a), value)| *out = a + value);
                    }
                }
            }
            Op::Copy { from, values, at } => {
                let from = arena.read(from);
                match values {
                    Values::Run(run) => out[*at..at + run.len()].copy_from_slice(&from[run.clone()]),
                    Values::Places(places) => {
                        out[*at..].iter_mut().zip(places).for_each(|(out, &place)| *out = from[place]);
                    }
                }
            }
            Op::Put { values, at } => out[*at..at + values.len()].copy_from_slice(values),
            Op::Mean { x, rows } => {
                out[..self.cols].fill(0.0);
                elementwise::column_sums(isa, &arena.read(x)[..rows * self.cols], &mut out[..self.cols]);
                out[..self.cols].iter_mut().for_each(|sum| *sum /= *rows as f32);
            }
            Op::Patches { .. }
            | Op::Linear { .. }
            | Op::Norm { .. }
            | Op::Attention { .. }
            | Op::Quantize { .. } => {
                let piece = &mut out[self.rows.start * self.cols..self.rows.end * self.cols];
                self.rows(arena, image, Out::F32(piece));
            }
        }
    }

    /// Writes the rows that are needed, on all threads; `out` starts at the first of them.
    fn rows(&self, arena: &mut Arena, image: ImageView<'_>, mut out: Out<'_>) {
        let (isa, first) = (arena.isa, self.rows.start);
        let Arena { floats, bytes, scratch, pool, .. } = arena;
        let (floats, bytes, scratch) = (&*floats, &*bytes, &*scratch);
        let floats_at = |at: &At, rows: &Range<usize>| match at.slot {
            Slot::Floats(slot) => {
                let place = at.offset + (first + rows.start) * at.cols;
                &floats[slot][place..place + rows.len() * at.cols]
            }
            Slot::Bytes(_) | Slot::Image => &[],
        };
        let bytes_at = |at: &At, rows: &Range<usize>| match at.slot {
            Slot::Bytes(slot) => {
                let stride = row(at.cols);
                &bytes[slot][(first + rows.start) * stride..(first + rows.end) * stride]
            }
            Slot::Floats(_) | Slot::Image => &[],
        };
        pool.rows(self.rows.len(), self.cols, &mut out, &|thread, rows, out| match &self.op {
            Op::Patches { image: view, patch } => {
                let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
                let line = &mut scratch[..self.cols];
                for (i, row) in rows.enumerate() {
                    match image {
                        ImageView::U8(pixels) => {
                            gather(view, *patch, first + row, pixels, line, |&x| f32::from(x))
                        }
                        ImageView::F32(values) => gather(view, *patch, first + row, values, line, |&x| x),
                    }
                    quantize::rows(isa, line, self.cols, i, out);
                }
            }
            Op::Linear { x, layer, activation, residual } => {
                let residual = residual.as_ref().map(|at| floats_at(at, &rows));
                let epilogue = Epilogue { activation: *activation, residual };
                match &**layer {
                    Layer::Floats(layer) => linear(isa, layer, floats_at(x, &rows), &epilogue, out),
                    Layer::Bytes(layer) => quant_linear(layer, bytes_at(x, &rows), &epilogue, out),
                }
            }
            Op::Norm { x, scale, shift, eps } => {
                layer_norm::rows(isa, floats_at(x, &rows), scale, shift, *eps, out);
            }
            Op::Attention { qkv, strides, shape } => {
                let heads = |i: usize, skip: usize| {
                    let [head, row] = strides[i];
                    let data = match qkv[i].slot {
                        Slot::Floats(slot) => &floats[slot][qkv[i].offset + skip * row..],
                        Slot::Bytes(_) | Slot::Image => &[],
                    };
                    Heads { data, head, row }
                };
                let qkv = [heads(0, first + rows.start), heads(1, 0), heads(2, 0)];
                let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
                attention(isa, shape, qkv, rows.len(), &mut scratch, out);
            }
            Op::Quantize { x } => quantize::rows(isa, floats_at(x, &rows), x.cols, 0, out),
            _ => {}
        });
    }
}

/// One patch of an image `[C, H, W]`, counted row by row, in the order channel, row, column.
pub(crate) fn gather<T>(
    image: &View,
    [height, width]: [usize; 2],
    patch: usize,
    pixels: &[T],
    out: &mut [f32],
    float: impl Fn(&T) -> f32 + Copy,
) {
    let (&[_, _, width_all], &[channel, down, right]) = (&image.dims[..], &image.strides[..]) else { return };
    let across = width_all / width;
    let corner = image.offset + patch / across * height * down + patch % across * width * right;
    for (j, line) in out.chunks_exact_mut(width).enumerate() {
        let from = &pixels[corner + j / height * channel + j % height * down..];
        // Two ways, so that neighbours are read as such.
        if right == 1 {
            line.iter_mut().zip(from).for_each(|(value, pixel)| *value = float(pixel));
        } else {
            let from = from.iter().step_by(right);
            line.iter_mut().zip(from).for_each(|(value, pixel)| *value = float(pixel));
        }
    }
}
