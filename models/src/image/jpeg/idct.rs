//! The inverse cosine transform of 8 x 8 coefficients to 8, 4 or 2 pixels a side: libjpeg's (`jidctint.c`, `jidctred.c`), to
//! the last bit.
//!
//! Blocks are transformed many at a time, a lane each, so that every loop is over lanes and becomes vector code: products of
//! 16 bits by 16, as in libjpeg-turbo's own. Coefficients that no picture has may overflow; what comes of them is any pixel.

use std::array::from_fn;
use std::num::Wrapping;

/// Blocks that are transformed together.
const LANES: usize = 32;

type Lanes<T> = [T; LANES];

/// Bits behind the point of the constants.
const CONST_BITS: usize = 13;
/// Bits more that the first pass keeps.
const PASS_BITS: usize = 2;

/// The pixel of a block's mean alone.
pub(super) fn mean(dc: i32) -> u8 {
    pixel(Wrapping(dc), 3)
}

/// The pixel of a value with so many bits behind the point.
fn pixel(value: Wrapping<i32>, bits: usize) -> u8 {
    (rounded(value, bits).0.wrapping_add(128)).clamp(0, 255) as u8
}

fn rounded(value: Wrapping<i32>, bits: usize) -> Wrapping<i32> {
    (value + Wrapping(1 << (bits - 1))) >> bits
}

/// Blocks that wait to be transformed.
pub(super) struct Batch {
    /// By place, row by row.
    coefficients: Box<[Lanes<i16>; 64]>,
    /// Where in the plane each block begins.
    places: Lanes<usize>,
    count: usize,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch { coefficients: Box::new([[0; LANES]; 64]), places: [0; LANES], count: 0 }
    }

    /// Sets a coefficient of the block that comes next.
    #[inline(always)]
    pub(super) fn set(&mut self, place: u8, value: i32) {
        self.coefficients[usize::from(place & 63)][self.count] = value as i16;
    }

    /// Ends a block that begins at that pixel; `true` if no more fit, and [`Batch::transform`] is due.
    #[inline(always)]
    pub(super) fn end_block(&mut self, place: usize) -> bool {
        self.places[self.count] = place;
        self.count += 1;
        self.count == LANES
    }

    /// Writes the blocks as `side` x `side` pixels, rows `stride` apart, and begins anew.
    pub(super) fn transform(&mut self, side: usize, pixels: &mut [u8], stride: usize) {
        let blocks = &self.coefficients;
        let places = &self.places[..self.count];
        match side {
            8 => write(&pixels_of(blocks, [0, 1, 2, 3, 4, 5, 6, 7], line8), places, pixels, stride),
            4 => write(&pixels_of(blocks, [0, 1, 2, 3, 5, 6, 7], line4), places, pixels, stride),
            _ => write(&pixels_of(blocks, [0, 1, 3, 5, 7], line2), places, pixels, stride),
        }
        self.coefficients.fill([0; LANES]);
        self.count = 0;
    }
}

/// Rows of `N` x `N` pixels of all blocks, from the columns that count.
#[inline(always)]
fn pixels_of<const N: usize, const USED: usize>(
    coefficients: &[Lanes<i16>; 64],
    used: [usize; USED],
    line: impl Fn([i16; 8]) -> [Wrapping<i32>; N],
) -> [[Lanes<u8>; N]; N] {
    // 8 is 0, 4 is 1, 2 is 2: each line comes out so many bits larger.
    let larger = (8 / N).ilog2() as usize;
    let mut columns = [[[0i16; LANES]; 8]; N];
    for column in used {
        let values: [&Lanes<i16>; 8] = from_fn(|row| &coefficients[8 * row + column]);
        for lane in 0..LANES {
            let out = line(from_fn(|row| values[row][lane]));
            for row in 0..N {
                let value = rounded(out[row], CONST_BITS - PASS_BITS + larger).0;
                columns[row][column][lane] = value.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            }
        }
    }
    let mut pixels = [[[0; LANES]; N]; N];
    for (pixels, columns) in pixels.iter_mut().zip(&columns) {
        for lane in 0..LANES {
            let out = line(from_fn(|column| columns[column][lane]));
            for x in 0..N {
                pixels[x][lane] = pixel(out[x], CONST_BITS + PASS_BITS + 3 + larger);
            }
        }
    }
    pixels
}

#[inline(always)]
fn write<const N: usize>(rows: &[[Lanes<u8>; N]; N], places: &[usize], pixels: &mut [u8], stride: usize) {
    for (lane, &place) in places.iter().enumerate() {
        for (row, out) in rows.iter().zip(pixels[place..].chunks_mut(stride)) {
            let row: [u8; N] = from_fn(|x| row[x][lane]);
            out[..N].copy_from_slice(&row);
        }
    }
}

/// A constant by its value times 2^13.
#[inline(always)]
fn times(value: i16, constant: i16) -> Wrapping<i32> {
    Wrapping(i32::from(value)) * Wrapping(i32::from(constant))
}

/// Eight values of a line.
#[inline(always)]
fn line8(c: [i16; 8]) -> [Wrapping<i32>; 8] {
    let (t2, t3) = (times(c[2], 4433) + times(c[6], -10704), times(c[2], 10703) + times(c[6], 4433));
    let [first, fifth] = [c[0], c[4]].map(|value| Wrapping(i32::from(value)) << CONST_BITS);
    let (t0, t1) = (first + fifth, first - fifth);
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
    let (z3, z4) = (c[7].wrapping_add(c[3]), c[5].wrapping_add(c[1]));
    let (z3, z4) = (times(z3, -6436) + times(z4, 9633), times(z3, 9633) + times(z4, 6437));
    let odd = [
        times(c[1], 4926) + times(c[7], -7373) + z4,
        times(c[3], 4177) + times(c[5], -20995) + z3,
        times(c[5], -4176) + times(c[3], -20995) + z4,
        times(c[7], -4927) + times(c[1], -7373) + z3,
    ];
    from_fn(|i| if i < 4 { even[i] + odd[i] } else { even[7 - i] - odd[7 - i] })
}

/// Four values of a line.
#[inline(always)]
fn line4(c: [i16; 8]) -> [Wrapping<i32>; 4] {
    let t0 = Wrapping(i32::from(c[0])) << (CONST_BITS + 1);
    let t2 = times(c[2], 15137) + times(c[6], -6270);
    let inner = times(c[1], 8697) + times(c[3], -17799) + times(c[5], 11893) + times(c[7], -1730);
    let outer = times(c[1], 20995) + times(c[3], 7373) + times(c[5], -4926) + times(c[7], -4176);
    [t0 + t2 + outer, t0 - t2 + inner, t0 - t2 - inner, t0 + t2 - outer]
}

/// Two values of a line.
#[inline(always)]
fn line2(c: [i16; 8]) -> [Wrapping<i32>; 2] {
    let even = Wrapping(i32::from(c[0])) << (CONST_BITS + 2);
    let odd = times(c[1], 29692) + times(c[3], -10426) + times(c[5], 6967) + times(c[7], -5906);
    [even + odd, even - odd]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pixels of the last of some blocks, `side` x `side`.
    fn block(coefficients: &[(u8, i32)], blocks: usize, side: usize) -> Vec<u8> {
        let (mut batch, stride) = (Batch::new(), side * blocks);
        let mut pixels = vec![0; stride * side];
        for block in 0..blocks {
            for &(place, value) in coefficients {
                batch.set(place, if block + 1 == blocks { value } else { value / 2 });
            }
            assert_eq!(batch.end_block(block * side), block + 1 == LANES);
        }
        batch.transform(side, &mut pixels, stride);
        assert!(batch.coefficients.iter().flatten().all(|value| *value == 0) && batch.count == 0);
        pixels.chunks(stride).flat_map(|row| row[stride - side..].to_vec()).collect()
    }

    #[test]
    fn smaller_blocks_are_means_of_larger_ones() {
        let coefficients = [(0, -120), (1, 90), (8, -70), (9, 31), (3, 20), (24, -14)];
        let whole = block(&coefficients, 1, 8);
        let mean_of = |from: [usize; 2], side: usize| {
            let rows = whole.chunks(8).skip(from[0]).take(side);
            rows.flat_map(|row| &row[from[1]..from[1] + side]).map(|v| f64::from(*v)).sum::<f64>()
                / (side * side) as f64
        };
        assert!((mean_of([0, 0], 8) - f64::from(mean(-120))).abs() <= 1.0);
        for side in [4, 2] {
            let (small, by) = (block(&coefficients, 1, side), 8 / side);
            for (i, &value) in small.iter().enumerate() {
                let expected = mean_of([i / side * by, i % side * by], by);
                assert!((expected - f64::from(value)).abs() <= 1.5, "{side} {i}");
            }
        }
    }

    #[test]
    fn a_block_is_the_same_in_every_lane() {
        let coefficients = [(0, 77), (1, -90), (8, 170), (18, 31), (63, 20), (36, -140), (47, 55)];
        for side in [8, 4, 2] {
            let alone = block(&coefficients, 1, side);
            for blocks in 2..=LANES {
                assert_eq!(block(&coefficients, blocks, side), alone, "{blocks} of {side}");
            }
        }
    }

    #[test]
    fn impossible_coefficients_do_no_harm() {
        for value in [i32::MAX, i32::MIN, 1 << 18, i16::MAX.into(), i16::MIN.into()] {
            let coefficients: Vec<_> = (0..64).map(|place| (place, value)).collect();
            for side in [8, 4, 2] {
                block(&coefficients, 1, side);
            }
            mean(value);
        }
    }
}
