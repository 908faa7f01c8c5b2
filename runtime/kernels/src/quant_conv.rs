//! Convolutions on bytes, as [`mod@crate::conv`] gathers and [`mod@crate::quant_linear`] multiplies: the sums are exact on
//! every instruction set.

use std::ops::Range;

use crate::conv::{ConvScratch, ConvSizes, ScratchSizes, block_rows, group_values, grouped};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::quant_linear::{QuantLinear, quant_linear, row_stride};
use crate::quantize::{Out, QuantParams};
use crate::windows::{MapView, Windows, gather};

/// Channels of a window's pixels: without groups whole pixels are gathered with what fills them up, where weights are 0,
/// for one copy is faster than several.
fn byte_channels(sizes: &ConvSizes) -> usize {
    if sizes.groups == 1 { row_stride(sizes.channels) } else { sizes.channels }
}

/// A convolution with a weight of signed bytes.
#[derive(Clone, Debug)]
pub struct QuantConv {
    windows: Windows,
    sizes: ConvSizes,
    layers: Vec<QuantLinear>,
    zero: u8,
}

impl QuantConv {
    /// Packs a weight, read by `at(output, tap, channel)`, with a scale for each output and a bias, for activations of
    /// `x` and the instruction set that will run it.
    ///
    /// None where sizes do not fit, as for [`Conv::new`](crate::conv::Conv::new), or the arithmetic would not be exact, as for
    /// [`QuantLinear::new`].
    pub fn new(
        isa: Isa,
        windows: Windows,
        sizes: ConvSizes,
        at: impl Fn(usize, usize, usize) -> i8,
        (scales, bias): (&[f32], &[f32]),
        x: QuantParams,
    ) -> Option<QuantConv> {
        let each = sizes.each(&windows)?;
        if bias.len() != sizes.outputs || scales.len() != sizes.outputs {
            return None;
        }
        let channels = byte_channels(&sizes);
        let layer = |(group, (scales, bias)): (usize, (&[f32], &[f32]))| {
            let at = |j: usize, i: usize| match i % channels {
                channel if channel < sizes.channels => at(group * each + j, i / channels, channel),
                _ => 0,
            };
            QuantLinear::new(isa, [each, windows.taps() * channels], at, scales, bias, x)
        };
        let parts = scales.chunks_exact(each).zip(bias.chunks_exact(each));
        let layers = parts.enumerate().map(layer).collect::<Option<_>>()?;
        Some(QuantConv { windows, sizes, layers, zero: x.zero() })
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

    /// Bytes of everything packed.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(QuantLinear::bytes).sum()
    }

    /// Bytes of everything packed, of these sizes.
    pub fn packed_bytes(isa: Isa, windows: &Windows, sizes: &ConvSizes) -> usize {
        let groups = sizes.groups.max(1);
        let group = [sizes.outputs / groups, windows.taps().saturating_mul(byte_channels(sizes))];
        QuantLinear::packed_bytes(isa, group).saturating_mul(groups)
    }

    /// What [`quant_conv`] needs to write into.
    pub fn scratch(windows: &Windows, sizes: &ConvSizes) -> ScratchSizes {
        let stride = row_stride(windows.taps() * byte_channels(sizes));
        let rows = block_rows(stride, windows.count());
        ScratchSizes { floats: rows * group_values(sizes), bytes: rows * stride }
    }
}

/// The windows `range` of a convolution of a map of bytes, whose rows lie [`row_stride`] apart; as many rows go to `out`, see
/// [`Out`]. The residual has the same rows. Beyond the map there are zeros.
///
/// `scratch` has at least the sizes that [`QuantConv::scratch`] says.
pub fn quant_conv(
    isa: Isa,
    layer: &QuantConv,
    x: &[u8],
    range: Range<usize>,
    scratch: &mut ConvScratch,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let QuantConv { windows, sizes, .. } = layer;
    let (channels, outputs) = (byte_channels(sizes), sizes.outputs);
    let map = MapView::of_rows(x, windows.input[1], row_stride(layer.inputs()));
    if windows.are_pixels() && layer.layers.len() == 1 {
        let x = &x[range.start * map.pixel..range.end * map.pixel];
        return quant_linear(&layer.layers[0], x, epilogue, out);
    }
    let stride = row_stride(windows.taps() * channels);
    let most = block_rows(stride, windows.count());
    let each = |windows_of: Range<usize>,
                group: usize,
                rows: &mut [u8],
                epilogue: &Epilogue<'_>,
                out: &mut Out<'_>| {
        let channels = group * channels..(group + 1) * channels;
        let copy = |from: &[u8], to: &mut [u8]| to.copy_from_slice(from);
        gather(windows, &map, channels, windows_of, layer.zero, (rows, stride), |&x| x, copy);
        quant_linear(&layer.layers[group], rows, epilogue, out);
    };
    for first in range.clone().step_by(most) {
        let block = first..range.end.min(first + most);
        let rows = &mut scratch.bytes[..block.len() * stride];
        let mut block_out = out.starting_at(first - range.start, outputs);
        let residual = epilogue.residual.map(|residual| &residual[(first - range.start) * outputs..]);
        let epilogue = Epilogue { residual, ..*epilogue };
        if layer.layers.len() == 1 {
            each(block, 0, rows, &epilogue, &mut block_out);
        } else {
            let each = |group: usize, out: &mut Out<'_>| {
                each(block.clone(), group, rows, &Epilogue::default(), out);
            };
            grouped(isa, sizes, block.len(), &mut scratch.floats, each, &epilogue, &mut block_out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conv::tests::{shares, sizes};
    use crate::plain;
    use crate::test_support::{each_isa, values};
    use crate::windows::tests::any_windows;

    proptest! {
        #[test]
        fn what_is_packed_takes_the_bytes_that_were_told(
            windows in any_windows(), groups in 1usize..4, channels in 1usize..40, each in 1usize..40
        ) {
            let sizes = sizes([groups, channels, each]);
            let (bias, x) = (vec![0.0; sizes.outputs], QuantParams::new(1.0, 0).unwrap());
            let conv = crate::Conv::new(windows, sizes, |_, _, _| 1.0, &bias).unwrap();
            prop_assert_eq!(conv.bytes(), crate::Conv::packed_bytes(&windows, &sizes));
            each_isa(|isa| {
                let conv = QuantConv::new(isa, windows, sizes, |_, _, _| 1, (&bias, &bias), x).unwrap();
                assert_eq!(conv.bytes(), QuantConv::packed_bytes(isa, &windows, &sizes));
            });
            let depthwise = crate::Depthwise::new(windows, sizes.outputs, |_, _| 1.0, &bias).unwrap();
            prop_assert_eq!(depthwise.bytes(), crate::Depthwise::packed_bytes(&windows, sizes.outputs));
            let depthwise = crate::QuantDepthwise::new(windows, sizes.outputs, |_, _| 1, (&bias, &bias), x).unwrap();
            prop_assert_eq!(depthwise.bytes(), crate::QuantDepthwise::packed_bytes(&windows, sizes.outputs));
        }

        #[test]
        fn sums_of_bytes_are_exact_on_every_isa(
            windows in any_windows(), groups in 1usize..4, channels in 1usize..7, each in 1usize..20, seed: u64,
            zero: u8,
        ) {
            let sizes = sizes([groups, channels, each]);
            let (inputs, n, taps) = (groups * channels, sizes.outputs, windows.taps());
            let integers = |n: usize, seed: u64| values(n, seed).into_iter().map(|x| (x * 127.9) as i8);
            let x: Vec<u8> = integers(windows.input[0] * windows.input[1] * inputs, seed).map(|x| x as u8).collect();
            let w: Vec<i8> = integers(n * channels * taps, seed ^ 1).collect();
            let number = |x: u8| f64::from(x) - f64::from(zero);
            let wide: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
            let mut want = vec![0.0; windows.count() * n];
            let x_of: Vec<f64> = x.iter().map(|&x| number(x)).collect();
            plain::conv(&windows, [groups, channels, n], &x_of, &wide, &vec![0.0; n], &mut want);
            let stride = row_stride(inputs);
            let mut map_rows = vec![77; windows.input[0] * windows.input[1] * stride];
            for (to, from) in map_rows.chunks_exact_mut(stride).zip(x.chunks_exact(inputs)) {
                to[..inputs].copy_from_slice(from);
            }
            let at = |j: usize, tap: usize, c: usize| w[(j * channels + c) * taps + tap];
            each_isa(|isa| {
                let x = QuantParams::new(1.0, zero).unwrap();
                let numbers = (&vec![1.0; n][..], &vec![0.0; n][..]);
                let layer = QuantConv::new(isa, windows, sizes, at, numbers, x).unwrap();
                let mut scratch = ConvScratch::new(QuantConv::scratch(&windows, &sizes));
                let mut y = vec![9.0; windows.count() * n];
                for share in shares(windows.count()) {
                    let out = &mut Out::F32(&mut y[share.start * n..share.end * n]);
                    quant_conv(isa, &layer, &map_rows, share, &mut scratch, &Epilogue::default(), out);
                }
                assert!(y.iter().zip(&want).all(|(&y, &want)| f64::from(y) == want), "{}", isa.name());
            });
        }
    }
}
