//! GELU (arXiv 1606.08415), the exact form `x Φ(x)` with `Φ(x) = (1 + erf(x / √2)) / 2`.

use crate::isa::dispatch;
use crate::math::{erf, exp, madd};

const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

#[inline(always)]
fn forward_body<const FMA: bool, const WIDE: bool>(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        let half = 0.5 * x;
        *y = madd::<FMA>(half, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), half);
    }
}

dispatch! {
    /// `y = gelu(x)`, element by element; `y` is overwritten.
    pub fn forward(x: &[f32], y: &mut [f32]) = forward_body
}

#[inline(always)]
fn backward_body<const FMA: bool, const WIDE: bool>(x: &[f32], dy: &mut [f32]) {
    for (dy, &x) in dy.iter_mut().zip(x) {
        let cdf = madd::<FMA>(0.5, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), 0.5);
        let pdf = FRAC_1_SQRT_TAU * exp::<FMA>(-0.5 * x * x);
        *dy *= madd::<FMA>(x, pdf, cdf);
    }
}

dispatch! {
    /// `dx = dy · gelu'(x)` in place: `dy` becomes `dx`.
    pub fn backward(x: &[f32], dy: &mut [f32]) = backward_body
}

#[cfg(test)]
mod tests {
    use crate::test_support::{close, each_isa, values};
    use crate::{Real, plain};

    #[test]
    fn every_isa_agrees_with_the_reference() {
        for n in [0, 1, 7, 16, 33, 1000] {
            let x: Vec<f32> = values(n, 1).iter().map(|x| x * 3.0).collect();
            let x64: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let mut want = vec![0f64; n];
            plain::gelu(&x64, &mut want);
            let dy = values(n, 2);
            let mut want_dx: Vec<f64> = dy.iter().map(|&x| f64::from(x)).collect();
            plain::gelu_backward(&x64, &mut want_dx);
            each_isa(|isa| {
                let mut y = vec![9.0; n];
                super::forward(isa, &x, &mut y);
                close(&y, &want, 1e-6);
                let mut dx = dy.clone();
                super::backward(isa, &x, &mut dx);
                close(&dx, &want_dx, 2e-6);
            });
        }
        assert!(f32::gelu_scalar(-10.0) <= 0.0);
    }
}
