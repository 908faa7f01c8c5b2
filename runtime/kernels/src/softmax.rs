//! Softmax over rows, and its gradient.

use crate::exponentials::{LANES, exponentials};
use crate::isa::dispatch;
use crate::math::madd;

/// Rows that go through each stage together, for the stages of one row wait for each other.
const GROUP: usize = 6;

#[inline(always)]
fn group<const FMA: bool, const ROWS: usize>(rows: &mut [f32], cols: usize) {
    let stride = rows.len() / ROWS;
    // SAFETY: compiled with fused multiply-adds only where the processor has AVX2 too.
    let parts = unsafe { exponentials::<FMA, ROWS>(rows, cols, 1.0) };
    for (row, part) in rows.chunks_exact_mut(stride).zip(parts) {
        row.iter_mut().for_each(|x| *x *= part);
    }
}

#[inline(always)]
fn forward_body<const FMA: bool, const WIDE: bool>(x: &mut [f32], cols: usize, stride: usize) {
    debug_assert_eq!(stride, cols.next_multiple_of(LANES));
    let mut groups = x.chunks_exact_mut(GROUP * stride);
    groups.by_ref().for_each(|rows| group::<FMA, GROUP>(rows, cols));
    groups.into_remainder().chunks_exact_mut(stride).for_each(|row| group::<FMA, 1>(row, cols));
}

dispatch! {
    /// Softmax in place over the first `cols` of each row of `stride` values, the next multiple of 8; the rest of a row
    /// becomes 0.
    pub fn forward(x: &mut [f32], cols: usize, stride: usize) = forward_body
}

/// `Σ a b` of rows of whole chunks.
#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for l in 0..LANES {
            sums[l] = madd::<FMA>(a[l], b[l], sums[l]);
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn backward_body<const FMA: bool, const WIDE: bool>(p: &[f32], dp: &mut [f32], stride: usize) {
    for (p, dp) in p.chunks(GROUP * stride).zip(dp.chunks_mut(GROUP * stride)) {
        let mut means = [0.0; GROUP];
        for ((p, dp), mean) in p.chunks_exact(stride).zip(dp.chunks_exact(stride)).zip(&mut means) {
            *mean = dot::<FMA>(p, dp);
        }
        for ((p, dp), mean) in p.chunks_exact(stride).zip(dp.chunks_exact_mut(stride)).zip(means) {
            for (dp, &p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - mean);
            }
        }
    }
}

dispatch! {
    /// `ds = p (dp - Σ p dp)` in place: `dp` becomes the gradient of the scores. Rows of `stride` values, a multiple of 8,
    /// `p` as [`forward`] leaves it.
    pub fn backward(p: &[f32], dp: &mut [f32], stride: usize) = backward_body
}

#[cfg(test)]
mod tests {
    use crate::plain;
    use crate::test_support::{close, each_isa, values};

    #[test]
    fn huge_scores_do_not_drown_in_their_last_bits() {
        for far in [1e5f32, 1e8, -1e8, 3e13, -3e13, 1e30] {
            let step = (far.abs() * 1e-6).min(1.0);
            let x: Vec<f32> = (0..16).map(|i| if i < 11 { far - step * i as f32 } else { 0.0 }).collect();
            let mut want: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            plain::softmax(&mut want, 11, 16);
            each_isa(|isa| {
                let mut p = x.clone();
                super::forward(isa, &mut p, 11, 16);
                // Near 1e6 the product is rounded, and what that is worth is shared by all.
                close(&p, &want, 1e-2);
            });
        }
    }

    #[test]
    fn every_isa_agrees_with_the_reference() {
        for (rows, cols, stride) in [(1, 1, 8), (3, 5, 8), (6, 8, 8), (14, 17, 24), (7, 65, 72), (13, 64, 64)]
        {
            let x: Vec<f32> = values(rows * stride, 1).iter().map(|x| x * 4.0).collect();
            let mut want: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            plain::softmax(&mut want, cols, stride);
            let dp = values(rows * stride, 2);
            let mut want_ds: Vec<f64> = dp.iter().map(|&x| f64::from(x)).collect();
            plain::softmax_backward(&want, &mut want_ds, stride);
            each_isa(|isa| {
                let mut p = x.clone();
                super::forward(isa, &mut p, cols, stride);
                close(&p, &want, 1e-6);
                let mut ds = dp.clone();
                super::backward(isa, &p, &mut ds, stride);
                close(&ds, &want_ds, 2e-6);
            });
        }
    }
}
