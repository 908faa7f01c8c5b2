//! Windows that slide over a feature map, and their values gathered to rows, so that a convolution is a linear layer.
//!
//! A map `[height, width, channels]` is a matrix with a row for each pixel, line by line (NHWC). The row of a window
//! holds its pixels in order, each with its channels: the inner sum of a convolution in the order `ky, kx, channel`.

use std::ops::Range;

/// Sizes of maps and windows, height before width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The map that is read.
    pub input: [usize; 2],
    /// The map that is written: a window each.
    pub output: [usize; 2],
    /// Pixels of a window.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Distance of a window's neighbouring pixels.
    pub dilation: [usize; 2],
    /// Lines above the first of the map, and columns before the first, that windows reach. How far they reach below and
    /// to the right follows from the sizes.
    pub padding: [usize; 2],
}

impl Windows {
    /// The largest side of a map or a window: products of a few stay within the machine's integers.
    const MAX_SIDE: usize = 1 << 20;

    /// Whether all sizes are positive and none is out of reach.
    pub fn are_valid(&self) -> bool {
        let Windows { input, output, kernel, stride, dilation, padding } = self;
        let sizes = [input, output, kernel, stride, dilation];
        let fit = |side: usize| (1..=Windows::MAX_SIDE).contains(&side);
        sizes.into_iter().flatten().all(|&side| fit(side))
            && padding.iter().all(|&side| side < Windows::MAX_SIDE)
    }

    /// Number of windows.
    pub fn count(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Pixels of a window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether each window is the pixel of its own place.
    pub fn are_pixels(&self) -> bool {
        (self.kernel, self.stride, self.padding) == ([1; 2], [1; 2], [0; 2]) && self.input == self.output
    }

    /// The pixels that some windows read: whole lines of the map.
    pub fn pixels_of(&self, windows: Range<usize>) -> Range<usize> {
        if windows.is_empty() {
            return 0..0;
        }
        let [height, width] = self.input;
        let [first, last] = [windows.start, windows.end - 1].map(|window| window / self.output[1]);
        let start = (first * self.stride[0]).saturating_sub(self.padding[0]).min(height);
        let reach = (self.kernel[0] - 1) * self.dilation[0] + 1;
        let end = (last * self.stride[0] + reach).saturating_sub(self.padding[0]).min(height);
        start.min(end) * width..end * width
    }

    /// The line of the map that is line `ky` of the windows in line `y`; a number out of range beyond the map.
    #[inline(always)]
    pub(crate) fn line(&self, y: usize, ky: usize) -> usize {
        (y * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.padding[0])
    }

    /// The same for columns.
    #[inline(always)]
    pub(crate) fn column(&self, x: usize, kx: usize) -> usize {
        (x * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.padding[1])
    }
}

/// The values of a map where they lie.
#[derive(Clone, Copy, Debug)]
pub struct MapView<'a, T> {
    /// From the first value of the first channel on.
    pub data: &'a [T],
    /// Distance of a line's first pixel from the next one's.
    pub line: usize,
    /// Distance of neighbouring pixels.
    pub pixel: usize,
    /// Distance of a pixel's channels.
    pub channel: usize,
}

impl<'a, T> MapView<'a, T> {
    /// A map of rows without a gap, or with one: `pixel` values from one to the next.
    pub fn of_rows(data: &'a [T], width: usize, pixel: usize) -> MapView<'a, T> {
        MapView { data, line: width * pixel, pixel, channel: 1 }
    }
}

/// Writes the windows `range`, one a row of `out`, rows `stride` apart: some `channels` of each pixel, `copy` of what
/// lies there or `padding` beyond the map. What a row has beyond its window stays as it is.
#[inline(always)]
pub(crate) fn gather<T, D: Copy>(
    windows: &Windows,
    map: &MapView<'_, T>,
    channels: Range<usize>,
    range: Range<usize>,
    padding: D,
    (out, stride): (&mut [D], usize),
    value: impl Fn(&T) -> D,
    copy: impl Fn(&[T], &mut [D]),
) {
    let [[height, width], [kernel_h, kernel_w]] = [windows.input, windows.kernel];
    let each = channels.len();
    if map.channel != 1 {
        return gather_planes(windows, map, channels, range, padding, (out, stride), value);
    }
    let neighbours = map.channel == 1 && map.pixel == each && windows.dilation[1] == 1;
    let (mut y, mut x) = (range.start / windows.output[1], range.start % windows.output[1]);
    for row in out.chunks_exact_mut(stride).take(range.len()) {
        let lines = row[..kernel_h * kernel_w * each].chunks_exact_mut(kernel_w * each);
        for (ky, to) in lines.enumerate() {
            let line = windows.line(y, ky);
            if line >= height {
                to.fill(padding);
                continue;
            }
            let from = &map.data[line * map.line..];
            if neighbours {
                // The part of the window's line that lies within the map, in one piece.
                let left = x * windows.stride[1];
                let before = windows.padding[1].saturating_sub(left).min(kernel_w);
                let first = (left + before).wrapping_sub(windows.padding[1]);
                let within = (kernel_w - before).min(width.saturating_sub(first));
                if within == kernel_w {
                    copy(&from[first * each..][..within * each], to);
                    continue;
                }
                let (head, rest) = to.split_at_mut(before * each);
                let (body, tail) = rest.split_at_mut(within * each);
                head.fill(padding);
                if within > 0 {
                    copy(&from[first * each..][..within * each], body);
                }
                tail.fill(padding);
                continue;
            }
            for (kx, to) in to.chunks_exact_mut(each).enumerate() {
                match windows.column(x, kx) {
                    column if column >= width => to.fill(padding),
                    column => copy(&from[column * map.pixel + channels.start..][..each], to),
                }
            }
        }
        x += 1;
        if x == windows.output[1] {
            (y, x) = (y + 1, 0);
        }
    }
}

/// The same of a map whose channels lie apart, as those of an image of floats.
#[inline(always)]
fn gather_planes<T, D: Copy>(
    windows: &Windows,
    map: &MapView<'_, T>,
    channels: Range<usize>,
    range: Range<usize>,
    padding: D,
    (out, stride): (&mut [D], usize),
    value: impl Fn(&T) -> D,
) {
    let [[height, width], [kernel_h, kernel_w]] = [windows.input, windows.kernel];
    let each = channels.len();
    for (window, row) in range.clone().zip(out.chunks_exact_mut(stride)) {
        let (y, x) = (window / windows.output[1], window % windows.output[1]);
        let first = windows.column(x, 0);
        let is_whole = first < width && first + kernel_w <= width;
        let is_colour = each == 3 && map.pixel == 1 && windows.dilation[1] == 1 && is_whole;
        let lines = row[..kernel_h * kernel_w * each].chunks_exact_mut(kernel_w * each);
        for (ky, to) in lines.enumerate() {
            let line = windows.line(y, ky);
            if line >= height {
                to.fill(padding);
                continue;
            }
            let plane = |c: usize| &map.data[line * map.line + (channels.start + c) * map.channel..];
            if is_colour {
                let [red, green, blue] = [0, 1, 2].map(|c| &plane(c)[first..][..kernel_w]);
                let pixels = red.iter().zip(green).zip(blue);
                for (to, ((red, green), blue)) in to.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                    *to = [value(red), value(green), value(blue)];
                }
                continue;
            }
            for c in 0..each {
                for kx in 0..kernel_w {
                    to[kx * each + c] = match windows.column(x, kx) {
                        column if column >= width => padding,
                        column => value(&plane(c)[column * map.pixel]),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Windows of all kinds over small maps, with the number of channels.
    pub(crate) fn any_windows() -> impl Strategy<Value = Windows> {
        let side = || (1usize..9, 1usize..5, 1usize..4, 1usize..3, 0usize..4, 0usize..4);
        (side(), side()).prop_filter_map("windows that fit", |(down, across)| {
            let axis = |(input, kernel, stride, dilation, before, after): (
                usize,
                usize,
                usize,
                usize,
                usize,
                usize,
            )| {
                let reach = (kernel - 1) * dilation + 1;
                let output = (input + before + after).checked_sub(reach)? / stride + 1;
                Some([input, output, kernel, stride, dilation, before])
            };
            let (down, across) = (axis(down)?, axis(across)?);
            let pair = |i: usize| [down[i], across[i]];
            let windows = Windows {
                input: pair(0),
                output: pair(1),
                kernel: pair(2),
                stride: pair(3),
                dilation: pair(4),
                padding: pair(5),
            };
            windows.are_valid().then_some(windows)
        })
    }

    #[test]
    fn impossible_sizes_are_not_valid() {
        let whole = Windows {
            input: [4, 5],
            output: [4, 5],
            kernel: [3; 2],
            stride: [1; 2],
            dilation: [1; 2],
            padding: [1; 2],
        };
        assert!(whole.are_valid() && !whole.are_pixels());
        assert!(!Windows { kernel: [0, 3], ..whole }.are_valid());
        assert!(!Windows { input: [usize::MAX, 5], ..whole }.are_valid());
        assert_eq!(whole.pixels_of(0..1), 0..10);
        assert_eq!(whole.pixels_of(6..11), 0..20);
        assert_eq!(whole.pixels_of(15..20), 10..20);
    }

    proptest! {
        #[test]
        fn gathered_rows_are_the_windows(windows in any_windows(), channels in 1usize..5, layout in 0usize..4) {
            let [height, width] = windows.input;
            let pixels = height * width;
            // Neighbouring channels, without and with a gap; planes; a part of the channels.
            let (line, pixel, channel) = [
                (width * channels, channels, 1),
                (width * (channels + 2), channels + 2, 1),
                (width, 1, pixels),
                (width * (channels + 1), channels + 1, 1),
            ][layout];
            let taken = usize::from(layout == 3)..channels + usize::from(layout == 3);
            let data: Vec<u32> = (0..pixels * (channels + 2)).map(|value| value as u32).collect();
            let map = MapView { data: &data, line, pixel, channel };
            let (stride, inner) = (windows.taps() * channels + 3, windows.taps() * channels);
            let first = windows.count() / 3;
            let mut out = vec![7_000_000u32; (windows.count() - first) * stride];
            gather(
                &windows, &map, taken.clone(), first..windows.count(), 9_000_000, (&mut out, stride), |&x| x,
                |from, to| to.copy_from_slice(from),
            );
            for (window, row) in (first..windows.count()).zip(out.chunks_exact(stride)) {
                let (y, x) = (window / windows.output[1], window % windows.output[1]);
                for (i, &value) in row[..inner].iter().enumerate() {
                    let (tap, c) = (i / channels, taken.start + i % channels);
                    let (ky, kx) = (tap / windows.kernel[1], tap % windows.kernel[1]);
                    let down = (y * windows.stride[0] + ky * windows.dilation[0]) as i64 - windows.padding[0] as i64;
                    let across = (x * windows.stride[1] + kx * windows.dilation[1]) as i64 - windows.padding[1] as i64;
                    let within = (0..height as i64).contains(&down) && (0..width as i64).contains(&across);
                    let want = match within {
                        true => (down as usize * line + across as usize * pixel + c * channel) as u32,
                        false => 9_000_000,
                    };
                    prop_assert_eq!(value, want);
                    prop_assert!(!within || windows.pixels_of(window..window + 1).contains(&(down as usize * width)));
                }
                prop_assert!(row[inner..].iter().all(|&value| value == 7_000_000));
            }
        }
    }
}
