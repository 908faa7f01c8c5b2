//! Products of small matrices, as attention needs them: no packing, operands read where they lie.
//!
//! `c = α a b` or `c += α a b` with `a` `[m, k]` by any strides (its values are broadcast), `b` `[k, n]` and
//! `c` `[m, n]` with contiguous rows. Large products belong to `matrixmultiply`, which packs.

use crate::isa::dispatch;
use crate::math::madd;

/// Sizes, strides and the update of one product.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows of `a` and `c`.
    pub m: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
    /// Columns of `b` and `c`.
    pub n: usize,
    /// Distance between rows of `a`.
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

/// `ROWS` x 16 values of `c`, at row `i` and column `j`.
#[inline(always)]
fn block<const FMA: bool, const ROWS: usize>(
    s: &Shape,
    alpha: f32,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    i: usize,
    j: usize,
) {
    let mut sums = [[0f32; COLS]; ROWS];
    for p in 0..s.k {
        let Some(row) = b[p * s.b_row + j..].first_chunk::<COLS>() else { return };
        for r in 0..ROWS {
            let x = a[(i + r) * s.a_row + p * s.a_col];
            for l in 0..COLS {
                sums[r][l] = madd::<FMA>(x, row[l], sums[r][l]);
            }
        }
    }
    for r in 0..ROWS {
        let Some(out) = c[(i + r) * s.c_row + j..].first_chunk_mut::<COLS>() else { return };
        for l in 0..COLS {
            let old = if s.accumulate { out[l] } else { 0.0 };
            out[l] = madd::<FMA>(alpha, sums[r][l], old);
        }
    }
}

#[inline(always)]
fn body<const FMA: bool, const WIDE: bool>(s: Shape, alpha: f32, a: &[f32], b: &[f32], c: &mut [f32]) {
    let whole = s.n - s.n % COLS;
    for j in (0..whole).step_by(COLS) {
        let mut i = 0;
        if WIDE {
            while i + 12 <= s.m {
                block::<FMA, 12>(&s, alpha, a, b, c, i, j);
                i += 12;
            }
        } else {
            while i + 6 <= s.m {
                block::<FMA, 6>(&s, alpha, a, b, c, i, j);
                i += 6;
            }
        }
        while i + 4 <= s.m {
            block::<FMA, 4>(&s, alpha, a, b, c, i, j);
            i += 4;
        }
        while i < s.m {
            block::<FMA, 1>(&s, alpha, a, b, c, i, j);
            i += 1;
        }
    }
    for i in 0..s.m {
        for j in whole..s.n {
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
    for i in 0..rows {
        let row = &x[i * x_row..i * x_row + cols];
        for (j, &x) in row.iter().enumerate() {
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
