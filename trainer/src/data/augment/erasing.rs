//! Random erasing (arXiv 1708.04896).

use crate::rng::Rng;

/// Fills a random rectangle of 2 % to a third of the normalised image `[channel, row, column]` with standard normal
/// noise.
pub(super) fn erase(pixels: &mut [f32], size: usize, rng: &mut Rng) {
    let area = (size * size) as f64;
    for _ in 0..10 {
        let target = area * rng.range(0.02, 1.0 / 3.0);
        let shape = libm::exp(rng.range(libm::log(0.3), libm::log(1.0 / 0.3)));
        let height = libm::round(libm::sqrt(target * shape)) as usize;
        let width = libm::round(libm::sqrt(target / shape)) as usize;
        if height == 0 || width == 0 || height >= size || width >= size {
            continue;
        }
        let (top, left) = (rng.below(size - height + 1), rng.below(size - width + 1));
        for plane in pixels.chunks_exact_mut(size * size) {
            for row in plane.chunks_exact_mut(size).skip(top).take(height) {
                row.iter_mut().skip(left).take(width).for_each(|v| *v = rng.normal() as f32);
            }
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Augment;
    use super::super::tests::{applied, draw, places};

    #[test]
    fn erasing_fills_a_rectangle_with_noise() {
        let augment = Augment { erasing: 1.0, ..Augment::default() };
        let plain = applied(Augment::default(), &places(8), draw(3));
        let mut erased = 0;
        for i in 0..100 {
            let out = applied(augment, &places(8), draw(i));
            let changed: Vec<usize> = (0..64).filter(|&p| out[p] != plain[p]).collect();
            erased += usize::from(!changed.is_empty());
            assert!(changed.len() <= 28, "{}", changed.len());
            let columns = changed.iter().map(|p| p % 8).collect::<BTreeSet<_>>();
            let rows = changed.iter().map(|p| p / 8).collect::<BTreeSet<_>>();
            assert_eq!(columns.len() * rows.len(), changed.len(), "a rectangle");
        }
        assert!(erased > 90);
    }
}
