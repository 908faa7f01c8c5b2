//! What follows a product, in the instructions of every x86-64: with the same bits as the plain forms, of which the
//! compiler makes up to four times as many instructions.

use std::arch::x86_64::*;

use crate::dot::COLS;

/// Values of a register.
const WIDTH: usize = 4;

/// `clamp(round(x · inverse) + zero, 0, 255)`; a NaN gives 0.
#[inline(always)]
pub(crate) fn bytes(values: &[f32; COLS], inverse: f32, zero: u8) -> [u8; COLS] {
    let mut bytes = [0; COLS];
    // SAFETY: every x86-64 has SSE2; the arrays are four registers and one, loads and stores need no alignment.
    unsafe {
        let most = _mm_set1_ps(255.0 - f32::from(zero));
        let inverse = _mm_set1_ps(inverse);
        let integers = |at: usize| {
            let steps = _mm_mul_ps(_mm_loadu_ps(values.as_ptr().add(at * WIDTH)), inverse);
            // What no integer can hold becomes the least one, which is right but for large numbers. The second operand,
            // where one is NaN.
            _mm_cvtps_epi32(_mm_min_ps(most, steps))
        };
        let zero = _mm_set1_epi16(i16::from(zero));
        let half = |at: usize| _mm_adds_epi16(_mm_packs_epi32(integers(at), integers(at + 1)), zero);
        _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm_packus_epi16(half(0), half(2)));
    }
    bytes
}
