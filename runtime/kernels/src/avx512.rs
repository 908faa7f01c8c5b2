//! Products in AVX-512: left to itself the compiler may take eight rows for a register and gather their values, or put
//! registers together from halves.

use std::arch::x86_64::*;

use crate::dot::COLS;

/// `start[r] + Σ_i x[r][i] panel[i]`, one chain of fused multiply-adds each, and then the bias.
///
/// # Safety
/// The processor has AVX-512F and AVX-512DQ; every row has as many values as the panel has steps.
#[inline(always)]
pub(crate) unsafe fn tile<const HEIGHT: usize>(
    x: &[&[f32]; HEIGHT],
    panel: &[[f32; COLS]],
    start: &[[f32; COLS]; HEIGHT],
    bias: Option<&[f32; COLS]>,
) -> [[f32; COLS]; HEIGHT] {
    let mut out = [[0.0; COLS]; HEIGHT];
    // SAFETY: the caller's promise; a step, the bias and a row of `start` and `out` are one register, loads and stores need no
    // alignment.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); HEIGHT];
        for r in 0..HEIGHT {
            sums[r] = _mm512_loadu_ps(start[r].as_ptr());
        }
        for (i, w) in panel.iter().enumerate() {
            let w = _mm512_loadu_ps(w.as_ptr());
            for r in 0..HEIGHT {
                sums[r] = _mm512_fmadd_ps(_mm512_set1_ps(*x[r].get_unchecked(i)), w, sums[r]);
            }
        }
        if let Some(bias) = bias {
            let bias = _mm512_loadu_ps(bias.as_ptr());
            for sums in &mut sums {
                *sums = _mm512_add_ps(*sums, bias);
            }
        }
        for r in 0..HEIGHT {
            store(&mut out[r], sums[r]);
        }
    }
    out
}

/// `sums += x · w`, bytes and weights within 16 bits, whose products fit into 16 bits.
///
/// # Safety
/// The processor has AVX2 and AVX-512F.
#[inline(always)]
pub(crate) unsafe fn add_byte_products(sums: &mut [i32; COLS], x: &[u8; COLS], w: &[i16; COLS]) {
    // SAFETY: the caller's promise; the references cover registers of 16, 32 and 64 bytes; loads and stores need no alignment.
    unsafe {
        let x = _mm256_cvtepu8_epi16(_mm_loadu_si128(x.as_ptr().cast()));
        let products = _mm256_mullo_epi16(x, _mm256_loadu_si256(w.as_ptr().cast()));
        let place: *mut __m512i = sums.as_mut_ptr().cast();
        let sum = _mm512_add_epi32(_mm512_loadu_si512(place), _mm512_cvtepi16_epi32(products));
        _mm512_storeu_si512(place, sum);
    }
}

/// `sums · scale + bias`, fused.
///
/// # Safety
/// The processor has AVX-512F and AVX-512DQ.
#[inline(always)]
pub(crate) unsafe fn scaled(sums: &[i32; COLS], scale: &[f32; COLS], bias: &[f32; COLS]) -> [f32; COLS] {
    let mut out = [0.0; COLS];
    // SAFETY: the caller's promise; all four arrays are one register, loads and stores need no alignment.
    unsafe {
        let sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums.as_ptr().cast()));
        let (scale, bias) = (_mm512_loadu_ps(scale.as_ptr()), _mm512_loadu_ps(bias.as_ptr()));
        store(&mut out, _mm512_fmadd_ps(sums, scale, bias));
    }
    out
}

/// Sixteen values as two halves: epilogues take halves, and what is stored whole the compiler would take apart value by
/// value for them.
///
/// # Safety
/// The processor has AVX-512F and AVX-512DQ.
#[inline(always)]
pub(crate) unsafe fn store(values: &mut [f32; COLS], x: __m512) {
    // SAFETY: the caller's promise; the reference covers both halves, stores need no alignment.
    unsafe {
        _mm256_storeu_ps(values.as_mut_ptr(), _mm512_castps512_ps256(x));
        _mm256_storeu_ps(values.as_mut_ptr().add(COLS / 2), _mm512_extractf32x8_ps::<1>(x));
    }
}
