//! An approximation of the nearest orthogonal matrix, by five Newton-Schulz steps (Jordan et al. 2024).
//!
//! ```text
//! X = u / ‖u‖, five times X ← Q X with Q = a + b G + c G², G = X Xᵀ
//! ```
//! The steps need only `G`, not `X`, so they run on `G` alone (Gram Newton-Schulz, 2026,
//! dao-lab.ai/blog/2026/gram-newton-schulz): `G ← Q G Q`, `P ← Q P`, and `X ← P X` at the end. `G`, `Q` and `P` are
//! polynomials of the first `G`. So they commute, each of their products is symmetric, and half of it is computed. With 16
//! bits the method needs restarts, in f32 it does not.

use ndarray::linalg::general_mat_mul;
use ndarray::{Axis, Slice};
use smalti_kernels::Real;
use smalti_kernels::matmul::Shape;

use crate::model::ops::{matrix, matrix_mut, resize_buffer};

const STEPS: usize = 5;
/// The polynomial `[a, b, c]` that brings singular values near 1 in the fewest steps. They end between 0.7 and 1.2.
const POLYNOMIAL: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// Columns that a symmetric product computes at a time.
const BAND: usize = 16;

/// Buffers; all matrices reuse them.
#[derive(Clone, Debug, Default)]
pub(super) struct Orthogonal {
    tall: Vec<f32>,
    gram: Vec<f32>,
    q: Vec<f32>,
    p: Vec<f32>,
    product: Vec<f32>,
    out: Vec<f32>,
}

/// The stride between rows of `n` values. It avoids powers of two, whose rows would compete for a few sets of the first
/// cache.
fn stride(n: usize) -> usize {
    n.next_multiple_of(BAND) + BAND
}

/// `c = a b` for symmetric matrices `[n, n]` with a symmetric product, rows [`stride`] apart. Computes it below the diagonal
/// and copies it above.
fn symmetric(n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let row = stride(n);
    lower(Shape { m: n, k: n, n, a_row: row, a_col: 1, b_row: row, c_row: row, accumulate: false }, a, b, c);
}

/// Computes a symmetric product below its diagonal and copies it above.
fn lower(s: Shape, a: &[f32], b: &[f32], c: &mut [f32]) {
    for j in (0..s.n).step_by(BAND) {
        let width = BAND.min(s.n - j);
        let shape = Shape { m: s.m - j, n: width, ..s };
        f32::product(shape, 1.0, &a[j * s.a_row..], &b[j..], &mut c[j * s.c_row + j..]);
        let (above, below) = c.split_at_mut((j + width) * s.c_row);
        for (i, row) in (j + width..s.m).zip(below.chunks(s.c_row)) {
            for (l, &x) in row[j..j + width].iter().enumerate() {
                above[(j + l) * s.c_row + i] = x;
            }
        }
    }
}

impl Orthogonal {
    /// Brings all singular values of `x` `[rows, columns]` near 1.
    pub(super) fn orthogonalize(&mut self, x: &mut [f32], rows: usize) {
        let columns = x.len() / rows.max(1);
        let scale = (1.0 / (f32::sum_squares(x).sqrt() + 1e-7)) as f32;
        x.iter_mut().for_each(|x| *x *= scale);

        let (n, k) = (rows.min(columns), rows.max(columns));
        let row = stride(n);
        resize_buffer(&mut self.tall, k * row);
        if rows > columns {
            for (tall, x) in self.tall.chunks_exact_mut(row).zip(x.chunks_exact(n)) {
                tall[..n].copy_from_slice(x);
            }
        } else {
            f32::transpose(x, k, n, k, &mut self.tall, row);
        }
        for buffer in [&mut self.gram, &mut self.q, &mut self.p, &mut self.product] {
            resize_buffer(buffer, n * row);
        }
        // Of `X Xᵀ` and `Xᵀ X` the smaller one.
        let gram = Shape { m: n, k, n, a_row: 1, a_col: row, b_row: row, c_row: row, accumulate: false };
        lower(gram, &self.tall, &self.tall, &mut self.gram);

        let [a, b, c] = POLYNOMIAL;
        for step in 0..STEPS {
            symmetric(n, &self.gram, &self.gram, &mut self.q);
            self.q.iter_mut().zip(&self.gram).for_each(|(q, g)| *q = b * g + c * *q);
            self.q.iter_mut().step_by(row + 1).take(n).for_each(|q| *q += a);
            if step == 0 {
                self.p.copy_from_slice(&self.q);
            } else {
                symmetric(n, &self.q, &self.p, &mut self.product);
                std::mem::swap(&mut self.p, &mut self.product);
            }
            if step + 1 < STEPS {
                symmetric(n, &self.q, &self.gram, &mut self.product);
                symmetric(n, &self.q, &self.product, &mut self.gram);
            }
        }

        resize_buffer(&mut self.out, x.len());
        let p = matrix(&self.p, n);
        let p = p.slice_axis(Axis(1), Slice::from(..n));
        let mut out = matrix_mut(&mut self.out, rows);
        let x_view = matrix(x, rows);
        match rows > columns {
            true => general_mat_mul(1.0, &x_view, &p, 0.0, &mut out),
            false => general_mat_mul(1.0, &p, &x_view, 0.0, &mut out),
        }
        x.copy_from_slice(&self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use ndarray::{Array1, Array2};

    fn random(rows: usize, columns: usize) -> Array2<f64> {
        let mut rng = Rng::new(3, 100, []);
        Array2::from_shape_fn((rows, columns), |_| rng.normal())
    }

    /// The steps as written, on the matrix itself.
    fn plain(x: &Array2<f64>) -> Array2<f64> {
        let [a, b, c] = POLYNOMIAL.map(f64::from);
        let mut x = x / x.iter().map(|x| x * x).sum::<f64>().sqrt();
        for _ in 0..STEPS {
            let gram = x.dot(&x.t());
            x = a * &x + (b * &gram + c * gram.dot(&gram)).dot(&x);
        }
        x
    }

    fn fast(x: &Array2<f64>, orthogonal: &mut Orthogonal) -> Array2<f64> {
        let mut values: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        orthogonal.orthogonalize(&mut values, x.nrows());
        Array2::from_shape_vec(x.dim(), values.iter().map(|&x| f64::from(x)).collect()).unwrap()
    }

    #[test]
    fn agrees_with_the_plain_steps() {
        let mut orthogonal = Orthogonal::default();
        // The same buffers for all sizes, which grow and shrink.
        for (rows, columns) in
            [(24, 24), (192, 192), (48, 12), (12, 48), (128, 512), (512, 128), (5, 7), (1, 9)]
        {
            let x = random(rows, columns);
            let (want, got) = (plain(&x), fast(&x, &mut orthogonal));
            let worst = (&want - &got).iter().fold(0f64, |worst, x| worst.max(x.abs()));
            assert!(worst < 2e-5, "{rows} x {columns}: {worst:e}");
        }
    }

    #[test]
    fn low_rank_is_no_problem() {
        // Singular values from 1 to 1e-8, and three of 64 that are not 0.
        let (left, right) = (plain(&random(64, 64)), plain(&random(64, 96)));
        let decaying = Array2::from_diag(&Array1::from_shape_fn(64, |i| 10f64.powf(-8.0 * i as f64 / 63.0)));
        let few = Array2::from_diag(&Array1::from_shape_fn(64, |i| f64::from(u8::from(i < 3))));
        for values in [decaying, few] {
            let x = left.dot(&values).dot(&right);
            let (want, got) = (plain(&x), fast(&x, &mut Orthogonal::default()));
            let worst = (&want - &got).iter().fold(0f64, |worst, x| worst.max(x.abs()));
            // Values are about 0.1. Squares of small singular values drown in rounding, which costs 2 % of that.
            assert!(worst < 3e-3, "{worst:e}");
        }
        let mut zeros = vec![0.0; 12];
        Orthogonal::default().orthogonalize(&mut zeros, 3);
        assert_eq!(zeros, [0.0; 12]);
    }

    #[test]
    fn singular_values_come_near_one() {
        for (rows, columns) in [(24, 24), (48, 12), (12, 48)] {
            let x = fast(&random(rows, columns), &mut Orthogonal::default());
            let side = rows.min(columns) as f64;
            let length = x.iter().map(|x| x * x).sum::<f64>();
            assert!((0.45 * side..1.5 * side).contains(&length), "{length} for {side}");
        }
    }

    #[test]
    fn a_diagonal_goes_through_the_polynomial() {
        let values = [4.0f64, 2.0, 1.0, 0.25];
        let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let x = fast(&Array2::from_diag(&ndarray::arr1(&values)), &mut Orthogonal::default());
        let [a, b, c] = POLYNOMIAL.map(f64::from);
        for (i, value) in values.iter().enumerate() {
            let want = (0..STEPS).fold(value / length, |x, _| a * x + b * x.powi(3) + c * x.powi(5));
            assert!((x[(i, i)] - want).abs() < 1e-5, "{} instead of {want}", x[(i, i)]);
        }
    }
}
