//! Elementary functions in f32 that compile to vector code: no branches, no calls, no tables.

/// Whether every machine of this target fuses: aarch64 by its definition; ARMv7 where the build says that VFPv4 is
/// there, which compilers name only to nightly code. Elsewhere the flag means nothing.
pub(crate) const FUSED: bool = cfg!(any(target_arch = "aarch64", all(target_arch = "arm", smalti_vfp4)));

/// `a * b + c`, rounded once: one instruction where `FMA` says so, the same bits elsewhere.
///
/// Rounded twice in WebAssembly, which has no such instruction: without it that costs ten times as much, and whoever
/// opens a page waits. There last bits differ from those of other machines.
#[inline(always)]
pub(crate) fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    match FMA {
        true => a.mul_add(b, c),
        false if cfg!(target_family = "wasm") => a * b + c,
        false => fused(a, b, c),
    }
}

/// Whether [`madd`] has its long form, which is inlined wherever it is called: kernels then take few rows at once, so that
/// programs stay small.
pub(crate) const fn madd_is_long<const FMA: bool>() -> bool {
    !FMA && !cfg!(target_family = "wasm")
}

/// `a * b + c` rounded once, without the instruction: the product is exact in f64; the sum is rounded to odd
/// there, so that rounding it to f32 rounds as if once (Boldo and Melquiond, doi 10.1109/TC.2007.70819).
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // What rounding the sum left out, exactly (Knuth's two-sum).
    let part = sum - product;
    let error = (product - (sum - part)) + (c - part);
    let bits = sum.to_bits();
    let inexact = error.abs() > 0.0 && bits & 1 == 0;
    let away = (error > 0.0) == (sum > 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact { odd } else { bits }) as f32
}

/// `c[0] + c[1] x + ...` by Horner's rule.
#[inline(always)]
pub(crate) fn polynomial<const FMA: bool, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = madd::<FMA>(sum, x, c[i]);
    }
    sum
}

/// `exp(x)` within 2 units in the last place, clamped to the finite, normal range; NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a degree-6 polynomial in `r`, and `n` put into the exponent (Cody and
/// Waite's reduction, coefficients of the Cephes library's `expf`).
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons written so that a NaN falls through unchanged.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = madd::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = madd::<FMA>(n, -LN2_LOW, madd::<FMA>(n, -LN2_HIGH, x));
    let p = polynomial::<FMA, 6>(
        r,
        [0.5, 0.166_666_65, 0.041_665_796, 0.008_333_452, 0.001_398_2, 0.000_198_756_9],
    );
    let p = madd::<FMA>(p * r, r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// What [`exp2_of_negative`] gives its power for all that is less.
pub(crate) const EXP2_LEAST: f32 = -125.0;
/// Added to a number, leaves it rounded to an integer in the low bits.
pub(crate) const EXP2_ROUND: f32 = 12_582_912.0;
/// `2^r` for `r` within ±1/2, the constant first.
pub(crate) const EXP2_POLYNOMIAL: [f32; 6] =
    [1.0, 0.693_147_06, 0.240_222_35, 0.055_506_79, 0.009_671_963, 0.001_327_456_4];

/// `2^x` within 2e-7 of its value, for `x` that is not positive; 2^-125 for all that is less.
#[inline(always)]
pub(crate) fn exp2_of_negative<const FMA: bool>(x: f32) -> f32 {
    // Written so that a NaN falls through unchanged.
    let x = if x < EXP2_LEAST { EXP2_LEAST } else { x };
    let shifted = x + EXP2_ROUND;
    let r = x - (shifted - EXP2_ROUND);
    let p = polynomial::<FMA, 6>(r, EXP2_POLYNOMIAL);
    // The low bits of `shifted` are the exponent; those of `EXP2_ROUND` are shifted out.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// `erf(x)` within 5e-7: an odd rational function on `[-4, 4]` (the one of the Eigen library), constant beyond.
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    let x = if x < -4.0 { -4.0 } else { x };
    let x = if x > 4.0 { 4.0 } else { x };
    let x2 = x * x;
    let above = polynomial::<FMA, 7>(
        x2,
        [
            -1.609_603_3e-2,
            -2.954_6e-3,
            -7.349_906_3e-4,
            -5.692_506_4e-5,
            -2.101_024e-6,
            2.770_681_4e-8,
            -2.726_142_3e-10,
        ],
    );
    let below = polynomial::<FMA, 5>(
        x2,
        [-1.426_473_9e-2, -7.373_329e-3, -1.682_827e-3, -2.133_740_6e-4, -1.456_607_2e-5],
    );
    x * above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn both_forms_of_a_fused_product_are_equal(a: u32, b: u32, c: u32, near in 0u32..4) {
            let (a, b) = (f32::from_bits(a), f32::from_bits(b));
            // Sums that cancel are the hard ones.
            let c = if near > 0 { f32::from_bits((-a * b).to_bits() ^ (c >> (8 * near))) } else { f32::from_bits(c) };
            let (fused, wanted) = (madd::<false>(a, b, c), a.mul_add(b, c));
            let same = fused.to_bits() == wanted.to_bits() || fused.is_nan() && wanted.is_nan();
            proptest::prop_assert!(same, "{} * {} + {}: {} for {}", a, b, c, fused, wanted);
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let (want, got) = (f64::from(x).exp(), f64::from(exp::<true>(x)));
            worst = worst.max(((got - want) / want).abs());
        }
        assert!(worst < 2.4e-7, "{worst:e}");
        assert!(exp::<true>(f32::NAN).is_nan());
        assert!(exp::<false>(-1e30) < 2e-38 && exp::<false>(1e30).is_finite());
    }

    #[test]
    fn exp2_of_negative_is_close() {
        for i in 0..=1_250_000 {
            let x = i as f32 * -1e-4;
            let (want, got) = (f64::from(x).exp2(), f64::from(exp2_of_negative::<true>(x)));
            assert!((got / want - 1.0).abs() < 2e-7, "{got:e} for {x}");
        }
        for far in [-126.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp2_of_negative::<false>(far), 2f32.powi(-125));
        }
        assert!(exp2_of_negative::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_close() {
        let mut worst = 0f64;
        for i in -60_000..=60_000 {
            let x = i as f32 * 1e-4;
            worst = worst.max((f64::from(erf::<true>(x)) - libm::erf(f64::from(x))).abs());
            worst = worst.max((f64::from(erf::<false>(x)) - libm::erf(f64::from(x))).abs());
        }
        assert!(worst < 5e-7, "{worst:e}");
        assert!(erf::<true>(f32::NAN).is_nan());
    }
}
