//! Position embeddings for another number of patches, as timm's `resample_abs_pos_embed` makes them: PyTorch's
//! `interpolate(mode="bicubic", antialias=True, align_corners=False)` over the grid.

/// Half the width of the filter, in pixels of the coarser grid.
const SUPPORT: f64 = 2.0;

/// Resamples the positions `[1 + from², dim]` to `[1 + to², dim]`. The class token's stay as they are; a table without one
/// gives one without.
pub fn resample(table: &[f32], dim: usize, from: usize, to: usize) -> Vec<f32> {
    let (class_token, patches) = table.split_at(table.len().saturating_sub(from * from * dim));
    let taps = taps(from, to);
    // Columns first: each row of patches becomes `to` wide. Then the rows.
    let mut wide = Vec::with_capacity(from * to * dim);
    for row in patches.chunks_exact(from * dim) {
        taps.iter().for_each(|taps| wide.extend(weighted(row, dim, taps)));
    }
    let mut resampled = class_token.to_vec();
    for taps in &taps {
        resampled.extend(weighted(&wide, to * dim, taps));
    }
    resampled
}

/// The inputs that make one output: the first, and the weight of it and those that follow.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// The taps of each output along one axis.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = SUPPORT * stretch;
    let taps_of = |i: usize| {
        let centre = scale * (i as f64 + 0.5);
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..end).map(|j| cubic((j as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.iter().map(|weight| (weight / sum) as f32).collect() }
    };
    (0..to).map(taps_of).collect()
}

/// Cubic convolution with a = -0.5 (Keys 1981).
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

/// One output: the weighted sum of rows of `len` values.
fn weighted(rows: &[f32], len: usize, taps: &Taps) -> Vec<f32> {
    let mut sum = vec![0.0; len];
    for (row, weight) in rows.chunks_exact(len).skip(taps.first).zip(&taps.weights) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_table_stays_flat_and_the_class_token_as_it_was() {
        for (from, to) in [(1, 1), (1, 5), (5, 1), (4, 8), (8, 4), (14, 16), (16, 14), (3, 7)] {
            let mut table = vec![0.25; (1 + from * from) * 2];
            table[..2].copy_from_slice(&[7.0, -7.0]);
            let found = resample(&table, 2, from, to);
            assert_eq!((found.len(), &found[..2]), ((1 + to * to) * 2, &[7.0, -7.0][..]));
            assert!(found[2..].iter().all(|x| (x - 0.25).abs() < 1e-6), "{from} to {to}");
        }
    }

    #[test]
    fn a_table_without_a_class_token_has_the_same_patches() {
        let table: Vec<f32> = (0..17 * 3).map(|i| (i as f32).sin()).collect();
        assert_eq!(resample(&table[3..], 3, 4, 6), resample(&table, 3, 4, 6)[3..]);
    }

    #[test]
    fn the_same_grid_is_the_same_table() {
        let table: Vec<f32> = (0..17 * 3).map(|i| (i as f32).sin()).collect();
        assert_eq!(resample(&table, 3, 4, 4), table);
    }

    #[test]
    fn rows_and_columns_keep_their_places() {
        // The value is 10 · row + column; far from the edge a ramp stays a ramp.
        let ramp = (0..64).map(|i| (i / 8 * 10 + i % 8) as f32);
        let table: Vec<f32> = std::iter::once(0.0).chain(ramp).collect();
        let found = resample(&table, 1, 8, 16);
        let at = |y: usize, x: usize| found[1 + y * 16 + x];
        assert!((at(7, 9) - (10.0 * 3.25 + 4.25)).abs() < 1e-4, "{}", at(7, 9));
    }
}
