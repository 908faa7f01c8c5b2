//! The exponentials of a softmax on rows of scores that lie in the nearest cache; attention divides by their sums
//! later, when fewer values are left.

use crate::math::{exp2_of_negative, madd};

/// Values that are summed side by side. A row has a multiple of them.
pub(crate) const LANES: usize = 8;

/// `x = exp(scale · (x - max))` for each row of `rows`, one after the other; gives the reciprocals of their sums.
/// Values from `count` on, fewer than [`LANES`], count for nothing and become 0.
///
/// All rows go through each stage together, for the stages of one row wait for each other.
///
/// # Safety
/// With `FMA` on x86-64, the processor has AVX2 and FMA.
#[inline(always)]
pub(crate) unsafe fn exponentials<const FMA: bool, const ROWS: usize>(
    rows: &mut [f32],
    count: usize,
    scale: f32,
) -> [f32; ROWS] {
    let scale = scale * std::f32::consts::LOG2_E;
    let (chunks, _) = rows.as_chunks_mut();
    let each = chunks.len() / ROWS;
    let (whole, left) = (count / LANES, count % LANES);
    if left > 0 {
        each_at(chunks, each, whole, |x, kept| x & kept | f32::NEG_INFINITY.to_bits() & !kept, left);
    }
    // SAFETY: the caller's promise.
    let parts = unsafe { stages::<FMA, ROWS>(chunks, scale) };
    if left > 0 {
        each_at(chunks, each, whole, |x, kept| x & kept, left);
    }
    parts
}

/// Changes chunk `at` of each row of `each` chunks: its bits, given all ones for the first `left` values and zeros for the
/// others. Whole registers, as they are read again: a smaller write would have to arrive in memory first.
#[inline(always)]
fn each_at(
    chunks: &mut [[f32; LANES]],
    each: usize,
    at: usize,
    change: impl Fn(u32, u32) -> u32,
    left: usize,
) {
    const KEPT: [u32; 2 * LANES] = {
        let mut kept = [0; 2 * LANES];
        let mut i = 0;
        while i < LANES {
            kept[i] = !0;
            i += 1;
        }
        kept
    };
    let Some(kept) = KEPT[LANES - left..].first_chunk::<LANES>() else { return };
    for row in chunks.chunks_exact_mut(each) {
        for (x, &kept) in row[at].iter_mut().zip(kept) {
            *x = f32::from_bits(change(x.to_bits(), kept));
        }
    }
}

/// # Safety
/// As [`exponentials`].
#[inline(always)]
unsafe fn stages<const FMA: bool, const ROWS: usize>(chunks: &mut [[f32; LANES]], scale: f32) -> [f32; ROWS] {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: the caller's promise.
        return unsafe { x86::all(chunks, scale) };
    }
    #[cfg(target_arch = "aarch64")]
    return crate::neon::exponentials(chunks, scale);
    #[cfg(not(target_arch = "aarch64"))]
    plain::<FMA, ROWS>(chunks, scale)
}

#[cfg_attr(target_arch = "aarch64", allow(dead_code))]
#[inline(always)]
fn plain<const FMA: bool, const ROWS: usize>(chunks: &mut [[f32; LANES]], scale: f32) -> [f32; ROWS] {
    let each = chunks.len() / ROWS;
    let mut parts = [0f32; ROWS];
    for (row, part) in chunks.chunks_exact_mut(each).zip(&mut parts) {
        let mut top = [f32::NEG_INFINITY; LANES];
        for chunk in row.iter() {
            for l in 0..LANES {
                top[l] = if chunk[l] > top[l] { chunk[l] } else { top[l] };
            }
        }
        let shift = shift(row, fold(top, |a, b| if a > b { a } else { b }), scale);
        // Two loops: the first becomes vector code as it stands, with the sums in it it would not.
        for x in row.as_flattened_mut() {
            *x = exp2_of_negative::<FMA>(madd::<FMA>(*x, scale, shift));
        }
        let mut sums = [0f32; LANES];
        for chunk in row.iter() {
            for l in 0..LANES {
                sums[l] += chunk[l];
            }
        }
        *part = 1.0 / fold(sums, |a, b| a + b);
    }
    parts
}

/// From here on, `x · scale` and `max · scale` are rounded to steps that a power of two feels.
const FAR: f32 = 1e6;

/// What is added to `x · scale`, so that the largest becomes 0. Where that is far away, it is taken off before the product,
/// whose last bits would be worth more than all that matters.
#[inline(always)]
pub(crate) fn shift(row: &mut [[f32; LANES]], top: f32, scale: f32) -> f32 {
    let shift = -(top * scale);
    if shift.abs() > FAR { take_off(row, top) } else { shift }
}

#[cold]
#[inline(never)]
fn take_off(row: &mut [[f32; LANES]], top: f32) -> f32 {
    row.as_flattened_mut().iter_mut().for_each(|x| *x -= top);
    0.0
}

/// Eight values to one, by halves: the fewest steps that wait for each other.
#[inline(always)]
fn fold(values: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let [a, b, c, d, e, g, h, i] = values;
    let [a, b, c, d] = [f(a, e), f(b, g), f(c, h), f(d, i)];
    f(f(a, c), f(b, d))
}

/// The compiler cuts the loops of [`plain`] into pieces of two and four lanes; these are whole registers.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::LANES;
    use crate::math::{EXP2_LEAST, EXP2_POLYNOMIAL, EXP2_ROUND};

    /// # Safety
    /// The processor has AVX2 and FMA.
    #[inline(always)]
    pub(super) unsafe fn all<const ROWS: usize>(chunks: &mut [[f32; LANES]], scale: f32) -> [f32; ROWS] {
        let each = chunks.len() / ROWS;
        // SAFETY: the caller's promise; a chunk is one register, and loads and stores need no alignment.
        unsafe {
            let mut shifts = [_mm256_setzero_ps(); ROWS];
            for (row, shift) in chunks.chunks_exact_mut(each).zip(&mut shifts) {
                let mut top = _mm256_set1_ps(f32::NEG_INFINITY);
                for chunk in row.iter() {
                    top = _mm256_max_ps(_mm256_loadu_ps(chunk.as_ptr()), top);
                }
                let top = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
                let top = _mm_max_ps(top, _mm_movehl_ps(top, top));
                let top = _mm_max_ss(top, _mm_movehdup_ps(top));
                *shift = _mm256_set1_ps(super::shift(row, _mm_cvtss_f32(top), scale));
            }
            let scale = _mm256_set1_ps(scale);
            let (least, round) = (_mm256_set1_ps(EXP2_LEAST), _mm256_set1_ps(EXP2_ROUND));
            let mut sums = [_mm256_setzero_ps(); ROWS];
            for ((row, sum), shift) in chunks.chunks_exact_mut(each).zip(&mut sums).zip(shifts) {
                for chunk in row {
                    let x = _mm256_fmadd_ps(_mm256_loadu_ps(chunk.as_ptr()), scale, shift);
                    let x = _mm256_max_ps(least, x);
                    let shifted = _mm256_add_ps(x, round);
                    let r = _mm256_sub_ps(x, _mm256_sub_ps(shifted, round));
                    let [low @ .., last] = EXP2_POLYNOMIAL;
                    let mut p = _mm256_set1_ps(last);
                    for c in low.into_iter().rev() {
                        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
                    }
                    let exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
                    let y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
                    _mm256_storeu_ps(chunk.as_mut_ptr(), y);
                    *sum = _mm256_add_ps(*sum, y);
                }
            }
            let mut parts = [0f32; ROWS];
            for (part, sum) in parts.iter_mut().zip(sums) {
                let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
                let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
                *part = 1.0 / _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
            }
            parts
        }
    }
}
