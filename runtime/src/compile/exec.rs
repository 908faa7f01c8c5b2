//! How steps run: what a session writes into, and each step's kernel.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use smalti_kernels::attention::{Heads, ScoreMaps, attention};
use smalti_kernels::conv::{ConvScratch, conv_of_bytes, conv_of_scaled};
use smalti_kernels::epilogue::activate;
use smalti_kernels::max_pool::max_pool;
use smalti_kernels::quant_linear::row_stride;
use smalti_kernels::{
    Aligned, Conv, Epilogue, Isa, MapView, Out, ThreadPool, conv, depthwise, elementwise, layer_norm, levels,
    linear, matmul, quant_conv, quant_depthwise, quant_linear, quantize, softmax,
};

use super::program::{After, Layer, Location, Op, ScratchLen, Stage};
use super::slots::Slot;
use super::step::{ImageMap, PixelValues, Pointwise, Values};
use super::view::View;

/// An image in the form of the model's input, see [`crate::gate::Form`].
#[derive(Clone, Copy, Debug)]
pub enum ImageView<'a> {
    /// Pixels: rows from top to bottom, channels innermost (HWC).
    U8(&'a [u8]),
    /// Normalised pixels, channels outermost (CHW).
    F32(&'a [f32]),
}

/// What one session's runs write into; nothing in it grows after the first run.
#[derive(Debug)]
pub(crate) struct Arena {
    floats: Vec<Aligned<f32>>,
    bytes: Vec<Aligned<u8>>,
    /// One for each thread.
    scratch: Vec<Mutex<Scratch>>,
    pool: ThreadPool,
    isa: Isa,
}

/// What one thread writes into.
#[derive(Debug)]
struct Scratch {
    floats: Vec<f32>,
    conv: ConvScratch,
}

impl Scratch {
    fn new(len: ScratchLen) -> Scratch {
        Scratch { floats: vec![0.0; len.floats], conv: ConvScratch::new(len.conv) }
    }
}

/// The values of a row that the softmax kernel takes.
pub(super) fn softmax_row(cols: usize) -> usize {
    cols.next_multiple_of(8)
}

impl Arena {
    /// Slots of these lengths, and scratch of that length for each thread.
    pub(super) fn new(floats: &[usize], bytes: &[usize], scratch: ScratchLen, threads: usize) -> Arena {
        let pool = ThreadPool::new(threads);
        Arena {
            floats: floats.iter().map(|&len| Aligned::new(len)).collect(),
            bytes: bytes.iter().map(|&len| Aligned::new(len)).collect(),
            scratch: (0..pool.threads()).map(|_| Mutex::new(Scratch::new(scratch))).collect(),
            pool,
            isa: Isa::best(),
        }
    }

    /// Puts values into a slot.
    #[cfg(test)]
    pub(super) fn write(&mut self, slot: usize, values: &[f32]) {
        self.floats[slot].copy_from_slice(values);
    }

    /// Before a run.
    pub(super) fn begin(&mut self) {
        self.pool.check_process();
    }

    /// Threads that a run is shared out to.
    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The floats at a place.
    pub(super) fn read(&self, at: &Location) -> &[f32] {
        match at.slot {
            Slot::Floats(slot) => &self.floats[slot][at.offset..],
            Slot::Bytes(_) | Slot::Image => &[],
        }
    }
}

impl Stage {
    /// Runs the step. Sizes were checked when the program was made.
    pub(super) fn run(&self, arena: &mut Arena, image: ImageView<'_>) {
        match (self.out, self.quantize) {
            (Slot::Floats(slot), _) => {
                let mut out = std::mem::take(&mut arena.floats[slot]);
                // The slot may be longer: other buffers lie in it at other times.
                match &self.op {
                    Op::Copy { .. } | Op::StoreConstant { .. } | Op::Mean { .. } | Op::Product { .. } => {
                        self.write(arena, &mut out)
                    }
                    _ => {
                        let piece = &mut out[self.rows.start * self.cols..self.rows.end * self.cols];
                        self.rows(arena, image, Out::F32(piece));
                    }
                }
                arena.floats[slot] = out;
            }
            (Slot::Bytes(slot), Some(quantize)) => {
                let mut out = std::mem::take(&mut arena.bytes[slot]);
                let stride = row_stride(self.cols);
                let piece = &mut out[self.rows.start * stride..self.rows.end * stride];
                self.rows(arena, image, Out::U8(piece, quantize));
                arena.bytes[slot] = out;
            }
            _ => {}
        }
    }

    /// Writes floats where rows do not stand for rows.
    fn write(&self, arena: &Arena, out: &mut [f32]) {
        match &self.op {
            Op::Copy { from, values, at } => {
                let from = arena.read(from);
                match values {
                    Values::Run(run) => out[*at..at + run.len()].copy_from_slice(&from[run.clone()]),
                    Values::Strided(view) => {
                        let (lines, length, step) = view.lines();
                        for (first, out) in lines.zip(out[*at..].chunks_exact_mut(length)) {
                            match step {
                                1 => out.copy_from_slice(&from[first..first + length]),
                                _ => out
                                    .iter_mut()
                                    .enumerate()
                                    .for_each(|(i, out)| *out = from[first + i * step]),
                            }
                        }
                    }
                    Values::Places(places) => {
                        out[*at..].iter_mut().zip(places).for_each(|(out, &place)| *out = from[place]);
                    }
                }
            }
            Op::StoreConstant { values, at } => out[*at..at + values.len()].copy_from_slice(values),
            Op::Product { a, b, count, size: [m, k, n] } => {
                let (m, k, n) = (*m, *k, *n);
                let shape =
                    matmul::Shape { m, k, n, a_row: k, a_col: 1, b_row: n, c_row: n, accumulate: false };
                let pairs = arena.read(a).chunks_exact(m * k).zip(arena.read(b).chunks_exact(k * n));
                for ((a, b), out) in pairs.zip(out.chunks_exact_mut(m * n)).take(*count) {
                    matmul::product(arena.isa, shape, 1.0, a, b, out);
                }
            }
            Op::Mean { x, rows } => {
                let out = &mut out[..self.cols];
                out.fill(0.0);
                elementwise::column_sums(arena.isa, &arena.read(x)[..rows * self.cols], out);
                out.iter_mut().for_each(|sum| *sum /= *rows as f32);
            }
            _ => {}
        }
    }

    /// Writes the rows that are needed, on all threads; `out` starts at the first of them.
    fn rows(&self, arena: &mut Arena, image: ImageView<'_>, mut out: Out<'_>) {
        let (isa, first) = (arena.isa, self.rows.start);
        let Arena { floats, bytes, scratch, pool, .. } = arena;
        let (floats, bytes, scratch) = (&*floats, &*bytes, &*scratch);
        let floats_at = |at: &Location, rows: &Range<usize>| match at.slot {
            Slot::Floats(slot) => {
                let place = at.offset + (first + rows.start) * at.cols;
                &floats[slot][place..place + rows.len() * at.cols]
            }
            Slot::Bytes(_) | Slot::Image => &[],
        };
        let bytes_at = |at: &Location, rows: &Range<usize>| match at.slot {
            Slot::Bytes(slot) => {
                let stride = row_stride(at.cols);
                &bytes[slot][(first + rows.start) * stride..(first + rows.end) * stride]
            }
            Slot::Floats(_) | Slot::Image => &[],
        };
        // All rows, for windows may reach any.
        let all_floats = |at: &Location| match at.slot {
            Slot::Floats(slot) => &floats[slot][at.offset..],
            Slot::Bytes(_) | Slot::Image => &[],
        };
        let all_bytes = |at: &Location| match at.slot {
            Slot::Bytes(slot) => &bytes[slot][..],
            Slot::Floats(_) | Slot::Image => &[],
        };
        pool.rows(self.rows.len(), self.cols, &mut out, &|thread, rows, out| match &self.op {
            Op::Patches { image: view, patch, bytes } => {
                let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
                let line = &mut scratch.floats[..self.cols];
                for (i, row) in rows.enumerate() {
                    let patch_at = first + row;
                    match (image, bytes) {
                        (ImageView::U8(pixels), None) => {
                            gather(view, *patch, patch_at, pixels, line, |&x| f32::from(x))
                        }
                        (ImageView::U8(pixels), Some(values)) => {
                            gather(view, *patch, patch_at, pixels, line, |&x| values[usize::from(x)])
                        }
                        (ImageView::F32(values), _) => gather(view, *patch, patch_at, values, line, |&x| x),
                    }
                    quantize::rows(isa, line, self.cols, i, out);
                }
            }
            Op::Linear { x, layer, image: map, after } => {
                let residual = after.residual.as_ref().map(|at| floats_at(at, &rows));
                let After { activation, activate_sum, .. } = *after;
                let epilogue = Epilogue { activation, residual, activate_sum };
                let windows = first + rows.start..first + rows.end;
                let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
                let scratch = &mut scratch.conv;
                match (&**layer, map.as_deref()) {
                    (Layer::Floats(layer), _) => linear(isa, layer, floats_at(x, &rows), &epilogue, out),
                    (Layer::Bytes(layer), _) => quant_linear(layer, bytes_at(x, &rows), &epilogue, out),
                    (Layer::Conv(layer), Some(map)) => {
                        conv_of_image(isa, layer, (map, image), windows, scratch, &epilogue, out);
                    }
                    (Layer::Conv(layer), None) => {
                        let map = MapView::of_rows(all_floats(x), layer.windows().input[1], x.cols);
                        conv(isa, layer, &map, windows, scratch, &epilogue, out);
                    }
                    (Layer::QuantConv(layer), _) => {
                        quant_conv(isa, layer, all_bytes(x), windows, scratch, &epilogue, out);
                    }
                    (Layer::Depthwise(layer), _) => {
                        depthwise(isa, layer, all_floats(x), windows, &epilogue, out)
                    }
                    (Layer::QuantDepthwise(layer), _) => {
                        quant_depthwise(isa, layer, all_bytes(x), windows, &epilogue, out);
                    }
                }
            }
            Op::MaxPool { x, windows } => {
                let range = first + rows.start..first + rows.end;
                max_pool(isa, windows, all_floats(x), x.cols, range, out);
            }
            Op::LayerNorm { x, is_centred, scale, shift, eps } => {
                let norm = if *is_centred { layer_norm::rows } else { layer_norm::rms_rows };
                norm(isa, floats_at(x, &rows), scale, shift, *eps, out);
            }
            Op::Attention { qkv, strides, shape, maps } => {
                let heads = |i: usize, skip: usize| {
                    let [head, row] = strides[i];
                    let data = match qkv[i].slot {
                        Slot::Floats(slot) => &floats[slot][qkv[i].offset + skip * row..],
                        Slot::Bytes(_) | Slot::Image => &[],
                    };
                    Heads { data, head, row }
                };
                let qkv = [heads(0, first + rows.start), heads(1, 0), heads(2, 0)];
                let bias = maps.bias.as_ref().map(|bias| {
                    let (head, row) = (bias.len() / shape.heads, shape.tokens);
                    Heads { data: &bias[(first + rows.start) * row..], head, row }
                });
                let (scores, probabilities) = (maps.scores.as_ref(), maps.probabilities.as_ref());
                let maps = ScoreMaps { scores, bias, probabilities };
                let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
                attention(isa, shape, qkv, maps, rows.len(), &mut scratch.floats, out);
            }
            Op::Levels { x, map } => levels::rows(isa, map, floats_at(x, &rows), x.cols, out),
            Op::Quantize { x } => quantize::rows(isa, floats_at(x, &rows), x.cols, 0, out),
            op => {
                let Out::F32(out) = out else { return };
                match op {
                    Op::Pointwise { x, function } => pointwise(isa, *function, floats_at(x, &rows), out),
                    Op::Softmax { x } => {
                        let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
                        softmax_rows(isa, floats_at(x, &rows), x.cols, &mut scratch.floats, out);
                    }
                    Op::Add { a, b } => {
                        out.copy_from_slice(floats_at(a, &rows));
                        elementwise::axpy(isa, 1.0, floats_at(b, &rows), out);
                    }
                    Op::Multiply { a, b } => {
                        // As one row.
                        elementwise::scale_columns(isa, floats_at(a, &rows), floats_at(b, &rows), out);
                    }
                    Op::ScaleColumns { x, scales } => {
                        let scales = &all_floats(scales)[..x.cols];
                        elementwise::scale_columns(isa, floats_at(x, &rows), scales, out);
                    }
                    Op::Affine { a, scale, shift } => {
                        let rows = floats_at(a, &rows).chunks_exact(a.cols).zip(out.chunks_exact_mut(a.cols));
                        for (a, out) in rows {
                            let numbers = scale.iter().zip(shift);
                            for ((out, a), (scale, shift)) in out.iter_mut().zip(a).zip(numbers) {
                                *out = a * scale + shift;
                            }
                        }
                    }
                    Op::AddConstant { a, values } => {
                        let values = constants(values, a.cols, first + rows.start, out.len());
                        elementwise::add_rows(isa, floats_at(a, &rows), values, out);
                    }
                    Op::MulConstant { a, values } => {
                        let values = constants(values, a.cols, first + rows.start, out.len());
                        elementwise::scale_columns(isa, floats_at(a, &rows), values, out);
                    }
                    _ => {}
                }
            }
        });
    }
}

/// A convolution of the image where it lies. An image of bytes is a map of bytes, one of floats a map of floats, since
/// the gate knows which the model takes.
fn conv_of_image(
    isa: Isa,
    layer: &Conv,
    (map, image): (&ImageMap, ImageView<'_>),
    windows: Range<usize>,
    scratch: &mut ConvScratch,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let &[channel, line, pixel] = &map.view.strides[..] else { return };
    match (&map.values, image) {
        (PixelValues::Bytes(values), ImageView::U8(pixels)) => {
            let map = MapView { data: &pixels[map.view.offset..], line, pixel, channel };
            conv_of_bytes(isa, layer, (&map, values), windows, scratch, epilogue, out);
        }
        (&PixelValues::Floats { scale, shift }, ImageView::F32(pixels)) => {
            let map = MapView { data: &pixels[map.view.offset..], line, pixel, channel };
            conv_of_scaled(isa, layer, (&map, [scale, shift]), windows, scratch, epilogue, out);
        }
        _ => {}
    }
}

/// A function of each value.
fn pointwise(isa: Isa, function: Pointwise, x: &[f32], out: &mut [f32]) {
    match function {
        Pointwise::Activation(activation) => activate(isa, activation, x, out),
        Pointwise::Scale(factor) => {
            out.fill(0.0);
            elementwise::axpy(isa, factor, x, out);
        }
    }
}

/// Softmax of each row; the kernel wants room behind it.
fn softmax_rows(isa: Isa, x: &[f32], cols: usize, scratch: &mut [f32], out: &mut [f32]) {
    let stride = softmax_row(cols);
    let line = &mut scratch[..stride];
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        line[..cols].copy_from_slice(x);
        softmax::forward(isa, line, cols, stride);
        out.copy_from_slice(&line[..cols]);
    }
}

/// The constants of `len` values from a row on: one row for all rows, or one value for each.
fn constants(values: &[f32], cols: usize, row: usize, len: usize) -> &[f32] {
    if values.len() == cols { values } else { &values[row * cols..][..len] }
}

/// One patch of an image `[C, H, W]`, counted row by row, in the order channel, row, column.
fn gather<T>(
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
