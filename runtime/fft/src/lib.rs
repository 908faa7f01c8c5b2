//! A plain discrete Fourier transform, in place of the crate `rustfft` (`[patch.crates-io]` in the workspace's
//! `Cargo.toml`).
//!
//! tract's operators of that kind are linked into every program that uses it, and `rustfft`'s algorithms make up a
//! megabyte of one for a device, which never runs them: the gate lets no graph with such an operator through. This is
//! the part of the interface that tract uses, right and slow.

use std::fmt::Debug;
use std::marker::PhantomData;

pub use num_complex;
pub use num_traits;

use num_complex::Complex;
use num_traits::{FromPrimitive, Signed, Zero};

/// A number that can be transformed.
pub trait FftNum: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static {}

impl<T: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static> FftNum for T {}

/// The sign of the exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FftDirection {
    /// `X[k] = Σ x[j] exp(-2πi jk / n)`.
    Forward,
    /// `X[k] = Σ x[j] exp(2πi jk / n)`, not divided by `n`.
    Inverse,
}

/// Makes transforms.
#[derive(Debug)]
pub struct FftPlanner<T>(PhantomData<T>);

impl<T: FftNum> FftPlanner<T> {
    /// A planner.
    #[allow(clippy::new_without_default, reason = "the interface of the other crate")]
    pub fn new() -> FftPlanner<T> {
        FftPlanner(PhantomData)
    }

    /// A transform of `len` values.
    pub fn plan_fft(&mut self, len: usize, direction: FftDirection) -> Fft<T> {
        let sign = if direction == FftDirection::Forward { -1.0 } else { 1.0 };
        let root = |k: usize| {
            let angle = sign * std::f64::consts::TAU * k as f64 / len as f64;
            let real = |x: f64| T::from_f64(x).unwrap_or_else(T::zero);
            Complex::new(real(angle.cos()), real(angle.sin()))
        };
        Fft { roots: (0..len).map(root).collect() }
    }

    /// A forward transform of `len` values.
    pub fn plan_fft_forward(&mut self, len: usize) -> Fft<T> {
        self.plan_fft(len, FftDirection::Forward)
    }
}

/// A transform of as many values as it has roots of unity.
#[derive(Clone, Debug)]
pub struct Fft<T> {
    roots: Vec<Complex<T>>,
}

impl<T: FftNum> Fft<T> {
    /// Transforms each chunk of the planned length in place; what is left behind the last stays as it is.
    pub fn process(&self, values: &mut [Complex<T>]) {
        let len = self.roots.len();
        if len == 0 {
            return;
        }
        for chunk in values.chunks_exact_mut(len) {
            let sum = |k: usize| {
                let terms = chunk.iter().enumerate().map(|(j, &x)| x * self.roots[j * k % len]);
                terms.fold(Complex::zero(), |sum, x| sum + x)
            };
            let sums: Vec<Complex<T>> = (0..len).map(sum).collect();
            chunk.copy_from_slice(&sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frequency_is_one_line_and_there_and_back_is_the_same() {
        let wave = |j: usize| Complex::new((std::f64::consts::TAU * 3.0 * j as f64 / 12.0).cos(), 0.0);
        let wave: Vec<Complex<f64>> = (0..12).map(wave).collect();
        let mut values = wave.clone();
        FftPlanner::new().plan_fft_forward(12).process(&mut values);
        for (k, value) in values.iter().enumerate() {
            let want = if k == 3 || k == 9 { 6.0 } else { 0.0 };
            assert!((value - want).norm() < 1e-12, "{k}: {value}");
        }
        FftPlanner::new().plan_fft(12, FftDirection::Inverse).process(&mut values);
        for (back, x) in values.iter().zip(&wave) {
            assert!((back / 12.0 - x).norm() < 1e-12);
        }
    }

    #[test]
    fn several_chunks_and_none() {
        let mut values = vec![Complex::new(1f32, 0.0); 5];
        FftPlanner::new().plan_fft_forward(2).process(&mut values);
        let real: Vec<f32> = values.iter().map(|x| x.re).collect();
        assert_eq!(real, [2.0, 0.0, 2.0, 0.0, 1.0]);
        FftPlanner::new().plan_fft_forward(0).process(&mut values);
    }

    #[test]
    fn the_engine_takes_this_crate_and_no_other() {
        let lock = include_str!("../../../Cargo.lock");
        assert_eq!(
            lock.matches("name = \"rustfft\"").count(),
            1,
            "a feature that tract asks for is missing here"
        );
    }
}
