//! The inverse cosine transform of 8 x 8 coefficients to 8, 4, 2 or 1 pixels a side: libjpeg's (`jidctint.c`,
//! `jidctred.c`), to the last bit.

use std::array::from_fn;
use std::num::Wrapping;

/// Coefficients that no picture has may overflow; what comes of them is any pixel.
type Fixed = Wrapping<i32>;

/// Bits behind the point of the constants.
const CONST_BITS: usize = 13;
/// Bits more that the first pass keeps.
const PASS_BITS: usize = 2;

/// A constant by its value times 2^13.
const fn fixed(value: i32) -> Fixed {
    Wrapping(value)
}

/// The pixel of a block's mean alone.
pub(super) fn mean(dc: i32) -> u8 {
    pixel(Wrapping(dc), 3)
}

/// The pixel of a value with so many bits behind the point.
fn pixel(value: Fixed, bits: usize) -> u8 {
    (rounded(value, bits).0.saturating_add(128)).clamp(0, 255) as u8
}

fn rounded(value: Fixed, bits: usize) -> Fixed {
    (value + Wrapping(1 << (bits - 1))) >> bits
}

/// The `N` x `N` pixels of a block.
#[inline(always)]
pub(super) fn block<const N: usize>(
    coefficients: &[i32; 64],
    line: impl Fn([Fixed; 8]) -> [Fixed; N],
) -> [[u8; N]; N] {
    // 8 is 0, 4 is 1, 2 is 2: each line comes out so many bits larger.
    let larger = (8 / N).ilog2() as usize;
    let mut columns = [[Wrapping(0); 8]; N];
    for column in 0..8 {
        let values: [Fixed; 8] = from_fn(|row| Wrapping(coefficients[8 * row + column]));
        let out = if values[1..].iter().fold(0, |all, value| all | value.0) == 0 {
            [values[0] << PASS_BITS; N]
        } else {
            line(values).map(|value| rounded(value, CONST_BITS - PASS_BITS + larger))
        };
        for (row, value) in columns.iter_mut().zip(out) {
            row[column] = value;
        }
    }
    columns.map(|row| line(row).map(|value| pixel(value, CONST_BITS + PASS_BITS + 3 + larger)))
}

/// Eight values of a line.
pub(super) fn line8(c: [Fixed; 8]) -> [Fixed; 8] {
    let z1 = (c[2] + c[6]) * fixed(4433);
    let (t2, t3) = (z1 - c[6] * fixed(15137), z1 + c[2] * fixed(6270));
    let (t0, t1) = ((c[0] + c[4]) << CONST_BITS, (c[0] - c[4]) << CONST_BITS);
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
    let z5 = (c[7] + c[3] + c[5] + c[1]) * fixed(9633);
    let (z1, z2) = ((c[7] + c[1]) * fixed(-7373), (c[5] + c[3]) * fixed(-20995));
    let (z3, z4) = ((c[7] + c[3]) * fixed(-16069) + z5, (c[5] + c[1]) * fixed(-3196) + z5);
    let odd = [
        c[1] * fixed(12299) + z1 + z4,
        c[3] * fixed(25172) + z2 + z3,
        c[5] * fixed(16819) + z2 + z4,
        c[7] * fixed(2446) + z1 + z3,
    ];
    from_fn(|i| if i < 4 { even[i] + odd[i] } else { even[7 - i] - odd[7 - i] })
}

/// Four values of a line.
pub(super) fn line4(c: [Fixed; 8]) -> [Fixed; 4] {
    let t0 = c[0] << (CONST_BITS + 1);
    let t2 = c[2] * fixed(15137) - c[6] * fixed(6270);
    let inner = c[5] * fixed(11893) - c[7] * fixed(1730) - c[3] * fixed(17799) + c[1] * fixed(8697);
    let outer = c[3] * fixed(7373) - c[7] * fixed(4176) - c[5] * fixed(4926) + c[1] * fixed(20995);
    [t0 + t2 + outer, t0 - t2 + inner, t0 - t2 - inner, t0 + t2 - outer]
}

/// Two values of a line.
pub(super) fn line2(c: [Fixed; 8]) -> [Fixed; 2] {
    let even = c[0] << (CONST_BITS + 2);
    let odd = c[5] * fixed(6967) - c[7] * fixed(5906) - c[3] * fixed(10426) + c[1] * fixed(29692);
    [even + odd, even - odd]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_blocks_are_means_of_larger_ones() {
        let mut coefficients = [0; 64];
        for (place, value) in [(0, -120), (1, 90), (8, -70), (9, 31), (3, 20), (24, -14)] {
            coefficients[place] = value;
        }
        let whole = block(&coefficients, line8);
        let mean_of = |from: [usize; 2], side: usize| {
            let rows = whole[from[0]..from[0] + side].iter();
            rows.flat_map(|row| &row[from[1]..from[1] + side]).map(|v| f64::from(*v)).sum::<f64>()
                / (side * side) as f64
        };
        assert!((mean_of([0, 0], 8) - f64::from(mean(-120))).abs() <= 1.0);
        let (four, two) = (block(&coefficients, line4), block(&coefficients, line2));
        for y in 0..4 {
            for x in 0..4 {
                assert!((mean_of([2 * y, 2 * x], 2) - f64::from(four[y][x])).abs() <= 1.5, "{y} {x}");
            }
        }
        for y in 0..2 {
            for x in 0..2 {
                assert!((mean_of([4 * y, 4 * x], 4) - f64::from(two[y][x])).abs() <= 1.5, "{y} {x}");
            }
        }
    }

    #[test]
    fn impossible_coefficients_do_no_harm() {
        for value in [i32::MAX, i32::MIN, 1 << 18] {
            block(&[value; 64], line8);
            block(&[value; 64], line4);
            block(&[value; 64], line2);
            mean(value);
        }
    }
}
