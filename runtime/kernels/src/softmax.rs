//! Softmax over rows, and its gradient.

use crate::isa::dispatch;
use crate::math::exp;

const LANES: usize = 16;

/// The sum of a row in a fixed order: 16 lanes, then the lanes, then the rest.
#[inline(always)]
pub(crate) fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] += of(chunk[l]);
        }
    }
    rest.iter().fold(lanes.iter().sum(), |sum: f32, &x| sum + of(x))
}

/// The sum of products of two rows, in the same order as [`sum`].
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    a_rest.iter().zip(b_rest).fold(lanes.iter().sum(), |sum: f32, (a, b)| sum + a * b)
}

#[inline(always)]
fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

#[inline(always)]
fn forward_body<const FMA: bool, const WIDE: bool>(x: &mut [f32], cols: usize, stride: usize) {
    for row in x.chunks_exact_mut(stride) {
        let (row, pad) = row.split_at_mut(cols);
        let top = max(row);
        row.iter_mut().for_each(|x| *x = exp::<FMA>(*x - top));
        let scale = 1.0 / sum(row, |x| x);
        row.iter_mut().for_each(|x| *x *= scale);
        pad.fill(0.0);
    }
}

dispatch! {
    /// Softmax in place over the first `cols` of each row of `stride` values; the rest of a row becomes 0.
    pub fn forward(x: &mut [f32], cols: usize, stride: usize) = forward_body
}

#[inline(always)]
fn backward_body<const FMA: bool, const WIDE: bool>(p: &[f32], dp: &mut [f32], cols: usize, stride: usize) {
    for (p, dp) in p.chunks_exact(stride).zip(dp.chunks_exact_mut(stride)) {
        let (p, (dp, pad)) = (&p[..cols], dp.split_at_mut(cols));
        let mean = dot(p, dp);
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - mean);
        }
        pad.fill(0.0);
    }
}

dispatch! {
    /// `ds = p (dp - Σ p dp)` in place: `dp` becomes the gradient of the scores; layout as in [`forward`].
    pub fn backward(p: &[f32], dp: &mut [f32], cols: usize, stride: usize) = backward_body
}

#[cfg(test)]
mod tests {
    use crate::plain;
    use crate::test_support::{close, each_isa, values};

    #[test]
    fn every_isa_agrees_with_the_reference() {
        for (rows, cols, stride) in [(1, 1, 1), (3, 5, 8), (4, 17, 32), (2, 65, 80), (2, 64, 64)] {
            let x: Vec<f32> = values(rows * stride, 1).iter().map(|x| x * 4.0).collect();
            let mut want: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            plain::softmax(&mut want, cols, stride);
            let dp = values(rows * stride, 2);
            let mut want_ds: Vec<f64> = dp.iter().map(|&x| f64::from(x)).collect();
            plain::softmax_backward(&want, &mut want_ds, cols, stride);
            each_isa(|isa| {
                let mut p = x.clone();
                super::forward(isa, &mut p, cols, stride);
                close(&p, &want, 1e-6);
                let mut ds = dp.clone();
                super::backward(isa, &p, &mut ds, cols, stride);
                close(&ds, &want_ds, 2e-6);
            });
        }
    }
}
