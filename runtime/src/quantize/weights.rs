//! Weights as int8: symmetric, one step for each output channel, 7 bits of the 8.
//!
//! Values stay within ±63. On AVX2 the one instruction for 8-bit products, `vpmaddubsw`, adds two products of an
//! unsigned and a signed byte in 16 bits: 2 · 255 · 63 = 32,130 fits, 2 · 255 · 127 does not and would saturate.
//! With 7 bits every engine on every machine computes the same sums.

/// The largest magnitude of a quantized weight.
pub(super) const LARGEST: f32 = 63.0;
/// Candidates for a channel's step, in shares of the one that fits its largest weight: 1, 0.99, 0.98, ...
const CANDIDATES: usize = 45;

/// A matrix's place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Length of the inner sum.
    pub(super) inputs: usize,
    /// Output channels.
    pub(super) outputs: usize,
    /// The axis of the output channels: 1 for `[inputs, outputs]`, 0 for `[outputs, inputs]`.
    pub(super) axis: usize,
}

impl Shape {
    /// Where input `k` of output `n` is.
    pub(super) fn at(self, k: usize, n: usize) -> usize {
        if self.axis == 1 { k * self.outputs + n } else { n * self.inputs + k }
    }

    /// Elements.
    pub(super) fn len(self) -> usize {
        self.inputs * self.outputs
    }
}

/// A weight matrix in 8 bits, in the same order as the floats that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weight {
    pub(super) values: Vec<i8>,
    /// One step for each output channel: finite and normal numbers above 0.
    pub(super) scales: Vec<f32>,
}

/// Quantizes a matrix. Each channel's step is the one with the least squared error of the layer's output, as far as
/// the inputs are independent: the error of weight `k` counts by `importance[k]`, the mean square of input `k`.
pub(super) fn quantize(weight: &[f32], shape: Shape, importance: &[f64]) -> Weight {
    let mut found = Weight { values: vec![0; shape.len()], scales: vec![1.0; shape.outputs] };
    let mut channel = vec![0.0; shape.inputs];
    for n in 0..shape.outputs {
        for (k, value) in channel.iter_mut().enumerate() {
            *value = weight.get(shape.at(k, n)).copied().unwrap_or_default();
        }
        let scale = best_scale(&channel, importance);
        found.scales[n] = scale;
        for (k, &value) in channel.iter().enumerate() {
            found.values[shape.at(k, n)] = level(value, scale) as i8;
        }
    }
    found
}

/// The level of a weight, as a whole number.
fn level(value: f32, scale: f32) -> f32 {
    (value / scale).round_ties_even().clamp(-LARGEST, LARGEST)
}

/// The step of one channel.
fn best_scale(channel: &[f32], importance: &[f64]) -> f32 {
    let most = channel.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let fits = most / LARGEST;
    if !fits.is_normal() {
        return 1.0; // All zeros, or too small to matter.
    }
    let error = |scale: f32| {
        let square = |(&value, importance): (&f32, &f64)| {
            importance * f64::from(level(value, scale) * scale - value).powi(2)
        };
        channel.iter().zip(importance).map(square).sum::<f64>()
    };
    let mut best = (error(fits), fits);
    for i in 1..CANDIDATES {
        let scale = fits * (1.0 - i as f32 / 100.0);
        let found = error(scale);
        if scale.is_normal() && found < best.0 {
            best = (found, scale);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_orders_of_axes_give_the_same_levels() {
        let by_row = [1.0, -2.0, 0.25, 4.0, 0.5, -0.125]; // [3 inputs, 2 outputs]
        let by_column = [1.0, 0.25, 0.5, -2.0, 4.0, -0.125];
        let importance = [1.0; 3];
        let a = quantize(&by_row, Shape { inputs: 3, outputs: 2, axis: 1 }, &importance);
        let b = quantize(&by_column, Shape { inputs: 3, outputs: 2, axis: 0 }, &importance);
        assert_eq!(a.scales, b.scales);
        assert_eq!([a.values[0], a.values[2], a.values[4]], b.values[..3]);
        assert_eq!([a.values[1], a.values[3], a.values[5]], b.values[3..]);
    }

    #[test]
    fn zeros_and_tiny_weights_have_a_step() {
        for value in [0.0, 1e-40, f32::MIN_POSITIVE, f32::MAX] {
            let shape = Shape { inputs: 2, outputs: 1, axis: 1 };
            let weight = quantize(&[value, 0.0], shape, &[1.0, 1.0]);
            assert!(weight.scales[0].is_normal() && weight.scales[0] > 0.0, "{value}");
            assert_eq!(weight.values[1], 0);
        }
    }

    #[test]
    fn inputs_that_are_always_zero_do_not_count() {
        let weight = quantize(
            &[100.0, 1.0, 0.7, -0.9],
            Shape { inputs: 4, outputs: 1, axis: 1 },
            &[0.0, 1.0, 1.0, 1.0],
        );
        assert!(weight.scales[0] < 100.0 / LARGEST);
    }

    proptest! {
        #[test]
        fn weights_are_within_seven_bits_and_no_worse_than_by_the_largest(
            channel in proptest::collection::vec(-4.0f32..4.0, 1..80)
        ) {
            let shape = Shape { inputs: channel.len(), outputs: 1, axis: 0 };
            let importance = vec![1.0; channel.len()];
            let found = quantize(&channel, shape, &importance);
            prop_assert!(found.values.iter().all(|value| (-63..=63).contains(value)));
            let error = |scale: f32| -> f64 {
                channel.iter().map(|&v| f64::from(level(v, scale) * scale - v).powi(2)).sum()
            };
            let most = channel.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            prop_assert!(error(found.scales[0]) <= error((most / LARGEST).max(f32::MIN_POSITIVE)) + 1e-12);
        }
    }
}
