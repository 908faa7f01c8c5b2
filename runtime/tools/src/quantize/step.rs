//! From a range to 8 bits and back.

/// The largest uint8.
pub(super) const LEVELS: f64 = 255.0;

/// Real values as uint8: `x = scale · (q - zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Distance of two levels: finite and a normal number above 0.
    pub(super) scale: f32,
    /// The level of 0.
    pub(super) zero: u8,
}

impl Step {
    /// Bytes as they are.
    pub(super) const BYTES: Step = Step { scale: 1.0, zero: 0 };

    /// The step for a range; 0 is always in it and has a level of its own.
    pub(super) fn of(low: f64, high: f64) -> Step {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / LEVELS) as f32;
        if !scale.is_normal() {
            // Nothing but zeros was seen, or what rounds to it: any step is right.
            return Step { scale: 1.0, zero: 0 };
        }
        Step { scale, zero: (-low / f64::from(scale)).round().clamp(0.0, LEVELS) as u8 }
    }

    /// The level of a value, as ONNX's `QuantizeLinear` says: half to even, saturating.
    pub(super) fn quantize(self, x: f32) -> u8 {
        ((x / self.scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, LEVELS as f32) as u8
    }

    /// The value of a level.
    pub(super) fn dequantize(self, level: u8) -> f32 {
        self.scale * (f32::from(level) - f32::from(self.zero))
    }

    /// The smallest and the largest value that there is a level for.
    pub(super) fn range(self) -> (f32, f32) {
        (self.dequantize(0), self.dequantize(u8::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounding_is_half_to_even() {
        let step = Step { scale: 2.0, zero: 10 };
        assert_eq!([1.0, 3.0, -1.0, -3.0, 3.1].map(|x| step.quantize(x)), [10, 12, 10, 8, 12]);
    }

    proptest! {
        #[test]
        fn levels_are_within_half_a_step(low in -100.0f64..0.0, high in 0.0f64..100.0, share in 0.0f64..1.0) {
            let step = Step::of(low, high);
            let x = (low + share * (high - low)) as f32;
            let back = step.dequantize(step.quantize(x));
            // The zero point is rounded too, which moves the ends by half a step.
            prop_assert!((back - x).abs() <= 1.001 * step.scale.max(1e-9), "{} for {}", back, x);
        }
    }
}
