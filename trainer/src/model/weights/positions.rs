//! Position embeddings for another number of patches, by cubic convolution over the grid.

/// How positions are resampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// As timm's `resample_abs_pos_embed`, and transformers where there are registers: PyTorch's
    /// `interpolate(mode="bicubic", antialias=True, align_corners=False)`. A coarser grid is smoothed.
    Antialiased,
    /// As transformers' `interpolate_pos_encoding`: the same without `antialias`, for which PyTorch takes another cubic.
    Interpolated,
}

/// Half the width of the filter, in pixels of the coarser grid.
const SUPPORT: f64 = 2.0;

impl Filter {
    /// Resamples the positions `[1 + from², dim]` to `[1 + to², dim]`. The class token's stay as they are; a table without
    /// one gives one without.
    pub fn resample(self, table: &[f32], dim: usize, from: usize, to: usize) -> Vec<f32> {
        let (class_token, patches) = table.split_at(table.len().saturating_sub(from * from * dim));
        let taps = self.taps(from, to);
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

    /// The taps of each output along one axis.
    fn taps(self, from: usize, to: usize) -> Vec<Taps> {
        match self {
            _ if from == to => (0..to).map(|first| Taps { first, weights: vec![1.0] }).collect(),
            Filter::Antialiased => antialiased(from, to),
            Filter::Interpolated => interpolated(from, to),
        }
    }
}

/// The inputs that make one output: the first, and the weight of it and those that follow.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// Taps within the filter's reach, which grows as the grid gets coarser; inputs outside count for nothing.
fn antialiased(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = SUPPORT * stretch;
    let taps_of = |i: usize| {
        let centre = scale * (i as f64 + 0.5);
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..end).map(|j| cubic((j as f64 - centre + 0.5) / stretch, -0.5)).collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.iter().map(|weight| (weight / sum) as f32).collect() }
    };
    (0..to).map(taps_of).collect()
}

/// Four taps; inputs outside are those at the edge.
fn interpolated(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let taps_of = |i: usize| {
        let centre = scale * (i as f64 + 0.5) - 0.5;
        let inside = |place: i64| place.clamp(0, from as i64 - 1) as usize;
        let places = (-1..=2).map(|step| centre.floor() as i64 + step);
        let first = inside(centre.floor() as i64 - 1);
        let mut weights = vec![0f32; 4.min(from - first)];
        for place in places {
            weights[inside(place) - first] += cubic(place as f64 - centre, -0.75) as f32;
        }
        Taps { first, weights }
    };
    (0..to).map(taps_of).collect()
}

/// Cubic convolution (Keys 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
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
            for filter in [Filter::Antialiased, Filter::Interpolated] {
                let found = filter.resample(&table, 2, from, to);
                assert_eq!((found.len(), &found[..2]), ((1 + to * to) * 2, &[7.0, -7.0][..]));
                assert!(found[2..].iter().all(|x| (x - 0.25).abs() < 1e-6), "{from} to {to}");
            }
        }
    }

    #[test]
    fn a_table_without_a_class_token_has_the_same_patches() {
        let table: Vec<f32> = (0..17 * 3).map(|i| (i as f32).sin()).collect();
        let resample = |table| Filter::Antialiased.resample(table, 3, 4, 6);
        assert_eq!(resample(&table[3..]), resample(&table)[3..]);
    }

    #[test]
    fn the_same_grid_is_the_same_table() {
        let table: Vec<f32> = (0..17 * 3).map(|i| (i as f32).sin()).collect();
        assert_eq!(Filter::Antialiased.resample(&table, 3, 4, 4), table);
        assert_eq!(Filter::Interpolated.resample(&table, 3, 4, 4), table);
    }

    #[test]
    fn rows_and_columns_keep_their_places() {
        // The value is 10 · row + column; far from the edge a ramp stays a ramp.
        let ramp = (0..64).map(|i| (i / 8 * 10 + i % 8) as f32);
        let table: Vec<f32> = std::iter::once(0.0).chain(ramp).collect();
        // But for the cubic without antialiasing, which bends it.
        for (filter, off) in [(Filter::Antialiased, 1e-4), (Filter::Interpolated, 0.6)] {
            let found = filter.resample(&table, 1, 8, 16);
            let at = |y: usize, x: usize| found[1 + y * 16 + x];
            assert!((at(7, 9) - (10.0 * 3.25 + 4.25)).abs() < off, "{}", at(7, 9));
        }
    }
}
