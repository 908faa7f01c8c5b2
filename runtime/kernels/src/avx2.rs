//! Products in AVX2: left to itself the compiler may take what it adds to, or what it chooses between, apart lane by
//! lane.

use std::arch::x86_64::*;

use crate::dot::COLS;

/// Values of a register.
const WIDTH: usize = 8;

/// `start[r] + Σ_i x[r][i] panel[i]`, one chain of fused multiply-adds each, and then the bias.
///
/// # Safety
/// The processor has AVX2 and FMA; every row has as many values as the panel has steps.
#[inline(always)]
pub(crate) unsafe fn tile<const HEIGHT: usize>(
    x: &[&[f32]; HEIGHT],
    panel: &[[f32; COLS]],
    start: &[[f32; COLS]; HEIGHT],
    bias: Option<&[f32; COLS]>,
) -> [[f32; COLS]; HEIGHT] {
    let mut out = [[0.0; COLS]; HEIGHT];
    // SAFETY: the caller's promise; a step and a row of `start`, `bias` and `out` are two registers, loads and stores
    // need no alignment.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; HEIGHT];
        for r in 0..HEIGHT {
            sums[r] = halves(&start[r]);
        }
        for (i, w) in panel.iter().enumerate() {
            let w = halves(w);
            for r in 0..HEIGHT {
                let x = _mm256_broadcast_ss(x[r].get_unchecked(i));
                sums[r] = [_mm256_fmadd_ps(x, w[0], sums[r][0]), _mm256_fmadd_ps(x, w[1], sums[r][1])];
            }
        }
        if let Some(bias) = bias {
            let bias = halves(bias);
            for sums in &mut sums {
                *sums = [_mm256_add_ps(sums[0], bias[0]), _mm256_add_ps(sums[1], bias[1])];
            }
        }
        for r in 0..HEIGHT {
            for half in 0..2 {
                _mm256_storeu_ps(out[r].as_mut_ptr().add(half * WIDTH), sums[r][half]);
            }
        }
    }
    out
}

/// `sums += x · w`, value by value.
///
/// # Safety
/// The processor has AVX2 and FMA.
#[inline(always)]
pub(crate) unsafe fn add_products(sums: &mut [f32; COLS], x: &[f32; COLS], w: &[f32; COLS]) {
    // SAFETY: the caller's promise; all three references cover two registers, loads and stores need no alignment.
    unsafe {
        let (from, x, w) = (halves(sums), halves(x), halves(w));
        for half in 0..2 {
            let to = _mm256_fmadd_ps(x[half], w[half], from[half]);
            _mm256_storeu_ps(sums.as_mut_ptr().add(half * WIDTH), to);
        }
    }
}

/// The same of bytes and weights within 16 bits, whose products fit into 16 bits.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(crate) unsafe fn add_byte_products(sums: &mut [i32; COLS], x: &[u8; COLS], w: &[i16; COLS]) {
    // SAFETY: the caller's promise; the references cover one register of 16 bytes, one and two of 32; loads and stores
    // need no alignment.
    unsafe {
        let x = _mm256_cvtepu8_epi16(_mm_loadu_si128(x.as_ptr().cast()));
        let products = _mm256_mullo_epi16(x, _mm256_loadu_si256(w.as_ptr().cast()));
        let parts = [_mm256_castsi256_si128(products), _mm256_extracti128_si256(products, 1)];
        for (half, part) in parts.into_iter().enumerate() {
            let place: *mut __m256i = sums.as_mut_ptr().add(half * WIDTH).cast();
            _mm256_storeu_si256(
                place,
                _mm256_add_epi32(_mm256_loadu_si256(place), _mm256_cvtepi16_epi32(part)),
            );
        }
    }
}

/// `sums · scale + bias`, fused.
///
/// # Safety
/// The processor has AVX2 and FMA.
#[inline(always)]
pub(crate) unsafe fn scaled(sums: &[i32; COLS], scale: &[f32; COLS], bias: &[f32; COLS]) -> [f32; COLS] {
    let mut out = [0.0; COLS];
    // SAFETY: the caller's promise; all four arrays are two registers, loads and stores need no alignment.
    unsafe {
        let (scale, bias) = (halves(scale), halves(bias));
        for half in 0..2 {
            let sums = _mm256_cvtepi32_ps(_mm256_loadu_si256(sums.as_ptr().add(half * WIDTH).cast()));
            _mm256_storeu_ps(
                out.as_mut_ptr().add(half * WIDTH),
                _mm256_fmadd_ps(sums, scale[half], bias[half]),
            );
        }
    }
    out
}

/// `values += from`.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(crate) unsafe fn add(values: &mut [f32; COLS], from: &[f32; COLS]) {
    // SAFETY: the caller's promise; both references cover two registers, stores need no alignment.
    unsafe {
        let (sums, from) = (halves(values), halves(from));
        for half in 0..2 {
            let sum = _mm256_add_ps(sums[half], from[half]);
            _mm256_storeu_ps(values.as_mut_ptr().add(half * WIDTH), sum);
        }
    }
}

/// `min(max(x, low), high)` of each value; a NaN stays one.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(crate) unsafe fn clip(values: &mut [f32; COLS], low: f32, high: f32) {
    // SAFETY: the caller's promise; the reference covers two registers, stores need no alignment.
    unsafe {
        let (from, low, high) = (halves(values), _mm256_set1_ps(low), _mm256_set1_ps(high));
        for half in 0..2 {
            // The second operand, where one is NaN.
            let clipped = _mm256_min_ps(high, _mm256_max_ps(low, from[half]));
            _mm256_storeu_ps(values.as_mut_ptr().add(half * WIDTH), clipped);
        }
    }
}

/// Sixteen values.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn halves(values: &[f32; COLS]) -> [__m256; 2] {
    // SAFETY: the caller's promise; the reference covers both registers, loads need no alignment.
    unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(WIDTH))] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::awkward_rows;

    #[test]
    fn sums_and_clipped_values_have_the_bits_of_the_plain_form() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        for (x, _) in awkward_rows() {
            let (mut sums, mut clipped) = (x, x);
            // SAFETY: there is AVX2.
            unsafe {
                add(&mut sums, &[0.75; COLS]);
                clip(&mut clipped, -0.5, 6.0);
            }
            for ((sum, clipped), x) in sums.into_iter().zip(clipped).zip(x) {
                assert!(sum == x + 0.75 || sum.is_nan() && x.is_nan());
                let low = if x < -0.5 { -0.5 } else { x };
                let want = if low > 6.0 { 6.0 } else { low };
                assert_eq!(clipped.to_bits(), want.to_bits());
            }
        }
    }
}
