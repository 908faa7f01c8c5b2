//! Weights as int8: symmetric, one step for each output channel, with room for sums in 16 bits.
//!
//! On AVX2 the one instruction for 8-bit products, `vpmaddubsw`, adds two products of an unsigned and a signed byte in
//! 16 bits and saturates: 2 · 255 · 127 does not fit. Here the weights of one sign in a group of four inputs
//! ([`QuantLinear::group`]) come to 128 at most, so that even four products fit, whatever the inputs: our kernel adds
//! four before it widens them, and every engine on every machine computes the same sums. Weights that are spread as in
//! a bell lose nothing by it, evenly spread ones about a third of a bit.

use smalti_kernels::QuantLinear;

/// The largest magnitude of a quantized weight.
const LARGEST: f32 = 127.0;
/// The largest magnitude that never needs room made for it: four of them fit.
const ALWAYS_FITS: f32 = (QuantLinear::MAX_SUM / 4) as f32;
/// Candidates for a channel's step: from the one that puts its largest weight at [`ALWAYS_FITS`], each finer than the
/// one before by this factor, to one that would put it at 200.
const CANDIDATES: i32 = 61;
const FINER: f32 = 0.97;

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

/// Quantizes a matrix for inputs with these means and mean squares. Each channel's step is the one with the least squared
/// error of the layer's output, as far as the inputs are independent: the error of a weight counts by its input's mean
/// square. Then some weights are rounded the other way, see [`balance`].
pub(super) fn quantize(weight: &[f32], shape: Shape, moments: &[[f64; 2]]) -> Weight {
    let importance: Vec<f64> = moments.iter().map(|[_, square]| *square).collect();
    let mut found = Weight { values: vec![0; shape.len()], scales: vec![1.0; shape.outputs] };
    let (mut channel, mut levels) = (vec![0.0; shape.inputs], vec![0; shape.inputs]);
    for n in 0..shape.outputs {
        for (k, value) in channel.iter_mut().enumerate() {
            *value = weight.get(shape.at(k, n)).copied().unwrap_or_default();
        }
        let scale = best_scale(&channel, &importance, &mut levels);
        found.scales[n] = scale;
        round(&channel, scale, &mut levels);
        balance(&channel, scale, moments, &mut levels);
        for (k, &level) in levels.iter().enumerate() {
            found.values[shape.at(k, n)] = level as i8;
        }
    }
    found
}

/// The step of one channel.
fn best_scale(channel: &[f32], importance: &[f64], levels: &mut [i32]) -> f32 {
    let counts = channel.iter().zip(importance).filter(|(_, importance)| **importance > 0.0);
    let most = counts.fold(0.0f32, |most, (value, _)| most.max(value.abs()));
    let (mut best, mut least) = (1.0, f64::INFINITY); // All zeros, or too small to matter.
    for i in 0..CANDIDATES {
        let scale = most / ALWAYS_FITS * FINER.powi(i);
        if !scale.is_normal() {
            break;
        }
        round(channel, scale, levels);
        let found = error(channel, importance, scale, levels);
        if found < least {
            (best, least) = (scale, found);
        }
    }
    best
}

/// The squared error of a channel.
fn error(channel: &[f32], importance: &[f64], scale: f32, levels: &[i32]) -> f64 {
    let square = |((&value, &level), importance): ((&f32, &i32), &f64)| {
        importance * f64::from(level as f32 * scale - value).powi(2)
    };
    channel.iter().zip(levels).zip(importance).map(square).sum()
}

/// The nearest levels to a channel's weights that fit.
fn round(channel: &[f32], scale: f32, levels: &mut [i32]) {
    for (level, value) in levels.iter_mut().zip(channel) {
        *level = (value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i32;
    }
    for k in 0..levels.len() {
        let group = QuantLinear::group(k);
        if k == group[0] {
            make_room(levels, group, 1);
            make_room(levels, group, -1);
        }
    }
}

/// Rounds some weights the other way, so that the errors cancel when all inputs are at their means: else they shift the
/// layer's output as a different bias would, most where inputs are all of one sign, as pixels are.
///
/// With errors `e` of the weights, the mean squared error of the output is `Σ e² var + (Σ e mean)²`; each change that
/// is made lowers it, the ones that cost the first sum least come first.
fn balance(channel: &[f32], scale: f32, moments: &[[f64; 2]], levels: &mut [i32]) {
    let scale = f64::from(scale);
    let error = |k: usize, levels: &[i32]| f64::from(levels[k]) * scale - f64::from(channel[k]);
    let mut shift: f64 = moments.iter().enumerate().map(|(k, [mean, _])| error(k, levels) * mean).sum();
    let change = |k: usize| {
        let [mean, square] = moments[k];
        let by = if shift * mean > 0.0 { -1 } else { 1 };
        let (old, step) = (error(k, levels), f64::from(by) * scale);
        let cost = (square - mean * mean).max(0.0) * step * (2.0 * old + step);
        Change { k, by, shift: step * mean, cost }
    };
    let mut changes: Vec<Change> = (0..moments.len().min(levels.len())).map(change).collect();
    changes.retain(|change| change.shift != 0.0);
    changes.sort_by(|a, b| (a.cost / a.shift.abs()).total_cmp(&(b.cost / b.shift.abs())));
    for change in changes {
        let gain = shift * shift - (shift + change.shift).powi(2) - change.cost;
        if gain > 0.0 && fits(levels, &change) {
            levels[change.k] += change.by;
            shift += change.shift;
        }
    }
}

/// One weight rounded the other way.
struct Change {
    k: usize,
    by: i32,
    /// By how much the output moves with inputs at their means.
    shift: f64,
    /// What it adds to the rest of the squared error.
    cost: f64,
}

/// Whether there is room for a change.
fn fits(levels: &[i32], change: &Change) -> bool {
    let new = levels[change.k] + change.by;
    let same = |&k: &usize| k != change.k && levels.get(k).is_some_and(|level| level * new > 0);
    let others: i32 = QuantLinear::group(change.k).iter().filter(|k| same(k)).map(|&k| levels[k].abs()).sum();
    new.abs() <= LARGEST as i32 && others + new.abs() <= QuantLinear::MAX_SUM
}

/// Takes the same off all weights of a group that have this sign, which is the least squared change, until they fit.
fn make_room(levels: &mut [i32], group: [usize; 4], sign: i32) {
    loop {
        let mut some = [0; 4];
        let mut count = 0;
        for k in group.into_iter().filter(|&k| levels.get(k).is_some_and(|level| level * sign > 0)) {
            some[count] = k;
            count += 1;
        }
        let some = &mut some[..count];
        let sum: i32 = some.iter().map(|&k| levels[k] * sign).sum();
        let excess = sum - QuantLinear::MAX_SUM;
        if excess <= 0 {
            return;
        }
        some.sort_by_key(|&k| -levels[k] * sign);
        let least = some.last().map_or(0, |&k| levels[k] * sign);
        // The largest give one more each where the excess does not divide.
        let (each, more) = (excess / count as i32, excess as usize % count);
        for (i, &k) in some.iter().enumerate() {
            levels[k] -= sign * (each + i32::from(i < more)).min(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_orders_of_axes_give_the_same_levels() {
        let by_row = [1.0, -2.0, 0.25, 4.0, 0.5, -0.125]; // [3 inputs, 2 outputs]
        let by_column = [1.0, 0.25, 0.5, -2.0, 4.0, -0.125];
        let importance = [[0.0, 1.0]; 3];
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
            let weight = quantize(&[value, 0.0], shape, &[[0.0, 1.0]; 2]);
            assert!(weight.scales[0].is_normal() && weight.scales[0] > 0.0, "{value}");
            assert_eq!(weight.values[1], 0);
        }
    }

    #[test]
    fn inputs_that_are_always_zero_do_not_count() {
        let weight = quantize(
            &[100.0, 1.0, 0.7, -0.9],
            Shape { inputs: 4, outputs: 1, axis: 1 },
            &[0.0, 1.0, 1.0, 1.0].map(|square| [0.0, square]),
        );
        assert!(weight.scales[0] < 2.0 / ALWAYS_FITS);
    }

    proptest! {
        #[test]
        fn sums_fit_and_nothing_is_worse_than_what_always_fits(
            channel in proptest::collection::vec(-4.0f32..4.0, 1..80)
        ) {
            let shape = Shape { inputs: channel.len(), outputs: 1, axis: 0 };
            let importance = vec![1.0; channel.len()];
            let found = quantize(&channel, shape, &vec![[0.0, 1.0]; channel.len()]);
            let mut sums = vec![[0; 2]; channel.len()];
            for (k, &value) in found.values.iter().enumerate() {
                sums[QuantLinear::group(k)[0]][usize::from(value < 0)] += i32::from(value).abs();
            }
            prop_assert!(sums.as_flattened().iter().all(|&sum| sum <= QuantLinear::MAX_SUM));
            let levels: Vec<i32> = found.values.iter().map(|&value| i32::from(value)).collect();
            let most = channel.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let safe = (most / ALWAYS_FITS).max(f32::MIN_POSITIVE);
            let rounded: Vec<i32> = channel.iter().map(|value| (value / safe).round_ties_even() as i32).collect();
            let error = |scale, levels: &[i32]| error(&channel, &importance, scale, levels);
            prop_assert!(error(found.scales[0], &levels) <= error(safe, &rounded) + 1e-12);
        }

        #[test]
        fn errors_cancel_where_inputs_have_a_mean(
            channel in proptest::collection::vec(-4.0f32..4.0, 1..80), mean in -3.0f64..3.0, var in 0.0f64..4.0
        ) {
            let moments = vec![[mean, mean * mean + var]; channel.len()];
            let importance = vec![mean * mean + var; channel.len()];
            let mut levels = vec![0; channel.len()];
            let scale = best_scale(&channel, &importance, &mut levels);
            round(&channel, scale, &mut levels);
            let total = |levels: &[i32]| {
                let errors = || levels.iter().zip(&channel).map(|(&level, &w)| f64::from(level) * f64::from(scale) - f64::from(w));
                errors().map(|e| e * e * var).sum::<f64>() + errors().map(|e| e * mean).sum::<f64>().powi(2)
            };
            let before = total(&levels);
            balance(&channel, scale, &moments, &mut levels);
            prop_assert!(total(&levels) <= before + 1e-9 * before.max(1.0));
            let mut sums = vec![[0; 2]; channel.len()];
            for (k, &level) in levels.iter().enumerate() {
                sums[QuantLinear::group(k)[0]][usize::from(level < 0)] += level.abs();
            }
            prop_assert!(sums.as_flattened().iter().all(|&sum| sum <= QuantLinear::MAX_SUM));
            prop_assert!(levels.iter().all(|level| level.abs() <= LARGEST as i32));
        }

        #[test]
        fn room_is_made_by_the_least_squared_change(levels in proptest::array::uniform4(1i32..128)) {
            let mut found = levels;
            make_room(&mut found, [0, 1, 2, 3], 1);
            let change = |found: &[i32; 4]| -> i32 {
                found.iter().zip(&levels).map(|(found, level)| (found - level).pow(2)).sum()
            };
            prop_assert!(found.iter().sum::<i32>() <= QuantLinear::MAX_SUM && found.iter().all(|&level| level >= 0));
            // No unit is better moved from one weight to another.
            for (i, j) in (0..16).map(|i| (i / 4, i % 4)) {
                let mut other = found;
                (other[i], other[j]) = (other[i] + 1, other[j] - 1);
                prop_assert!(i == j || other[j] < 0 || change(&other) >= change(&found));
            }
        }
    }
}
