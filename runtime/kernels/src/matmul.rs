//! Products of small matrices, as attention needs them: no packing, operands read where they lie.
//!
//! `c = α a b` or `c += α a b` with `a` `[m, k]`, rows or columns of which are neighbours (its values are broadcast),
//! `b` `[k, n]` and `c` `[m, n]` with contiguous rows. Large products belong to `matrixmultiply`, which packs: a kernel
//! that packs `b` alone was no faster at the sizes of training.

use crate::isa::dispatch;
use crate::linear::row_blocks;
use crate::math::{madd, madd_is_long};
use crate::transpose::{SIDE, transpose as transpose_square};

/// Sizes, strides and the update of one product.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows of `a` and `c`.
    pub m: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
    /// Columns of `b` and `c`.
    pub n: usize,
    /// Distance between rows of `a`; 1, unless `a_col` is.
    pub a_row: usize,
    /// Distance between columns of `a`.
    pub a_col: usize,
    /// Distance between rows of `b`.
    pub b_row: usize,
    /// Distance between rows of `c`.
    pub c_row: usize,
    /// Whether to add to `c` or overwrite it.
    pub accumulate: bool,
}

/// Columns of one block: one AVX-512 register, two of AVX2, four of NEON.
const COLS: usize = 16;
/// Columns of a narrow one.
const HALF: usize = COLS / 2;

/// `ROWS` x `WIDTH` values of `c`, at row `i` and column `j`; `ALONG`: the columns of `a` are neighbours, else its rows.
#[inline(always)]
fn block<const FMA: bool, const ALONG: bool, const ROWS: usize, const WIDTH: usize>(
    s: &Shape,
    alpha: f32,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    i: usize,
    j: usize,
) {
    debug_assert!(ALONG || s.a_row == 1, "neither rows nor columns of a are neighbours");
    let mut sums = [[0f32; WIDTH]; ROWS];
    // Rows of `a`, or the whole of it: places that one index leads to.
    let mut rows = [&a[..0]; ROWS];
    for r in 0..ROWS {
        rows[r] = if ALONG { &a[(i + r) * s.a_row..][..s.k] } else { &a[i + r..] };
    }
    if s.k > 0 {
        assert!(ALONG || i + ROWS - 1 + (s.k - 1) * s.a_col < a.len(), "a is too short");
        assert!((s.k - 1) * s.b_row + j + WIDTH <= b.len(), "b is too short");
    }
    for p in 0..s.k {
        // SAFETY: the assertion above: this row ends within `b`.
        let row: &[f32; WIDTH] = unsafe { &*b.as_ptr().add(p * s.b_row + j).cast() };
        let at = if ALONG { p } else { p * s.a_col };
        for r in 0..ROWS {
            // SAFETY: the row has `k` values, or the assertion above: this place is within `a`.
            let x = unsafe { *rows[r].get_unchecked(at) };
            for l in 0..WIDTH {
                sums[r][l] = madd::<FMA>(x, row[l], sums[r][l]);
            }
        }
    }
    for r in 0..ROWS {
        let Some(out) = c[(i + r) * s.c_row + j..].first_chunk_mut::<WIDTH>() else { return };
        for l in 0..WIDTH {
            let old = if s.accumulate { out[l] } else { 0.0 };
            out[l] = madd::<FMA>(alpha, sums[r][l], old);
        }
    }
}

/// All rows of `WIDTH` columns from column `j` on.
#[inline(always)]
fn columns<const FMA: bool, const WIDE: bool, const ALONG: bool, const WIDTH: usize>(
    s: &Shape,
    alpha: f32,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    j: usize,
) {
    // Twelve registers of sums.
    let most = match madd_is_long::<FMA>() {
        true => 1,
        false if WIDE || WIDTH == HALF => 12,
        false => 6,
    };
    for (i, height) in row_blocks(s.m, most) {
        macro_rules! block {
            ($height:literal) => {
                block::<FMA, ALONG, $height, WIDTH>(s, alpha, a, b, c, i, j)
            };
        }
        match height {
            1 => block!(1),
            2 if most > 1 => block!(2),
            3 if most > 1 => block!(3),
            4 if most > 1 => block!(4),
            5 if most > 1 => block!(5),
            6 if most > 1 => block!(6),
            7 if most > 6 => block!(7),
            8 if most > 6 => block!(8),
            9 if most > 6 => block!(9),
            10 if most > 6 => block!(10),
            11 if most > 6 => block!(11),
            _ if most > 6 => block!(12),
            _ => {}
        }
    }
}

#[inline(always)]
fn body<const FMA: bool, const WIDE: bool>(s: Shape, alpha: f32, a: &[f32], b: &[f32], c: &mut [f32]) {
    match s.a_col == 1 {
        true => small::<FMA, WIDE, true>(&s, alpha, a, b, c),
        false => small::<FMA, WIDE, false>(&s, alpha, a, b, c),
    }
}

#[inline(always)]
fn small<const FMA: bool, const WIDE: bool, const ALONG: bool>(
    s: &Shape,
    alpha: f32,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
) {
    let mut j = 0;
    while j + COLS <= s.n {
        columns::<FMA, WIDE, ALONG, COLS>(s, alpha, a, b, c, j);
        j += COLS;
    }
    if j + HALF <= s.n {
        columns::<FMA, WIDE, ALONG, HALF>(s, alpha, a, b, c, j);
        j += HALF;
    }
    for i in 0..s.m {
        for j in j..s.n {
            let mut sum = 0.0;
            for p in 0..s.k {
                sum = madd::<FMA>(a[i * s.a_row + p * s.a_col], b[p * s.b_row + j], sum);
            }
            let out = &mut c[i * s.c_row + j];
            *out = madd::<FMA>(alpha, sum, if s.accumulate { *out } else { 0.0 });
        }
    }
}

dispatch! {
    /// `c (+)= α a b`; see the module's documentation.
    pub fn product(s: Shape, alpha: f32, a: &[f32], b: &[f32], c: &mut [f32]) = body
}

#[inline(always)]
fn transpose_body<const FMA: bool, const WIDE: bool>(
    x: &[f32],
    x_row: usize,
    rows: usize,
    cols: usize,
    y: &mut [f32],
    y_row: usize,
) {
    let row = |i: usize| &x[i * x_row..i * x_row + cols];
    let whole = rows - rows % SIDE;
    for i in (0..whole).step_by(SIDE) {
        let four = [0, 1, 2, 3].map(|r| row(i + r).as_chunks::<SIDE>());
        let squares = four[0].0.iter().zip(four[1].0).zip(four[2].0).zip(four[3].0);
        for (j, (((a, b), c), d)) in squares.enumerate() {
            for (column, values) in transpose_square([*a, *b, *c, *d]).into_iter().enumerate() {
                y[(j * SIDE + column) * y_row + i..][..SIDE].copy_from_slice(&values);
            }
        }
        for (r, (_, rest)) in four.into_iter().enumerate() {
            for (j, &x) in (cols - rest.len()..).zip(rest) {
                y[j * y_row + i + r] = x;
            }
        }
    }
    for i in whole..rows {
        for (j, &x) in row(i).iter().enumerate() {
            y[j * y_row + i] = x;
        }
    }
    for row in y.chunks_mut(y_row).take(cols) {
        row[rows..].fill(0.0);
    }
}

dispatch! {
    /// `y[j][i] = x[i][j]`; what is left of each row of `y` (`y_row` values) becomes 0.
    pub fn transpose(
        x: &[f32], x_row: usize, rows: usize, cols: usize, y: &mut [f32], y_row: usize,
    ) = transpose_body
}

#[cfg(test)]
mod tests {
    use super::Shape;
    use crate::plain;
    use crate::test_support::{close, each_isa, values, widen};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_isa_agrees_with_the_reference(
            m in 1usize..30, k in 1usize..40, n in 1usize..50, pad in 0usize..3,
            flip: bool, accumulate: bool,
        ) {
            let (a_row, a_col) = if flip { (1, m + pad) } else { (k + pad, 1) };
            let s = Shape { m, k, n, a_row, a_col, b_row: n + pad, c_row: n + 2 * pad, accumulate };
            let (a, b, c) = (values((m + pad) * (k + pad), 1), values(k * s.b_row, 2), values(m * s.c_row, 3));
            let mut want = widen(&c);
            plain::product(s, f64::from(0.5f32), &widen(&a), &widen(&b), &mut want);
            each_isa(|isa| {
                let mut got = c.clone();
                super::product(isa, s, 0.5, &a, &b, &mut got);
                close(&got, &want, 1e-5);
            });
        }
    }

    #[test]
    fn a_transpose_pads_with_zeros() {
        let x = values(3 * 7, 1);
        each_isa(|isa| {
            let mut y = vec![9.0; 5 * 8];
            super::transpose(isa, &x, 7, 3, 5, &mut y, 8);
            for (j, row) in y.chunks(8).enumerate() {
                for (i, &y) in row.iter().enumerate() {
                    assert_eq!(y, if i < 3 { x[i * 7 + j] } else { 0.0 });
                }
            }
        });
    }
}
