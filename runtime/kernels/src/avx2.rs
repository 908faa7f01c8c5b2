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

/// Sixteen values.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn halves(values: &[f32; COLS]) -> [__m256; 2] {
    // SAFETY: the caller's promise; the reference covers both registers, loads need no alignment.
    unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(WIDTH))] }
}
