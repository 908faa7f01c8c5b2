//! Convolutions for inference in f32, `y = act(x ∗ w + b) (+ residual)`, of maps as rows of pixels (NHWC); on bytes see
//! [`mod@crate::quant_conv`].
//!
//! An implicit matrix product: the windows of a few rows of the result at a time are gathered in the second cache, and
//! the linear layer's kernel multiplies them there, with its epilogue and on every instruction set. A value of the
//! result is one chain in the order `ky, kx, channel`, so it has the same bits however the rows are shared out. With a
//! 3x3 kernel and stride 1, Winograd's filtering (`winograd_conv.rs`) takes fewer products.

use std::ops::Range;

use crate::aligned::Aligned;
use crate::epilogue::{self, Epilogue};
use crate::isa::Isa;
use crate::linear::{Linear, linear};
use crate::quantize::Out;
use crate::windows::{MapView, Windows, gather};
use crate::winograd_conv;

/// Bytes of the rows that are gathered at one time: they are read once for each panel of the weight, and stay in the
/// second cache.
const BLOCK_BYTES: usize = 224 << 10;
/// Rows of a block are a multiple of this, which is one of most tiles' heights. Fewer would read large weights too often.
const ROWS: usize = 24;
/// The most rows of a block: enough to read a panel of a small weight rarely.
const MAX_ROWS: usize = 240;

/// Sizes of a convolution: `groups` times `channels` inputs at each pixel, of which each group makes as many of the
/// `outputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvSizes {
    /// Groups of channels that do not meet; 1 of most convolutions.
    pub groups: usize,
    /// Input channels of one group.
    pub channels: usize,
    /// Output channels of all groups.
    pub outputs: usize,
}

impl ConvSizes {
    /// Outputs of a group; none where sizes are 0 or do not divide.
    pub(crate) fn each(&self, windows: &Windows) -> Option<usize> {
        let fits = self.groups > 0 && self.channels > 0 && self.outputs > 0 && windows.are_valid();
        (fits && self.outputs.is_multiple_of(self.groups)).then(|| self.outputs / self.groups)
    }
}

/// Rows of `count` that are gathered at one time, where each takes so many bytes.
pub(crate) fn block_rows(row_bytes: usize, count: usize) -> usize {
    let most = (BLOCK_BYTES / row_bytes.max(1) / ROWS * ROWS).clamp(ROWS, MAX_ROWS);
    // Long rows have large weights, which are read once a block: a few rows more before another block.
    if most == ROWS { count.div_ceil((count / ROWS).max(1)) } else { most.min(count) }
}

/// What one thread of a convolution writes into.
#[derive(Debug, Default)]
pub struct ConvScratch {
    pub(crate) floats: Aligned<f32>,
    pub(crate) bytes: Aligned<u8>,
}

/// Lengths of a [`ConvScratch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchSizes {
    pub(crate) floats: usize,
    pub(crate) bytes: usize,
}

impl ScratchSizes {
    /// What does for both.
    pub fn max(self, other: ScratchSizes) -> ScratchSizes {
        ScratchSizes { floats: self.floats.max(other.floats), bytes: self.bytes.max(other.bytes) }
    }

    /// Bytes of a scratch.
    pub fn byte_count(self) -> usize {
        self.floats * size_of::<f32>() + self.bytes
    }
}

impl ConvScratch {
    /// A scratch for every convolution that asks for no more than `sizes`.
    pub fn new(sizes: ScratchSizes) -> ConvScratch {
        ConvScratch { floats: Aligned::new(sizes.floats), bytes: Aligned::new(sizes.bytes) }
    }
}

/// A convolution with a weight of floats.
#[derive(Clone, Debug)]
pub struct Conv {
    windows: Windows,
    sizes: ConvSizes,
    /// What is gathered to rows: the windows, or the strips of Winograd's filtering.
    gathered: Windows,
    /// One for each group, or for each place of Winograd's tiles.
    layers: Vec<Linear>,
}

impl Conv {
    /// Packs a weight, read by `at(output, tap, channel)` with taps line by line, and a bias. None unless all sizes are
    /// positive and fit each other, and the bias has one value for each output.
    pub fn new(
        windows: Windows,
        sizes: ConvSizes,
        at: impl Fn(usize, usize, usize) -> f32,
        bias: &[f32],
    ) -> Option<Conv> {
        let (each, inputs) = (sizes.each(&windows)?, windows.taps() * sizes.channels);
        if bias.len() != sizes.outputs {
            return None;
        }
        if winograd_conv::suits(&windows, &sizes) {
            let layers = winograd_conv::layers(&sizes, at, bias)?;
            return Some(Conv { windows, sizes, gathered: winograd_conv::strips(&windows), layers });
        }
        let layer = |(group, bias): (usize, &[f32])| {
            let at = |j: usize, i: usize| at(group * each + j, i / sizes.channels, i % sizes.channels);
            Linear::new([each, inputs], at, bias)
        };
        let layers = bias.chunks_exact(each).enumerate().map(layer).collect::<Option<_>>()?;
        Some(Conv { windows, sizes, gathered: windows, layers })
    }

    /// How windows lie over the map.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Values of a pixel that goes in, those of all groups.
    pub fn inputs(&self) -> usize {
        self.sizes.groups * self.sizes.channels
    }

    /// Values of a pixel that comes out.
    pub fn outputs(&self) -> usize {
        self.sizes.outputs
    }

    /// Bytes of the packed weight and bias.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(Linear::bytes).sum()
    }

    /// Bytes of a packed weight and bias of these sizes.
    pub fn packed_bytes(windows: &Windows, sizes: &ConvSizes) -> usize {
        if winograd_conv::suits(windows, sizes) {
            return winograd_conv::packed_bytes(sizes);
        }
        let groups = sizes.groups.max(1);
        let group = [sizes.outputs / groups, windows.taps().saturating_mul(sizes.channels)];
        Linear::packed_bytes(group).saturating_mul(groups)
    }

    /// What [`conv`] needs to write into.
    pub fn scratch(windows: &Windows, sizes: &ConvSizes) -> ScratchSizes {
        if winograd_conv::suits(windows, sizes) {
            return ScratchSizes { floats: winograd_conv::scratch(windows, sizes), bytes: 0 };
        }
        let inputs = windows.taps() * sizes.channels;
        let rows = block_rows(inputs * size_of::<f32>(), windows.count());
        ScratchSizes { floats: rows * (inputs + group_values(sizes)), bytes: 0 }
    }
}

/// Values of a row that is put together from those of groups, and of one group.
pub(crate) fn group_values(sizes: &ConvSizes) -> usize {
    if sizes.groups > 1 { sizes.outputs + sizes.outputs / sizes.groups } else { 0 }
}

/// The windows `range` of a convolution of a map; as many rows go to `out`, see [`Out`]. The residual has the same rows.
///
/// `scratch` has at least the sizes that [`Conv::scratch`] says.
pub fn conv(
    isa: Isa,
    layer: &Conv,
    map: &MapView<'_, f32>,
    range: Range<usize>,
    scratch: &mut ConvScratch,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let Conv { gathered: windows, sizes: ConvSizes { channels, .. }, .. } = layer;
    if windows.are_pixels() && layer.layers.len() == 1 && (map.channel, map.pixel) == (1, *channels) {
        let x = &map.data[range.start * channels..range.end * channels];
        return linear(isa, &layer.layers[0], x, epilogue, out);
    }
    let fill = |channels: Range<usize>, range: Range<usize>, rows: &mut [f32], stride: usize| {
        let copy = |from: &[f32], to: &mut [f32]| to.copy_from_slice(from);
        gather(windows, map, channels, range, 0.0, (rows, stride), |&x| x, copy);
    };
    convolve(isa, layer, &fill, range, scratch, epilogue, out);
}

/// As [`conv`], of a map of bytes each of which stands for a value; beyond the map there are zeros.
pub fn conv_of_bytes(
    isa: Isa,
    layer: &Conv,
    (map, values): (&MapView<'_, u8>, &[f32; 256]),
    range: Range<usize>,
    scratch: &mut ConvScratch,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let value = |&byte: &u8| values[usize::from(byte)];
    let fill = |channels: Range<usize>, range: Range<usize>, rows: &mut [f32], stride: usize| {
        let copy =
            |from: &[u8], to: &mut [f32]| to.iter_mut().zip(from).for_each(|(to, from)| *to = value(from));
        gather(&layer.gathered, map, channels, range, 0.0, (rows, stride), value, copy);
    };
    convolve(isa, layer, &fill, range, scratch, epilogue, out);
}

/// As [`conv`], of a map of floats each of which stands for `x · scale + shift`; beyond the map there are zeros.
pub fn conv_of_scaled(
    isa: Isa,
    layer: &Conv,
    (map, [scale, shift]): (&MapView<'_, f32>, [f32; 2]),
    range: Range<usize>,
    scratch: &mut ConvScratch,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    if (scale, shift) == (1.0, 0.0) {
        return conv(isa, layer, map, range, scratch, epilogue, out);
    }
    let value = |&x: &f32| x * scale + shift;
    let fill = |channels: Range<usize>, range: Range<usize>, rows: &mut [f32], stride: usize| {
        let copy =
            |from: &[f32], to: &mut [f32]| to.iter_mut().zip(from).for_each(|(to, from)| *to = value(from));
        gather(&layer.gathered, map, channels, range, 0.0, (rows, stride), value, copy);
    };
    convolve(isa, layer, &fill, range, scratch, epilogue, out);
}

/// Gathers channels of windows to rows, which lie so far apart.
type Fill<'a, T> = dyn Fn(Range<usize>, Range<usize>, &mut [T], usize) + 'a;

fn convolve(
    isa: Isa,
    layer: &Conv,
    fill: &Fill<'_, f32>,
    range: Range<usize>,
    scratch: &mut ConvScratch,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let Conv { windows, sizes, layers, .. } = layer;
    let ConvSizes { channels, outputs, .. } = *sizes;
    if winograd_conv::suits(windows, sizes) {
        let fill = |lines: Range<usize>, strip: &mut [f32]| {
            let values = strip.len();
            fill(0..channels, lines, strip, values);
        };
        let layer = (windows, sizes, &layers[..]);
        return winograd_conv::convolve(isa, layer, fill, range, &mut scratch.floats, epilogue, out);
    }
    let inputs = windows.taps() * channels;
    let most = block_rows(inputs * size_of::<f32>(), windows.count());
    let each = |windows: Range<usize>,
                group: usize,
                rows: &mut [f32],
                epilogue: &Epilogue<'_>,
                out: &mut Out<'_>| {
        fill(group * channels..(group + 1) * channels, windows, rows, inputs);
        linear(isa, &layer.layers[group], rows, epilogue, out);
    };
    let (rows, others) = scratch.floats.split_at_mut(most * inputs);
    for first in range.clone().step_by(most) {
        let block = first..range.end.min(first + most);
        let rows = &mut rows[..block.len() * inputs];
        let mut block_out = out.starting_at(first - range.start, outputs);
        let residual = epilogue.residual.map(|residual| &residual[(first - range.start) * outputs..]);
        let epilogue = Epilogue { residual, ..*epilogue };
        if layer.layers.len() == 1 {
            each(block, 0, rows, &epilogue, &mut block_out);
        } else {
            let each = |group: usize, out: &mut Out<'_>| {
                each(block.clone(), group, rows, &Epilogue::default(), out);
            };
            grouped(isa, &layer.sizes, block.len(), others, each, &epilogue, &mut block_out);
        }
    }
}

/// Puts rows together from what `each` group makes, and finishes them.
pub(crate) fn grouped(
    isa: Isa,
    sizes: &ConvSizes,
    rows: usize,
    scratch: &mut [f32],
    mut each: impl FnMut(usize, &mut Out<'_>),
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let (n, part) = (sizes.outputs, sizes.outputs / sizes.groups);
    let (whole, parts) = scratch.split_at_mut(rows * n);
    let parts = &mut parts[..rows * part];
    for group in 0..sizes.groups {
        each(group, &mut Out::F32(parts));
        for (to, from) in whole.chunks_exact_mut(n).zip(parts.chunks_exact(part)) {
            to[group * part..][..part].copy_from_slice(from);
        }
    }
    epilogue::rows(isa, whole, n, epilogue, out);
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epilogue::Activation;
    use crate::plain;
    use crate::test_support::{close, each_isa, values, widen};
    use crate::windows::tests::any_windows;

    /// Cuts windows into uneven shares, as threads do.
    pub(crate) fn shares(count: usize) -> impl Iterator<Item = Range<usize>> {
        let cut = count / 3;
        [0..cut, cut..count].into_iter()
    }

    pub(crate) fn sizes([groups, channels, each]: [usize; 3]) -> ConvSizes {
        ConvSizes { groups, channels, outputs: groups * each }
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
        let new = |windows, groups, channels, outputs, bias: usize| {
            Conv::new(windows, ConvSizes { groups, channels, outputs }, |_, _, _| 1.0, &vec![0.0; bias])
                .is_some()
        };
        assert!(new(windows, 2, 3, 4, 4));
        assert!(!new(windows, 2, 3, 3, 3) && !new(windows, 0, 3, 4, 4) && !new(windows, 2, 0, 4, 4));
        assert!(!new(windows, 2, 3, 4, 5) && !new(Windows { kernel: [0; 2], ..windows }, 2, 3, 4, 4));
    }

    /// Every instruction set gives the formula's values and the same bits, in shares.
    fn check(windows: Windows, [groups, channels, each]: [usize; 3], residual: bool, seed: u64) {
        let sizes = sizes([groups, channels, each]);
        let (inputs, n, taps) = (groups * channels, sizes.outputs, windows.taps());
        let x = values(windows.input[0] * windows.input[1] * inputs, seed);
        let (w, b) = (values(n * channels * taps, seed ^ 1), values(n, seed ^ 2));
        let more = values(windows.count() * n, seed ^ 3);
        let mut want = vec![0.0; windows.count() * n];
        plain::conv(&windows, [groups, channels, n], &widen(&x), &widen(&w), &widen(&b), &mut want);
        for (want, more) in want.iter_mut().zip(&more) {
            *want = (*want + if residual { f64::from(*more) } else { 0.0 }).max(0.0);
        }
        let layer = Conv::new(windows, sizes, |j, tap, c| w[(j * channels + c) * taps + tap], &b).unwrap();
        let mut first: Option<Vec<f32>> = None;
        each_isa(|isa| {
            let mut scratch = ConvScratch::new(Conv::scratch(&windows, &sizes));
            let mut y = vec![9.0; windows.count() * n];
            let map = MapView::of_rows(&x, windows.input[1], inputs);
            for share in shares(windows.count()) {
                let epilogue = Epilogue {
                    activation: Activation::RELU,
                    residual: residual.then_some(&more[share.start * n..share.end * n]),
                    activate_sum: true,
                };
                let out = &mut Out::F32(&mut y[share.start * n..share.end * n]);
                conv(isa, &layer, &map, share, &mut scratch, &epilogue, out);
            }
            close(&y, &want, 2e-5);
            assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{}", isa.name());
        });
    }

    proptest! {
        #[test]
        fn every_isa_is_the_formula(
            windows in any_windows(), groups in 1usize..4, channels in 1usize..7, each in 1usize..20,
            residual: bool, seed: u64,
        ) {
            check(windows, [groups, channels, each], residual, seed);
        }

        #[test]
        fn winograds_filtering_is_the_formula_on_every_isa(
            output in [1usize..20, 1usize..20], padding in [0usize..3, 0usize..3], after in 0usize..3,
            channels in 16usize..40, outputs in 16usize..40, residual: bool, seed: u64,
        ) {
            let input = [0, 1].map(|i| (output[i] + 2).saturating_sub(padding[i] + after).max(1));
            let windows =
                Windows { input, output, kernel: [3; 2], stride: [1; 2], dilation: [1; 2], padding };
            prop_assume!(winograd_conv::suits(&windows, &sizes([1, channels, outputs])));
            check(windows, [1, channels, outputs], residual, seed);
        }
    }

    #[test]
    fn an_image_is_read_where_it_lies() {
        let windows = Windows {
            input: [7, 6],
            output: [4, 3],
            kernel: [3; 2],
            stride: [2; 2],
            dilation: [1; 2],
            padding: [1; 2],
        };
        let sizes = sizes([1, 3, 5]);
        let (w, pixels) = (values(5 * 27, 1), 42);
        let bytes: Vec<u8> = values(3 * pixels, 2).iter().map(|x| (x * 128.0 + 128.0) as u8).collect();
        let table: [f32; 256] = std::array::from_fn(|byte| byte as f32 / 100.0 - 1.0);
        let floats: Vec<f32> = bytes.iter().map(|&byte| table[usize::from(byte)]).collect();
        let planes: Vec<f32> = (0..3 * pixels).map(|i| floats[i % pixels * 3 + i / pixels]).collect();
        let layer = Conv::new(windows, sizes, |j, tap, c| w[(j * 3 + c) * 9 + tap], &[0.5; 5]).unwrap();
        let mut scratch = ConvScratch::new(Conv::scratch(&windows, &sizes));
        let (isa, epilogue, all) = (Isa::best(), Epilogue::default(), 0..windows.count());
        let mut y = [vec![0.0; 60], vec![1.0; 60], vec![2.0; 60], vec![3.0; 60]];
        let [rows, planar, of_bytes, scaled] = &mut y;
        let map = MapView::of_rows(&floats, 6, 3);
        conv(isa, &layer, &map, all.clone(), &mut scratch, &epilogue, &mut Out::F32(rows));
        let map = MapView { data: &planes, line: 6, pixel: 1, channel: pixels };
        conv(isa, &layer, &map, all.clone(), &mut scratch, &epilogue, &mut Out::F32(planar));
        let map = MapView::of_rows(&bytes, 6, 3);
        let out = &mut Out::F32(of_bytes);
        conv_of_bytes(isa, &layer, (&map, &table), all.clone(), &mut scratch, &epilogue, out);
        let numbers: Vec<f32> = floats.iter().map(|x| (x - 0.5) / 0.25).collect();
        let map = MapView::of_rows(&numbers, 6, 3);
        conv_of_scaled(isa, &layer, (&map, [0.25, 0.5]), all, &mut scratch, &epilogue, &mut Out::F32(scaled));
        assert!(y[0] == y[1] && y[0] == y[2] && y[0][0] != 0.0);
        assert!(y[0].iter().zip(&y[3]).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
