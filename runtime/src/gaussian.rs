//! A normal distribution of vectors, and the space in which it is round.

/// Mean and covariance of vectors. The covariance is shrunk towards a multiple of the identity, as Ledoit and Wolf do ("A
/// well-conditioned estimator for large-dimensional covariance matrices", 2004), so that fewer vectors than values will do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gaussian {
    mean: Vec<f32>,
    /// The Cholesky factor of the covariance: its rows up to the diagonal, one behind the other.
    factor: Vec<f32>,
}

impl Gaussian {
    /// Of rows of `dim` values. None for fewer than two rows, and for rows that are all alike.
    pub(crate) fn fit(rows: &[f32], dim: usize) -> Option<Gaussian> {
        let count = rows.len().checked_div(dim)?;
        if count < 2 {
            return None;
        }
        let n = count as f64;
        let mut mean = vec![0.0; dim];
        for row in rows.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) / n);
        }
        let (mut covariance, mut fourth) = (vec![0.0; dim * (dim + 1) / 2], 0.0);
        let mut centred = vec![0.0; dim];
        for row in rows.chunks_exact(dim) {
            centred.iter_mut().zip(row).zip(&mean).for_each(|((c, &x), m)| *c = f64::from(x) - m);
            let squares: f64 = centred.iter().map(|c| c * c).sum();
            fourth += squares * squares;
            for (i, line) in lines(dim) {
                let x = centred[i];
                covariance[line].iter_mut().zip(&centred).for_each(|(sum, y)| *sum += x * y / n);
            }
        }
        // Rows that are all alike differ by rounding alone.
        let length: f64 = mean.iter().map(|m| m * m).sum();
        let varies = (0..dim).map(|i| covariance[diagonal(i)]).sum::<f64>() > 1e-12 * length;
        if !varies {
            return None;
        }
        shrink(&mut covariance, dim, n, fourth);
        cholesky(&mut covariance, dim)?;
        let rounded = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<_>>();
        let fitted = Gaussian { mean: rounded(mean), factor: rounded(covariance) };
        Gaussian::new(fitted.mean, fitted.factor)
    }

    /// Of a mean and a factor. None unless their sizes agree and all values on the diagonal are positive.
    pub(crate) fn new(mean: Vec<f32>, factor: Vec<f32>) -> Option<Gaussian> {
        let dim = mean.len();
        let is_whole = factor.len() == factor_len(dim);
        let positive = |(i, line): (usize, std::ops::Range<usize>)| {
            factor.get(line.start + i).is_some_and(|&x| x > 0.0 && x.is_finite())
        };
        let is_right = is_whole && lines(dim).all(positive);
        is_right.then_some(Gaussian { mean, factor })
    }

    pub(crate) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Mean and factor, for a file.
    pub(crate) fn parts(&self) -> [&[f32]; 2] {
        [&self.mean, &self.factor]
    }

    /// `L⁻¹ (x - mean)`, where `L Lᵀ` is the covariance: in this space distances are Mahalanobis's. `out` has as many values
    /// as `x`.
    pub(crate) fn whiten(&self, x: &[f32], out: &mut [f32]) {
        for (i, line) in lines(self.dim()) {
            let line = &self.factor[line];
            let done: f64 = line.iter().zip(&out[..i]).map(|(&l, &y)| f64::from(l) * f64::from(y)).sum();
            out[i] = ((f64::from(x[i]) - f64::from(self.mean[i]) - done) / f64::from(line[i])) as f32;
        }
    }
}

/// Values of the factor for vectors of that many.
pub(crate) fn factor_len(dim: usize) -> usize {
    dim.saturating_mul(dim.saturating_add(1)) / 2
}

/// The rows of a triangle: their number, and where they lie.
fn lines(dim: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    (0..dim).map(|i| (i, i * (i + 1) / 2..(i + 1) * (i + 2) / 2))
}

/// Where a row's last value lies, the one on the diagonal.
fn diagonal(i: usize) -> usize {
    (i + 1) * (i + 2) / 2 - 1
}

/// Moves a covariance of `n` rows towards the identity, as far as its own noise is large; `fourth` is the sum of the fourth
/// powers of the rows' lengths.
fn shrink(covariance: &mut [f64], dim: usize, n: f64, fourth: f64) {
    let d = dim as f64;
    let mean = (0..dim).map(|i| covariance[diagonal(i)]).sum::<f64>() / d;
    let squares = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let on_diagonal: f64 = (0..dim).map(|i| covariance[diagonal(i)].powi(2)).sum();
    let all = 2.0 * squares(covariance) - on_diagonal;
    let (spread, noise) = (all - d * mean * mean, (fourth / n - all) / n);
    let share = if spread > 0.0 { (noise / spread).clamp(1e-4, 1.0) } else { 1.0 };
    covariance.iter_mut().for_each(|x| *x *= 1.0 - share);
    (0..dim).for_each(|i| covariance[diagonal(i)] += share * mean);
}

/// The Cholesky factor in the covariance's place. None unless it is positive definite.
fn cholesky(a: &mut [f64], dim: usize) -> Option<()> {
    for (i, line) in lines(dim) {
        let (above, row) = a.split_at_mut(line.start);
        for j in 0..=i {
            let start = j * (j + 1) / 2;
            let done: f64 = match j == i {
                true => row[..i].iter().map(|x| x * x).sum(),
                false => above[start..start + j].iter().zip(&row[..j]).map(|(x, y)| x * y).sum(),
            };
            row[j] = match j == i {
                true => (row[i] - done).sqrt(),
                false => (row[j] - done) / above[start + j],
            };
        }
        if !(row[i].is_finite() && row[i] > 0.0) {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of three values: two that go together, one of its own.
    fn rows(count: u32) -> Vec<f32> {
        let noise = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) >> 8) / f64::from(1u32 << 24) - 0.5;
        (0..count)
            .flat_map(|i| {
                let (x, y, z) = (noise(3 * i + 1), noise(3 * i + 2), noise(3 * i + 3));
                [(4.0 * x + 1.0) as f32, (4.0 * x + 3.0 * y) as f32, (10.0 * z - 7.0) as f32]
            })
            .collect()
    }

    #[test]
    fn whitened_rows_are_round() {
        let (rows, dim) = (rows(4000), 3);
        let gaussian = Gaussian::fit(&rows, dim).unwrap();
        let mut moments = [[0.0f64; 4]; 3];
        for row in rows.chunks_exact(dim) {
            let mut out = [0.0; 3];
            gaussian.whiten(row, &mut out);
            for (i, line) in moments.iter_mut().enumerate() {
                (0..3).for_each(|j| line[j] += f64::from(out[i] * out[j]) / 4000.0);
                line[3] += f64::from(out[i]) / 4000.0;
            }
        }
        for (i, line) in moments.iter().enumerate() {
            for (j, moment) in line.iter().enumerate() {
                let wanted = if i == j { 1.0 } else { 0.0 };
                assert!((moment - wanted).abs() < 0.05, "{i} {j}: {moment}");
            }
        }
    }

    #[test]
    fn few_rows_are_enough_and_one_is_not() {
        let gaussian = Gaussian::fit(&rows(2), 3).unwrap();
        let mut out = [0.0; 3];
        gaussian.whiten(&[100.0, -100.0, 50.0], &mut out);
        assert!(out.iter().all(|x| x.is_finite()));
        assert_eq!(Gaussian::fit(&rows(1), 3), None);
        assert_eq!(Gaussian::fit(&[2.0; 30], 3), None);
        assert_eq!(Gaussian::fit(&[], 0), None);
    }

    #[test]
    fn parts_make_the_same_again_and_wrong_ones_none() {
        let gaussian = Gaussian::fit(&rows(50), 3).unwrap();
        let [mean, factor] = gaussian.parts().map(<[f32]>::to_vec);
        assert_eq!(Gaussian::new(mean.clone(), factor.clone()), Some(gaussian));
        assert_eq!(Gaussian::new(mean.clone(), factor[1..].to_vec()), None);
        assert_eq!(Gaussian::new(mean, vec![0.0; 6]), None);
    }
}
