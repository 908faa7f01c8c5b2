//! What this machine's core can do at most: the products' inner loops on data that stays in the nearest cache.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::linear::{Linear, linear};
use crate::quant_linear::{QuantLinear, quant_linear};
use crate::quantize::{Out, QuantParams};

/// Rows, inputs and outputs of the layer that is timed: 16 KiB of floats, or less.
const SIZES: [usize; 3] = [30, 128, 16];
/// How long to try.
const TIME: Duration = Duration::from_millis(60);

/// Multiply-adds a second on one core, in thousand millions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Of floats.
    pub floats: f64,
    /// Of bytes with weights of which four fit, see [`QuantLinear::MAX_SUM`].
    pub bytes: f64,
}

/// Measures the peak on an instruction set, for about an eighth of a second.
pub fn measure(isa: Isa) -> Peak {
    let [rows, k, n] = SIZES;
    let (bias, mut y) = (vec![0.0; n], vec![0.0; rows * n]);
    let mut floats = 0.0;
    if let Some(layer) = Linear::new([n, k], |j, i| (i + j) as f32, &bias) {
        let x = vec![0.5; rows * k];
        floats = rate(|| linear(isa, &layer, black_box(&x), &Epilogue::default(), &mut Out::F32(&mut y)));
    }
    let quantize = QuantParams::new(1.0, 0);
    let layer =
        quantize.and_then(|x| QuantLinear::new(isa, [n, k], |j, _| 2 * j as i8, &vec![1.0; n], &bias, x));
    let mut bytes = 0.0;
    if let Some(layer) = layer {
        let x = vec![7; rows * k];
        bytes = rate(|| quant_linear(&layer, black_box(&x), &Epilogue::default(), &mut Out::F32(&mut y)));
    }
    Peak { floats, bytes }
}

/// The best rate of a run.
fn rate(mut run: impl FnMut()) -> f64 {
    const REPEATS: u32 = 20;
    let (start, mut best) = (Instant::now(), Duration::MAX);
    while start.elapsed() < TIME {
        let start = Instant::now();
        (0..REPEATS).for_each(|_| run());
        best = best.min(start.elapsed() / REPEATS);
    }
    SIZES.iter().product::<usize>() as f64 / best.as_secs_f64().max(1e-9) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_rate() {
        let peak = measure(Isa::best());
        assert!(peak.floats > 0.0 && peak.bytes > 0.0 && peak.bytes.is_finite());
    }
}
