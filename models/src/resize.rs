//! Resizing as Pillow does it, bit for bit.
//!
//! Antialiased convolution in two passes with rounding to 8 bits between them. The filter is stretched by the
//! scale where the image shrinks; its weights are computed in `f64`, normalised and rounded to 22 fraction
//! bits; sums are `i32`.
//!
//! The horizontal pass comes first, except where the height loses more than twice the pixels that the width
//! loses: the rule of Pillow 13. Older Pillows always begin with the horizontal pass; of such images (taller
//! than 2:1, or squashed from tall ones) some of their pixels differ by one level.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{Image, View};

/// Fraction bits of a weight: 8 bits of pixel, 2 bits for overshoot and sign remain of 32.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// The longest side that is read or written.
const MAX_SIDE: usize = 1 << 20;
/// The longest side of an image of which only a window is written.
const MAX_WHOLE: usize = 1 << 30;
/// Maximum bytes of a resized image or of what lies between the passes.
pub(crate) const MAX_BYTES: u64 = 1 << 30;

/// The filter of a resize.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Triangle, support 1.
    Bilinear,
    /// Cubic convolution with a = -0.5, support 2.
    #[default]
    Bicubic,
}

impl Interpolation {
    fn support(self) -> f64 {
        match self {
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
        }
    }

    /// The filter's value at a distance from its centre.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Interpolation::Bilinear if x < 1.0 => 1.0 - x,
            Interpolation::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}

/// Pillow's `image.resize((width, height), how)`.
pub fn resize(image: &Image, width: usize, height: usize, how: Interpolation) -> Result<Image> {
    let whole = [0.0, 0.0, image.width() as f64, image.height() as f64];
    resize_region(image, whole, width, height, how)
}

/// Pillow's `image.resize((width, height), how, box=region)`; the region is left, top, right, bottom.
pub fn resize_region(
    image: &Image,
    region: [f64; 4],
    width: usize,
    height: usize,
    how: Interpolation,
) -> Result<Image> {
    let [left, top, right, bottom] = check_region(image, region)?;
    let across = Axis { input: image.width(), from: left, to: right, output: width, first: 0, count: width };
    let down = Axis { input: image.height(), from: top, to: bottom, output: height, first: 0, count: height };
    let mut resizer = Resizer::default();
    resizer.resample(image.view(), Plan { across, down, how })?;
    Image::new(width, height, image.channels(), resizer.out)
}

/// Pillow takes the region in single precision.
fn check_region(image: &Image, region: [f64; 4]) -> Result<[f64; 4]> {
    let [left, top, right, bottom] = region.map(|edge| f64::from(edge as f32));
    let inside =
        left >= 0.0 && right <= image.width() as f64 && top >= 0.0 && bottom <= image.height() as f64;
    if inside && left < right && top < bottom {
        return Ok([left, top, right, bottom]);
    }
    Err(Error::Image(format!("region {region:?} does not lie in a {image:?}")))
}

/// One direction of a resize: the pixels `first..first + count` of `output` that cover `from..to` of `input`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    input: usize,
    from: f64,
    to: f64,
    output: usize,
    first: usize,
    count: usize,
}

impl Axis {
    fn check(&self, side: &str) -> Result<()> {
        for (size, most) in [(self.input, MAX_SIDE), (self.output, MAX_WHOLE), (self.count, MAX_SIDE)] {
            if !(1..=most).contains(&size) {
                return Err(Error::Image(format!("{side} {size} in a resize: expected 1 to {most}")));
            }
        }
        if self.first > self.output - self.count.min(self.output) || self.count > self.output {
            let (first, count, all) = (self.first, self.count, self.output);
            return Err(Error::Image(format!("{side}: {count} pixels from {first} on do not lie in {all}")));
        }
        Ok(())
    }

    /// Whether every pixel stays what it is.
    fn is_identity(&self) -> bool {
        self.from == 0.0
            && self.to == self.input as f64
            && self.output == self.input
            && self.count == self.output
    }

    /// Input pixels for one output pixel.
    fn scale(&self) -> f64 {
        // Pillow subtracts in single precision.
        f64::from(self.to as f32 - self.from as f32) / self.output as f64
    }

    /// How far the filter reaches to either side.
    fn support(&self, how: Interpolation) -> f64 {
        how.support() * self.scale().max(1.0)
    }

    /// Maximum number of input pixels that the filter reaches.
    fn reach(&self, how: Interpolation) -> usize {
        self.support(how).ceil() as usize * 2 + 1
    }

    /// Where the `i`th pixel's centre lies in the input.
    fn centre(&self, i: usize) -> f64 {
        self.from + ((self.first + i) as f64 + 0.5) * self.scale()
    }

    /// The input pixels that the `i`th pixel is made of.
    fn window(&self, i: usize, how: Interpolation) -> Range<usize> {
        let (centre, support) = (self.centre(i), self.support(how));
        let start = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(self.input);
        start..start + end.saturating_sub(start).min(self.reach(how))
    }

    /// The input pixels that any pixel is made of.
    fn seen(&self, how: Interpolation) -> Range<usize> {
        self.window(0, how).start..self.window(self.count - 1, how).end
    }
}

/// The weights of every output pixel of an axis.
#[derive(Debug, Default)]
struct Weights {
    /// What they are for: the next image of the same size finds them here.
    of: Option<(Axis, Interpolation)>,
    /// First input pixel and number of weights.
    windows: Vec<(usize, usize)>,
    /// `reach` a window, zero behind the window's end.
    values: Vec<i32>,
    /// A window's weights before they are rounded.
    exact: Vec<f64>,
    reach: usize,
}

impl Weights {
    fn set(&mut self, axis: Axis, how: Interpolation) {
        if self.of == Some((axis, how)) {
            return;
        }
        let inverse = 1.0 / axis.scale().max(1.0);
        self.of = Some((axis, how));
        self.reach = axis.reach(how);
        room(&mut self.exact, self.reach).resize(self.reach, 0.0);
        room(&mut self.values, axis.count * self.reach).resize(axis.count * self.reach, 0);
        let windows = room(&mut self.windows, axis.count);
        for (i, values) in self.values.chunks_exact_mut(self.reach).enumerate() {
            let (window, centre) = (axis.window(i, how), axis.centre(i));
            let exact = &mut self.exact[..window.len()];
            let mut sum = 0.0;
            for (x, value) in window.clone().zip(exact.iter_mut()) {
                *value = how.weight((x as f64 - centre + 0.5) * inverse);
                sum += *value;
            }
            for (value, exact) in values.iter_mut().zip(exact.iter()) {
                *value = fixed(if sum == 0.0 { *exact } else { exact / sum });
            }
            windows.push((window.start, window.len()));
        }
    }

    /// Bytes that [`Weights::set`] takes.
    fn bytes(axis: Axis, how: Interpolation) -> u64 {
        let (count, reach) = (axis.count as u64, axis.reach(how) as u64);
        count * reach * 4 + count * size_of::<(usize, usize)>() as u64 + reach * 8
    }

    /// Each window's first input pixel and weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let values = self.values.chunks_exact(self.reach);
        self.windows.iter().zip(values).map(|(&(start, length), values)| (start, &values[..length]))
    }
}

/// A weight in fixed point, half away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    if scaled < 0.0 { (scaled - 0.5) as i32 } else { (scaled + 0.5) as i32 }
}

/// A sum of weighted pixels as a pixel.
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Where sums begin, so that the shift in [`clip`] rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The list, empty and with room for exactly that many, where it has less.
pub(crate) fn room<T>(list: &mut Vec<T>, count: usize) -> &mut Vec<T> {
    list.clear();
    list.reserve_exact(count);
    list
}

/// A part of a resized image.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    across: Axis,
    down: Axis,
    how: Interpolation,
}

impl Plan {
    /// Of a `from[0]` x `from[1]` image resized to `size`: `count` pixels a side from `first` on.
    pub(crate) fn window(
        from: [usize; 2],
        size: [usize; 2],
        first: [usize; 2],
        count: [usize; 2],
        how: Interpolation,
    ) -> Plan {
        let axis = |i: usize| Axis {
            input: from[i],
            from: 0.0,
            to: from[i] as f64,
            output: size[i],
            first: first[i],
            count: count[i],
        };
        Plan { across: axis(0), down: axis(1), how }
    }

    /// What the pixels cover of the image: left, top, right, bottom.
    pub(crate) fn region(&self) -> [f64; 4] {
        let edge = |axis: &Axis, i: usize| axis.from + i as f64 * (axis.to - axis.from) / axis.output as f64;
        let [across, down] = [&self.across, &self.down];
        let [right, bottom] = [across, down].map(|axis| edge(axis, axis.first + axis.count));
        [edge(across, across.first), edge(down, down.first), right, bottom]
    }

    /// Refuses sizes that no image has or that take too much memory.
    pub(crate) fn check(&self, channels: usize) -> Result<()> {
        let Plan { across, down, .. } = self;
        across.check("width")?;
        down.check("height")?;
        let area = |width: usize, height: usize| width as u64 * height as u64 * channels as u64;
        // Whichever pass comes first.
        let between = area(across.count, down.input).max(area(across.input, down.count));
        if between.max(area(across.count, down.count)) > MAX_BYTES {
            return Err(Error::Image(format!(
                "resizing {} x {} pixels to {} x {} takes too much memory",
                across.input, down.input, across.count, down.count
            )));
        }
        Ok(())
    }

    /// Whether the height loses more than twice the pixels that the width loses. Pillow counts those of the whole
    /// image, even if only a region is resized.
    fn vertical_first(&self) -> bool {
        let lost = |axis: Axis| axis.input as i64 - axis.output as i64;
        lost(self.down) > 0 && lost(self.down) > 2 * lost(self.across)
    }

    /// Bytes that a [`Resizer`] takes for it.
    pub(crate) fn bytes(&self, channels: usize) -> Result<u64> {
        self.check(channels)?;
        let &Plan { across, down, how } = self;
        let area = |width: usize, height: usize| width as u64 * height as u64 * channels as u64;
        let weights = |axis: Axis| if axis.is_identity() { 0 } else { Weights::bytes(axis, how) };
        let (between, sums) = match (across.is_identity(), down.is_identity()) {
            (_, true) => (0, 0),
            (true, false) => (0, across.input),
            _ if self.vertical_first() => (area(across.seen(how).len(), down.count), across.seen(how).len()),
            _ => (area(across.count, down.seen(how).len()), across.count),
        };
        let out = area(across.count, down.count);
        Ok(weights(across) + weights(down) + between + out + 4 * area(sums, 1))
    }
}

/// Resizes one image after another in buffers that it keeps: of images of one size, all but the first allocate
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Resizer {
    columns: Weights,
    rows: Weights,
    sums: Vec<i32>,
    between: Vec<u8>,
    out: Vec<u8>,
}

impl Resizer {
    /// The planned part of an image.
    pub(crate) fn resample(&mut self, image: View<'_>, plan: Plan) -> Result<&[u8]> {
        plan.check(image.channels())?;
        match image.channels() {
            1 => self.passes::<1>(image, plan),
            _ => self.passes::<3>(image, plan),
        }
        Ok(&self.out)
    }

    /// Bytes of all buffers.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> u64 {
        let of = |weights: &Weights| {
            let windows = weights.windows.capacity() * size_of::<(usize, usize)>();
            windows + weights.values.capacity() * 4 + weights.exact.capacity() * 8
        };
        let buffers = self.sums.capacity() * 4 + self.between.capacity() + self.out.capacity();
        (of(&self.columns) + of(&self.rows) + buffers) as u64
    }

    /// The last result, itself.
    pub(crate) fn into_out(self) -> Vec<u8> {
        self.out
    }

    /// Both passes, in Pillow's order; one that changes nothing is left out.
    fn passes<const CHANNELS: usize>(&mut self, image: View<'_>, plan: Plan) {
        let Plan { across, down, how } = plan;
        let Resizer { columns, rows, sums, between, out } = self;
        if !across.is_identity() {
            columns.set(across, how);
        }
        if !down.is_identity() {
            rows.set(down, how);
        }
        room(out, across.count * down.count * CHANNELS);
        let (data, stride) = (image.data(), image.stride());
        match (across.is_identity(), down.is_identity()) {
            (true, true) => image.rows().for_each(|row| out.extend_from_slice(row)),
            (false, true) => squeeze::<CHANNELS>(image.rows(), 0, columns, out),
            (true, false) => stack(data, stride, 0, 0..across.input * CHANNELS, rows, sums, out),
            (false, false) if plan.vertical_first() => {
                let seen = across.seen(how);
                let bytes = seen.start * CHANNELS..seen.end * CHANNELS;
                room(between, down.count * bytes.len());
                stack(data, stride, 0, bytes.clone(), rows, sums, between);
                squeeze::<CHANNELS>(between.chunks_exact(bytes.len()), seen.start, columns, out);
            }
            (false, false) => {
                let seen = down.seen(how);
                room(between, across.count * CHANNELS * seen.len());
                squeeze::<CHANNELS>(image.rows().skip(seen.start).take(seen.len()), 0, columns, between);
                let stride = across.count * CHANNELS;
                stack(between, stride, seen.start, 0..stride, rows, sums, out);
            }
        }
    }
}

/// The horizontal pass over rows that begin with the image's column `from`.
fn squeeze<'a, const CHANNELS: usize>(
    rows: impl Iterator<Item = &'a [u8]>,
    from: usize,
    weights: &Weights,
    out: &mut Vec<u8>,
) {
    for row in rows {
        let (pixels, _) = row.as_chunks::<CHANNELS>();
        for (start, values) in weights.iter() {
            let mut sums = [HALF; CHANNELS];
            for (pixel, &weight) in pixels[start - from..].iter().zip(values) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            out.extend(sums.map(clip));
        }
    }
}

/// The vertical pass over some bytes of rows `stride` bytes apart, the first of which is the image's row `from`.
fn stack(
    rows: &[u8],
    stride: usize,
    from: usize,
    bytes: Range<usize>,
    weights: &Weights,
    sums: &mut Vec<i32>,
    out: &mut Vec<u8>,
) {
    room(sums, bytes.len()).resize(bytes.len(), HALF);
    for (start, values) in weights.iter() {
        sums.fill(HALF);
        // The last row may lack the gap behind it.
        for (row, &weight) in rows[(start - from) * stride..].chunks(stride).zip(values) {
            for (sum, &value) in sums.iter_mut().zip(&row[bytes.clone()]) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| clip(sum)));
    }
}
