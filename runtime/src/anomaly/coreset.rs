//! Few tokens in place of many, and the distance to the nearest of them.

use smalti_kernels::{Activation, Epilogue, Isa, Linear, Out, linear};

/// Tokens whose distances are computed together.
const BLOCK: usize = 16;

/// The places of `count` rows of `dim` values that cover all rows best, each the farthest from those before: greedy
/// k-centre (Gonzalez, 1985), as PatchCore takes it (arXiv 2106.08265, algorithm 1), without its random projection. Fewer
/// where rows are all alike.
pub(super) fn greedy(rows: &[f32], dim: usize, count: usize) -> Vec<usize> {
    let all = rows.len().checked_div(dim).unwrap_or(0);
    let mut distances = vec![f32::INFINITY; all];
    let (mut chosen, mut next) = (Vec::with_capacity(count.min(all)), 0);
    while chosen.len() < count.min(all) {
        chosen.push(next);
        let centre = &rows[next * dim..(next + 1) * dim];
        let mut farthest = 0.0;
        for (i, (row, distance)) in rows.chunks_exact(dim).zip(&mut distances).enumerate() {
            *distance = distance.min(squared_distance(row, centre));
            if *distance > farthest {
                (farthest, next) = (*distance, i);
            }
        }
        if farthest == 0.0 {
            break;
        }
    }
    chosen
}

/// `|a - b|²`, over a fixed number of lanes, which become vectors.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a, b) = (a.chunks(16), b.chunks(16));
    for (a, b) in a.zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += (x - y) * (x - y);
        }
    }
    sums.iter().sum()
}

/// Points, ready for search: the distance to the nearest follows from the largest `x · p - |p|² / 2`, which is a linear
/// layer of the points.
#[derive(Debug)]
pub(super) struct Points {
    layer: Linear,
    isa: Isa,
}

impl Points {
    /// Of rows of `dim` values; none without any.
    pub(super) fn new(rows: &[f32], dim: usize) -> Option<Points> {
        let count = rows.len().checked_div(dim)?;
        let half =
            |row: &[f32]| (row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / -2.0) as f32;
        let bias: Vec<f32> = rows.chunks_exact(dim).map(half).collect();
        let layer = Linear::new([count, dim], |j, i| rows[j * dim + i], &bias)?;
        Some(Points { layer, isa: Isa::best() })
    }

    /// Number of points.
    pub(super) fn len(&self) -> usize {
        self.layer.outputs()
    }

    /// Values of each.
    pub(super) fn dim(&self) -> usize {
        self.layer.inputs()
    }

    /// Bytes of heap.
    pub(super) fn bytes(&self) -> usize {
        self.layer.bytes()
    }

    /// Values of room for [`Points::nearest`].
    pub(super) fn room(&self) -> usize {
        BLOCK * self.len()
    }

    /// The distance of each token to the nearest point, into `distances`, which has one value a token.
    pub(super) fn nearest(&self, tokens: &[f32], room: &mut Vec<f32>, distances: &mut [f32]) {
        let (dim, count) = (self.dim(), self.len());
        room.resize(self.room(), 0.0);
        let epilogue = Epilogue { activation: Activation::None, residual: None, activate_sum: false };
        let blocks = tokens.chunks(BLOCK * dim).zip(distances.chunks_mut(BLOCK));
        for (tokens, distances) in blocks {
            let products = &mut room[..distances.len() * count];
            linear(self.isa, &self.layer, tokens, &epilogue, &mut Out::F32(products));
            let rows = tokens.chunks_exact(dim).zip(products.chunks_exact(count));
            for ((token, products), distance) in rows.zip(distances) {
                let most = products.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let length: f64 = token.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                *distance = (length - 2.0 * f64::from(most)).max(0.0).sqrt() as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u32, dim: u32) -> Vec<f32> {
        (0..count * dim).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 65536.0).collect()
    }

    #[test]
    fn the_farthest_is_next() {
        assert_eq!(greedy(&[0.0, 1.0, 10.0, 4.0], 1, 3), [0, 2, 3]);
        assert_eq!(greedy(&[5.0; 6], 2, 3), [0]);
        assert_eq!(greedy(&[1.0, 2.0], 1, 9), [0, 1]);
        assert!(greedy(&[], 3, 4).is_empty() && greedy(&[1.0], 1, 0).is_empty());
    }

    #[test]
    fn distances_are_those_of_the_formula() {
        for (points, tokens, dim) in [(1, 1, 1), (7, 33, 5), (40, 17, 24)] {
            let (at, of) = (rows(points, dim), rows(points + tokens, dim));
            let of = &of[(points * dim) as usize..];
            let mut found = vec![0.0; tokens as usize];
            Points::new(&at, dim as usize).unwrap().nearest(of, &mut Vec::new(), &mut found);
            for (token, found) in of.chunks_exact(dim as usize).zip(found) {
                let far = |point: &[f32]| token.iter().zip(point).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
                let wanted = at.chunks_exact(dim as usize).map(far).fold(f32::INFINITY, f32::min).sqrt();
                assert!((found - wanted).abs() < 1e-3, "{found} {wanted}");
            }
        }
        assert!(Points::new(&[], 3).is_none());
    }

    #[test]
    fn lanes_add_up_to_the_whole() {
        let (a, b) = (rows(1, 37), rows(2, 37));
        let wanted: f32 = a.iter().zip(&b[37..]).map(|(x, y)| (x - y).powi(2)).sum();
        assert!((squared_distance(&a, &b[37..]) - wanted).abs() < 1e-4);
    }
}
