//! How much noise quantization puts into a layer's output, measured on rows that calibration kept.

use super::step::Step;
use super::weights::{Shape, Weight};

/// The ratio that stands for no noise at all, in dB.
pub(super) const CLEAN: f64 = 120.0;

/// Signal-to-quantization-noise ratio of a layer's output in dB (bias left out): the power of `x · w` over that of
/// its error with both quantized. Between `-CLEAN` and [`CLEAN`].
pub(super) fn sqnr_db(rows: &[f32], weight: &[f32], shape: Shape, step: Step, quantized: &Weight) -> f64 {
    let real = by_input(shape, |at, _| weight.get(at).copied().unwrap_or_default());
    let coarse = by_input(shape, |at, n| f32::from(quantized.values[at]) * quantized.scales[n]);
    let (mut wanted, mut found) = (vec![0.0; shape.outputs], vec![0.0; shape.outputs]);
    let (mut signal, mut noise) = (0.0, 0.0);
    for row in rows.chunks_exact(shape.inputs) {
        product(row.iter().copied(), &real, &mut wanted);
        product(row.iter().map(|&x| step.dequantize(step.quantize(x))), &coarse, &mut found);
        for (&wanted, &found) in wanted.iter().zip(&found) {
            signal += f64::from(wanted).powi(2);
            noise += (f64::from(wanted) - f64::from(found)).powi(2);
        }
    }
    match (signal > 0.0, noise > 0.0) {
        (_, false) => CLEAN,
        (false, true) => -CLEAN,
        (true, true) => (10.0 * (signal / noise).log10()).clamp(-CLEAN, CLEAN),
    }
}

/// The matrix in the order `[inputs, outputs]`; `value` gets an element's place and its output channel.
fn by_input(shape: Shape, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let at = |k: usize| (0..shape.outputs).map(move |n| (shape.at(k, n), n));
    (0..shape.inputs).flat_map(at).map(|(at, n)| value(at, n)).collect()
}

/// `out = x · matrix`, the matrix `[inputs, outputs]`.
fn product(x: impl Iterator<Item = f32>, matrix: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (x, weights) in x.zip(matrix.chunks_exact(out.len().max(1))) {
        out.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * weight);
    }
}

#[cfg(test)]
mod tests {
    use super::super::weights;
    use super::*;

    #[test]
    fn finer_steps_make_less_noise() {
        let shape = Shape { inputs: 8, outputs: 4, axis: 0 };
        let weight: Vec<f32> = (0..32).map(|i| ((i * 37 % 19) as f32 - 9.0) / 10.0).collect();
        let rows: Vec<f32> = (0..160).map(|i| ((i * 53 % 101) as f32 - 50.0) / 50.0).collect();
        let quantized = weights::quantize(&weight, shape, &[[0.0, 1.0]; 8]);
        let ratio = |reach: f64| sqnr_db(&rows, &weight, shape, Step::of(-reach, reach), &quantized);
        assert!(ratio(1.0) > 35.0 && ratio(1.0) > ratio(10.0) + 10.0, "{} {}", ratio(1.0), ratio(10.0));
        assert!(ratio(0.01) < 3.0);
    }

    #[test]
    fn silence_has_a_ratio_too() {
        let shape = Shape { inputs: 1, outputs: 1, axis: 1 };
        let zero = weights::quantize(&[0.0], shape, &[[0.0, 1.0]]);
        assert_eq!(sqnr_db(&[1.0], &[0.0], shape, Step::of(0.0, 1.0), &zero), CLEAN);
        assert_eq!(sqnr_db(&[], &[1.0], shape, Step::of(0.0, 1.0), &zero), CLEAN);
        assert_eq!(sqnr_db(&[1.0], &[1.0], shape, Step::of(0.0, 1.0), &zero), 0.0);
    }
}
