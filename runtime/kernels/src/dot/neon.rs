//! Products of bytes on aarch64: NEON as every such processor has it, and two later instructions.
//!
//! The later ones are written as assembly, because their intrinsics are not stable yet.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{COLS, DEPTH, Dot};

/// Registers of a step's weights: four columns each.
const QUARTERS: usize = 4;
/// Steps whose bytes of a row fill a register.
const STEPS: usize = 4;

/// Four columns of a step's weights.
///
/// # Safety
/// There are `COLS * DEPTH` bytes from `w` on.
#[inline(always)]
unsafe fn quarter(w: &[i8; COLS * DEPTH], q: usize) -> int8x16_t {
    // SAFETY: `q` is less than `QUARTERS`, so the register lies within the reference; loads need no alignment.
    unsafe { vld1q_s8(w.as_ptr().add(q * COLS)) }
}

/// All columns of a step's weights.
#[inline(always)]
fn quarters(w: &[i8; COLS * DEPTH]) -> [int8x16_t; QUARTERS] {
    // SAFETY: all four lie within the reference.
    unsafe { [quarter(w, 0), quarter(w, 1), quarter(w, 2), quarter(w, 3)] }
}

/// 16 values in the order of their columns.
#[inline(always)]
fn integers(from: &[i32; COLS]) -> [int32x4_t; QUARTERS] {
    let from = from.as_ptr();
    // SAFETY: the reference covers all four registers; loads need no alignment.
    unsafe { [vld1q_s32(from), vld1q_s32(from.add(4)), vld1q_s32(from.add(8)), vld1q_s32(from.add(12))] }
}

/// `sums · scale + bias`, fused.
#[inline(always)]
fn scaled(sums: [int32x4_t; QUARTERS], scale: &[f32; COLS], bias: &[f32; COLS]) -> [f32; COLS] {
    let mut out = [0.0; COLS];
    for (q, sums) in sums.into_iter().enumerate() {
        // SAFETY: all three arrays cover the four registers.
        unsafe {
            let (scale, bias) = (vld1q_f32(scale.as_ptr().add(q * 4)), vld1q_f32(bias.as_ptr().add(q * 4)));
            vst1q_f32(out.as_mut_ptr().add(q * 4), vfmaq_f32(bias, vcvtq_f32_s32(sums), scale));
        }
    }
    out
}

/// The bytes of `STEPS` steps, less 128.
///
/// # Safety
/// `x` has at least `STEPS` steps from `at` on.
#[inline(always)]
unsafe fn signed(x: &[[u8; DEPTH]], at: usize) -> int8x16_t {
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe { vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x.as_ptr().add(at).cast()), vdupq_n_u8(0x80))) }
}

/// The bytes of one step, less 128, four times.
#[inline(always)]
fn signed_step(x: [u8; DEPTH]) -> int8x16_t {
    // SAFETY: every aarch64 has NEON.
    unsafe { vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes(x) ^ 0x8080_8080)) }
}

/// `smull` and `smlal` multiply in 16 bits, where `TOGETHER` products have room: two of any weights (128 · 127 · 2 <
/// 2^15), four where the layer's weights say so. `sadalp` adds pairs of those in 32 bits.
pub(crate) struct Neon<const TOGETHER: usize>;

impl<const TOGETHER: usize> Neon<TOGETHER> {
    /// One step of four columns.
    #[inline(always)]
    fn one([low, high]: [int32x4_t; 2], x: int8x16_t, w: int8x16_t) -> [int32x4_t; 2] {
        // SAFETY: every aarch64 has NEON.
        unsafe {
            let products = [vmull_s8(vget_low_s8(x), vget_low_s8(w)), vmull_high_s8(x, w)];
            [vpadalq_s16(low, products[0]), vpadalq_s16(high, products[1])]
        }
    }

    /// Four steps of four columns. In one piece: the compiler would mix those of many rows and columns, and run out of
    /// registers.
    #[inline(always)]
    fn four([mut low, mut high]: [int32x4_t; 2], x: [int8x16_t; 4], w: [int8x16_t; 4]) -> [int32x4_t; 2] {
        macro_rules! steps {
            ($($line:literal),*) => {
                // SAFETY: every aarch64 has NEON; registers alone.
                unsafe {
                    asm!(
                        $($line,)*
                        "sadalp {low:v}.4s, {a:v}.8h",
                        "sadalp {high:v}.4s, {b:v}.8h",
                        low = inout(vreg) low, high = inout(vreg) high, a = out(vreg) _, b = out(vreg) _,
                        x0 = in(vreg) x[0], x1 = in(vreg) x[1], x2 = in(vreg) x[2], x3 = in(vreg) x[3],
                        w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            };
        }
        if TOGETHER == 4 {
            steps!(
                "smull {a:v}.8h, {x0:v}.8b, {w0:v}.8b",
                "smull2 {b:v}.8h, {x0:v}.16b, {w0:v}.16b",
                "smlal {a:v}.8h, {x1:v}.8b, {w1:v}.8b",
                "smlal2 {b:v}.8h, {x1:v}.16b, {w1:v}.16b",
                "smlal {a:v}.8h, {x2:v}.8b, {w2:v}.8b",
                "smlal2 {b:v}.8h, {x2:v}.16b, {w2:v}.16b",
                "smlal {a:v}.8h, {x3:v}.8b, {w3:v}.8b",
                "smlal2 {b:v}.8h, {x3:v}.16b, {w3:v}.16b"
            );
        } else {
            steps!(
                "smull {a:v}.8h, {x0:v}.8b, {w0:v}.8b",
                "smull2 {b:v}.8h, {x0:v}.16b, {w0:v}.16b",
                "smlal {a:v}.8h, {x1:v}.8b, {w1:v}.8b",
                "smlal2 {b:v}.8h, {x1:v}.16b, {w1:v}.16b",
                "sadalp {low:v}.4s, {a:v}.8h",
                "sadalp {high:v}.4s, {b:v}.8h",
                "smull {a:v}.8h, {x2:v}.8b, {w2:v}.8b",
                "smull2 {b:v}.8h, {x2:v}.16b, {w2:v}.16b",
                "smlal {a:v}.8h, {x3:v}.8b, {w3:v}.8b",
                "smlal2 {b:v}.8h, {x3:v}.16b, {w3:v}.16b"
            );
        }
        [low, high]
    }
}

// SAFETY: NEON alone.
unsafe impl<const TOGETHER: usize> Dot for Neon<TOGETHER> {
    /// Two registers for four columns: two parts of each sum are neighbours.
    type Sums = [[int32x4_t; 2]; QUARTERS];
    type Weights = [int8x16_t; QUARTERS];
    const SHIFT: i32 = 128;

    #[inline(always)]
    unsafe fn sums(start: &[i32; COLS]) -> Self::Sums {
        // SAFETY: every aarch64 has NEON.
        unsafe {
            let zero = vdupq_n_s32(0);
            integers(start).map(|start| [vzip1q_s32(start, zero), vzip2q_s32(start, zero)])
        }
    }

    #[inline(always)]
    unsafe fn weights(w: &[i8; COLS * DEPTH]) -> Self::Weights {
        quarters(w)
    }

    #[inline(always)]
    unsafe fn add(mut sums: Self::Sums, x: [u8; DEPTH], w: Self::Weights) -> Self::Sums {
        let x = signed_step(x);
        for q in 0..QUARTERS {
            sums[q] = Self::one(sums[q], x, w[q]);
        }
        sums
    }

    #[inline(always)]
    unsafe fn many<const HEIGHT: usize>(
        sums: &mut [Self::Sums; HEIGHT],
        rows: &[&[[u8; DEPTH]]; HEIGHT],
        panel: &[[i8; COLS * DEPTH]],
    ) -> usize {
        let blocks = panel.as_chunks::<STEPS>().0;
        for (block, w) in blocks.iter().enumerate() {
            // SAFETY: every aarch64 has NEON; the rows have as many steps as the panel.
            unsafe {
                let mut x = [[vdupq_n_s8(0); STEPS]; HEIGHT];
                for r in 0..HEIGHT {
                    let four = vreinterpretq_s32_s8(signed(rows[r], block * STEPS));
                    x[r] = [
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(four)),
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(four)),
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(four)),
                        vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(four)),
                    ];
                }
                for q in 0..QUARTERS {
                    let w = [quarter(&w[0], q), quarter(&w[1], q), quarter(&w[2], q), quarter(&w[3], q)];
                    for r in 0..HEIGHT {
                        sums[r][q] = Self::four(sums[r][q], x[r], w);
                    }
                }
            }
        }
        blocks.len() * STEPS
    }

    #[inline(always)]
    unsafe fn finish<const FMA: bool>(
        sums: Self::Sums,
        scale: &[f32; COLS],
        bias: &[f32; COLS],
    ) -> [f32; COLS] {
        let mut whole = [sums[0][0]; QUARTERS];
        for q in 0..QUARTERS {
            // SAFETY: every aarch64 has NEON.
            whole[q] = unsafe { vpaddq_s32(sums[q][0], sums[q][1]) };
        }
        scaled(whole, scale, bias)
    }
}

/// `sdot` adds four products at once, of signed bytes.
pub(crate) struct Dotprod;

impl Dotprod {
    /// Four columns by step `STEP` of `x`.
    ///
    /// # Safety
    /// The processor has the instruction.
    #[inline(always)]
    unsafe fn sdot<const STEP: usize>(mut sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise; registers alone.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{step}]",
                sums = inlateout(vreg) sums,
                w = in(vreg) w,
                x = in(vreg) x,
                step = const STEP,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    /// Step `STEP` of all rows.
    ///
    /// # Safety
    /// As [`Dotprod::sdot`].
    #[inline(always)]
    unsafe fn step<const STEP: usize, const HEIGHT: usize>(
        sums: &mut [[int32x4_t; QUARTERS]; HEIGHT],
        x: &[int8x16_t; HEIGHT],
        w: &[i8; COLS * DEPTH],
    ) {
        for q in 0..QUARTERS {
            // SAFETY: the caller's promise.
            unsafe {
                let w = quarter(w, q);
                for r in 0..HEIGHT {
                    sums[r][q] = Dotprod::sdot::<STEP>(sums[r][q], x[r], w);
                }
            }
        }
    }
}

// SAFETY: NEON and `sdot`.
unsafe impl Dot for Dotprod {
    type Sums = [int32x4_t; QUARTERS];
    type Weights = [int8x16_t; QUARTERS];
    const SHIFT: i32 = 128;

    #[inline(always)]
    unsafe fn sums(start: &[i32; COLS]) -> Self::Sums {
        integers(start)
    }

    #[inline(always)]
    unsafe fn weights(w: &[i8; COLS * DEPTH]) -> Self::Weights {
        quarters(w)
    }

    #[inline(always)]
    unsafe fn add(mut sums: Self::Sums, x: [u8; DEPTH], w: Self::Weights) -> Self::Sums {
        let x = signed_step(x);
        for q in 0..QUARTERS {
            // SAFETY: the caller's promise.
            sums[q] = unsafe { Dotprod::sdot::<0>(sums[q], x, w[q]) };
        }
        sums
    }

    #[inline(always)]
    unsafe fn many<const HEIGHT: usize>(
        sums: &mut [Self::Sums; HEIGHT],
        rows: &[&[[u8; DEPTH]]; HEIGHT],
        panel: &[[i8; COLS * DEPTH]],
    ) -> usize {
        let blocks = panel.as_chunks::<STEPS>().0;
        for (block, w) in blocks.iter().enumerate() {
            // SAFETY: the caller's promise; the rows have as many steps as the panel.
            unsafe {
                let mut x = [vdupq_n_s8(0); HEIGHT];
                for r in 0..HEIGHT {
                    x[r] = signed(rows[r], block * STEPS);
                }
                Dotprod::step::<0, HEIGHT>(sums, &x, &w[0]);
                Dotprod::step::<1, HEIGHT>(sums, &x, &w[1]);
                Dotprod::step::<2, HEIGHT>(sums, &x, &w[2]);
                Dotprod::step::<3, HEIGHT>(sums, &x, &w[3]);
            }
        }
        blocks.len() * STEPS
    }

    #[inline(always)]
    unsafe fn finish<const FMA: bool>(
        sums: Self::Sums,
        scale: &[f32; COLS],
        bias: &[f32; COLS],
    ) -> [f32; COLS] {
        scaled(sums, scale, bias)
    }
}

/// `usmmla` multiplies two rows of eight unsigned bytes by two columns of eight signed ones; `usdot` adds four such
/// products.
pub(crate) struct I8mm;

impl I8mm {
    /// `[r0 c0, r0 c1, r1 c0, r1 c1]` of two rows and two columns.
    ///
    /// # Safety
    /// The processor has the instruction.
    #[inline(always)]
    unsafe fn usmmla(mut sums: int32x4_t, x: uint8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise; registers alone.
        unsafe {
            asm!(
                "usmmla {sums:v}.4s, {x:v}.16b, {w:v}.16b",
                sums = inlateout(vreg) sums,
                x = in(vreg) x,
                w = in(vreg) w,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    /// One step of four columns; `x` has it four times.
    ///
    /// # Safety
    /// The processor has the instruction.
    #[inline(always)]
    unsafe fn usdot(mut sums: int32x4_t, x: uint8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise; registers alone.
        unsafe {
            asm!(
                "usdot {sums:v}.4s, {x:v}.16b, {w:v}.16b",
                sums = inlateout(vreg) sums,
                x = in(vreg) x,
                w = in(vreg) w,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    /// The halves of two registers of integers: `[a0 a1 b0 b1]` and `[a2 a3 b2 b3]`. Its own inverse.
    #[inline(always)]
    fn halves(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
        // SAFETY: every aarch64 has NEON.
        unsafe {
            let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
            [vreinterpretq_s32_s64(vzip1q_s64(a, b)), vreinterpretq_s32_s64(vzip2q_s64(a, b))]
        }
    }
}

// SAFETY: NEON, `usmmla` and `usdot`.
unsafe impl Dot for I8mm {
    type Sums = [int32x4_t; QUARTERS];
    type Weights = [int8x16_t; QUARTERS];
    const SHIFT: i32 = 0;

    #[inline(always)]
    unsafe fn sums(start: &[i32; COLS]) -> Self::Sums {
        integers(start)
    }

    #[inline(always)]
    unsafe fn weights(w: &[i8; COLS * DEPTH]) -> Self::Weights {
        quarters(w)
    }

    #[inline(always)]
    unsafe fn add(mut sums: Self::Sums, x: [u8; DEPTH], w: Self::Weights) -> Self::Sums {
        for q in 0..QUARTERS {
            // SAFETY: the caller's promise.
            unsafe {
                let x = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(x)));
                sums[q] = I8mm::usdot(sums[q], x, w[q]);
            }
        }
        sums
    }

    /// Pairs of rows by pairs of steps; a last row without a partner goes with itself.
    #[inline(always)]
    unsafe fn many<const HEIGHT: usize>(
        sums: &mut [Self::Sums; HEIGHT],
        rows: &[&[[u8; DEPTH]]; HEIGHT],
        panel: &[[i8; COLS * DEPTH]],
    ) -> usize {
        let pairs = HEIGHT.div_ceil(2);
        let partner = |p: usize| (2 * p + 1).min(HEIGHT - 1);
        let blocks = panel.as_chunks::<2>().0;
        // SAFETY: the caller's promise; the rows have as many steps as the panel.
        unsafe {
            // Two rows by two columns each; the upper half of the array is not used.
            let mut squares = [[[vdupq_n_s32(0); 2]; QUARTERS]; HEIGHT];
            let mut x = [vdupq_n_u8(0); HEIGHT];
            for p in 0..pairs {
                for q in 0..QUARTERS {
                    squares[p][q] = I8mm::halves(sums[2 * p][q], sums[partner(p)][q]);
                }
            }
            for (block, w) in blocks.iter().enumerate() {
                for p in 0..pairs {
                    let eight = |r: usize| vld1_u8(rows[r].as_ptr().add(2 * block).cast());
                    x[p] = vcombine_u8(eight(2 * p), eight(partner(p)));
                }
                for q in 0..QUARTERS {
                    let (first, second) =
                        (vreinterpretq_s32_s8(quarter(&w[0], q)), vreinterpretq_s32_s8(quarter(&w[1], q)));
                    let low = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                    let high = vreinterpretq_s8_s32(vzip2q_s32(first, second));
                    for p in 0..pairs {
                        let [a, b] = squares[p][q];
                        squares[p][q] = [I8mm::usmmla(a, x[p], low), I8mm::usmmla(b, x[p], high)];
                    }
                }
            }
            for p in 0..pairs {
                for q in 0..QUARTERS {
                    let [own, other] = I8mm::halves(squares[p][q][0], squares[p][q][1]);
                    (sums[partner(p)][q], sums[2 * p][q]) = (other, own);
                }
            }
        }
        blocks.len() * 2
    }

    #[inline(always)]
    unsafe fn finish<const FMA: bool>(
        sums: Self::Sums,
        scale: &[f32; COLS],
        bias: &[f32; COLS],
    ) -> [f32; COLS] {
        scaled(sums, scale, bias)
    }
}
