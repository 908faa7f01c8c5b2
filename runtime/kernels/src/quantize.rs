//! Real numbers as bytes: `q = clamp(round(x / scale) + zero, 0, 255)`, `x ≈ (q - zero) · scale` (arXiv
//! 1712.05877, section 2.1; ONNX `QuantizeLinear`, which rounds ties to even).

use crate::isa::dispatch;
use crate::quant_linear::row_stride;

/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// One scale and zero point for all values of a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantParams {
    scale: f32,
    inverse: f32,
    zero: u8,
}

impl QuantParams {
    /// The largest scale, and the reciprocal of the smallest: far from where floats end.
    const LIMIT: f32 = 1e30;

    /// None unless the scale is positive and neither it nor its reciprocal is out of reach.
    pub fn new(scale: f32, zero: u8) -> Option<QuantParams> {
        let fits = (1.0 / QuantParams::LIMIT..=QuantParams::LIMIT).contains(&scale);
        fits.then(|| QuantParams { scale, inverse: 1.0 / scale, zero })
    }

    /// The distance of two neighbouring values.
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// The byte that stands for 0.
    pub fn zero(self) -> u8 {
        self.zero
    }

    /// The value that a byte stands for.
    #[inline(always)]
    pub fn value(self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero)) * self.scale
    }

    /// Levels from zero, not rounded yet.
    #[inline(always)]
    fn steps(self, x: f32) -> f32 {
        let zero = f32::from(self.zero);
        let steps = x * self.inverse;
        // Comparisons written so that a NaN gives some level.
        let steps = if steps > -zero { steps } else { -zero };
        if steps < 255.0 - zero { steps } else { 255.0 - zero }
    }

    /// The byte of one value.
    #[inline(always)]
    pub fn byte(self, x: f32) -> u8 {
        let rounded = (self.steps(x) + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        (rounded + i32::from(self.zero)) as u8
    }

    /// What the byte of one value stands for.
    #[inline(always)]
    pub(crate) fn round_trip(self, x: f32) -> f32 {
        (self.steps(x) + ROUND - ROUND) * self.scale
    }

    /// The bytes of sixteen values, of which the compiler makes the best vector code.
    #[inline(always)]
    pub(crate) fn bytes_of(self, from: &[f32; LANES]) -> [u8; LANES] {
        #[cfg(target_arch = "aarch64")]
        return crate::neon::bytes(from, self.inverse, self.zero);
        #[cfg(target_arch = "x86_64")]
        return crate::sse::bytes(from, self.inverse, self.zero);
        #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
        {
            let mut bytes = [0; LANES];
            for l in 0..LANES {
                bytes[l] = self.byte(from[l]);
            }
            bytes
        }
    }

    /// The bytes of as many values as both sides have.
    #[inline(always)]
    fn bytes(self, from: &[f32], to: &mut [u8]) {
        let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut::<LANES>(), from.as_chunks::<LANES>());
        for (to, from) in to.iter_mut().zip(from) {
            *to = self.bytes_of(from);
        }
        for (to, &from) in to_rest.iter_mut().zip(from_rest) {
            *to = self.byte(from);
        }
    }
}

/// Where the rows of a result go: floats without a gap, bytes with their rows [`crate::quant_linear::row_stride`] apart.
#[derive(Debug)]
pub enum Out<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// As bytes.
    U8(&'a mut [u8], QuantParams),
}

/// Columns of a tile of a result.
pub(crate) const LANES: usize = 16;

impl Out<'_> {
    /// The distance of rows with so many values.
    #[inline(always)]
    pub(crate) fn row_stride(&self, values: usize) -> usize {
        match self {
            Out::F32(_) => values,
            Out::U8(..) => row_stride(values),
        }
    }

    /// The result from a row on, of rows with so many values.
    #[inline(always)]
    pub(crate) fn starting_at(&mut self, row: usize, values: usize) -> Out<'_> {
        let at = row * self.row_stride(values);
        match self {
            Out::F32(out) => Out::F32(&mut out[at..]),
            Out::U8(out, quantize) => Out::U8(&mut out[at..], *quantize),
        }
    }

    /// Stores a row's values from place `at` on.
    #[inline(always)]
    pub(crate) fn row_at(&mut self, at: usize, values: &[f32]) {
        match self {
            Out::F32(out) => out[at..][..values.len()].copy_from_slice(values),
            Out::U8(out, quantize) => quantize.bytes(values, &mut out[at..][..values.len()]),
        }
    }

    /// Stores a tile, whose first value goes to place `at`; its rows are `row` apart.
    #[inline(always)]
    pub(crate) fn tile(&mut self, at: usize, row: usize, tile: &[[f32; LANES]]) {
        match self {
            Out::F32(out) => {
                for (r, values) in tile.iter().enumerate() {
                    let Some(to) = out[at + r * row..].first_chunk_mut::<LANES>() else { return };
                    *to = *values;
                }
            }
            Out::U8(out, quantize) => {
                for (r, values) in tile.iter().enumerate() {
                    let Some(to) = out[at + r * row..].first_chunk_mut::<LANES>() else { return };
                    *to = quantize.bytes_of(values);
                }
            }
        }
    }
}

#[inline(always)]
fn rows_body<const FMA: bool, const WIDE: bool>(x: &[f32], cols: usize, first: usize, out: &mut Out<'_>) {
    let stride = out.row_stride(cols);
    for (row, x) in x.chunks_exact(cols).enumerate() {
        out.row_at((first + row) * stride, x);
    }
}

dispatch! {
    /// Stores rows of `cols` values, at least one, from row `first` of `out` on, quantized where `out` asks for it.
    pub fn rows(x: &[f32], cols: usize, first: usize, out: &mut Out<'_>) = rows_body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::{awkward_rows, each_isa};

    /// The formula.
    fn plain(x: f32, scale: f32, zero: u8) -> u8 {
        let steps = (f64::from(x) / f64::from(scale)).round_ties_even() + f64::from(zero);
        steps.clamp(0.0, 255.0) as u8
    }

    #[test]
    fn only_usable_scales() {
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-38, 3e38] {
            assert_eq!(QuantParams::new(scale, 0), None, "{scale}");
        }
        assert!(QuantParams::new(1e-20, 255).is_some());
    }

    #[test]
    fn sixteen_at_once_have_the_bits_of_each() {
        for (round, (x, zero)) in awkward_rows().enumerate() {
            let quantize = QuantParams::new([0.5, 0.013, 1e-20][round % 3], zero).unwrap();
            assert_eq!(quantize.bytes_of(&x), x.map(|x| quantize.byte(x)), "{x:?}");
        }
    }

    #[test]
    fn a_round_trip_gives_what_the_byte_stands_for() {
        for (round, (x, zero)) in awkward_rows().enumerate() {
            let quantize = QuantParams::new([0.5, 0.013, 1e-20][round % 3], zero).unwrap();
            for x in x {
                assert_eq!(quantize.round_trip(x), quantize.value(quantize.byte(x)), "{x}");
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_nothing_wraps() {
        let quantize = QuantParams::new(0.5, 10).unwrap();
        for (x, byte) in [(0.25, 10), (0.75, 12), (-0.25, 10), (1e30, 255), (-1e30, 0), (f32::INFINITY, 255)]
        {
            assert_eq!(quantize.byte(x), byte, "{x}");
        }
    }

    proptest! {
        #[test]
        fn every_isa_is_the_formula(
            x in proptest::collection::vec(-40f32..40.0, 0..70), scale in 0.001f32..1.0, zero in 0u8..=255
        ) {
            let quantize = QuantParams::new(scale, zero).unwrap();
            let near = |x: f32, byte: u8| {
                let steps = f64::from(x) / f64::from(scale);
                let tie = (steps.fract().abs() - 0.5).abs() < 1e-4;
                byte == plain(x, scale, zero) || tie && byte.abs_diff(plain(x, scale, zero)) == 1
            };
            let mut first: Option<Vec<u8>> = None;
            each_isa(|isa| {
                let mut bytes = vec![0; x.len()];
                rows(isa, &x, x.len().max(1), 0, &mut Out::U8(&mut bytes, quantize));
                assert!(x.iter().zip(&bytes).all(|(&x, &byte)| near(x, byte)));
                assert_eq!(first.get_or_insert_with(|| bytes.clone()), &bytes);
            });
        }
    }
}
