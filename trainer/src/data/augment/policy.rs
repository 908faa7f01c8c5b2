//! Policies that draw operations at random: RandAugment and TrivialAugment Wide, with torchvision's magnitudes.

use std::fmt;

use smalti_models::image::Image;

use super::geometric::Canvas;
use super::op::{Op, OpSet};
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Which operations an image goes through, drawn anew for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// None.
    #[default]
    None,
    /// One operation of a random magnitude, from wide ranges: TrivialAugment Wide (arXiv 2103.10158, table 2).
    Trivial,
    /// RandAugment (arXiv 1909.13719).
    Rand {
        /// Operations an image, N in the paper; usually 1 to 3.
        ops: u8,
        /// The magnitude of all of them, M in the paper: 0 to 30, as in torchvision; three times timm's `m`.
        magnitude: u8,
    },
}

/// The steps from the least magnitude to the greatest.
const MAX_MAGNITUDE: u8 = 30;
/// The largest number of operations an image.
const MAX_OPS: u8 = 16;

/// As `--augment` says it: `none`, `trivial`, `rand:2,9`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::None => f.write_str("none"),
            Policy::Trivial => f.write_str("trivial"),
            Policy::Rand { ops, magnitude } => write!(f, "rand:{ops},{magnitude}"),
        }
    }
}

impl Policy {
    /// RandAugment's usual form: N = 2, M = 9, torchvision's default.
    pub const RAND: Policy = Policy::Rand { ops: 2, magnitude: 9 };

    /// Whether it draws none.
    pub fn is_none(&self) -> bool {
        *self == Policy::None
    }

    /// Refuses numbers out of range, and a set that leaves the policy nothing to draw.
    pub(super) fn check(self, skip: OpSet) -> Result<()> {
        if let Policy::Rand { ops, magnitude } = self
            && !((1..=MAX_OPS).contains(&ops) && magnitude <= MAX_MAGNITUDE)
        {
            return Err(Error::Usage(format!(
                "augment is rand:{ops},{magnitude}: expected N of 1 to {MAX_OPS} and M of 0 to {MAX_MAGNITUDE}"
            )));
        }
        if !self.is_none() && choices(skip).next().is_none() {
            return Err(Error::Usage(
                "augment-skip leaves no operation: expected at least one, or --augment none".into(),
            ));
        }
        Ok(())
    }

    /// Draws operations and applies them.
    pub(super) fn apply(self, mut image: Image, skip: OpSet, canvas: Canvas, rng: &mut Rng) -> Result<Image> {
        let count = match self {
            Policy::None => 0,
            Policy::Trivial => 1,
            Policy::Rand { ops, .. } => ops,
        };
        for _ in 0..count {
            let (op, magnitude) = self.draw(skip, image.width(), image.height(), rng);
            image = op.apply(image, magnitude, canvas)?;
        }
        Ok(image)
    }

    /// One operation with its magnitude, sign included.
    fn draw(self, skip: OpSet, width: usize, height: usize, rng: &mut Rng) -> (Op, f64) {
        let op = choices(skip).nth(rng.below(choices(skip).count())).unwrap_or(Op::Identity);
        let step = match self {
            Policy::Rand { magnitude, .. } => magnitude,
            _ => rng.below(usize::from(MAX_MAGNITUDE) + 1) as u8,
        };
        let sign = if op.is_signed() && rng.chance(0.5) { -1.0 } else { 1.0 };
        (op, sign * self.magnitude(op, step, width, height))
    }

    /// The magnitude of an operation at one of 31 steps: torchvision's `_augmentation_space`.
    pub(super) fn magnitude(self, op: Op, step: u8, width: usize, height: usize) -> f64 {
        let scaled = |greatest: f64| greatest * f64::from(step) / f64::from(MAX_MAGNITUDE);
        let trivial = self == Policy::Trivial;
        let either = |wide: f64, narrow: f64| scaled(if trivial { wide } else { narrow });
        match op {
            Op::Identity | Op::AutoContrast | Op::Equalize | Op::Invert => 0.0,
            Op::ShearX | Op::ShearY => either(0.99, 0.3),
            Op::TranslateX => either(32.0, 150.0 / 331.0 * width as f64),
            Op::TranslateY => either(32.0, 150.0 / 331.0 * height as f64),
            Op::Rotate => either(135.0, 30.0),
            Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => either(0.99, 0.9),
            Op::Posterize => 8.0 - either(6.0, 4.0).round(),
            Op::Solarize => 255.0 - scaled(255.0),
        }
    }
}

/// The operations of both papers, but those left out.
fn choices(skip: OpSet) -> impl Iterator<Item = Op> {
    Op::ALL.into_iter().filter(move |op| *op != Op::Invert && !skip.contains(*op))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::tests::{draw, places};
    use super::super::{Sampling, golden};
    use super::*;

    const CANVAS: Canvas = Canvas { sampling: Sampling::Bilinear, fill: [0; 3] };

    #[test]
    fn magnitudes_are_torchvisions() {
        for (name, policy) in [("trivial", Policy::Trivial), ("rand", Policy::RAND)] {
            let golden = golden::read();
            let table = golden["tables"][name].as_object().unwrap();
            assert_eq!(table.len(), choices(OpSet::default()).count());
            for op in choices(OpSet::default()) {
                let of = &table[op.name()];
                assert_eq!(of["signed"], op.is_signed(), "{op:?}");
                let expected: Vec<f64> =
                    of["magnitudes"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
                for (step, expected) in expected.iter().enumerate() {
                    let found = policy.magnitude(op, step as u8, 32, 28);
                    assert!((found - expected).abs() < 1e-12, "{op:?} {step}: {found} {expected}");
                }
            }
        }
    }

    fn draws(policy: Policy, skip: OpSet) -> Vec<(Op, f64)> {
        (0..7000).map(|i| policy.draw(skip, 32, 28, &mut draw(i).policy())).collect()
    }

    #[test]
    fn trivial_draws_every_operation_at_every_magnitude() {
        let draws = draws(Policy::Trivial, OpSet::default());
        for op in choices(OpSet::default()) {
            let of = || draws.iter().filter(|(drawn, _)| *drawn == op).map(|(_, magnitude)| *magnitude);
            assert!((400..600).contains(&of().count()), "{op:?}: {} of 7000", of().count());
            let found: BTreeSet<i64> = of().map(|magnitude| (magnitude * 1e6).round() as i64).collect();
            let wanted = (0..=MAX_MAGNITUDE).map(|step| Policy::Trivial.magnitude(op, step, 32, 28) * 1e6);
            let wanted: BTreeSet<i64> = wanted
                .flat_map(
                    |magnitude| if op.is_signed() { vec![magnitude, -magnitude] } else { vec![magnitude] },
                )
                .map(|magnitude| magnitude.round() as i64)
                .collect();
            assert_eq!(found, wanted, "{op:?}");
        }
        assert!(draws.iter().all(|(op, _)| *op != Op::Invert));
    }

    #[test]
    fn rand_draws_one_magnitude() {
        let policy = Policy::Rand { ops: 1, magnitude: 20 };
        let draws = draws(policy, OpSet::default());
        for (op, magnitude) in &draws {
            assert_eq!(magnitude.abs(), policy.magnitude(*op, 20, 32, 28), "{op:?}");
        }
        let counts =
            choices(OpSet::default()).map(|op| draws.iter().filter(|(drawn, _)| *drawn == op).count());
        assert!(counts.into_iter().all(|count| (400..600).contains(&count)));
        let negative = draws.iter().filter(|(op, magnitude)| op.is_signed() && *magnitude < 0.0).count();
        assert!((2000..2500).contains(&negative), "half of 9 / 14 of 7000: {negative}");
    }

    #[test]
    fn what_is_left_out_is_not_drawn() {
        let skip: OpSet = [Op::Rotate, Op::Color, Op::Identity].into_iter().collect();
        let found: BTreeSet<&str> = draws(Policy::Trivial, skip).iter().map(|(op, _)| op.name()).collect();
        assert_eq!(found.len(), 11);
        assert!(["rotate", "color", "identity"].iter().all(|name| !found.contains(name)));
    }

    #[test]
    fn rand_applies_as_many_as_it_is_told() {
        let skip: OpSet = Op::ALL.into_iter().filter(|op| *op != Op::TranslateX).collect();
        let outcomes = |policy: Policy| -> BTreeSet<Vec<u8>> {
            let apply =
                |i| policy.apply(places(16), skip, CANVAS, &mut draw(i).policy()).unwrap().into_data();
            (0..100).map(apply).collect()
        };
        // Shifts of 4 pixels: one way or the other, and twice.
        assert_eq!(outcomes(Policy::Rand { ops: 1, magnitude: 17 }).len(), 2);
        assert_eq!(outcomes(Policy::Rand { ops: 2, magnitude: 17 }).len(), 4);
        assert_eq!(outcomes(Policy::None), [places(16).into_data()].into());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let refused = |policy: Policy, skip: OpSet| policy.check(skip).unwrap_err().exit_code() == 2;
        assert!(refused(Policy::Rand { ops: 0, magnitude: 9 }, OpSet::default()));
        assert!(refused(Policy::Rand { ops: 2, magnitude: 31 }, OpSet::default()));
        assert!(refused(Policy::Trivial, Op::ALL.into_iter().collect()));
        assert!(refused(Policy::RAND, Op::ALL.into_iter().filter(|op| *op != Op::Invert).collect()));
        assert!(Policy::None.check(Op::ALL.into_iter().collect()).is_ok());
        assert!(Policy::RAND.check(OpSet::default()).is_ok());
    }
}
