//! Random numbers that depend on nothing but a key: SplitMix64 (Steele, Lea and Flood 2014) over a hashed key.
//!
//! Every random choice of a run names its purpose and its place, `Rng::new(seed, stream::MASK, [epoch, image])`,
//! so that a resumed or re-threaded run draws the same numbers without any generator state being saved.

/// What a random number is for: numbers of different streams are unrelated.
pub mod stream {
    /// Initial weights.
    pub const INIT: u64 = 1;
    /// The order of images in an epoch.
    pub const ORDER: u64 = 2;
    /// Augmentation of an image.
    pub const AUGMENT: u64 = 3;
    /// Which patches are hidden, or dropped.
    pub const MASK: u64 = 4;
    /// Stochastic depth.
    pub const DROP_PATH: u64 = 5;
    /// Mixup and CutMix of a batch.
    pub const MIX: u64 = 6;
    /// Which images are labelled.
    pub const LABELS: u64 = 7;
    /// The procedural image set.
    pub const SYNTHETIC: u64 = 8;
    /// The linear probe.
    pub const PROBE: u64 = 9;
    /// Where clusters begin.
    pub const CLUSTERS: u64 = 10;
}

/// A small, fast generator whose whole sequence follows from its key.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

/// SplitMix64's output function: every bit of the input moves every bit of the output.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// The generator for one purpose ([`stream`]) at one place (epoch, image, step: whatever tells it apart).
    pub fn new<const N: usize>(seed: u64, stream: u64, place: [u64; N]) -> Rng {
        let mut state = mix(seed.wrapping_add(GOLDEN));
        for key in std::iter::once(stream).chain(place) {
            state = mix(state.wrapping_add(GOLDEN) ^ mix(key.wrapping_add(GOLDEN)));
        }
        Rng { state }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n` (Lemire 2019, without the last rejection: the bias is below `n / 2^64`); 0 for `n = 0`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box and Muller 1958), by a portable logarithm and cosine.
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(std::f64::consts::TAU * v)
    }

    /// Gamma with shape `a` and scale 1 (Marsaglia and Tsang 2000).
    pub fn gamma(&mut self, a: f64) -> f64 {
        if a < 1.0 {
            let u = 1.0 - self.uniform();
            return self.gamma(a + 1.0) * libm::pow(u, 1.0 / a);
        }
        let d = a - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let v = libm::pow(1.0 + c * x, 3.0);
            if v > 0.0 && libm::log(1.0 - self.uniform()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
    }

    /// Beta(a, b), as mixup and CutMix draw their share.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.gamma(a), self.gamma(b));
        if x + y > 0.0 { x / (x + y) } else { 0.5 }
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_fixes_the_sequence() {
        let draw = |place| Rng::new(7, stream::MASK, place).bits();
        assert_eq!(draw([1, 2]), draw([1, 2]));
        assert_ne!(draw([1, 2]), draw([2, 1]));
        assert_ne!(Rng::new(7, stream::MASK, [1]).bits(), Rng::new(7, stream::ORDER, [1]).bits());
        assert_ne!(Rng::new(7, stream::MASK, [1]).bits(), Rng::new(8, stream::MASK, [1]).bits());
        // Frozen: a change here changes every published run.
        assert_eq!(Rng::new(0, stream::INIT, []).bits(), 0x755c_0dd9_e6f0_a86d);
    }

    #[test]
    fn moments_are_right() {
        let mut rng = Rng::new(1, 0, []);
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let var = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.03, "{mean} {var}");
        let share = (0..n).map(|_| rng.beta(0.8, 0.8)).sum::<f64>() / n as f64;
        assert!((share - 0.5).abs() < 0.01, "{share}");
        let below = (0..n).filter(|_| rng.below(10) == 3).count() as f64 / n as f64;
        assert!((below - 0.1).abs() < 0.01, "{below}");
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<usize> = (0..100).collect();
        Rng::new(3, stream::ORDER, [0]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
