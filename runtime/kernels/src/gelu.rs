//! GELU (arXiv 1606.08415), the exact form `x Φ(x)` with `Φ(x) = (1 + erf(x / √2)) / 2`.

use crate::isa::dispatch;
use crate::math::{erf, exp, exp2_of_negative, madd, polynomial};

const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

/// `gelu(x)`.
#[inline(always)]
pub(crate) fn gelu<const FMA: bool>(x: f32) -> f32 {
    // Below, `erf` is -1 but for its last bit, and the result 0: that bit must not be worth more for smaller values.
    let half = 0.5 * if x < -8.0 { -8.0 } else { x };
    madd::<FMA>(half, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// `Φ(-t)` on `[0, 4]`, the constant first.
pub(crate) const COARSE: [f32; 8] = [
    0.496_678_3,
    -0.370_625_5,
    -0.081_388_39,
    0.176_185_41,
    -0.076_150_87,
    0.015_239_524,
    -0.001_439_504_4,
    4.868_983e-5,
];

/// `gelu(x)` within 1.3e-4, for results that become bytes: `max(x, 0) - r(|x|)` with a polynomial for
/// `r(t) = t Φ(-t)` on `[0, 4]`, constant beyond.
#[cfg_attr(target_arch = "aarch64", allow(dead_code))]
#[inline(always)]
pub(crate) fn gelu_coarse<const FMA: bool>(x: f32) -> f32 {
    // Comparisons written so that a NaN falls through unchanged.
    let t = if x.abs() > 4.0 { 4.0 } else { x.abs() };
    madd::<FMA>(-t, polynomial::<FMA, 8>(t, COARSE), if x < 0.0 { 0.0 } else { x })
}

/// The approximation `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`, as `x / (1 + exp(-2 ...))`.
#[inline(always)]
pub(crate) fn gelu_tanh<const FMA: bool>(x: f32) -> f32 {
    const TWICE: f32 = -1.595_769; // -2 √(2/π)
    let cubic = madd::<FMA>(0.044_715 * x * x, x, x);
    x / (1.0 + exp::<FMA>(TWICE * cubic))
}

#[inline(always)]
fn forward_body<const FMA: bool, const WIDE: bool>(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = gelu::<FMA>(x);
    }
}

dispatch! {
    /// `y = gelu(x)`, element by element; `y` is overwritten.
    pub fn forward(x: &[f32], y: &mut [f32]) = forward_body
}

#[inline(always)]
fn tanh_body<const FMA: bool, const WIDE: bool>(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = gelu_tanh::<FMA>(x);
    }
}

dispatch! {
    /// `y` becomes GELU's approximation by a hyperbolic tangent.
    pub fn forward_tanh(x: &[f32], y: &mut [f32]) = tanh_body
}

/// `gelu'(x) = Φ(x) + x φ(x)` within 5e-7. One exponential serves both: `Φ(-|x|) = exp(-x²/2) q(t) / 2` with
/// `t = 1 / (1 + p |x| / √2)` (Abramowitz and Stegun, formula 7.1.26).
#[inline(always)]
fn slope<const FMA: bool>(x: f32) -> f32 {
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    /// Half of the formula's coefficients.
    const Q: [f32; 6] = [0.0, 0.127_414_8, -0.142_248_37, 0.710_706_9, -0.726_576, 0.530_702_7];
    let bell = exp2_of_negative::<FMA>(x * x * (-0.5 * std::f32::consts::LOG2_E));
    let t = 1.0 / madd::<FMA>(P, x.abs(), 1.0);
    let below = bell * polynomial::<FMA, 6>(t, Q);
    let cdf = if x < 0.0 { below } else { 1.0 - below };
    madd::<FMA>(x * FRAC_1_SQRT_TAU, bell, cdf)
}

#[inline(always)]
fn backward_body<const FMA: bool, const WIDE: bool>(x: &[f32], dy: &mut [f32]) {
    for (dy, &x) in dy.iter_mut().zip(x) {
        *dy *= slope::<FMA>(x);
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
    fn far_below_zero_nothing_is_left() {
        let x = [-5.0, -8.0, -9.0, -1e3, -1e6, -1e30, f32::NEG_INFINITY, f32::NAN];
        each_isa(|isa| {
            let mut y = [0.0; 8];
            super::forward(isa, &x, &mut y);
            assert!(y[..7].iter().all(|y| y.abs() < 2e-6) && y[7].is_nan(), "{y:?}");
        });
    }

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

    #[test]
    fn the_slope_is_close() {
        for i in -120_000..=120_000 {
            let x = f64::from(i) * 1e-4;
            let mut want = [1.0];
            plain::gelu_backward(&[x], &mut want);
            let off = f64::from(super::slope::<true>(x as f32)) - want[0];
            assert!(off.abs() < 5e-7, "{off:e} for {x}");
        }
        assert!(super::slope::<false>(f32::NAN).is_nan());
        assert!(super::slope::<true>(-1e9).abs() < 1e-20 && super::slope::<true>(1e9) == 1.0);
    }

    #[test]
    fn the_coarse_form_is_close() {
        for i in -100_000..=100_000 {
            let x = i as f32 * 1e-4;
            let off = super::gelu_coarse::<true>(x) - super::gelu::<true>(x);
            assert!(off.abs() < 1.3e-4, "{off:e} for {x}");
        }
        assert!(super::gelu_coarse::<false>(f32::NAN).is_nan());
        assert_eq!(super::gelu_coarse::<true>(f32::INFINITY), f32::INFINITY);
    }

    #[test]
    fn the_approximation_is_the_formula() {
        for i in -2000..=2000 {
            let x = f64::from(i) * 0.01;
            let cubic = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            let want = 0.5 * x * (1.0 + cubic.tanh());
            close(&[super::gelu_tanh::<true>(x as f32)], &[want], 1e-6);
        }
    }
}
