//! Products of f32 matrices whose values are rounded to bf16 (the upper half of an f32) on the way in, with sums in
//! f32: mixed precision as of arXiv 1905.12322.
//!
//! Both operands are packed as pairs of neighbours along the sum, in the layout that `vdpbf16ps` and `tdpbf16ps` take
//! and that products of bytes have too: rows of steps of four bytes, and panels of 16 columns by four bytes. Machines
//! without these instructions widen the pairs again: slower than f32, with the same rounding.

#[cfg(any(test, target_arch = "x86_64"))]
use crate::amx::{Sink, Sums, multiply};
use crate::dot::{COLS, DEPTH};
#[cfg(target_arch = "x86_64")]
use crate::isa::Bf16Dot;
use crate::isa::{Isa, dispatch};
use crate::linear::row_blocks;
use crate::math::madd;

/// Steps of one row or column: values along the sum, two at a time.
type Step = [u8; DEPTH];
/// One step of 16 columns.
type Panel = [u8; COLS * DEPTH];

/// A matrix inside a slice, `rows` by `cols`: the value of row `r` and column `c` lies at `r · row + c · col`. One of
/// the distances is 1.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, R = f32> {
    /// From the first value on.
    pub data: &'a [R],
    /// Number of rows and columns.
    pub size: [usize; 2],
    /// Distance of two rows.
    pub row: usize,
    /// Distance of two columns.
    pub col: usize,
}

impl<'a, R> Matrix<'a, R> {
    /// Rows one after another.
    pub fn new(data: &'a [R], cols: usize) -> Matrix<'a, R> {
        Matrix { data, size: [data.len() / cols.max(1), cols], row: cols, col: 1 }
    }

    /// The same places in other values.
    #[cfg(test)]
    fn with<'b, T>(&self, data: &'b [T]) -> Matrix<'b, T> {
        Matrix { data, size: self.size, row: self.row, col: self.col }
    }

    /// Rows become columns.
    pub fn t(self) -> Matrix<'a, R> {
        Matrix { size: [self.size[1], self.size[0]], row: self.col, col: self.row, ..self }
    }
}

/// The nearest value of bf16.
pub fn round(x: f32) -> f32 {
    f32::from_bits(rounded(x) << 16)
}

/// Packed operands, kept from product to product.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    rows: Vec<Step>,
    panels: Vec<Panel>,
}

/// The upper half of an f32, rounded to the nearest, ties to even; a NaN stays one.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { nearest }
}

/// Two values as a step.
#[inline(always)]
fn step(even: f32, odd: f32) -> Step {
    (rounded(even) | rounded(odd) << 16).to_le_bytes()
}

/// The two values of a step.
#[inline(always)]
pub(crate) fn pair(step: Step) -> [f32; 2] {
    let bits = u32::from_le_bytes(step);
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

/// Packs `[m, k]` as rows.
#[inline(always)]
fn pack_rows_body<const FMA: bool, const WIDE: bool>(a: &Matrix<'_>, rows: &mut Vec<Step>) {
    let [m, k] = a.size;
    let steps = k.div_ceil(2);
    rows.resize(m * steps, [0; DEPTH]);
    if a.col == 1 {
        for (r, to) in rows.chunks_exact_mut(steps).enumerate() {
            let (pairs, last) = a.data[r * a.row..][..k].as_chunks::<2>();
            for (to, &[even, odd]) in to.iter_mut().zip(pairs) {
                *to = step(even, odd);
            }
            if let [even] = last {
                to[steps - 1] = step(*even, 0.0);
            }
        }
    } else {
        for p in 0..steps {
            let even = &a.data[2 * p * a.col..][..m];
            let odd = a.data.get((2 * p + 1) * a.col..).filter(|_| 2 * p + 1 < k);
            for r in 0..m {
                rows[r * steps + p] = step(even[r], odd.map_or(0.0, |odd| odd[r]));
            }
        }
    }
}

/// Packs `[k, n]` as panels; columns beyond the last are 0.
#[inline(always)]
fn pack_panels_body<const FMA: bool, const WIDE: bool>(b: &Matrix<'_>, panels: &mut Vec<Panel>) {
    let [k, n] = b.size;
    let steps = k.div_ceil(2);
    panels.resize(n.div_ceil(COLS) * steps, [0; COLS * DEPTH]);
    for (i, panel) in panels.chunks_exact_mut(steps).enumerate() {
        let (column, count) = (i * COLS, COLS.min(n - i * COLS));
        for (p, to) in panel.iter_mut().enumerate() {
            let to = to.as_chunks_mut::<DEPTH>().0;
            let has_odd = 2 * p + 1 < k;
            if b.col == 1 && count == COLS {
                let even = b.data[2 * p * b.row + column..].first_chunk::<COLS>();
                let odd =
                    b.data.get((2 * p + 1) * b.row + column..).and_then(|odd| odd.first_chunk::<COLS>());
                let (Some(even), odd) = (even, odd.filter(|_| has_odd).unwrap_or(&[0.0; COLS])) else {
                    return;
                };
                for c in 0..COLS {
                    to[c] = step(even[c], odd[c]);
                }
            } else {
                to[count..].fill([0; DEPTH]);
                for c in 0..count {
                    let at = 2 * p * b.row + (column + c) * b.col;
                    let odd = if has_odd { b.data[at + b.row] } else { 0.0 };
                    to[c] = step(b.data[at], odd);
                }
            }
        }
    }
}

dispatch! {
    /// Packs `[m, k]` as rows of `k / 2` steps.
    pub fn pack_rows(a: &Matrix<'_>, rows: &mut Vec<[u8; 4]>) = pack_rows_body
}

dispatch! {
    /// Packs `[k, n]` as panels of `k / 2` steps of 16 columns.
    pub fn pack_panels(b: &Matrix<'_>, panels: &mut Vec<[u8; 64]>) = pack_panels_body
}

/// Where sums go: `c[r][j] += sum`, or `=`; rows of `c` are `n` values.
struct Store<'a> {
    c: &'a mut [f32],
    n: usize,
    accumulate: bool,
}

impl Store<'_> {
    #[inline(always)]
    fn row(&mut self, panel: usize, row: usize, sums: &[f32; COLS]) {
        let (column, count) = (panel * COLS, COLS.min(self.n - panel * COLS));
        let to = &mut self.c[row * self.n + column..][..count];
        if self.accumulate {
            for (to, sum) in to.iter_mut().zip(sums) {
                *to += sum;
            }
        } else {
            to.copy_from_slice(&sums[..count]);
        }
    }
}

#[cfg(any(test, target_arch = "x86_64"))]
impl Sink<f32> for Store<'_> {
    #[inline(always)]
    fn take(&mut self, sums: &Sums<f32>, panel: usize, row: usize, height: usize) {
        for (panel, sums) in (panel..self.n.div_ceil(COLS)).zip(sums) {
            for (r, sums) in sums.iter().enumerate().take(height) {
                self.row(panel, row + r, sums);
            }
        }
    }
}

/// 16 sums to which products of pairs are added.
///
/// # Safety
/// The methods may only be called where the processor has the implementation's instructions.
unsafe trait Dot {
    type Sums: Copy;
    type Weights: Copy;

    unsafe fn zero() -> Self::Sums;
    unsafe fn weights(w: &Panel) -> Self::Weights;
    unsafe fn add(sums: Self::Sums, x: Step, w: Self::Weights) -> Self::Sums;
    unsafe fn values(sums: Self::Sums) -> [f32; COLS];
}

/// The formula, as products of f32.
struct Widened<const FMA: bool>;

// SAFETY: no special instructions but what the caller compiles for.
unsafe impl<const FMA: bool> Dot for Widened<FMA> {
    type Sums = [f32; COLS];
    type Weights = [[f32; COLS]; 2];

    #[inline(always)]
    unsafe fn zero() -> [f32; COLS] {
        [0.0; COLS]
    }

    #[inline(always)]
    unsafe fn weights(w: &Panel) -> [[f32; COLS]; 2] {
        let mut out = [[0.0; COLS]; 2];
        for (c, &w) in w.as_chunks::<DEPTH>().0.iter().enumerate() {
            [out[0][c], out[1][c]] = pair(w);
        }
        out
    }

    #[inline(always)]
    unsafe fn add(mut sums: [f32; COLS], x: Step, w: [[f32; COLS]; 2]) -> [f32; COLS] {
        let [even, odd] = pair(x);
        for c in 0..COLS {
            sums[c] = madd::<FMA>(odd, w[1][c], madd::<FMA>(even, w[0][c], sums[c]));
        }
        sums
    }

    #[inline(always)]
    unsafe fn values(sums: [f32; COLS]) -> [f32; COLS] {
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{COLS, Dot, Panel, Step};

    /// `vdpbf16ps` on one register of 512 bits.
    pub(super) struct Avx512;

    // SAFETY: AVX-512F and AVX512-BF16.
    unsafe impl Dot for Avx512 {
        type Sums = __m512;
        type Weights = __m512bh;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn weights(w: &Panel) -> __m512bh {
            // SAFETY: the reference covers the register, which holds any bits.
            unsafe { transmute::<__m512i, __m512bh>(_mm512_loadu_si512(w.as_ptr().cast())) }
        }

        #[inline(always)]
        unsafe fn add(sums: __m512, x: Step, w: __m512bh) -> __m512 {
            // SAFETY: the caller's promise; a register holds any bits.
            unsafe {
                let x = _mm512_set1_epi32(i32::from_le_bytes(x));
                _mm512_dpbf16_ps(sums, transmute::<__m512i, __m512bh>(x), w)
            }
        }

        #[inline(always)]
        unsafe fn values(sums: __m512) -> [f32; COLS] {
            let mut out = [0.0; COLS];
            // SAFETY: the reference covers the register.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
            out
        }
    }
}

/// Products of packed operands, in tiles of at most `MAX` rows.
///
/// # Safety
/// As [`Dot`].
#[inline(always)]
unsafe fn body<D: Dot, const MAX: usize>(
    rows: &[Step],
    panels: &[Panel],
    steps: usize,
    store: &mut Store<'_>,
) {
    for (p, panel) in panels.chunks_exact(steps).enumerate() {
        for (row, height) in row_blocks(rows.len() / steps, MAX) {
            macro_rules! tile {
                ($height:literal) => {{
                    let mut at = [&rows[..0]; $height];
                    for r in 0..$height {
                        at[r] = &rows[(row + r) * steps..][..steps];
                    }
                    // SAFETY: the caller's promise; every row has as many steps as the panel.
                    unsafe {
                        let mut sums = [D::zero(); $height];
                        for (i, w) in panel.iter().enumerate() {
                            let w = D::weights(w);
                            for r in 0..$height {
                                sums[r] = D::add(sums[r], *at[r].get_unchecked(i), w);
                            }
                        }
                        for r in 0..$height {
                            store.row(p, row + r, &D::values(sums[r]));
                        }
                    }
                }};
            }
            match height {
                1 => tile!(1),
                2 => tile!(2),
                3 => tile!(3),
                4 => tile!(4),
                5 if MAX > 4 => tile!(5),
                6 if MAX > 4 => tile!(6),
                7 if MAX > 4 => tile!(7),
                _ if MAX > 4 => tile!(8),
                _ => {}
            }
        }
    }
}

#[inline(always)]
fn widened_body<const FMA: bool, const WIDE: bool>(
    rows: &[Step],
    panels: &[Panel],
    steps: usize,
    store: &mut Store<'_>,
) {
    // SAFETY: no special instructions.
    unsafe {
        if WIDE {
            body::<Widened<FMA>, 8>(rows, panels, steps, store);
        } else {
            body::<Widened<FMA>, 4>(rows, panels, steps, store);
        }
    }
}

dispatch! {
    fn widened(rows: &[Step], panels: &[Panel], steps: usize, store: &mut Store<'_>) = widened_body
}

/// `c = a b`, or `c += a b`: `a` is `[m, k]`, `b` is `[k, n]`, and `c` has rows of `n` values.
pub fn product(
    isa: Isa,
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
    c: &mut [f32],
    buffers: &mut Buffers,
) {
    let ([m, k], n) = (a.size, b.size[1]);
    debug_assert!(b.size[0] == k && c.len() >= m * n, "sizes agree");
    let steps = k.div_ceil(2);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        c.fill(if accumulate { return } else { 0.0 });
        return;
    }
    pack_rows(isa, &a, &mut buffers.rows);
    pack_panels(isa, &b, &mut buffers.panels);
    let (rows, panels, store) = (&buffers.rows, &buffers.panels, &mut Store { c, n, accumulate });
    #[cfg(target_arch = "x86_64")]
    macro_rules! compiled {
        ($name:ident, $features:literal, $body:expr) => {
            #[target_feature(enable = $features)]
            fn $name(rows: &[Step], panels: &[Panel], steps: usize, store: &mut Store<'_>) {
                // SAFETY: this function is only compiled and called with the features that the primitive needs.
                unsafe { $body(rows, panels, steps, store) }
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    compiled!(avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", body::<x86::Avx512, 8>);
    #[cfg(target_arch = "x86_64")]
    compiled!(
        amx,
        "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
        tiled::<crate::amx::Amx<crate::amx::Pairs>>
    );
    match isa.pairs() {
        // A block of tiles has two rows at least.
        #[cfg(target_arch = "x86_64")]
        Bf16Dot::Amx if m > 1 => {
            // SAFETY: `pairs` has found the instructions and the system's permission; each call is the only user.
            unsafe { amx(rows, panels, steps, store) }
        }
        // SAFETY: `pairs` has found the instructions.
        #[cfg(target_arch = "x86_64")]
        Bf16Dot::Avx512 => unsafe { avx512(rows, panels, steps, store) },
        _ => widened(isa, rows, panels, steps, store),
    }
}

/// As [`body`], tile by tile.
///
/// # Safety
/// As [`crate::amx::Tiles`].
#[cfg(any(test, target_arch = "x86_64"))]
#[inline(always)]
unsafe fn tiled<T: crate::amx::Tiles<crate::amx::Pairs>>(
    rows: &[Step],
    panels: &[Panel],
    steps: usize,
    store: &mut Store<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<crate::amx::Pairs, T>(rows.as_flattened(), panels, steps, store) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plain;
    use crate::test_support::{close, each_isa, values};

    #[test]
    fn rounding_is_to_the_nearest_even() {
        let bits = |x: u32| rounded(f32::from_bits(x));
        assert_eq!([bits(0x3f80_8000), bits(0x3f81_8000)], [0x3f80, 0x3f82], "ties");
        assert_eq!([bits(0x3f80_7fff), bits(0x3f80_8001)], [0x3f80, 0x3f81]);
        assert_eq!(bits(0x7f7f_ffff), 0x7f80, "beyond the largest is infinite");
        for nan in [0x7f80_0001, 0xffff_ffff] {
            assert!(round(f32::from_bits(nan)).is_nan());
        }
    }

    proptest! {
        #[test]
        fn every_isa_is_the_formula(
            m in 1usize..40, k in 1usize..80, n in 1usize..50, turned: [bool; 2], accumulate: bool, seed: u64
        ) {
            let (a, b, before) = (values(m * k, seed), values(k * n, seed ^ 1), values(m * n, seed ^ 2));
            let a = if turned[0] { Matrix::new(&a, m).t() } else { Matrix::new(&a, k) };
            let b = if turned[1] { Matrix::new(&b, k).t() } else { Matrix::new(&b, n) };
            let mut want: Vec<f64> = before.iter().map(|&x| f64::from(x)).collect();
            let wide = |x: &Matrix<'_>| x.data.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let (a64, b64) = (wide(&a), wide(&b));
            let (a64, b64) = (a.with(&a64), b.with(&b64));
            plain::rounded_product(a64, b64, accumulate, &mut want);
            // Left over from a larger product.
            let mut buffers = Buffers { rows: vec![[9; 4]; 5000], panels: vec![[9; 64]; 500] };
            each_isa(|isa| {
                let mut c = before.clone();
                product(isa, a, b, accumulate, &mut c, &mut buffers);
                close(&c, &want, 1e-5);
            });
            // Tile by tile, with the instruction's twin.
            if m > 1 {
                let mut c = before.clone();
                let store = &mut Store { c: &mut c, n, accumulate };
                type Twin = crate::amx::Plain<crate::amx::Pairs>;
                // SAFETY: no special instructions.
                unsafe { tiled::<Twin>(&buffers.rows, &buffers.panels, k.div_ceil(2), store) };
                close(&c, &want, 1e-5);
            }
        }
    }
}
