//! How far a measured accuracy can be trusted.

/// The 95 % interval of a share of `n` images that were right (Wilson 1927). Of no image it is everything.
pub fn interval(share: f64, n: u64) -> [f64; 2] {
    const Z: f64 = 1.959_964;
    if n == 0 {
        return [0.0, 1.0];
    }
    let n = n as f64;
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let middle = share + Z * Z / (2.0 * n);
    [-1.0, 1.0].map(|side| ((middle + side * spread) / (1.0 + Z * Z / n)).clamp(0.0, 1.0))
}

/// The mean over classes of the share of their images that is right, of classes that have images: `(images, right)` each. 0 of
/// nothing.
pub fn balanced(classes: impl IntoIterator<Item = (u64, u64)>) -> f64 {
    let shares: Vec<f64> = (classes.into_iter())
        .filter(|(images, _)| *images > 0)
        .map(|(images, right)| right as f64 / images as f64)
        .collect();
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilson_s() {
        // R: binom::binom.confint(81, 263, methods = "wilson").
        let [low, high] = interval(81.0 / 263.0, 263);
        assert!((low - 0.2553).abs() < 2e-3 && (high - 0.3662).abs() < 2e-3, "{low} {high}");
        let [low, high] = interval(1.0, 10);
        assert!(low > 0.7 && low < 0.73 && high <= 1.0, "{low} {high}");
        assert_eq!(interval(0.0, 0), [0.0, 1.0]);
    }

    #[test]
    fn classes_without_images_do_not_count() {
        assert_eq!(balanced([(10, 5), (0, 0), (2, 2)]), 0.75);
        assert_eq!(balanced([]), 0.0);
    }
}
