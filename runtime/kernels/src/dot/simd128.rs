//! Products of bytes in WebAssembly, which multiplies in 16 bits and adds pairs of products in 32.

use std::arch::wasm32::*;

use super::{COLS, DEPTH, Steps};
use crate::math::madd;

/// Registers of sums: four columns each.
const QUARTERS: usize = 4;
/// Inputs whose products one instruction adds.
const PAIR: usize = 2;

/// From a step's columns, `[16, 4]`, to what [`Simd128`] reads in order: the first two inputs of all columns, then the
/// other two.
pub(crate) fn pack_halves(step: &mut [i8; COLS * DEPTH]) {
    let columns = *step;
    for (i, to) in step.as_chunks_mut::<PAIR>().0.iter_mut().enumerate() {
        let from = &columns[i % COLS * DEPTH + i / COLS * PAIR..][..PAIR];
        to.copy_from_slice(from);
    }
}

/// `i32x4.dot_i16x8_s` on bytes and weights that are widened as they are loaded.
pub(crate) struct Simd128;

impl Simd128 {
    /// `sums` and the products of a pair of inputs, four times in `x`, with that pair's weights.
    #[inline(always)]
    fn pair(sums: &mut [v128; QUARTERS], x: v128, w: &[i8; COLS * PAIR]) {
        let (w, _) = w.as_chunks::<{ COLS * PAIR / QUARTERS }>();
        for (sum, w) in sums.iter_mut().zip(w) {
            // SAFETY: the reference covers the eight bytes; loads need no alignment.
            let w = unsafe { i16x8_load_extend_i8x8(w.as_ptr()) };
            *sum = i32x4_add(*sum, i32x4_dot_i16x8(x, w));
        }
    }
}

// SAFETY: every module that holds this is compiled with the instructions.
unsafe impl Steps for Simd128 {
    type Sums = [v128; QUARTERS];
    type Weights = [i8; COLS * DEPTH];
    const SHIFT: i32 = 0;

    #[inline(always)]
    unsafe fn sums(start: &[i32; COLS]) -> [v128; QUARTERS] {
        let from: *const v128 = start.as_ptr().cast();
        // SAFETY: the reference covers all four registers; loads need no alignment.
        unsafe { [v128_load(from), v128_load(from.add(1)), v128_load(from.add(2)), v128_load(from.add(3))] }
    }

    #[inline(always)]
    unsafe fn weights(w: &[i8; COLS * DEPTH]) -> [i8; COLS * DEPTH] {
        *w
    }

    #[inline(always)]
    unsafe fn add(mut sums: [v128; QUARTERS], x: [u8; DEPTH], w: [i8; COLS * DEPTH]) -> [v128; QUARTERS] {
        let (halves, _) = w.as_chunks::<{ COLS * PAIR }>();
        let x = i16x8_extend_low_u8x16(i32x4_splat(i32::from_le_bytes(x)));
        Simd128::pair(&mut sums, i32x4_shuffle::<0, 0, 0, 0>(x, x), &halves[0]);
        Simd128::pair(&mut sums, i32x4_shuffle::<1, 1, 1, 1>(x, x), &halves[1]);
        sums
    }

    /// Two steps at once: eight bytes, widened, fill a register.
    #[inline(always)]
    unsafe fn many<const HEIGHT: usize>(
        sums: &mut [[v128; QUARTERS]; HEIGHT],
        rows: &[&[[u8; DEPTH]]; HEIGHT],
        panel: &[[i8; COLS * DEPTH]],
    ) -> usize {
        const STEPS: usize = 2;
        let blocks = panel.as_chunks::<STEPS>().0;
        for (block, w) in blocks.iter().enumerate() {
            let (w, _) = w.as_flattened().as_chunks::<{ COLS * PAIR }>();
            let mut x = [i32x4_splat(0); HEIGHT];
            for r in 0..HEIGHT {
                // SAFETY: rows have as many steps as the panel; loads need no alignment.
                x[r] = unsafe { u16x8_load_extend_u8x8(rows[r].as_ptr().add(block * STEPS).cast()) };
            }
            for r in 0..HEIGHT {
                Simd128::pair(&mut sums[r], i32x4_shuffle::<0, 0, 0, 0>(x[r], x[r]), &w[0]);
            }
            for r in 0..HEIGHT {
                Simd128::pair(&mut sums[r], i32x4_shuffle::<1, 1, 1, 1>(x[r], x[r]), &w[1]);
            }
            for r in 0..HEIGHT {
                Simd128::pair(&mut sums[r], i32x4_shuffle::<2, 2, 2, 2>(x[r], x[r]), &w[2]);
            }
            for r in 0..HEIGHT {
                Simd128::pair(&mut sums[r], i32x4_shuffle::<3, 3, 3, 3>(x[r], x[r]), &w[3]);
            }
        }
        blocks.len() * STEPS
    }

    #[inline(always)]
    unsafe fn finish<const FMA: bool>(
        sums: [v128; QUARTERS],
        scale: &[f32; COLS],
        bias: &[f32; COLS],
    ) -> [f32; COLS] {
        let mut out = [0.0; COLS];
        for (q, sums) in sums.into_iter().enumerate() {
            let mut floats = [0f32; COLS / QUARTERS];
            // SAFETY: the array is the register; stores need no alignment.
            unsafe { v128_store(floats.as_mut_ptr().cast(), f32x4_convert_i32x4(sums)) };
            for (c, value) in (q * floats.len()..).zip(floats) {
                out[c] = madd::<FMA>(value, scale[c], bias[c]);
            }
        }
        out
    }
}
