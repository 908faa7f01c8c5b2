//! How often which values occur: a histogram whose range doubles until everything fits.

/// Bins of a histogram.
pub(super) const BINS: usize = 2048;
/// The narrowest range, relative to the values in it; keeps bins apart in floating point.
const NARROWEST: f64 = 1e-6;

/// Counts of finite values in [`BINS`] bins of equal width.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// Lower edge of the first bin.
    low: f64,
    /// Width of a bin; 0 before the first value.
    width: f64,
    counts: Vec<u64>,
    min: f32,
    max: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        let (min, max) = (f32::INFINITY, f32::NEG_INFINITY);
        Histogram { low: 0.0, width: 0.0, counts: vec![0; BINS], min, max }
    }
}

impl Histogram {
    /// Counts values. False, and nothing counted, if one of them is not finite.
    pub(super) fn add(&mut self, values: &[f32]) -> bool {
        // A sum is finite only if everything in it is, and no branch stands in the loop's way.
        let finite = values.iter().map(|value| value * 0.0).sum::<f32>() == 0.0;
        let min = values.iter().copied().fold(f32::INFINITY, f32::min);
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !finite || min > max {
            return finite;
        }
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        self.cover(f64::from(min), f64::from(max));
        let (low, per_width) = (self.low, 1.0 / self.width);
        for &value in values {
            let bin = ((f64::from(value) - low) * per_width) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
        true
    }

    /// Doubles the range until these values fit.
    fn cover(&mut self, min: f64, max: f64) {
        if self.width == 0.0 {
            let least = NARROWEST * min.abs().max(max.abs()).max(f64::from(f32::MIN_POSITIVE));
            (self.low, self.width) = (min, (max - min).max(least) / BINS as f64);
        }
        while max > self.low + self.width * BINS as f64 {
            self.halve(0);
        }
        while min < self.low {
            self.low -= self.width * BINS as f64;
            self.halve(BINS / 2);
        }
    }

    /// Puts pairs of bins together into the half that starts at `start`; the other half is new and empty.
    fn halve(&mut self, start: usize) {
        let pairs: Vec<u64> = self.counts.chunks_exact(2).map(|pair| pair.iter().sum()).collect();
        self.counts.fill(0);
        self.counts.iter_mut().skip(start).zip(pairs).for_each(|(count, pair)| *count = pair);
        self.width *= 2.0;
    }

    /// Values counted.
    pub(super) fn n(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The smallest and the largest value; none before the first.
    pub(super) fn extremes(&self) -> Option<(f32, f32)> {
        (self.min <= self.max).then_some((self.min, self.max))
    }

    /// Middle and count of each bin, from low to high.
    pub(super) fn bins(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let middle = move |i: usize| self.low + (i as f64 + 0.5) * self.width;
        self.counts.iter().enumerate().map(move |(i, &count)| (middle(i), count))
    }

    /// The value that a share of the values does not exceed, to a bin's width.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let wanted = share * self.n() as f64;
        let mut below = 0.0;
        for (i, &count) in self.counts.iter().enumerate() {
            if count > 0 && below + count as f64 >= wanted {
                let part = ((wanted - below) / count as f64).clamp(0.0, 1.0);
                let value = self.low + (i as f64 + part) * self.width;
                return value.clamp(f64::from(self.min), f64::from(self.max));
            }
            below += count as f64;
        }
        f64::from(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(parts: &[&[f32]]) -> Histogram {
        let mut histogram = Histogram::default();
        parts.iter().for_each(|part| assert!(histogram.add(part)));
        histogram
    }

    #[test]
    fn the_range_grows_to_both_sides_and_keeps_every_count() {
        let histogram = of(&[&[0.0, 0.5, 1.0], &[100.0], &[-7.0, -7.0]]);
        assert_eq!((histogram.n(), histogram.extremes()), (6, Some((-7.0, 100.0))));
        let near = |value: f64| histogram.bins().filter(|(x, n)| *n > 0 && (x - value).abs() < 0.2).count();
        assert!([-7.0, 0.0, 0.5, 1.0, 100.0].iter().all(|&value| near(value) > 0));
        assert!(histogram.low <= -7.0 && histogram.low + histogram.width * BINS as f64 >= 100.0);
    }

    #[test]
    fn what_is_not_finite_is_not_counted() {
        let mut histogram = of(&[&[1.0]]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!histogram.add(&[2.0, bad]));
        }
        assert_eq!((histogram.n(), histogram.extremes()), (1, Some((1.0, 1.0))));
        assert!(histogram.add(&[]) && Histogram::default().extremes().is_none());
    }

    #[test]
    fn constant_and_extreme_values_have_bins_too() {
        for values in [&[0.0, 0.0][..], &[3.5], &[f32::MIN, f32::MAX], &[1e-40], &[0.0, f32::MAX, 1e-38]] {
            let histogram = of(&[values]);
            assert_eq!(histogram.n(), values.len() as u64);
            assert!(histogram.width > 0.0 && histogram.width.is_finite(), "{values:?}");
        }
        assert_eq!(of(&[&[0.0], &[f32::MAX], &[f32::MIN]]).n(), 3);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values(
            mut values in proptest::collection::vec(-50.0f32..90.0, 1..400), share in 0.01f64..1.0
        ) {
            let histogram = of(&[&values[..values.len() / 2], &values[values.len() / 2..]]);
            values.sort_by(f32::total_cmp);
            let rank = (share * values.len() as f64).ceil() as usize;
            let found = histogram.quantile(share);
            let wanted = f64::from(values[rank.clamp(1, values.len()) - 1]);
            prop_assert!((found - wanted).abs() <= histogram.width + 1e-9, "{} for {}", found, wanted);
            prop_assert_eq!(histogram.n(), values.len() as u64);
        }
    }
}
