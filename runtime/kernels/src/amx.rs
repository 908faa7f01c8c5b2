//! The primitive of products tile by tile: registers of 16 rows by 64 bytes, and an instruction that multiplies two of
//! them (Intel's Advanced Matrix Extensions, Software Developer's Manual, volume 1, chapter 18).
//!
//! [`Tiles`] is four sums of 16 by 16: two tiles of rows by two panels of columns, so that each tile that is loaded
//! is used twice. Loops, edges and epilogues are written once over it; [`Plain`] runs all of that everywhere.

use crate::dot::{COLS, DEPTH};
use crate::linear::{prefetch, row_blocks};

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Bytes of a row of a tile.
pub(crate) const BYTES: usize = 64;

/// The sums of two panels, a row for each row of the block.
pub(crate) type Sums<T> = [[[T; COLS]; 2 * ROWS]; 2];

/// Steps of a tile: each takes [`DEPTH`] bytes of a row.
const STEPS: usize = BYTES / DEPTH;
/// A tile of weights: [`COLS`] columns of each step.
type Weight = [[u8; COLS * DEPTH]; STEPS];

/// How two elements of a row and a column become a sum.
pub(crate) trait Element {
    /// What is added up.
    type Sum: Copy + Default;

    /// Adds the products of four bytes each.
    #[cfg_attr(not(test), allow(dead_code))]
    fn add(sum: Self::Sum, x: [u8; DEPTH], w: [u8; DEPTH]) -> Self::Sum;
}

/// Unsigned bytes by signed bytes.
#[derive(Debug)]
pub(crate) enum Bytes {}

impl Element for Bytes {
    type Sum = i32;

    #[inline(always)]
    fn add(mut sum: i32, x: [u8; DEPTH], w: [u8; DEPTH]) -> i32 {
        for i in 0..DEPTH {
            sum += i32::from(x[i]) * i32::from(w[i] as i8);
        }
        sum
    }
}

/// Pairs of bf16, the even one first.
#[derive(Debug)]
pub(crate) enum Pairs {}

impl Element for Pairs {
    type Sum = f32;

    #[inline(always)]
    fn add(sum: f32, x: [u8; DEPTH], w: [u8; DEPTH]) -> f32 {
        let ([x0, x1], [w0, w1]) = (crate::bf16::pair(x), crate::bf16::pair(w));
        sum + (x0 * w0 + x1 * w1)
    }
}

/// Four tiles of sums.
///
/// # Safety
/// The methods may only be called where the processor has the implementation's instructions and the system has
/// permitted them ([`permitted`]). There is one set of tile registers: from `begin` to `end` of one value, no other
/// value of the thread may be used.
pub(crate) unsafe trait Tiles<E: Element> {
    /// Registers for blocks of so many rows in the upper and the lower tile, 1 to 16 each.
    unsafe fn begin(rows: [usize; 2]) -> Self;

    /// All sums become 0.
    unsafe fn zero(&mut self);

    /// Adds the products of 64 bytes of each row: those from `x` on, `stride` bytes apart.
    ///
    /// Every row has 64 bytes inside of `x`.
    unsafe fn add(&mut self, x: &[u8], stride: usize, w: [&Weight; 2]);

    /// The sums; rows that the block lacks keep what they were.
    unsafe fn store(&self, sums: &mut Sums<E::Sum>);

    /// Gives the registers back.
    unsafe fn end(self);
}

/// The formula: what tests hold the instructions against.
#[cfg(test)]
pub(crate) struct Plain<E: Element> {
    rows: usize,
    sums: Box<Sums<E::Sum>>,
}

// SAFETY: no special instructions.
#[cfg(test)]
unsafe impl<E: Element> Tiles<E> for Plain<E> {
    unsafe fn begin(rows: [usize; 2]) -> Plain<E> {
        Plain { rows: rows[0] + rows[1], sums: Box::new([[[E::Sum::default(); COLS]; 2 * ROWS]; 2]) }
    }

    unsafe fn zero(&mut self) {
        *self.sums = [[[E::Sum::default(); COLS]; 2 * ROWS]; 2];
    }

    unsafe fn add(&mut self, x: &[u8], stride: usize, w: [&Weight; 2]) {
        for (sums, steps) in self.sums.iter_mut().zip(w) {
            for (r, sums) in sums.iter_mut().enumerate().take(self.rows) {
                let x = x[r * stride..][..BYTES].as_chunks::<DEPTH>().0;
                for (x, step) in x.iter().zip(steps) {
                    for (sum, w) in sums.iter_mut().zip(step.as_chunks::<DEPTH>().0) {
                        *sum = E::add(*sum, *x, *w);
                    }
                }
            }
        }
    }

    unsafe fn store(&self, sums: &mut Sums<E::Sum>) {
        for (sums, from) in sums.iter_mut().zip(&*self.sums) {
            sums[..self.rows].copy_from_slice(&from[..self.rows]);
        }
    }

    unsafe fn end(self) {}
}

/// What becomes of the sums of a block.
pub(crate) trait Sink<S> {
    /// Takes the sums of `height` rows, the first of which is `row`, in panels `panel` and the next (if there is one).
    fn take(&mut self, sums: &Sums<S>, panel: usize, row: usize, height: usize);
}

/// The products of all rows of `x` with all panels of `weights`, block by block. A row of `x` and a panel have `steps`
/// steps, which are followed by the next row or panel. There are at least two rows.
///
/// # Safety
/// As [`Tiles`].
#[inline(always)]
pub(crate) unsafe fn multiply<E: Element, T: Tiles<E>>(
    x: &[u8],
    weights: &[[u8; COLS * DEPTH]],
    steps: usize,
    sink: &mut impl Sink<E::Sum>,
) {
    let stride = steps * DEPTH;
    let (rows, panels) = (x.len() / stride, weights.len() / steps);
    debug_assert!(rows >= 2, "a block has two tiles of rows");
    let rest = steps % STEPS;
    let mut sums = [[[E::Sum::default(); COLS]; 2 * ROWS]; 2];
    let mut registers: Option<(usize, T)> = None;
    for panel in (0..panels).step_by(2) {
        // The last panel may be alone: it is then computed twice.
        let pair = [panel, (panel + 1).min(panels - 1)].map(|p| &weights[p * steps..][..steps]);
        let [left, right] = pair.map(|w| w.as_chunks::<STEPS>());
        // Steps beyond the last have a weight of 0.
        let mut last = [[[0; COLS * DEPTH]; STEPS]; 2];
        for (last, (_, from)) in last.iter_mut().zip([left, right]) {
            last[..rest].copy_from_slice(from);
        }
        for (row, height) in row_blocks(rows, 2 * ROWS) {
            // SAFETY: the caller's promise; the rows of a block are inside of `x`, and so are the 64 bytes of each
            // that whole tiles take.
            unsafe {
                if registers.as_ref().is_none_or(|(configured, _)| *configured != height) {
                    if let Some((_, registers)) = registers.take() {
                        registers.end();
                    }
                    registers = Some((height, T::begin([height.div_ceil(2), height / 2])));
                }
                let Some((_, registers)) = &mut registers else { return };
                registers.zero();
                // The weights of a model do not fit into the near caches: the last block fetches the next panels.
                let next = if row + height == rows {
                    weights.get((panel + 2) * steps..).unwrap_or(&[])
                } else {
                    &[]
                };
                for (i, (left, right)) in left.0.iter().zip(right.0).enumerate() {
                    next.iter().skip(2 * i * STEPS).take(2 * STEPS).for_each(prefetch);
                    registers.add(&x[row * stride + i * BYTES..], stride, [left, right]);
                }
                if rest > 0 {
                    let mut edge = [[0; BYTES]; 2 * ROWS];
                    for (to, from) in edge.iter_mut().zip(x[row * stride..].chunks_exact(stride)).take(height)
                    {
                        to[..rest * DEPTH].copy_from_slice(&from[stride - rest * DEPTH..]);
                    }
                    registers.add(edge.as_flattened(), BYTES, [&last[0], &last[1]]);
                }
                registers.store(&mut sums);
            }
            sink.take(&sums, panel, row, height);
        }
    }
    if let Some((_, registers)) = registers {
        // SAFETY: the caller's promise.
        unsafe { registers.end() };
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use instructions::{Amx, permitted};

#[cfg(target_arch = "x86_64")]
mod instructions {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::marker::PhantomData;
    use std::sync::OnceLock;

    use super::{BYTES, Bytes, Element, Pairs, ROWS, Sums, Tiles, Weight};

    /// What the processor has of the extensions, with the system's permission to use it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Permitted {
        /// Products of bytes.
        pub bytes: bool,
        /// Products of bf16.
        pub pairs: bool,
    }

    /// Asks once: the registers are 8 KiB of a thread's state, which Linux gives only to processes that ask for it.
    pub(crate) fn permitted() -> Permitted {
        static PERMITTED: OnceLock<Permitted> = OnceLock::new();
        *PERMITTED.get_or_init(|| {
            // Callers have seen AVX-512, so that the leaf is there.
            #[allow(unused_unsafe, reason = "safe in newer compilers")]
            // SAFETY: every x86-64 has the instruction.
            let features = unsafe { __cpuid_count(7, 0) }.edx;
            let (pairs, tile, bytes) = (1 << 22, 1 << 24, 1 << 25);
            if features & tile == 0 || !ask() {
                return Permitted::default();
            }
            Permitted { bytes: features & bytes != 0, pairs: features & pairs != 0 }
        })
    }

    /// Asks Linux for the tile registers, for all threads of the process.
    #[cfg(target_os = "linux")]
    fn ask() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const REQUEST: u64 = 0x1023; // ARCH_REQ_XCOMP_PERM
        const TILE_DATA: u64 = 18;
        let mut status = ARCH_PRCTL;
        // SAFETY: the call has two numbers as arguments and touches no memory of ours; systems that do not know the
        // request answer with an error.
        unsafe {
            asm!("syscall", inout("rax") status, in("rdi") REQUEST, in("rsi") TILE_DATA, out("rcx") _, out("r11") _,
                options(nostack));
        }
        status == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn ask() -> bool {
        false
    }

    /// What `ldtilecfg` reads.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Sums in registers 0 to 3 (upper and lower by panel), rows in 4 and 5, weights in 6 and 7.
    pub(crate) struct Amx<E> {
        upper: usize,
        element: PhantomData<E>,
    }

    /// The instruction that multiplies two tiles.
    macro_rules! tiles {
        ($element:ty, $multiply:literal) => {
            // SAFETY: AMX with this product. Compilers use no tile registers by themselves, so what one block leaves
            // in them is there in the next.
            unsafe impl Tiles<$element> for Amx<$element> {
                #[inline(always)]
                unsafe fn begin([upper, lower]: [usize; 2]) -> Self {
                    debug_assert!((1..=ROWS).contains(&upper) && (1..=ROWS).contains(&lower));
                    let [u, l] = [upper as u8, lower as u8];
                    let (mut rows, mut bytes) = ([0; 16], [0; 16]);
                    rows[..8].copy_from_slice(&[u, u, l, l, u, l, ROWS as u8, ROWS as u8]);
                    bytes[..8].fill(BYTES as u16);
                    let configuration = Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows };
                    // SAFETY: the caller's promise; a configuration of palette 1 within 16 rows by 64 bytes.
                    unsafe {
                        asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly));
                    }
                    Amx { upper, element: PhantomData }
                }

                #[inline(always)]
                unsafe fn zero(&mut self) {
                    // SAFETY: the caller's promise.
                    unsafe {
                        asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
                    }
                }

                #[inline(always)]
                unsafe fn add(&mut self, x: &[u8], stride: usize, w: [&Weight; 2]) {
                    // SAFETY: the caller's promise: the rows of both tiles are inside of `x`.
                    unsafe {
                        let upper = x.as_ptr();
                        let lower = upper.add(self.upper * stride);
                        asm!(
                            "tileloadd tmm6, [{left} + {line}*1]",
                            "tileloadd tmm4, [{upper} + {stride}*1]",
                            concat!($multiply, " tmm0, tmm4, tmm6"),
                            "tileloadd tmm7, [{right} + {line}*1]",
                            concat!($multiply, " tmm1, tmm4, tmm7"),
                            "tileloadd tmm5, [{lower} + {stride}*1]",
                            concat!($multiply, " tmm2, tmm5, tmm6"),
                            concat!($multiply, " tmm3, tmm5, tmm7"),
                            left = in(reg) w[0].as_ptr(), right = in(reg) w[1].as_ptr(), line = in(reg) BYTES,
                            upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
                            options(nostack, readonly),
                        );
                    }
                }

                #[inline(always)]
                unsafe fn store(&self, sums: &mut Sums<<$element as Element>::Sum>) {
                    let [left, right] = sums;
                    let (left, right) = (left.as_mut_ptr(), right.as_mut_ptr());
                    // SAFETY: the caller's promise; the panels have room for 16 + 16 rows of 64 bytes.
                    unsafe {
                        asm!(
                            "tilestored [{a} + {line}*1], tmm0",
                            "tilestored [{b} + {line}*1], tmm1",
                            "tilestored [{c} + {line}*1], tmm2",
                            "tilestored [{d} + {line}*1], tmm3",
                            a = in(reg) left, b = in(reg) right,
                            c = in(reg) left.add(self.upper), d = in(reg) right.add(self.upper),
                            line = in(reg) BYTES,
                            options(nostack),
                        );
                    }
                }

                #[inline(always)]
                unsafe fn end(self) {
                    // SAFETY: the caller's promise.
                    unsafe {
                        asm!("tilerelease", options(nostack, nomem));
                    }
                }
            }
        };
    }
    tiles!(Bytes, "tdpbusd");
    tiles!(Pairs, "tdpbf16ps");
}
