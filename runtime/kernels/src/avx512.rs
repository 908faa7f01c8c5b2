//! Products of floats in AVX-512: left to itself the compiler may take eight rows for a register and gather their values.

use std::arch::x86_64::*;

use crate::dot::COLS;

/// `start[r] + Σ_i x[r][i] panel[i]`, one chain of fused multiply-adds each.
///
/// # Safety
/// The processor has AVX-512F; every row has as many values as the panel has steps.
#[inline(always)]
pub(crate) unsafe fn tile<const HEIGHT: usize>(
    x: &[&[f32]; HEIGHT],
    panel: &[[f32; COLS]],
    start: &[[f32; COLS]; HEIGHT],
) -> [[f32; COLS]; HEIGHT] {
    let mut out = [[0.0; COLS]; HEIGHT];
    // SAFETY: the caller's promise; a step and a row of `start` and `out` are one register, loads and stores need no alignment.
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
        for r in 0..HEIGHT {
            _mm512_storeu_ps(out[r].as_mut_ptr(), sums[r]);
        }
    }
    out
}
