//! The largest value in each window of a map, channel by channel.

use std::ops::Range;

use crate::isa::dispatch;
use crate::quantize::{LANES, Out};
use crate::windows::Windows;

/// The largest values of up to [`LANES`] channels of a window, from `channel` on; rows of the map are `stride` apart.
#[inline(always)]
fn largest(
    windows: &Windows,
    window: usize,
    (x, stride): (&[f32], usize),
    (channel, count): (usize, usize),
) -> [f32; LANES] {
    let [height, width] = windows.input;
    let (y, across) = (window / windows.output[1], window % windows.output[1]);
    // What ONNX Runtime and tract answer for a window that lies beside the map.
    let mut most = [f32::MIN; LANES];
    for ky in 0..windows.kernel[0] {
        let line = windows.line(y, ky);
        for kx in 0..windows.kernel[1] {
            let column = windows.column(across, kx);
            if line >= height || column >= width {
                continue;
            }
            let from = &x[(line * width + column) * stride + channel..];
            // Two ways, so that whole registers know their width.
            if let (LANES, Some(from)) = (count, from.first_chunk::<LANES>()) {
                for l in 0..LANES {
                    most[l] = if from[l] > most[l] { from[l] } else { most[l] };
                }
            } else {
                for (most, &from) in most.iter_mut().zip(&from[..count]) {
                    *most = if from > *most { from } else { *most };
                }
            }
        }
    }
    most
}

#[inline(always)]
fn body<const FMA: bool, const WIDE: bool>(
    windows: &Windows,
    x: &[f32],
    channels: usize,
    range: Range<usize>,
    out: &mut Out<'_>,
) {
    let stride = out.row_stride(channels);
    for (r, window) in range.enumerate() {
        for channel in (0..channels).step_by(LANES) {
            let count = LANES.min(channels - channel);
            let most = largest(windows, window, (x, channels), (channel, count));
            out.row_at(r * stride + channel, &most[..count]);
        }
    }
}

dispatch! {
    /// The windows `range` of a map with rows of `channels` values; as many rows go to `out`, see [`Out`]. Where a window
    /// has no pixel of the map, the result is the lowest number.
    pub fn max_pool(windows: &Windows, x: &[f32], channels: usize, range: Range<usize>, out: &mut Out<'_>) = body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plain;
    use crate::test_support::{each_isa, values, widen};
    use crate::windows::tests::any_windows;

    proptest! {
        #[test]
        fn every_isa_is_the_formula(windows in any_windows(), channels in 1usize..40, seed: u64) {
            let pixels = windows.input[0] * windows.input[1];
            let x = values(pixels * channels, seed);
            let mut want = vec![0.0; windows.count() * channels];
            plain::max_pool(&windows, channels, &widen(&x), &mut want);
            let first = windows.count() / 3;
            each_isa(|isa| {
                let mut y = vec![9.0; (windows.count() - first) * channels];
                max_pool(isa, &windows, &x, channels, first..windows.count(), &mut Out::F32(&mut y));
                assert!(y.iter().zip(&want[first * channels..]).all(|(&y, &want)| f64::from(y) == want));
            });
        }
    }
}
