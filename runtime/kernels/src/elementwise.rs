//! Passes over memory between the matrix products: sums, biases, scaled additions.

use crate::isa::dispatch;
use crate::math::madd;

#[inline(always)]
fn axpy_body<const FMA: bool, const WIDE: bool>(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = madd::<FMA>(a, x, *y);
    }
}

dispatch! {
    /// `y += a x`.
    pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) = axpy_body
}

#[inline(always)]
fn column_sums_body<const FMA: bool, const WIDE: bool>(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len().max(1)) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

dispatch! {
    /// `sums[j] += Σ_i x[i][j]`, rows of `sums.len()` values.
    pub fn column_sums(x: &[f32], sums: &mut [f32]) = column_sums_body
}

#[inline(always)]
fn add_rows_body<const FMA: bool, const WIDE: bool>(x: &[f32], row: &[f32], y: &mut [f32]) {
    let n = row.len().max(1);
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        for i in 0..row.len() {
            y[i] = x[i] + row[i];
        }
    }
}

dispatch! {
    /// `y[i] = x[i] + row`, for each row.
    pub fn add_rows(x: &[f32], row: &[f32], y: &mut [f32]) = add_rows_body
}

#[inline(always)]
fn scale_columns_body<const FMA: bool, const WIDE: bool>(x: &[f32], scales: &[f32], y: &mut [f32]) {
    let n = scales.len().max(1);
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        for i in 0..scales.len() {
            y[i] = x[i] * scales[i];
        }
    }
}

dispatch! {
    /// `y[i][j] = x[i][j] · scales[j]`, rows of `scales.len()` values; the product of two of one length.
    pub fn scale_columns(x: &[f32], scales: &[f32], y: &mut [f32]) = scale_columns_body
}

#[inline(always)]
fn sum_squares_body<const FMA: bool, const WIDE: bool>(x: &[f32]) -> f64 {
    let mut lanes = [0f64; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for l in 0..16 {
            lanes[l] += f64::from(chunk[l]) * f64::from(chunk[l]);
        }
    }
    rest.iter().fold(lanes.iter().sum(), |sum: f64, &x| sum + f64::from(x) * f64::from(x))
}

dispatch! {
    /// `Σ x²`, summed in f64.
    pub fn sum_squares(x: &[f32]) -> f64 = sum_squares_body
}

#[cfg(test)]
mod tests {
    use crate::plain;
    use crate::test_support::{close, each_isa, values, widen};

    #[test]
    fn every_isa_agrees_with_the_reference() {
        for (rows, n) in [(0, 5), (1, 1), (7, 13), (4, 64)] {
            let (x, row, start) = (values(rows * n, 1), values(n, 2), values(rows * n, 3));
            each_isa(|isa| {
                let (mut y, mut want) = (start.clone(), widen(&start));
                super::axpy(isa, 0.3, &x, &mut y);
                plain::axpy(f64::from(0.3f32), &widen(&x), &mut want);
                close(&y, &want, 1e-6);
                let (mut sums, mut want) = (row.clone(), widen(&row));
                super::column_sums(isa, &x, &mut sums);
                plain::column_sums(&widen(&x), &mut want);
                close(&sums, &want, 1e-5);
                let (mut y, mut want) = (start.clone(), widen(&start));
                super::add_rows(isa, &x, &row, &mut y);
                plain::add_rows(&widen(&x), &widen(&row), &mut want);
                close(&y, &want, 1e-6);
                let mut y = start.clone();
                super::scale_columns(isa, &x, &row, &mut y);
                let want: Vec<f32> = x.iter().zip(row.iter().cycle()).map(|(x, scale)| x * scale).collect();
                assert_eq!(y, want, "{}", isa.name());
                let want: f64 = widen(&x).iter().map(|x| x * x).sum();
                assert!((super::sum_squares(isa, &x) - want).abs() <= 1e-9 * want.max(1.0));
            });
        }
    }
}
