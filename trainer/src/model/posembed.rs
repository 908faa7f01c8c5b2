//! Fixed 2-D sine-cosine positions, as in the masked autoencoder's reference code (arXiv 2111.06377).

/// The table `[tokens, dim]` for a class token (zeros) and a square grid of `tokens - 1` patches, row by row.
///
/// The first half of a table row holds sines and cosines of the patch's column, the second half those of its row, each at
/// `dim / 4` wavelengths from 2π to 10000 · 2π.
pub fn sine_cosine(tokens: usize, dim: usize) -> Vec<f64> {
    let grid = tokens.saturating_sub(1).isqrt();
    let quarter = dim / 4;
    let mut table = vec![0.0; tokens * dim];
    for (patch, row) in table.chunks_exact_mut(dim).skip(1).enumerate() {
        let (y, x) = (patch / grid.max(1), patch % grid.max(1));
        for i in 0..quarter {
            let omega = 1.0 / libm::pow(10000.0, i as f64 / quarter as f64);
            for (half, place) in [(0, x), (2 * quarter, y)] {
                let angle = place as f64 * omega;
                row[half + i] = libm::sin(angle);
                row[half + quarter + i] = libm::cos(angle);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::sine_cosine;

    #[test]
    fn the_table_tells_places_apart() {
        let (tokens, dim) = (17, 8);
        let table = sine_cosine(tokens, dim);
        let row = |i: usize| &table[i * dim..(i + 1) * dim];
        assert!(row(0).iter().all(|&x| x == 0.0));
        assert_eq!(row(1), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        // Patch 1 is one column to the right: only the first half moves.
        assert_eq!(row(2)[4..], row(1)[4..]);
        assert!((row(2)[0] - 1f64.sin()).abs() < 1e-15 && (row(2)[1] - 0.01f64.sin()).abs() < 1e-15);
        for a in 1..tokens {
            for b in 1..a {
                assert_ne!(row(a), row(b));
            }
        }
    }
}
