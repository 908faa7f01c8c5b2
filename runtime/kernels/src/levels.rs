//! Functions of quantized values. What a quantization and any operators on single values after it make of a real number
//! depends on the number's level alone, so 256 values say it.

use crate::isa::dispatch;
use crate::quantize::{LANES, Out, QuantParams};

/// `y = values[level(x)]`: a quantization, and a value for each of its levels.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelMap {
    quantize: QuantParams,
    values: Box<[f32; 256]>,
    /// Whether each level stands for its own value: quantize, then dequantize. Arithmetic is then faster than a table.
    is_round_trip: bool,
}

impl LevelMap {
    /// A value for each level of `quantize`.
    pub fn new(quantize: QuantParams, values: &[f32; 256]) -> LevelMap {
        let is_round_trip = (0..=255).zip(values).all(|(level, &value)| quantize.value(level) == value);
        LevelMap { quantize, values: Box::new(*values), is_round_trip }
    }

    /// What sixteen values become.
    #[inline(always)]
    fn of_lanes<const ROUND_TRIP: bool>(&self, x: &[f32; LANES]) -> [f32; LANES] {
        let mut y = [0.0; LANES];
        if ROUND_TRIP {
            for l in 0..LANES {
                y[l] = self.quantize.round_trip(x[l]);
            }
        } else {
            let levels = self.quantize.bytes_of(x);
            for l in 0..LANES {
                y[l] = self.values[usize::from(levels[l])];
            }
        }
        y
    }

    /// What one value becomes.
    #[inline(always)]
    fn of(&self, x: f32) -> f32 {
        self.values[usize::from(self.quantize.byte(x))]
    }

    /// Replaces each value. Not inlined: attention calls it from many copies of its body.
    #[inline(never)]
    pub(crate) fn apply(&self, x: &mut [f32]) {
        let (chunks, rest) = x.as_chunks_mut::<LANES>();
        if self.is_round_trip {
            chunks.iter_mut().for_each(|x| *x = self.of_lanes::<true>(x));
        } else {
            chunks.iter_mut().for_each(|x| *x = self.of_lanes::<false>(x));
        }
        rest.iter_mut().for_each(|x| *x = self.of(*x));
    }

    /// Writes what each value becomes. Loops, as closures would be compiled without the caller's instruction set.
    #[inline(always)]
    fn write<const ROUND_TRIP: bool>(&self, x: &[f32], y: &mut [f32]) {
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
        for (y, x) in y.iter_mut().zip(x) {
            *y = self.of_lanes::<ROUND_TRIP>(x);
        }
        for (y, &x) in y_rest.iter_mut().zip(x_rest) {
            *y = self.of(x);
        }
    }
}

/// A row's levels as other bytes.
#[inline(always)]
fn write_bytes(quantize: QuantParams, bytes: &[u8; 256], x: &[f32], y: &mut [u8]) {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
    for (y, x) in y.iter_mut().zip(x) {
        let levels = quantize.bytes_of(x);
        for l in 0..LANES {
            y[l] = bytes[usize::from(levels[l])];
        }
    }
    for (y, &x) in y_rest.iter_mut().zip(x_rest) {
        *y = bytes[usize::from(quantize.byte(x))];
    }
}

#[inline(always)]
fn rows_body<const FMA: bool, const WIDE: bool>(map: &LevelMap, x: &[f32], cols: usize, out: &mut Out<'_>) {
    let stride = out.row_stride(cols);
    match out {
        Out::F32(out) if map.is_round_trip => map.write::<true>(x, &mut out[..x.len()]),
        Out::F32(out) => map.write::<false>(x, &mut out[..x.len()]),
        Out::U8(out, quantize) => {
            let mut bytes = [0; 256];
            for (byte, &value) in bytes.iter_mut().zip(map.values.iter()) {
                *byte = quantize.byte(value);
            }
            for (x, y) in x.chunks_exact(cols).zip(out.chunks_exact_mut(stride)) {
                write_bytes(map.quantize, &bytes, x, &mut y[..cols]);
            }
        }
    }
}

dispatch! {
    /// What rows of `cols` values, at least one, become; quantized again where `out` asks for it.
    pub fn rows(map: &LevelMap, x: &[f32], cols: usize, out: &mut Out<'_>) = rows_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant_linear::row_stride;
    use crate::test_support::{each_isa, values};

    fn table(value: impl Fn(u8) -> f32) -> [f32; 256] {
        std::array::from_fn(|level| value(level as u8))
    }

    #[test]
    fn every_isa_gives_each_level_its_value() {
        let quantize = QuantParams::new(0.013, 77).unwrap();
        let again = QuantParams::new(0.05, 30).unwrap();
        let tables =
            [table(|level| quantize.value(level)), table(|level| (f32::from(level) / 40.0).sin() * 4.0)];
        for (i, values_of) in tables.iter().enumerate() {
            let map = LevelMap::new(quantize, values_of);
            assert_eq!(map.is_round_trip, i == 0);
            for (rows_of, cols) in [(1, 1), (3, 14), (2, 16), (5, 35), (4, 64)] {
                let x: Vec<f32> = values(rows_of * cols, 3).iter().map(|x| x * 2.0).collect();
                let want: Vec<f32> = x.iter().map(|&x| values_of[usize::from(quantize.byte(x))]).collect();
                each_isa(|isa| {
                    let mut y = vec![9.0; rows_of * cols];
                    rows(isa, &map, &x, cols, &mut Out::F32(&mut y));
                    assert_eq!(y, want, "{}", isa.name());
                    let mut bytes = vec![0; rows_of * row_stride(cols)];
                    rows(isa, &map, &x, cols, &mut Out::U8(&mut bytes, again));
                    for (bytes, want) in bytes.chunks(row_stride(cols)).zip(want.chunks(cols)) {
                        let want: Vec<u8> = want.iter().map(|&value| again.byte(value)).collect();
                        assert_eq!(bytes[..cols], want, "{}", isa.name());
                    }
                });
                let mut y = x.clone();
                map.apply(&mut y);
                assert_eq!(y, want);
            }
        }
    }

    #[test]
    fn values_beyond_the_levels_take_the_last() {
        let quantize = QuantParams::new(0.5, 0).unwrap();
        let map = LevelMap::new(quantize, &table(|level| quantize.value(level)));
        let mut y = [-3.0, 0.3, 1e30, f32::INFINITY];
        map.apply(&mut y);
        assert_eq!(y, [0.0, 0.5, 127.5, 127.5]);
    }
}
