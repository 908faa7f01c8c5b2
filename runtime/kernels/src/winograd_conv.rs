//! Convolutions for inference with a 3x3 kernel and stride 1, by Winograd's minimal filtering F(2x2, 3x3)
//! (arXiv 1509.09308, section 4.1): four values of a result take 16 products where the formula has 36.
//!
//! Two lines of windows make a line of tiles. Their part of the map is gathered with the zeros around it and
//! transformed ([`mod@crate::winograd`]) to 16 planes; each plane is multiplied by the linear layer's kernel, and what
//! comes out is transformed back. A value of the result is one chain of operations in the order of the channels, so it
//! has the same bits on every instruction set and however the windows are shared out.

use std::ops::Range;

use crate::conv::ConvSizes;
use crate::epilogue::{self, Epilogue};
use crate::isa::Isa;
use crate::linear::{Linear, linear};
use crate::quantize::Out;
use crate::windows::Windows;
use crate::winograd::{self, PLACES, Tiles, kernel_places};

/// Bytes of the planes that are worked on at a time, about: they stay in the second cache.
const BLOCK_BYTES: usize = 448 << 10;
/// Fewer tiles would read large weights too often.
const LEAST_TILES: usize = 24;
/// Values of a line of the map and of its result, at most: a whole line is worked on at a time.
const MAX_LINE: usize = 1 << 18;
/// Weights of so many bytes stay in a near cache.
const NEAR_BYTES: usize = 2 << 20;
/// Fewer channels, or outputs, do not pay for the transforms.
const LEAST_CHANNELS: usize = 16;
/// The place whose product is added to all four outputs of a tile: it takes the bias.
const BIAS_PLACE: usize = 5;

/// How lines of tiles lie over a map.
#[derive(Clone, Copy, Debug)]
struct Lines {
    /// Tiles of a line.
    count: usize,
    /// Lines that are worked on together, at most.
    most: usize,
    channels: usize,
    outputs: usize,
}

impl Lines {
    fn new(windows: &Windows, sizes: &ConvSizes) -> Lines {
        let [lines, count] = windows.output.map(|side| side.div_ceil(2));
        let (channels, outputs) = (sizes.channels, sizes.outputs);
        let tile = PLACES * (channels + outputs) * size_of::<f32>();
        let tiles = (BLOCK_BYTES / tile).max(LEAST_TILES);
        Lines { count, most: (tiles / count).clamp(1, lines), channels, outputs }
    }

    /// Values of the part of the map that a line of tiles reads.
    fn strip(&self) -> usize {
        4 * (2 * self.count + 2) * self.channels
    }

    /// Values of what a line of tiles makes.
    fn result(&self) -> usize {
        2 * 2 * self.count * self.outputs
    }

    /// Floats that one thread writes into.
    fn scratch(&self) -> usize {
        let tiles = self.most * self.count;
        self.strip().max(self.result()) + PLACES * tiles * (self.channels + self.outputs)
    }
}

/// Whether the transforms are possible and pay: they make a weight 16 / 9 as large, which few tiles read too rarely.
pub(crate) fn suits(windows: &Windows, sizes: &ConvSizes) -> bool {
    let ConvSizes { groups, channels, outputs } = *sizes;
    let is_plain = (windows.kernel, windows.stride, windows.dilation) == ([3; 2], [1; 2], [1; 2]);
    let tiles = windows.output.map(|side| side.div_ceil(2)).iter().product::<usize>();
    let weight = channels.saturating_mul(outputs).saturating_mul(PLACES * size_of::<f32>());
    let line = channels.saturating_add(outputs).saturating_mul(windows.output[1]);
    is_plain
        && groups == 1
        && channels.min(outputs) >= LEAST_CHANNELS
        && (tiles >= LEAST_TILES || weight <= NEAR_BYTES)
        && line <= MAX_LINE
}

/// Floats of scratch that a thread needs.
pub(crate) fn scratch(windows: &Windows, sizes: &ConvSizes) -> usize {
    Lines::new(windows, sizes).scratch()
}

/// The part of the map that each line of tiles reads, as one window with what lies around the map.
pub(crate) fn strips(windows: &Windows) -> Windows {
    let [lines, count] = windows.output.map(|side| side.div_ceil(2));
    Windows { output: [lines, 1], kernel: [4, 2 * count + 2], stride: [2, 1], ..*windows }
}

/// The transformed weight, a linear layer for each place of a tile.
pub(crate) fn layers(
    sizes: &ConvSizes,
    at: impl Fn(usize, usize, usize) -> f32,
    bias: &[f32],
) -> Option<Vec<Linear>> {
    let (channels, outputs) = (sizes.channels, sizes.outputs);
    let places = |j: usize, c: usize| {
        let tap = |tap| f64::from(at(j, tap, c));
        let taps = [[tap(0), tap(1), tap(2)], [tap(3), tap(4), tap(5)], [tap(6), tap(7), tap(8)]];
        // In f64, and rounded once.
        let places = kernel_places(taps);
        std::array::from_fn(|place| places[place / 4][place % 4] as f32)
    };
    let none = vec![0.0; outputs];
    let mut biases = [&none[..]; PLACES];
    biases[BIAS_PLACE] = bias;
    Linear::several([outputs, channels], places, biases).map(Vec::from)
}

/// Bytes of [`layers`].
pub(crate) fn packed_bytes(sizes: &ConvSizes) -> usize {
    Linear::packed_bytes([sizes.outputs, sizes.channels]).saturating_mul(PLACES)
}

/// Runs `range` of the windows; `fill` gathers [`strips`].
pub(crate) fn convolve(
    isa: Isa,
    (windows, sizes, layers): (&Windows, &ConvSizes, &[Linear]),
    fill: impl Fn(Range<usize>, &mut [f32]),
    range: Range<usize>,
    scratch: &mut [f32],
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let lines = Lines::new(windows, sizes);
    let Lines { count, most, channels, outputs, .. } = lines;
    let width = windows.output[1];
    if range.is_empty() {
        return;
    }
    let (strip, planes) = scratch.split_at_mut(lines.strip().max(lines.result()));
    let (first, end) = (range.start / width / 2, (range.end - 1) / width / 2 + 1);
    for first in (first..end).step_by(most) {
        let block = first..end.min(first + most);
        let tiles = block.len() * count;
        let (inputs, products) = planes.split_at_mut(PLACES * tiles * channels);
        let products = &mut products[..PLACES * tiles * outputs];
        let of = |channels, line| Tiles { count, channels, line, plane: tiles * channels };
        for (i, line) in block.clone().enumerate() {
            fill(line..line + 1, &mut strip[..lines.strip()]);
            let t = of(channels, (2 * count + 2) * channels);
            winograd::inputs(isa, t, strip, &mut inputs[i * count * channels..]);
        }
        let planes = inputs.chunks_exact(tiles * channels).zip(products.chunks_exact_mut(tiles * outputs));
        for ((x, y), layer) in planes.zip(layers) {
            linear(isa, layer, x, &Epilogue::default(), &mut Out::F32(y));
        }
        for (i, line) in block.enumerate() {
            let t = of(outputs, 2 * count * outputs);
            winograd::outputs(isa, t, &products[i * count * outputs..], strip);
            for (y, values) in (2 * line..).zip(strip.chunks_exact(t.line).take(2)) {
                // The windows of this line that were asked for: tiles may reach beyond the map, shares may end anywhere.
                let start = (y * width).max(range.start);
                let stop = ((y + 1) * width).min(range.end).min(windows.count());
                if start >= stop {
                    continue;
                }
                let (skip, to) = (start - y * width, start - range.start);
                let residual = epilogue.residual.map(|residual| &residual[to * outputs..]);
                let values = &values[skip * outputs..(stop - y * width) * outputs];
                let epilogue = Epilogue { residual, ..*epilogue };
                epilogue::rows(isa, values, outputs, &epilogue, &mut out.starting_at(to, outputs));
            }
        }
    }
}
