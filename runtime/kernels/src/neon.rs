//! Products of floats and what follows them, in NEON: with the same bits as the plain forms, of which the compiler makes
//! up to twice as many instructions.

use std::arch::aarch64::*;

use crate::dot::COLS;
use crate::exponentials::LANES;
use crate::gelu::COARSE;
use crate::math::{EXP2_LEAST, EXP2_POLYNOMIAL, EXP2_ROUND};

/// Values of a register.
const WIDTH: usize = 4;

/// [`crate::gelu::gelu_coarse`] of each value. Zeros may come with the other sign.
#[inline(never)]
pub(crate) fn gelu_coarse(tile: &mut [[f32; COLS]]) {
    for values in tile.as_flattened_mut().as_chunks_mut::<WIDTH>().0 {
        // SAFETY: every aarch64 has NEON; a chunk is one register.
        unsafe {
            let x = vld1q_f32(values.as_ptr());
            let t = vminq_f32(vabsq_f32(x), vdupq_n_f32(4.0));
            let [low @ .., last] = COARSE;
            let mut p = vdupq_n_f32(last);
            for c in low.into_iter().rev() {
                p = vfmaq_f32(vdupq_n_f32(c), p, t);
            }
            vst1q_f32(values.as_mut_ptr(), vfmsq_f32(vmaxq_f32(x, vdupq_n_f32(0.0)), t, p));
        }
    }
}

/// `values += from`.
#[inline(always)]
pub(crate) fn add(values: &mut [f32; COLS], from: &[f32; COLS]) {
    for (values, from) in values.as_chunks_mut::<WIDTH>().0.iter_mut().zip(from.as_chunks::<WIDTH>().0) {
        // SAFETY: every aarch64 has NEON; a chunk is one register.
        unsafe {
            vst1q_f32(values.as_mut_ptr(), vaddq_f32(vld1q_f32(values.as_ptr()), vld1q_f32(from.as_ptr())))
        };
    }
}

/// `clamp(round(x · inverse) + zero, 0, 255)`; a NaN gives 0.
#[inline(always)]
pub(crate) fn bytes(values: &[f32; COLS], inverse: f32, zero: u8) -> [u8; COLS] {
    let mut bytes = [0; COLS];
    // SAFETY: every aarch64 has NEON; the arrays are four registers and one.
    unsafe {
        let least = vdupq_n_f32(-f32::from(zero));
        let integers = |at: usize| {
            let steps = vmulq_n_f32(vld1q_f32(values.as_ptr().add(at * WIDTH)), inverse);
            // The number, where the other is NaN.
            vcvtnq_s32_f32(vmaxnmq_f32(steps, least))
        };
        let zero = vdupq_n_s16(i16::from(zero));
        let half = |at: usize| {
            let steps = vqmovn_high_s32(vqmovn_s32(integers(at)), integers(at + 1));
            vqaddq_s16(steps, zero)
        };
        vst1q_u8(bytes.as_mut_ptr(), vqmovun_high_s16(vqmovun_s16(half(0)), half(2)));
    }
    bytes
}

/// `start[r][c] + Σ_p a[r][p] b[p][c]`, one chain of fused multiply-adds each.
///
/// # Safety
/// Every row of `a` has as many values as `b` has rows.
#[inline(always)]
pub(crate) unsafe fn block<const ROWS: usize, const COLUMNS: usize>(
    a: &[&[f32]; ROWS],
    b: &[[f32; COLUMNS]],
    start: &[[f32; COLUMNS]; ROWS],
) -> [[f32; COLUMNS]; ROWS] {
    /// Registers of a row of sixteen.
    const QUARTERS: usize = COLS / WIDTH;
    let (fours, rest) = b.as_chunks::<WIDTH>();
    let mut out = [[0.0; COLUMNS]; ROWS];
    // SAFETY: every aarch64 has NEON; rows of `b`, `start` and `out` are `COLUMNS / WIDTH` registers, and those of `a` are as
    // the caller promises.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); QUARTERS]; ROWS];
        for r in 0..ROWS {
            for q in 0..COLUMNS / WIDTH {
                sums[r][q] = vld1q_f32(start[r].as_ptr().add(q * WIDTH));
            }
        }
        for (i, four) in fours.iter().enumerate() {
            let mut x = [vdupq_n_f32(0.0); ROWS];
            for r in 0..ROWS {
                x[r] = vld1q_f32(a[r].as_ptr().add(i * WIDTH));
            }
            macro_rules! step {
                ($lane:literal) => {
                    for q in 0..COLUMNS / WIDTH {
                        let b = vld1q_f32(four[$lane].as_ptr().add(q * WIDTH));
                        for r in 0..ROWS {
                            sums[r][q] = vfmaq_laneq_f32::<$lane>(sums[r][q], b, x[r]);
                        }
                    }
                };
            }
            step!(0);
            step!(1);
            step!(2);
            step!(3);
        }
        for (i, one) in rest.iter().enumerate() {
            for q in 0..COLUMNS / WIDTH {
                let b = vld1q_f32(one.as_ptr().add(q * WIDTH));
                for r in 0..ROWS {
                    sums[r][q] = vfmaq_n_f32(sums[r][q], b, *a[r].get_unchecked(fours.len() * WIDTH + i));
                }
            }
        }
        for r in 0..ROWS {
            for q in 0..COLUMNS / WIDTH {
                vst1q_f32(out[r].as_mut_ptr().add(q * WIDTH), sums[r][q]);
            }
        }
    }
    out
}

/// See [`mod@crate::exponentials`].
#[inline(always)]
pub(crate) fn exponentials<const ROWS: usize>(chunks: &mut [[f32; LANES]], scale: f32) -> [f32; ROWS] {
    let each = chunks.len() / ROWS;
    // SAFETY: every aarch64 has NEON; a chunk is two registers.
    unsafe {
        let mut shifts = [vdupq_n_f32(0.0); ROWS];
        for (row, shift) in chunks.chunks_exact_mut(each).zip(&mut shifts) {
            let mut top = [vdupq_n_f32(f32::NEG_INFINITY); 2];
            for chunk in row.iter() {
                for (half, top) in top.iter_mut().enumerate() {
                    *top = vmaxnmq_f32(vld1q_f32(chunk.as_ptr().add(half * WIDTH)), *top);
                }
            }
            let top = vmaxnmvq_f32(vmaxnmq_f32(top[0], top[1]));
            *shift = vdupq_n_f32(crate::exponentials::shift(row, top, scale));
        }
        let scale = vdupq_n_f32(scale);
        let (least, round) = (vdupq_n_f32(EXP2_LEAST), vdupq_n_f32(EXP2_ROUND));
        let mut sums = [[vdupq_n_f32(0.0); 2]; ROWS];
        for ((row, sums), shift) in chunks.chunks_exact_mut(each).zip(&mut sums).zip(shifts) {
            for chunk in row {
                for (half, sum) in sums.iter_mut().enumerate() {
                    let place = chunk.as_mut_ptr().add(half * WIDTH);
                    let x = vmaxq_f32(vfmaq_f32(shift, vld1q_f32(place), scale), least);
                    let shifted = vaddq_f32(x, round);
                    let r = vsubq_f32(x, vsubq_f32(shifted, round));
                    let [low @ .., last] = EXP2_POLYNOMIAL;
                    let mut p = vdupq_n_f32(last);
                    for c in low.into_iter().rev() {
                        p = vfmaq_f32(vdupq_n_f32(c), p, r);
                    }
                    let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(shifted));
                    let y = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent));
                    vst1q_f32(place, y);
                    *sum = vaddq_f32(*sum, y);
                }
            }
        }
        let mut parts = [0f32; ROWS];
        for (part, sums) in parts.iter_mut().zip(sums) {
            let sum = vaddq_f32(sums[0], sums[1]);
            *part = 1.0 / vaddv_f32(vadd_f32(vget_low_f32(sum), vget_high_f32(sum)));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::awkward_rows;

    #[test]
    fn all_have_the_bits_of_the_plain_forms() {
        for (x, _) in awkward_rows() {
            let mut y = [x];
            gelu_coarse(&mut y);
            for (y, x) in y[0].into_iter().zip(x) {
                let want = crate::gelu::gelu_coarse::<true>(x);
                assert!(y == want || y.is_nan() && want.is_nan(), "{y} {want} for {x}");
            }
            let mut sums = x;
            add(&mut sums, &y[0]);
            for (sum, (x, y)) in sums.into_iter().zip(x.into_iter().zip(y[0])) {
                assert_eq!(sum.to_bits(), (x + y).to_bits());
            }
        }
    }
}
