//! Resizing as Pillow does it, bit for bit.
//!
//! Antialiased convolution in two passes with rounding to 8 bits between them. The filter is stretched by the
//! scale where the picture shrinks; its weights are computed in `f64`, normalised and rounded to 22 fraction
//! bits; sums are `i32`.
//!
//! The horizontal pass comes first, except where the height loses more than twice the pixels that the width
//! loses: the rule of Pillow 13. Older Pillows always begin with the horizontal pass; of such pictures (taller
//! than 2:1, or squashed from tall ones) some of their pixels differ by one level.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::picture::Picture;

/// Fraction bits of a weight: 8 bits of pixel, 2 bits for overshoot and sign remain of 32.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// The longest side that is read or written.
const MAX_SIDE: usize = 1 << 20;
/// The longest side of a picture of which only a window is written.
const MAX_WHOLE: usize = 1 << 30;
/// Most bytes of a resized picture or of what lies between the passes.
const MAX_BYTES: u64 = 1 << 30;

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

/// Pillow's `picture.resize((width, height), how)`.
pub fn resize(picture: &Picture, width: usize, height: usize, how: Interpolation) -> Result<Picture> {
    let whole = [0.0, 0.0, picture.width() as f64, picture.height() as f64];
    resize_region(picture, whole, width, height, how)
}

/// Pillow's `picture.resize((width, height), how, box=region)`; the region is left, top, right, bottom.
pub fn resize_region(
    picture: &Picture,
    region: [f64; 4],
    width: usize,
    height: usize,
    how: Interpolation,
) -> Result<Picture> {
    let [left, top, right, bottom] = check_region(picture, region)?;
    let across =
        Axis { input: picture.width(), from: left, to: right, output: width, first: 0, count: width };
    let down =
        Axis { input: picture.height(), from: top, to: bottom, output: height, first: 0, count: height };
    resample(picture, across, down, how)
}

/// A part of `resize(picture, size)`: `count` pixels a side from `first` on, without computing the rest.
pub(crate) fn resize_window(
    picture: &Picture,
    size: [usize; 2],
    first: [usize; 2],
    count: [usize; 2],
    how: Interpolation,
) -> Result<Picture> {
    let axis = |input: usize, i: usize| Axis {
        input,
        from: 0.0,
        to: input as f64,
        output: size[i],
        first: first[i],
        count: count[i],
    };
    resample(picture, axis(picture.width(), 0), axis(picture.height(), 1), how)
}

/// Pillow takes the region in single precision.
fn check_region(picture: &Picture, region: [f64; 4]) -> Result<[f64; 4]> {
    let [left, top, right, bottom] = region.map(|edge| f64::from(edge as f32));
    let inside =
        left >= 0.0 && right <= picture.width() as f64 && top >= 0.0 && bottom <= picture.height() as f64;
    if inside && left < right && top < bottom {
        return Ok([left, top, right, bottom]);
    }
    Err(Error::Picture(format!("region {region:?} does not lie in a {picture:?}")))
}

/// One direction of a resize: the pixels `first..first + count` of `output` that cover `from..to` of `input`.
#[derive(Clone, Copy)]
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
                return Err(Error::Picture(format!("{side} {size} in a resize: expected 1 to {most}")));
            }
        }
        if self.first > self.output - self.count.min(self.output) || self.count > self.output {
            let (first, count, all) = (self.first, self.count, self.output);
            return Err(Error::Picture(format!(
                "{side}: {count} pixels from {first} on do not lie in {all}"
            )));
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
}

/// The windows of input pixels, and the weights in them, of every output pixel of an axis.
struct Weights {
    /// First input pixel and number of weights.
    windows: Vec<(usize, usize)>,
    /// `stride` a window, zero behind the window's end.
    values: Vec<i32>,
    stride: usize,
}

impl Weights {
    fn new(axis: Axis, how: Interpolation) -> Weights {
        // Pillow subtracts in single precision.
        let scale = f64::from(axis.to as f32 - axis.from as f32) / axis.output as f64;
        let filter_scale = scale.max(1.0);
        let support = how.support() * filter_scale;
        let stride = support.ceil() as usize * 2 + 1;
        let mut weights =
            Weights { windows: Vec::with_capacity(axis.count), values: vec![0; axis.count * stride], stride };
        let mut exact = vec![0.0; stride];
        for (i, values) in weights.values.chunks_exact_mut(stride).enumerate() {
            let centre = axis.from + ((axis.first + i) as f64 + 0.5) * scale;
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(axis.input);
            let exact = &mut exact[..end.saturating_sub(start).min(stride)];
            let inverse = 1.0 / filter_scale;
            let mut sum = 0.0;
            for (x, value) in exact.iter_mut().enumerate() {
                *value = how.weight(((x + start) as f64 - centre + 0.5) * inverse);
                sum += *value;
            }
            for (value, exact) in values.iter_mut().zip(exact.iter()) {
                *value = fixed(if sum == 0.0 { *exact } else { exact / sum });
            }
            weights.windows.push((start, exact.len()));
        }
        weights
    }

    /// Each window's first input pixel and weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let values = self.values.chunks_exact(self.stride);
        self.windows.iter().zip(values).map(|(&(start, length), values)| (start, &values[..length]))
    }

    /// The input pixels that any window needs.
    fn range(&self) -> Range<usize> {
        let start = self.windows.first().map_or(0, |window| window.0);
        let end = self.windows.last().map_or(0, |window| window.0 + window.1);
        start..end
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

fn resample(picture: &Picture, across: Axis, down: Axis, how: Interpolation) -> Result<Picture> {
    across.check("width")?;
    down.check("height")?;
    let channels = picture.channels();
    let area = |width: usize, height: usize| width as u64 * height as u64 * channels as u64;
    // Whichever pass comes first.
    let between = area(across.count, down.input).max(area(across.input, down.count));
    if between.max(area(across.count, down.count)) > MAX_BYTES {
        let (width, height) = (across.count, down.count);
        return Err(Error::Picture(format!(
            "resizing {picture:?} to {width} x {height} takes too much memory"
        )));
    }
    let data = match channels {
        1 => passes::<1>(picture.data(), across, down, how),
        _ => passes::<3>(picture.data(), across, down, how),
    };
    Picture::new(across.count, down.count, channels, data)
}

/// Both passes, in Pillow's order; one that changes nothing is left out.
fn passes<const CHANNELS: usize>(data: &[u8], across: Axis, down: Axis, how: Interpolation) -> Vec<u8> {
    let columns = (!across.is_identity()).then(|| Weights::new(across, how));
    let rows = (!down.is_identity()).then(|| Weights::new(down, how));
    match (columns, rows) {
        (None, None) => data.to_vec(),
        (Some(columns), None) => squeeze::<CHANNELS>(data, across.input, 0, &columns),
        (None, Some(rows)) => stack(data, across.input * CHANNELS, 0, 0..across.input * CHANNELS, &rows),
        (Some(columns), Some(rows)) if vertical_first(across, down) => {
            let seen = columns.range();
            let bytes = seen.start * CHANNELS..seen.end * CHANNELS;
            let between = stack(data, across.input * CHANNELS, 0, bytes, &rows);
            squeeze::<CHANNELS>(&between, seen.len(), seen.start, &columns)
        }
        (Some(columns), Some(rows)) => {
            let seen = rows.range();
            let stride = across.input * CHANNELS;
            let data = &data[seen.start * stride..seen.end * stride];
            let between = squeeze::<CHANNELS>(data, across.input, 0, &columns);
            let stride = across.count * CHANNELS;
            stack(&between, stride, seen.start, 0..stride, &rows)
        }
    }
}

/// Whether the height loses more than twice the pixels that the width loses. Pillow counts those of the whole
/// picture, even if only a region is resized.
fn vertical_first(across: Axis, down: Axis) -> bool {
    let lost = |axis: Axis| axis.input as i64 - axis.output as i64;
    lost(down) > 0 && lost(down) > 2 * lost(across)
}

/// The horizontal pass over rows of `width` pixels, the first of which is the picture's column `from`.
fn squeeze<const CHANNELS: usize>(rows: &[u8], width: usize, from: usize, weights: &Weights) -> Vec<u8> {
    let height = rows.len() / (width * CHANNELS);
    let mut out = Vec::with_capacity(height * weights.windows.len() * CHANNELS);
    for row in rows.chunks_exact(width * CHANNELS) {
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
    out
}

/// The vertical pass over some bytes of rows of `stride` bytes, the first of which is the picture's row `from`.
fn stack(rows: &[u8], stride: usize, from: usize, bytes: Range<usize>, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(weights.windows.len() * bytes.len());
    let mut sums = vec![HALF; bytes.len()];
    for (start, values) in weights.iter() {
        sums.fill(HALF);
        for (row, &weight) in rows[(start - from) * stride..].chunks_exact(stride).zip(values) {
            for (sum, &value) in sums.iter_mut().zip(&row[bytes.clone()]) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| clip(sum)));
    }
    out
}
