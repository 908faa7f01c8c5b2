//! Depthwise convolutions for inference: a window of each channel alone (arXiv 1704.04861), in f32; on bytes see
//! [`mod@crate::quant_depthwise`].
//!
//! Sixteen channels of a few neighbouring windows are summed in registers, tap by tap, and finished there as a linear
//! layer's tile; windows that reach over the sides of the map are summed one by one. A value of the result is one chain
//! in the order `ky, kx`; taps beyond the map would add zeros, so it has the same bits wherever its tile begins.

use std::ops::Range;

use crate::dot::COLS;
use crate::epilogue::{self, Epilogue};
use crate::isa::dispatch;
use crate::linear::padded;
use crate::math::{madd, madd_is_long};
use crate::quantize::Out;
use crate::windows::Windows;

/// Windows of a tile: with their sums, a tap's weights and what is multiplied fit into 16 registers of AVX2.
pub(crate) const TILE: usize = 4;

/// A weight for each tap and channel, in panels of 16 channels: `[channels / 16, taps, 16]`.
pub(crate) fn panels<T: Copy + Default>(
    channels: usize,
    taps: usize,
    at: impl Fn(usize, usize) -> T,
) -> Vec<[T; COLS]> {
    let mut weight = vec![[T::default(); COLS]; channels.div_ceil(COLS) * taps];
    for (i, step) in weight.iter_mut().enumerate() {
        let (panel, tap) = (i / taps, i % taps);
        for (c, value) in step.iter_mut().enumerate().take(channels - panel * COLS) {
            *value = at(panel * COLS + c, tap);
        }
    }
    weight
}

/// A depthwise convolution with a weight of floats.
#[derive(Clone, Debug)]
pub struct Depthwise {
    windows: Windows,
    channels: usize,
    weight: Vec<[f32; COLS]>,
    bias: Vec<[f32; COLS]>,
}

impl Depthwise {
    /// Packs a weight, read by `at(channel, tap)` with taps line by line, and a bias. None unless the windows are valid
    /// and there are channels, with one bias each.
    pub fn new(
        windows: Windows,
        channels: usize,
        at: impl Fn(usize, usize) -> f32,
        bias: &[f32],
    ) -> Option<Depthwise> {
        (windows.are_valid() && channels > 0 && bias.len() == channels).then(|| Depthwise {
            windows,
            channels,
            weight: panels(channels, windows.taps(), at),
            bias: padded(bias),
        })
    }

    /// How windows lie over the map.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Values of a pixel, before and after.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes of the packed weight and bias.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }

    /// Bytes of a packed weight and bias of these sizes.
    pub fn packed_bytes(windows: &Windows, channels: usize) -> usize {
        let panel = windows.taps().saturating_add(1).saturating_mul(COLS * size_of::<f32>());
        channels.div_ceil(COLS).saturating_mul(panel)
    }
}

/// Elements of a map and a weight, and their sums.
pub(crate) trait Product {
    type X: Copy;
    type W: Copy;
    type Sum: Copy;
    /// Whether what lies beyond a map changes sums.
    const BEYOND_COUNTS: bool;

    /// `sums += x · w`, channel by channel.
    fn add<const FMA: bool>(sums: &mut [Self::Sum; COLS], x: &[Self::X; COLS], w: &[Self::W; COLS]);
}

enum Floats {}

impl Product for Floats {
    type X = f32;
    type W = f32;
    type Sum = f32;
    const BEYOND_COUNTS: bool = false;

    #[inline(always)]
    fn add<const FMA: bool>(sums: &mut [f32; COLS], x: &[f32; COLS], w: &[f32; COLS]) {
        #[cfg(target_arch = "x86_64")]
        if FMA {
            // SAFETY: on x86-64 kernels are compiled so only for processors with AVX2 and FMA.
            return unsafe { crate::avx2::add_products(sums, x, w) };
        }
        for c in 0..COLS {
            sums[c] = madd::<FMA>(x[c], w[c], sums[c]);
        }
    }
}

/// A map with rows of channels, and what lies beyond it.
pub(crate) struct Map<'a, T> {
    pub(crate) x: &'a [T],
    /// Distance of pixels.
    pub(crate) stride: usize,
    pub(crate) beyond: [T; COLS],
}

/// The sums of `ROWS` windows of line `y` from column `x` on, over the taps `lines` by `columns`, all of which lie within the
/// map.
#[inline(always)]
fn inner<P: Product, const FMA: bool, const ROWS: usize>(
    windows: &Windows,
    map: &Map<'_, P::X>,
    weight: &[[P::W; COLS]],
    start: &[P::Sum; COLS],
    [y, x]: [usize; 2],
    [lines, columns]: [&Range<usize>; 2],
    channel: usize,
) -> [[P::Sum; COLS]; ROWS] {
    let mut sums = [*start; ROWS];
    let step = windows.stride[1] * map.stride;
    let across = windows.kernel[1];
    for ky in lines.clone() {
        let first = windows.line(y, ky) * windows.input[1];
        let weight = &weight[ky * across + columns.start..ky * across + columns.end];
        for (kx, w) in columns.clone().zip(weight) {
            let at = (first + windows.column(x, kx)) * map.stride + channel;
            // One check for all windows, so that the loop below has none.
            let from = &map.x[at..][..(ROWS - 1) * step + COLS];
            for r in 0..ROWS {
                // SAFETY: `r · step + COLS` is at most the length of `from`, as `r < ROWS`.
                let x = unsafe { &*from.as_ptr().add(r * step).cast::<[P::X; COLS]>() };
                P::add::<FMA>(&mut sums[r], x, w);
            }
        }
    }
    if P::BEYOND_COUNTS && (lines.len() * columns.len() < windows.taps()) {
        for (i, w) in weight.iter().enumerate().take(windows.taps()) {
            if !lines.contains(&(i / across)) || !columns.contains(&(i % across)) {
                for r in 0..ROWS {
                    P::add::<FMA>(&mut sums[r], &map.beyond, w);
                }
            }
        }
    }
    sums
}

/// The sums of any windows of line `y` from column `x` on; those beyond the line count for nothing. Of the sixteen
/// channels `count` are there.
#[inline(always)]
fn edge<P: Product, const FMA: bool, const ROWS: usize>(
    windows: &Windows,
    map: &Map<'_, P::X>,
    weight: &[[P::W; COLS]],
    start: &[P::Sum; COLS],
    [y, x]: [usize; 2],
    (channel, count): (usize, usize),
) -> [[P::Sum; COLS]; ROWS] {
    let [height, width] = windows.input;
    let mut sums = [*start; ROWS];
    for (ky, weight) in weight.chunks_exact(windows.kernel[1]).enumerate() {
        let line = windows.line(y, ky);
        let from =
            if line < height { &map.x[line * width * map.stride..][..width * map.stride] } else { &[] };
        for (kx, w) in weight.iter().enumerate() {
            let mut pixels = [&map.beyond; ROWS];
            let mut narrow;
            if count == COLS {
                for r in 0..ROWS {
                    // Nothing beyond the map, where rows are too short.
                    let at = windows.column(x + r, kx).wrapping_mul(map.stride).wrapping_add(channel);
                    let pixel = from.get(at..).unwrap_or_default();
                    pixels[r] = pixel.first_chunk().unwrap_or(&map.beyond);
                }
            } else {
                narrow = [map.beyond; ROWS];
                for r in 0..ROWS {
                    let at = windows.column(x + r, kx).wrapping_mul(map.stride).wrapping_add(channel);
                    let pixel = from.get(at..).unwrap_or_default();
                    if let Some(pixel) = pixel.get(..count) {
                        narrow[r][..count].copy_from_slice(pixel);
                    }
                }
                pixels = narrow.each_ref();
            }
            for r in 0..ROWS {
                P::add::<FMA>(&mut sums[r], pixels[r], w);
            }
        }
    }
    sums
}

/// The columns of the result whose windows lie between the sides of the map.
#[inline(always)]
fn within(windows: &Windows) -> Range<usize> {
    let (reach, width) = ((windows.kernel[1] - 1) * windows.dilation[1], windows.input[1]);
    if width + windows.padding[1] <= reach {
        return 0..0;
    }
    let first = windows.padding[1].div_ceil(windows.stride[1]);
    let end = (width + windows.padding[1] - reach - 1) / windows.stride[1] + 1;
    first..end.min(windows.output[1]).max(first)
}

/// The taps of a window along a side that lie within the map: all are `dilation` apart, and the first one is `before` pixels
/// from the map's first one, or that number of pixels before it if it has wrapped around.
#[inline(always)]
fn taps_within(first: usize, taps: usize, dilation: usize, side: usize) -> Range<usize> {
    let before = if first.cast_signed() < 0 { first.wrapping_neg() } else { 0 };
    let start = before.div_ceil(dilation).min(taps);
    let left = side.saturating_add(before).saturating_sub(if before > 0 { 0 } else { first });
    start..left.div_ceil(dilation).clamp(start, taps)
}

/// What sums begin with and what becomes of them. Methods of a type and no closures, which would be compiled without the
/// caller's instruction set.
pub(crate) trait Ending<P: Product> {
    /// The first sums of a panel.
    fn start(&self, panel: usize) -> [P::Sum; COLS];

    /// Takes the sums of the first `rows` windows of a tile and stores them from row `at` on.
    fn finish<const FMA: bool, const ROWS: usize>(
        &mut self,
        sums: &[[P::Sum; COLS]; ROWS],
        panel: usize,
        at: usize,
        rows: usize,
    );
}

/// All windows of a range, tile by tile.
#[inline(always)]
fn tiles<P: Product, const FMA: bool, const TILE: usize>(
    windows: &Windows,
    channels: usize,
    map: &Map<'_, P::X>,
    weight: &[[P::W; COLS]],
    range: Range<usize>,
    ending: &mut impl Ending<P>,
) {
    let ([height, width], [down, across]) = (windows.input, windows.kernel);
    let [_, breadth] = windows.output;
    let whole = within(windows);
    let mut window = range.start;
    while window < range.end {
        // A line, or what of it is in the range.
        let (y, first) = (window / breadth, window % breadth);
        let end = breadth.min(first + range.end - window);
        let lines = taps_within(windows.line(y, 0), down, windows.dilation[0], height);
        let mut next = first;
        while next < end {
            let inside = whole.start <= next && next < whole.end;
            let last = whole.end.min(end);
            // The windows left over at the end are a tile together with some before them, which are computed again.
            let fits = inside && last >= whole.start.max(first) + TILE;
            let (x, rows) = if fits { (next.min(last - TILE), TILE) } else { (next, 1) };
            let at = window - range.start + x - first;
            let columns = taps_within(windows.column(x, 0), across, windows.dilation[1], width);
            // Panel by panel, so that memory is read and written in order.
            for (p, weight) in weight.chunks_exact(windows.taps()).enumerate() {
                let (channel, count) = (p * COLS, COLS.min(channels - p * COLS));
                let (start, place) = (ending.start(p), [y, x]);
                if count < COLS {
                    let sums = edge::<P, FMA, TILE>(windows, map, weight, &start, place, (channel, count));
                    ending.finish::<FMA, TILE>(&sums, p, at, rows);
                } else if fits && TILE > 1 {
                    let taps = [&lines, &(0..across)];
                    let sums = inner::<P, FMA, TILE>(windows, map, weight, &start, place, taps, channel);
                    ending.finish::<FMA, TILE>(&sums, p, at, TILE);
                } else {
                    let taps = [&lines, &columns];
                    let sums = inner::<P, FMA, 1>(windows, map, weight, &start, place, taps, channel);
                    ending.finish::<FMA, 1>(&sums, p, at, 1);
                }
            }
            next = x + rows;
        }
        window += end - first;
    }
}

/// All windows of a range.
#[inline(always)]
pub(crate) fn body<P: Product, const FMA: bool>(
    windows: &Windows,
    channels: usize,
    map: &Map<'_, P::X>,
    weight: &[[P::W; COLS]],
    range: Range<usize>,
    ending: &mut impl Ending<P>,
) {
    if madd_is_long::<FMA>() {
        tiles::<P, FMA, 1>(windows, channels, map, weight, range, ending);
    } else {
        tiles::<P, FMA, TILE>(windows, channels, map, weight, range, ending);
    }
}

/// Ends sums of floats.
struct FloatEnding<'a, 'b> {
    layer: &'a Depthwise,
    epilogue: &'a Epilogue<'a>,
    out: &'a mut Out<'b>,
}

impl Ending<Floats> for FloatEnding<'_, '_> {
    #[inline(always)]
    fn start(&self, _: usize) -> [f32; COLS] {
        [0.0; COLS]
    }

    #[inline(always)]
    fn finish<const FMA: bool, const ROWS: usize>(
        &mut self,
        sums: &[[f32; COLS]; ROWS],
        panel: usize,
        at: usize,
        rows: usize,
    ) {
        let (mut tile, n) = (*sums, self.layer.channels);
        let bias = &self.layer.bias[panel];
        for values in &mut tile {
            epilogue::add::<FMA>(values, bias);
        }
        let count = COLS.min(n - panel * COLS);
        self.epilogue.finish::<FMA, false>(&mut tile[..rows], [at, panel * COLS], [n, count], self.out);
    }
}

#[inline(always)]
fn floats_body<const FMA: bool, const WIDE: bool>(
    layer: &Depthwise,
    x: &[f32],
    range: Range<usize>,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let map = Map { x, stride: layer.channels, beyond: [0.0; COLS] };
    let mut ending = FloatEnding { layer, epilogue, out };
    body::<Floats, FMA>(&layer.windows, layer.channels, &map, &layer.weight, range, &mut ending);
}

dispatch! {
    /// The windows `range` of a depthwise convolution of a map with rows of its channels; as many rows go to `out`, see
    /// [`Out`]. The residual has the same rows.
    pub fn depthwise(layer: &Depthwise, x: &[f32], range: Range<usize>, epilogue: &Epilogue<'_>, out: &mut Out<'_>) = floats_body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plain;
    use crate::test_support::{close, each_isa, values, widen};
    use crate::windows::tests::any_windows;

    #[test]
    fn taps_of_a_window_lie_within_the_map_or_not() {
        for (padding, side, dilation, taps) in
            [(0usize, 5, 1, 3), (2, 3, 1, 5), (7, 4, 2, 3), (3, 1, 3, 4), (9, 2, 1, 4)]
        {
            for position in 0..side + 2 * padding {
                let first = position.wrapping_sub(padding);
                let inside = |tap: usize| first.wrapping_add(tap * dilation) < side;
                let found = taps_within(first, taps, dilation, side);
                assert!(
                    (0..taps).all(|tap| found.contains(&tap) == inside(tap)),
                    "{padding} {side} {position}"
                );
            }
        }
    }

    #[test]
    fn sizes_are_checked() {
        let side = [2; 2];
        let windows = Windows {
            input: side,
            output: side,
            kernel: [1; 2],
            stride: [1; 2],
            dilation: [1; 2],
            padding: [0; 2],
        };
        assert!(Depthwise::new(windows, 3, |_, _| 1.0, &[0.0; 3]).is_some());
        assert!(Depthwise::new(windows, 3, |_, _| 1.0, &[0.0; 2]).is_none());
        assert!(Depthwise::new(windows, 0, |_, _| 1.0, &[]).is_none());
    }

    proptest! {
        #[test]
        fn every_isa_is_the_formula(windows in any_windows(), wide in 1usize..4, channels in 1usize..50, seed: u64) {
            // Wide maps have windows that all lie within them.
            let windows = Windows {
                input: [windows.input[0], windows.input[1] * wide],
                output: [windows.output[0], windows.output[1] + windows.input[1] * (wide - 1) / windows.stride[1]],
                ..windows
            };
            let (n, taps) = (channels, windows.taps());
            let pixels = windows.input[0] * windows.input[1];
            let (x, w, b) = (values(pixels * n, seed), values(n * taps, seed ^ 1), values(n, seed ^ 2));
            let more = values(windows.count() * n, seed ^ 3);
            let mut want = vec![0.0; windows.count() * n];
            plain::conv(&windows, [n, 1, n], &widen(&x), &widen(&w), &widen(&b), &mut want);
            want.iter_mut().zip(&more).for_each(|(want, &more)| *want += f64::from(more));
            let layer = Depthwise::new(windows, n, |c, tap| w[c * taps + tap], &b).unwrap();
            let cut = windows.count() / 3;
            let mut first: Option<Vec<f32>> = None;
            each_isa(|isa| {
                let mut y = vec![9.0; windows.count() * n];
                for share in [0..cut, cut..windows.count()] {
                    let residual = Some(&more[share.start * n..share.end * n]);
                    let epilogue = Epilogue { residual, ..Epilogue::default() };
                    let out = &mut Out::F32(&mut y[share.start * n..share.end * n]);
                    depthwise(isa, &layer, &x, share, &epilogue, out);
                }
                close(&y, &want, 1e-5);
                assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{}", isa.name());
            });
        }
    }
}
