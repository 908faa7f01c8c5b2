//! The range of an activation that 8 bits are spread over.

use serde::Serialize;

use super::histogram::Histogram;
use super::step::{LEVELS, Step};

/// The share of the values inside the range of [`Method::Percentile`].
const INSIDE: f64 = 0.9999;
/// Candidates of [`Method::Mse`] for either end of the range: 100 %, 99 %, ... of the largest value.
const CANDIDATES: usize = 90;

/// How a range is found from the values that occur in calibration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// From the smallest to the largest value.
    Minmax,
    /// 99.99 % of the values, cut at both ends alike: one wild value does not cost all others their levels. As few
    /// answers changed as with `Minmax`, within chance, where that was measured, with less noise in the layers.
    #[default]
    Percentile,
    /// The range with the least mean squared error of rounding and clipping together.
    Mse,
}

impl Method {
    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Method::Minmax => "minmax",
            Method::Percentile => "percentile",
            Method::Mse => "mse",
        }
    }
}

/// The step for the values of a histogram.
pub(super) fn step(histogram: &Histogram, method: Method) -> Step {
    let Some((min, max)) = histogram.extremes() else { return Step::of(0.0, 0.0) };
    let (min, max) = (f64::from(min), f64::from(max));
    match method {
        Method::Minmax => Step::of(min, max),
        Method::Percentile => {
            let tail = (1.0 - INSIDE) / 2.0;
            Step::of(histogram.quantile(tail), histogram.quantile(1.0 - tail))
        }
        Method::Mse => least_error(histogram, min.min(0.0), max.max(0.0)),
    }
}

/// The range within `min..=max` with the least squared error.
///
/// A value inside is off by up to half a step either way, which makes step²/12 on average; one outside by its
/// distance to the range.
fn least_error(histogram: &Histogram, min: f64, max: f64) -> Step {
    let tails = Tails::of(histogram);
    let n = histogram.n() as f64;
    let shrunk = |i: usize| 1.0 - i as f64 / 100.0;
    let mut best = (f64::INFINITY, Step::of(min, max));
    let ends = |end: f64| if end == 0.0 { 1 } else { CANDIDATES };
    for (i, j) in (0..ends(min)).flat_map(|i| (0..ends(max)).map(move |j| (i, j))) {
        let (low, high) = (min * shrunk(i), max * shrunk(j));
        let (below, clipped_below) = tails.below(low);
        let (above, clipped_above) = tails.above(high);
        let step = (high - low) / LEVELS;
        let error = (n - below - above) * step * step / 12.0 + clipped_below + clipped_above;
        if error < best.0 {
            best = (error, Step::of(low, high));
        }
    }
    best.1
}

/// Count, sum and sum of squares of all bins up to each one, for errors of clipping in constant time.
struct Tails {
    middles: Vec<f64>,
    sums: Vec<[f64; 3]>,
}

impl Tails {
    fn of(histogram: &Histogram) -> Tails {
        let (mut middles, mut sums, mut sum) = (Vec::new(), vec![[0.0; 3]], [0.0; 3]);
        for (x, count) in histogram.bins() {
            let n = count as f64;
            sum = [sum[0] + n, sum[1] + n * x, sum[2] + n * x * x];
            middles.push(x);
            sums.push(sum);
        }
        Tails { middles, sums }
    }

    /// How many values lie below an end, and the sum of their squared distances to it.
    fn below(&self, end: f64) -> (f64, f64) {
        let first = self.middles.partition_point(|&x| x < end);
        squares(self.sums[first], end)
    }

    /// The same for values above.
    fn above(&self, end: f64) -> (f64, f64) {
        let first = self.middles.partition_point(|&x| x <= end);
        let [all, part] = [self.sums[self.sums.len() - 1], self.sums[first]];
        squares([all[0] - part[0], all[1] - part[1], all[2] - part[2]], end)
    }
}

/// Count and sum of `(x - end)²` from count, sum and sum of squares of x.
fn squares([n, sum, of_squares]: [f64; 3], end: f64) -> (f64, f64) {
    (n, (of_squares - 2.0 * end * sum + n * end * end).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn histogram(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        assert!(histogram.add(values));
        histogram
    }

    #[test]
    fn zeros_constants_and_extremes_have_a_step() {
        for values in [&[][..], &[0.0], &[5.0], &[-5.0], &[1e-42], &[f32::MIN, f32::MAX], &[f32::MAX]] {
            for method in [Method::Minmax, Method::Percentile, Method::Mse] {
                let step = step(&histogram(values), method);
                assert!(step.scale.is_normal() && step.scale > 0.0, "{values:?} {method:?} {step:?}");
                assert_eq!(step.dequantize(step.quantize(0.0)), 0.0);
            }
        }
    }

    #[test]
    fn minmax_spans_the_values_and_zero() {
        let step = step(&histogram(&[0.5, 2.0]), Method::Minmax);
        assert_eq!((step.zero, step.quantize(2.0), step.quantize(99.0)), (0, 255, 255));
        let step = Step::of(-1.0, 3.0);
        assert_eq!((step.zero, step.quantize(-9.0)), (64, 0));
        assert!((step.range().0 + 1.0).abs() < 0.01 && (step.range().1 - 3.0).abs() < 0.01);
    }

    #[test]
    fn rare_outliers_are_clipped_by_percentile_and_mse() {
        let mut values: Vec<f32> = (0..100_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        values.push(50.0);
        let high = |method| step(&histogram(&values), method).range().1;
        // Rounding makes 100,000 · (h / 255)² / 12, clipping (50 - h)²: together least at h = 44.
        assert!(high(Method::Minmax) > 49.0 && high(Method::Percentile) < 2.0);
        assert!((high(Method::Mse) - 44.3).abs() < 1.0, "{}", high(Method::Mse));
    }

    /// Mean squared error of the values themselves.
    fn error(values: &[f32], step: Step) -> f64 {
        let square = |&x: &f32| f64::from(step.dequantize(step.quantize(x)) - x).powi(2);
        values.iter().map(square).sum::<f64>() / values.len() as f64
    }

    proptest! {
        #[test]
        fn mse_is_no_worse_than_minmax(values in proptest::collection::vec(-3.0f32..8.0, 200..600)) {
            let histogram = histogram(&values);
            let errors = [Method::Mse, Method::Minmax].map(|method| error(&values, step(&histogram, method)));
            prop_assert!(errors[0] <= 1.5 * errors[1], "{:?}", errors);
        }
    }
}
