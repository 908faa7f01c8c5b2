//! The primitive of products of bytes: what is added up for rows of activations and 16 columns of weights, and what
//! turns the integers into floats.
//!
//! Packing, edges and epilogues are written once over [`Dot`] (`quant_linear.rs`), and most loops over [`Steps`], four
//! products of each column at once; [`Plain`] runs all of that on every machine, so that only one instruction of the
//! others needs its hardware.

use crate::math::madd;

/// Columns of a panel.
pub(crate) const COLS: usize = 16;
/// Rows of the weight (inputs of the layer) that one step takes.
pub(crate) const DEPTH: usize = 4;
/// Weights of one sign whose products with bytes are added in 16 bits may come to so much: 255 · 128 < 2^15.
pub(crate) const MAX_SUM: i32 = 128;

/// Products of rows of bytes with a panel.
///
/// # Safety
/// The methods may only be called where the processor has the implementation's instructions, with rows that have as
/// many steps as the layer, and panels packed for it.
pub(crate) unsafe trait Dot {
    /// 16 sums.
    type Sums: Copy;
    /// What is taken off each byte `x` before it is multiplied: the caller puts it back by the starting sums.
    const SHIFT: i32;

    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    unsafe fn sums(start: &[i32; COLS]) -> Self::Sums;

    /// `start[j] + Σ_i x[i] · w[j][i]` for each row.
    unsafe fn products<const HEIGHT: usize>(
        start: &[i32; COLS],
        rows: &[&[[u8; DEPTH]]; HEIGHT],
        panel: &[[i8; COLS * DEPTH]],
    ) -> [Self::Sums; HEIGHT];

    /// `sums · scale + bias`, fused; `FMA` as elsewhere.
    unsafe fn finish<const FMA: bool>(
        sums: Self::Sums,
        scale: &[f32; COLS],
        bias: &[f32; COLS],
    ) -> [f32; COLS];
}

/// Products step by step, of panels with as many steps as a row.
///
/// # Safety
/// As [`Dot`].
pub(crate) unsafe trait Steps {
    /// 16 sums.
    type Sums: Copy;
    /// 16 columns of four weights.
    type Weights: Copy;
    /// As [`Dot::SHIFT`].
    const SHIFT: i32;

    unsafe fn sums(start: &[i32; COLS]) -> Self::Sums;
    unsafe fn weights(w: &[i8; COLS * DEPTH]) -> Self::Weights;

    /// `sums[j] += Σ_i x[i] · w[j][i]` over four bytes `x`.
    unsafe fn add(sums: Self::Sums, x: [u8; DEPTH], w: Self::Weights) -> Self::Sums;

    /// Two steps that follow each other; by reference, or one load and pieces of it would do for two loads.
    #[inline(always)]
    unsafe fn add_two(sums: Self::Sums, x: &[[u8; DEPTH]; 2], w: [Self::Weights; 2]) -> Self::Sums {
        // SAFETY: the caller's promise.
        unsafe { Self::add(Self::add(sums, x[0], w[0]), x[1], w[1]) }
    }

    /// Takes from the front as many steps of all rows as go well together, and gives their number; the rest is left
    /// to `add`.
    #[inline(always)]
    unsafe fn many<const HEIGHT: usize>(
        _sums: &mut [Self::Sums; HEIGHT],
        _rows: &[&[[u8; DEPTH]]; HEIGHT],
        _panel: &[[i8; COLS * DEPTH]],
    ) -> usize {
        0
    }

    /// As [`Dot::finish`].
    unsafe fn finish<const FMA: bool>(
        sums: Self::Sums,
        scale: &[f32; COLS],
        bias: &[f32; COLS],
    ) -> [f32; COLS];
}

// SAFETY: the implementation's instructions alone.
unsafe impl<S: Steps> Dot for S {
    type Sums = S::Sums;
    const SHIFT: i32 = S::SHIFT;

    #[inline(always)]
    unsafe fn sums(start: &[i32; COLS]) -> S::Sums {
        // SAFETY: the caller's promise.
        unsafe { S::sums(start) }
    }

    #[inline(always)]
    unsafe fn products<const HEIGHT: usize>(
        start: &[i32; COLS],
        rows: &[&[[u8; DEPTH]]; HEIGHT],
        panel: &[[i8; COLS * DEPTH]],
    ) -> [S::Sums; HEIGHT] {
        // SAFETY: the caller's promise; every row has as many steps as the panel.
        unsafe {
            let mut sums = [S::sums(start); HEIGHT];
            let done = S::many(&mut sums, rows, panel);
            let (twos, last) = panel[done..].as_chunks::<2>();
            let x = rows.map(|row| row[done..].as_chunks::<2>().0);
            for (i, w) in twos.iter().enumerate() {
                let w = [S::weights(&w[0]), S::weights(&w[1])];
                for r in 0..HEIGHT {
                    sums[r] = S::add_two(sums[r], x[r].get_unchecked(i), w);
                }
            }
            for w in last {
                let w = S::weights(w);
                for r in 0..HEIGHT {
                    sums[r] = S::add(sums[r], *rows[r].get_unchecked(panel.len() - 1), w);
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn finish<const FMA: bool>(sums: S::Sums, scale: &[f32; COLS], bias: &[f32; COLS]) -> [f32; COLS] {
        // SAFETY: the caller's promise.
        unsafe { S::finish::<FMA>(sums, scale, bias) }
    }
}

/// The formula.
pub(crate) struct Plain;

// SAFETY: no special instructions.
unsafe impl Steps for Plain {
    type Sums = [i32; COLS];
    type Weights = [i8; COLS * DEPTH];
    const SHIFT: i32 = 0;

    #[inline(always)]
    unsafe fn sums(start: &[i32; COLS]) -> [i32; COLS] {
        *start
    }

    #[inline(always)]
    unsafe fn weights(w: &[i8; COLS * DEPTH]) -> [i8; COLS * DEPTH] {
        *w
    }

    #[inline(always)]
    unsafe fn add(mut sums: [i32; COLS], x: [u8; DEPTH], w: [i8; COLS * DEPTH]) -> [i32; COLS] {
        for (sum, w) in sums.iter_mut().zip(w.as_chunks::<DEPTH>().0) {
            for i in 0..DEPTH {
                *sum += i32::from(x[i]) * i32::from(w[i]);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn finish<const FMA: bool>(
        sums: [i32; COLS],
        scale: &[f32; COLS],
        bias: &[f32; COLS],
    ) -> [f32; COLS] {
        let mut out = [0.0; COLS];
        for c in 0..COLS {
            out[c] = madd::<FMA>(sums[c] as f32, scale[c], bias[c]);
        }
        out
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{BLOCK_STEPS, Dotprod, I8mm, Neon, four_fit, pack_blocks, pack_pairs};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx2Two, Avx2Wide, Avx512Vnni, AvxVnni, Halves};

#[cfg(target_feature = "simd128")]
pub(crate) use simd128::{Simd128, pack_halves};

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_feature = "simd128")]
mod simd128;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::marker::PhantomData;

    use super::{COLS, DEPTH, Steps};

    /// Sixteen ones.
    // SAFETY: of the same size, and any bits are integers.
    static ONES: __m256i = unsafe { std::mem::transmute([1i16; 16]) };

    /// `x[2 i] + x[2 i + 1]` in 32 bits. The ones come from memory: every register is taken, and the compiler would
    /// load them into one again and again, and keep a sum in memory for it.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pair_sums(x: __m256i) -> __m256i {
        let y;
        // SAFETY: the operand in memory is 32 aligned bytes.
        unsafe {
            asm!(
                "vpmaddwd {y}, {x}, ymmword ptr [rip + {ones}]",
                x = in(ymm_reg) x,
                y = lateout(ymm_reg) y,
                ones = sym ONES,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        y
    }

    /// One step of eight columns.
    ///
    /// # Safety
    /// The method may only be called where the processor has AVX2 and the implementation's instructions.
    pub(crate) unsafe trait Step {
        /// As [`super::Dot::SHIFT`].
        const SHIFT: i32;

        unsafe fn step(sums: __m256i, x: i32, w: __m256i) -> __m256i;

        /// Two steps that follow each other.
        #[inline(always)]
        unsafe fn two(sums: __m256i, x: [i32; 2], w: [__m256i; 2]) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe { Self::step(Self::step(sums, x[0], w[0]), x[1], w[1]) }
        }
    }

    /// `vpmaddubsw` adds pairs of products in 16 bits: exact where the weights of a pair fit ([`super::MAX_SUM`]).
    pub(crate) struct Avx2;

    // SAFETY: AVX2 alone.
    unsafe impl Step for Avx2 {
        const SHIFT: i32 = 0;

        #[inline(always)]
        unsafe fn step(sums: __m256i, x: i32, w: __m256i) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe {
                let pairs = _mm256_maddubs_epi16(_mm256_set1_epi32(x), w);
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
    }

    /// As [`Avx2`], but the pairs of two steps are added in 16 bits too, for weights of which four fit. Products are
    /// the bottleneck; this saves a quarter of them.
    pub(crate) struct Avx2Two;

    // SAFETY: AVX2 alone.
    unsafe impl Step for Avx2Two {
        const SHIFT: i32 = 0;

        #[inline(always)]
        unsafe fn step(sums: __m256i, x: i32, w: __m256i) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe { Avx2::step(sums, x, w) }
        }

        #[inline(always)]
        unsafe fn two(sums: __m256i, x: [i32; 2], w: [__m256i; 2]) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe {
                let first = _mm256_maddubs_epi16(_mm256_set1_epi32(x[0]), w[0]);
                let second = _mm256_maddubs_epi16(_mm256_set1_epi32(x[1]), w[1]);
                _mm256_add_epi32(sums, pair_sums(_mm256_add_epi16(first, second)))
            }
        }
    }

    /// For weights within ±127: 128 is taken off the bytes (and put back by the caller, [`Dot::SHIFT`]), then
    /// |x| · sign(w, x) stays within 128 · 127 · 2 < 2^15.
    pub(crate) struct Avx2Wide;

    // SAFETY: AVX2 alone.
    unsafe impl Step for Avx2Wide {
        const SHIFT: i32 = 128;

        #[inline(always)]
        unsafe fn step(sums: __m256i, x: i32, w: __m256i) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe {
                let x = _mm256_set1_epi32(x ^ 0x8080_8080_u32 as i32);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
    }

    /// `vpdpbusd` adds four products at once, exactly.
    pub(crate) struct AvxVnni;

    // SAFETY: AVX-VNNI.
    unsafe impl Step for AvxVnni {
        const SHIFT: i32 = 0;

        #[inline(always)]
        unsafe fn step(sums: __m256i, x: i32, w: __m256i) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe { _mm256_dpbusd_avx_epi32(sums, _mm256_set1_epi32(x), w) }
        }
    }

    /// 16 columns by two steps of eight.
    pub(crate) struct Halves<S>(PhantomData<S>);

    // SAFETY: AVX2 and what the step needs.
    unsafe impl<S: Step> Steps for Halves<S> {
        type Sums = [__m256i; 2];
        type Weights = [__m256i; 2];
        const SHIFT: i32 = S::SHIFT;

        #[inline(always)]
        unsafe fn sums(start: &[i32; COLS]) -> [__m256i; 2] {
            let from: *const i32 = start.as_ptr();
            // SAFETY: the reference covers both registers; loads need no alignment.
            unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
        }

        #[inline(always)]
        unsafe fn weights(w: &[i8; COLS * DEPTH]) -> [__m256i; 2] {
            let from: *const i8 = w.as_ptr();
            // SAFETY: as above.
            unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
        }

        #[inline(always)]
        unsafe fn add(sums: [__m256i; 2], x: [u8; DEPTH], w: [__m256i; 2]) -> [__m256i; 2] {
            let x = i32::from_le_bytes(x);
            // SAFETY: the caller's promise.
            unsafe { [S::step(sums[0], x, w[0]), S::step(sums[1], x, w[1])] }
        }

        #[inline(always)]
        unsafe fn add_two(sums: [__m256i; 2], x: &[[u8; DEPTH]; 2], w: [[__m256i; 2]; 2]) -> [__m256i; 2] {
            let x = [i32::from_le_bytes(x[0]), i32::from_le_bytes(x[1])];
            // SAFETY: the caller's promise.
            unsafe { [S::two(sums[0], x, [w[0][0], w[1][0]]), S::two(sums[1], x, [w[0][1], w[1][1]])] }
        }

        #[inline(always)]
        unsafe fn finish<const FMA: bool>(
            sums: [__m256i; 2],
            scale: &[f32; COLS],
            bias: &[f32; COLS],
        ) -> [f32; COLS] {
            let mut out = [0.0; COLS];
            // SAFETY: AVX2 machines that we take have FMA; all three references cover both registers.
            unsafe {
                for (half, sums) in sums.into_iter().enumerate() {
                    let at = half * COLS / 2;
                    let (scale, bias) = (scale.as_ptr().add(at), bias.as_ptr().add(at));
                    let (scale, bias) = (_mm256_loadu_ps(scale), _mm256_loadu_ps(bias));
                    let values = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, bias);
                    _mm256_storeu_ps(out.as_mut_ptr().add(at), values);
                }
            }
            out
        }
    }

    /// `vpdpbusd` on one register of 512 bits.
    pub(crate) struct Avx512Vnni;

    // SAFETY: AVX-512F, AVX-512DQ and AVX-512 VNNI.
    unsafe impl Steps for Avx512Vnni {
        type Sums = __m512i;
        type Weights = __m512i;
        const SHIFT: i32 = 0;

        #[inline(always)]
        unsafe fn sums(start: &[i32; COLS]) -> __m512i {
            // SAFETY: the reference covers the register; the load needs no alignment.
            unsafe { _mm512_loadu_si512(start.as_ptr().cast()) }
        }

        #[inline(always)]
        unsafe fn weights(w: &[i8; COLS * DEPTH]) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_loadu_si512(w.as_ptr().cast()) }
        }

        #[inline(always)]
        unsafe fn add(sums: __m512i, x: [u8; DEPTH], w: __m512i) -> __m512i {
            // SAFETY: the caller's promise.
            unsafe { _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(i32::from_le_bytes(x)), w) }
        }

        #[inline(always)]
        unsafe fn finish<const FMA: bool>(
            sums: __m512i,
            scale: &[f32; COLS],
            bias: &[f32; COLS],
        ) -> [f32; COLS] {
            let mut out = [0.0; COLS];
            // SAFETY: all three references cover the register.
            unsafe {
                let (scale, bias) = (_mm512_loadu_ps(scale.as_ptr()), _mm512_loadu_ps(bias.as_ptr()));
                crate::avx512::store(&mut out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, bias));
            }
            out
        }
    }
}
