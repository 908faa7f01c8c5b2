//! What the kernels' tests share.

use crate::isa::Isa;

/// Reproducible values in [-1, 1).
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The same values in f64.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Rows of sixteen with ties, both zeros and what is not finite, each with a byte; for forms that must have equal bits.
pub fn awkward_rows() -> impl Iterator<Item = ([f32; 16], u8)> {
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 1e-40];
    let mut state = 1u32;
    (0..4_000).map(move |_| {
        let x = std::array::from_fn(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 28 {
                0 => special[i % special.len()],
                1 => ((state >> 16) as f32 / 2.0).round() / 2.0 - 8.0, // ties
                _ => (state >> 8) as f32 / 1e6 - 8.0,
            }
        });
        (x, (state >> 24) as u8)
    })
}

/// Runs a check on every instruction set of this machine.
pub fn each_isa(mut check: impl FnMut(Isa)) {
    Isa::available().into_iter().for_each(&mut check);
}

/// Fails where two rows differ by more than the tolerance, relative to values above 1.
#[track_caller]
pub fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs() / want.abs().max(1.0);
        assert!(error <= tolerance, "at {i}: {got} instead of {want}, off by {error:e}");
    }
}
