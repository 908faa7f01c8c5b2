//! Products of bytes on aarch64: NEON as every such processor has it, and two later instructions.
//!
//! The later ones are written as assembly, because their intrinsics are not stable yet.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{COLS, DEPTH, Dot, Steps};

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
/// There are `STEPS` steps from `x` on.
#[inline(always)]
unsafe fn signed(x: *const [u8; DEPTH]) -> int8x16_t {
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe { vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x.cast()), vdupq_n_u8(0x80))) }
}

/// The bytes of one step, less 128, four times.
#[inline(always)]
fn signed_step(x: [u8; DEPTH]) -> int8x16_t {
    // SAFETY: every aarch64 has NEON.
    unsafe { vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes(x) ^ 0x8080_8080)) }
}

/// Inputs of a block of [`Neon`].
const BLOCK: usize = 32;
/// Steps of a block: a panel for [`Neon`] has a multiple of them.
pub(crate) const BLOCK_STEPS: usize = BLOCK / DEPTH;

/// From steps, `[inputs / 4, 16, 4]`, to what [`Neon`] reads in order: `[4, inputs / 32, 4, 32]`, four columns at once.
pub(crate) fn pack_blocks(panel: &mut [[i8; COLS * DEPTH]]) {
    let steps = panel.to_vec();
    let blocks = steps.len() / BLOCK_STEPS;
    for (i, line) in panel.as_flattened_mut().as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let column = i / QUARTERS / blocks * QUARTERS + i % QUARTERS;
        let from = &steps[i / QUARTERS % blocks * BLOCK_STEPS..][..BLOCK_STEPS];
        for (to, step) in line.as_chunks_mut::<DEPTH>().0.iter_mut().zip(from) {
            to.copy_from_slice(&step[column * DEPTH..][..DEPTH]);
        }
    }
}

/// Whether the products of four inputs, eight apart, fit into 16 bits for all blocks of a panel for [`Neon`], with 128
/// taken off the bytes: 128 · 255 < 2^15.
pub(crate) fn four_fit(panel: &[[i8; COLS * DEPTH]]) -> bool {
    panel.as_flattened().as_chunks::<BLOCK>().0.iter().all(|line| {
        let sum = |at: usize| -> u32 { (0..4).map(|i| u32::from(line[at + 8 * i].unsigned_abs())).sum() };
        (0..8).all(|at| sum(at) <= 255)
    })
}

/// The sums of four columns, from the parts of each.
#[inline(always)]
fn whole([a, b, c, d]: [int32x4_t; QUARTERS]) -> int32x4_t {
    // SAFETY: every aarch64 has NEON.
    unsafe { vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)) }
}

/// `smull` and `smlal` multiply in 16 bits, where `TOGETHER` products have room: two of any weights (128 · 127 · 2 <
/// 2^15), four where the layer's weights say so. `sadalp` adds pairs of those in 32 bits.
///
/// Inputs lie along registers, so that bytes are multiplied as they were loaded; a column's parts are added at the end.
pub(crate) struct Neon<const TOGETHER: usize>;

impl<const TOGETHER: usize> Neon<TOGETHER> {
    /// A block of column `COLUMN` of four, for all rows. In one piece: the compiler would mix columns, and run out of
    /// registers.
    #[inline(always)]
    fn column<const COLUMN: usize, const HEIGHT: usize>(
        sums: &mut [[int32x4_t; QUARTERS]; HEIGHT],
        x: &[[int8x16_t; 2]; HEIGHT],
        w: &[[i8; BLOCK]; QUARTERS],
    ) {
        macro_rules! products {
            ($between:literal, $next:literal; $($r:literal $t:ident $a:ident $b:ident $sum:ident),*) => {
                // SAFETY: every aarch64 has NEON; two registers of weights are a block.
                unsafe {
                    asm!(
                        "ldp {w0:q}, {w1:q}, [{w}, {offset}]",
                        $(concat!("smull {", stringify!($t), ":v}.8h, {", stringify!($a), ":v}.8b, {w0:v}.8b"),)*
                        $(concat!("smlal2 {", stringify!($t), ":v}.8h, {", stringify!($a), ":v}.16b, {w0:v}.16b"),)*
                        $(concat!($between, " {", stringify!($sum), ":v}.4s, {", stringify!($t), ":v}.8h"),)*
                        $(concat!($next, " {", stringify!($t), ":v}.8h, {", stringify!($b), ":v}.8b, {w1:v}.8b"),)*
                        $(concat!("smlal2 {", stringify!($t), ":v}.8h, {", stringify!($b), ":v}.16b, {w1:v}.16b"),)*
                        $(concat!("sadalp {", stringify!($sum), ":v}.4s, {", stringify!($t), ":v}.8h"),)*
                        w = in(reg) w.as_ptr(), offset = const COLUMN * BLOCK, w0 = out(vreg) _, w1 = out(vreg) _,
                        $(
                            $t = out(vreg) _, $a = in(vreg) x[$r][0], $b = in(vreg) x[$r][1],
                            $sum = inout(vreg) sums[$r][COLUMN],
                        )*
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
            };
        }
        macro_rules! rows {
            ($($row:tt)*) => {
                if TOGETHER == 4 {
                    products!("//", "smlal"; $($row)*)
                } else {
                    products!("sadalp", "smull"; $($row)*)
                }
            };
        }
        match HEIGHT {
            1 => rows!(0 t0 a0 b0 s0),
            2 => rows!(0 t0 a0 b0 s0, 1 t1 a1 b1 s1),
            3 => rows!(0 t0 a0 b0 s0, 1 t1 a1 b1 s1, 2 t2 a2 b2 s2),
            _ => rows!(0 t0 a0 b0 s0, 1 t1 a1 b1 s1, 2 t2 a2 b2 s2, 3 t3 a3 b3 s3),
        }
    }

    /// What is left of a row, less than a block, with the last block of each quarter: every `blocks`-th of `w`.
    #[cold]
    #[inline(never)]
    fn rest(
        out: &mut [int32x4_t; QUARTERS],
        row: &[[u8; DEPTH]],
        w: &[[[i8; BLOCK]; QUARTERS]],
        blocks: usize,
    ) {
        let mut filled = [[0u8; DEPTH]; BLOCK_STEPS];
        filled.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
        for (out, w) in out.iter_mut().zip(w.iter().step_by(blocks)) {
            // SAFETY: every aarch64 has NEON; a block is two registers.
            unsafe {
                let mut sums = [[vdupq_n_s32(0); QUARTERS]];
                let x = [signed(filled.as_ptr()), signed(filled.as_ptr().add(STEPS))];
                Self::block(&mut sums, &[x], w);
                *out = vaddq_s32(*out, whole(sums[0]));
            }
        }
    }

    /// A block of four columns for all rows.
    #[inline(always)]
    fn block<const HEIGHT: usize>(
        sums: &mut [[int32x4_t; QUARTERS]; HEIGHT],
        x: &[[int8x16_t; 2]; HEIGHT],
        w: &[[i8; BLOCK]; QUARTERS],
    ) {
        Self::column::<0, HEIGHT>(sums, x, w);
        Self::column::<1, HEIGHT>(sums, x, w);
        Self::column::<2, HEIGHT>(sums, x, w);
        Self::column::<3, HEIGHT>(sums, x, w);
    }
}

// SAFETY: NEON alone.
unsafe impl<const TOGETHER: usize> Dot for Neon<TOGETHER> {
    type Sums = [int32x4_t; QUARTERS];
    const SHIFT: i32 = 128;

    #[inline(always)]
    unsafe fn sums(start: &[i32; COLS]) -> Self::Sums {
        integers(start)
    }

    #[inline(always)]
    unsafe fn products<const HEIGHT: usize>(
        start: &[i32; COLS],
        rows: &[&[[u8; DEPTH]]; HEIGHT],
        panel: &[[i8; COLS * DEPTH]],
    ) -> [Self::Sums; HEIGHT] {
        let starts = integers(start);
        let mut out = [starts; HEIGHT];
        let full = rows[0].len() / BLOCK_STEPS;
        let blocks = panel.len() / BLOCK_STEPS;
        let (w, _) = panel.as_flattened().as_chunks::<BLOCK>().0.as_chunks::<QUARTERS>();
        for (quarter, w) in w.chunks_exact(blocks).enumerate().take(QUARTERS) {
            // SAFETY: every aarch64 has NEON; `full` blocks lie within each row.
            unsafe {
                let mut sums = [[vdupq_n_s32(0); QUARTERS]; HEIGHT];
                let mut at = rows.map(|row| row.as_ptr());
                for w in &w[..full] {
                    let mut x = [[vdupq_n_s8(0); 2]; HEIGHT];
                    for r in 0..HEIGHT {
                        x[r] = [signed(at[r]), signed(at[r].add(STEPS))];
                        at[r] = at[r].add(BLOCK_STEPS);
                    }
                    Self::block(&mut sums, &x, w);
                }
                for r in 0..HEIGHT {
                    out[r][quarter] = vaddq_s32(starts[quarter], whole(sums[r]));
                }
            }
        }
        if full < blocks {
            for r in 0..HEIGHT {
                Self::rest(&mut out[r], &rows[r][full * BLOCK_STEPS..], &w[full..], blocks);
            }
        }
        out
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
unsafe impl Steps for Dotprod {
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
                    x[r] = signed(rows[r].as_ptr().add(block * STEPS));
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

/// Two steps that follow each other, `[2, 16, 4]`, to what [`I8mm`] reads in order: `[16, 2, 4]`. A last step without a
/// partner stays.
pub(crate) fn pack_pairs(panel: &mut [[i8; COLS * DEPTH]]) {
    for pair in panel.as_chunks_mut::<2>().0 {
        let steps = *pair;
        for (i, to) in pair.as_flattened_mut().as_chunks_mut::<DEPTH>().0.iter_mut().enumerate() {
            to.copy_from_slice(&steps[i % 2][i / 2 * DEPTH..][..DEPTH]);
        }
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
unsafe impl Steps for I8mm {
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
                    let w = w.as_flattened().as_ptr().add(q * 2 * COLS);
                    let (low, high) = (vld1q_s8(w), vld1q_s8(w.add(COLS)));
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
