//! Depthwise convolutions on bytes, with the loops of [`mod@crate::depthwise`]: the sums are exact on every instruction set.

use std::ops::Range;

use crate::depthwise::{Ending, Map, Product, body, panels};
use crate::dot::COLS;
use crate::epilogue::Epilogue;
use crate::isa::dispatch;
use crate::linear::padded;
use crate::math::madd;
use crate::quant_linear::row_stride;
use crate::quantize::{Out, QuantParams};
use crate::windows::Windows;

/// A depthwise convolution with a weight of signed bytes.
#[derive(Clone, Debug)]
pub struct QuantDepthwise {
    windows: Windows,
    channels: usize,
    /// Widened: a product with a byte fits into 16 bits.
    weight: Vec<[i16; COLS]>,
    /// What sums begin with: what the zero point adds to them, taken off.
    start: Vec<[i32; COLS]>,
    scale: Vec<[f32; COLS]>,
    bias: Vec<[f32; COLS]>,
    zero: u8,
}

impl QuantDepthwise {
    /// Packs a weight, read by `at(channel, tap)`, with a scale for each channel and a bias, for activations of `x`.
    ///
    /// None where sizes do not fit, as for [`Depthwise::new`](crate::depthwise::Depthwise::new), or the arithmetic would not be exact: too many taps, or a
    /// weight of -128.
    pub fn new(
        windows: Windows,
        channels: usize,
        at: impl Fn(usize, usize) -> i8,
        (scales, bias): (&[f32], &[f32]),
        x: QuantParams,
    ) -> Option<QuantDepthwise> {
        let fits = windows.are_valid()
            && channels > 0
            && bias.len() == channels
            && scales.len() == channels
            && windows.taps() <= crate::QuantLinear::MAX_INPUTS;
        if !fits {
            return None;
        }
        let taps = windows.taps();
        let weight = panels(channels, taps, |c, tap| i16::from(at(c, tap)));
        if weight.as_flattened().contains(&i16::from(i8::MIN)) {
            return None;
        }
        let start = weight.chunks_exact(taps).map(|panel| {
            let mut sums = [0i32; COLS];
            for step in panel {
                for c in 0..COLS {
                    sums[c] -= i32::from(x.zero()) * i32::from(step[c]);
                }
            }
            sums
        });
        let start = start.collect();
        let scales: Vec<f32> = scales.iter().map(|scale| scale * x.scale()).collect();
        let (scale, bias) = (padded(&scales), padded(bias));
        Some(QuantDepthwise { windows, channels, weight, start, scale, bias, zero: x.zero() })
    }

    /// How windows lie over the map.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Values of a pixel, before and after.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes of everything packed.
    pub fn bytes(&self) -> usize {
        let numbers =
            size_of_val(&self.start[..]) + size_of_val(&self.scale[..]) + size_of_val(&self.bias[..]);
        size_of_val(&self.weight[..]) + numbers
    }

    /// Bytes of everything packed, of these sizes.
    pub fn packed_bytes(windows: &Windows, channels: usize) -> usize {
        let panel = windows
            .taps()
            .saturating_mul(size_of::<[i16; COLS]>())
            .saturating_add(3 * size_of::<[f32; COLS]>());
        channels.div_ceil(COLS).saturating_mul(panel)
    }
}

enum Bytes<const WIDE: bool> {}

impl<const WIDE: bool> Product for Bytes<WIDE> {
    type X = u8;
    type W = i16;
    type Sum = i32;
    const BEYOND_COUNTS: bool = true;

    #[inline(always)]
    fn add<const FMA: bool>(sums: &mut [i32; COLS], x: &[u8; COLS], w: &[i16; COLS]) {
        #[cfg(target_arch = "x86_64")]
        if FMA {
            // SAFETY: on x86-64 kernels are compiled so only for processors with AVX2 and FMA, or AVX-512; a product is within
            // 255 · 127 < 2^15.
            return unsafe {
                if WIDE {
                    crate::avx512::add_byte_products(sums, x, w)
                } else {
                    crate::avx2::add_byte_products(sums, x, w)
                }
            };
        }
        for c in 0..COLS {
            // Within 255 · 127 < 2^15: multiplied in 16 bits, which is faster than in 32.
            sums[c] += i32::from(i16::from(x[c]).wrapping_mul(w[c]));
        }
    }
}

/// `sums · scale + bias`, fused.
#[inline(always)]
fn scaled<const FMA: bool, const WIDE: bool>(
    sums: &[i32; COLS],
    scale: &[f32; COLS],
    bias: &[f32; COLS],
) -> [f32; COLS] {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: on x86-64 kernels are compiled so only for processors with AVX2 and FMA, or AVX-512.
        return unsafe {
            if WIDE {
                crate::avx512::scaled(sums, scale, bias)
            } else {
                crate::avx2::scaled(sums, scale, bias)
            }
        };
    }
    std::array::from_fn(|c| madd::<FMA>(sums[c] as f32, scale[c], bias[c]))
}

/// Ends sums of integers.
struct ByteEnding<'a, 'b> {
    layer: &'a QuantDepthwise,
    epilogue: &'a Epilogue<'a>,
    out: &'a mut Out<'b>,
}

impl<const WIDE: bool> Ending<Bytes<WIDE>> for ByteEnding<'_, '_> {
    #[inline(always)]
    fn start(&self, panel: usize) -> [i32; COLS] {
        self.layer.start[panel]
    }

    #[inline(always)]
    fn finish<const FMA: bool, const ROWS: usize>(
        &mut self,
        sums: &[[i32; COLS]; ROWS],
        panel: usize,
        at: usize,
        rows: usize,
    ) {
        let (scale, bias) = (&self.layer.scale[panel], &self.layer.bias[panel]);
        let (mut tile, n) = ([[0.0; COLS]; ROWS], self.layer.channels);
        for (values, sums) in tile.iter_mut().zip(sums) {
            *values = scaled::<FMA, WIDE>(sums, scale, bias);
        }
        let count = COLS.min(n - panel * COLS);
        self.epilogue.finish::<FMA, WIDE>(&mut tile[..rows], [at, panel * COLS], [n, count], self.out);
    }
}

#[inline(always)]
fn bytes_body<const FMA: bool, const WIDE: bool>(
    layer: &QuantDepthwise,
    x: &[u8],
    range: Range<usize>,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let map = Map { x, stride: row_stride(layer.channels), beyond: [layer.zero; COLS] };
    let mut ending = ByteEnding { layer, epilogue, out };
    body::<Bytes<WIDE>, FMA>(&layer.windows, layer.channels, &map, &layer.weight, range, &mut ending);
}

dispatch! {
    /// The same on bytes, whose rows lie [`row_stride`] apart; beyond the map there are zeros.
    pub fn quant_depthwise(layer: &QuantDepthwise, x: &[u8], range: Range<usize>, epilogue: &Epilogue<'_>, out: &mut Out<'_>) = bytes_body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plain;
    use crate::test_support::{each_isa, values};
    use crate::windows::tests::any_windows;

    #[test]
    fn weights_without_a_negative_are_refused() {
        let side = [2; 2];
        let windows = Windows {
            input: side,
            output: side,
            kernel: [1; 2],
            stride: [1; 2],
            dilation: [1; 2],
            padding: [0; 2],
        };
        let x = QuantParams::new(1.0, 3).unwrap();
        let new = |weight: i8| QuantDepthwise::new(windows, 1, |_, _| weight, (&[1.0], &[0.0]), x).is_some();
        assert!(new(-127) && !new(-128));
    }

    proptest! {
        #[test]
        fn sums_of_bytes_are_exact_on_every_isa(
            windows in any_windows(), channels in 1usize..50, seed: u64, zero: u8
        ) {
            let (n, taps, stride) = (channels, windows.taps(), row_stride(channels));
            let pixels = windows.input[0] * windows.input[1];
            let integers = |n: usize, seed: u64| values(n, seed).into_iter().map(|x| (x * 127.9) as i8);
            let x: Vec<u8> = integers(pixels * stride, seed).map(|x| x as u8).collect();
            let w: Vec<i8> = integers(n * taps, seed ^ 1).collect();
            let numbers = x.chunks(stride).flat_map(|x| &x[..n]);
            let numbers: Vec<f64> = numbers.map(|&x| f64::from(x) - f64::from(zero)).collect();
            let wide: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
            let mut want = vec![0.0; windows.count() * n];
            plain::conv(&windows, [n, 1, n], &numbers, &wide, &vec![0.0; n], &mut want);
            let quantize = QuantParams::new(1.0, zero).unwrap();
            let scales = (&vec![1.0; n][..], &vec![0.0; n][..]);
            let layer = QuantDepthwise::new(windows, n, |c, tap| w[c * taps + tap], scales, quantize).unwrap();
            each_isa(|isa| {
                let mut y = vec![9.0; windows.count() * n];
                let out = &mut Out::F32(&mut y);
                quant_depthwise(isa, &layer, &x, 0..windows.count(), &Epilogue::default(), out);
                assert!(y.iter().zip(&want).all(|(&y, &want)| f64::from(y) == want), "{}", isa.name());
            });
        }
    }
}
