//! k-means (Lloyd 1982) from k-means++ seeds (Arthur and Vassilvitskii 2007), of each the best of a few candidates.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::rng::{Rng, stream};

/// Rounds, at most: later ones move few rows.
const ROUNDS: usize = 50;
/// Rows of one product.
const BLOCK: usize = 256;

/// The cluster of each row of `rows` `[rows, dim]`, numbers below `count`; some may have no row. The same for any number of
/// threads.
///
/// # Errors
/// Rows that do not have this width.
pub fn kmeans(rows: &[f32], dim: usize, count: usize, seed: u64) -> Result<Vec<usize>> {
    let mut centres = seeds(rows, dim, count, seed)?;
    let mut clusters: Vec<usize> = Vec::new();
    for _ in 0..ROUNDS {
        let found: Vec<usize> = nearest(rows, &centres, dim)?;
        if found == clusters {
            break;
        }
        clusters = found;
        move_centres(&mut centres, rows, dim, &clusters);
    }
    Ok(clusters)
}

/// Rows to begin with, far from each other: each drawn in proportion to its squared distance from those before, the candidate
/// that leaves least of it.
fn seeds(rows: &[f32], dim: usize, count: usize, seed: u64) -> Result<Vec<f32>> {
    let all = rows.len() / dim.max(1);
    let row = |i: usize| &rows[i * dim..(i + 1) * dim];
    let mut rng = Rng::new(seed, stream::CLUSTERS, []);
    let mut centres = Vec::with_capacity(count * dim);
    let mut left = vec![f32::INFINITY; all];
    let candidates = 2 + (count.max(1) as f64).ln() as usize;
    for chosen in 0..count.min(all) {
        let drawn: Vec<usize> = match chosen {
            0 => vec![rng.below(all)],
            _ => (0..candidates).map(|_| draw(&left, &mut rng)).collect(),
        };
        let centre: Vec<f32> = drawn.iter().flat_map(|i| row(*i)).copied().collect();
        // `[rows, candidates]`
        let apart = squared_distances(rows, &centre, dim, |distances| distances.to_vec())?;
        let kept = |candidate: usize| -> f64 {
            left.iter().zip(&apart).map(|(left, apart)| f64::from(left.min(apart[candidate]))).sum()
        };
        let best =
            (0..drawn.len()).map(|candidate| (kept(candidate), candidate)).min_by(|a, b| a.0.total_cmp(&b.0));
        let best = best.map_or(0, |(_, candidate)| candidate);
        left.iter_mut().zip(&apart).for_each(|(left, apart)| *left = left.min(apart[best]));
        centres.extend_from_slice(row(drawn[best]));
    }
    Ok(centres)
}

/// A row in proportion to its weight.
fn draw(weights: &[f32], rng: &mut Rng) -> usize {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut target = rng.uniform() * sum;
    for (i, weight) in weights.iter().enumerate() {
        target -= f64::from(*weight);
        if target < 0.0 {
            return i;
        }
    }
    // All rows are alike.
    rng.below(weights.len())
}

/// The centre that each row is nearest to, the first among equals.
fn nearest(rows: &[f32], centres: &[f32], dim: usize) -> Result<Vec<usize>> {
    squared_distances(rows, centres, dim, |distances| {
        distances.iter().enumerate().fold(0, |best, (i, x)| if *x < distances[best] { i } else { best })
    })
}

/// Moves each centre to the mean of its rows; one without rows stays.
fn move_centres(centres: &mut [f32], rows: &[f32], dim: usize, clusters: &[usize]) {
    let mut sums = vec![0f64; centres.len()];
    let mut counts = vec![0usize; centres.len() / dim.max(1)];
    for (row, &cluster) in rows.chunks_exact(dim.max(1)).zip(clusters) {
        counts[cluster] += 1;
        sums[cluster * dim..][..dim].iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let means = sums.chunks_exact(dim.max(1)).zip(&counts);
    for (centre, (sums, &count)) in
        centres.chunks_exact_mut(dim.max(1)).zip(means).filter(|(_, (_, count))| **count > 0)
    {
        centre.iter_mut().zip(sums).for_each(|(x, sum)| *x = (sum / count as f64) as f32);
    }
}

/// Calls `each` with the squared distances of each row from all `others` `[others, dim]`.
///
/// # Errors
/// Rows that do not have this width.
pub(super) fn squared_distances<T: Send>(
    rows: &[f32],
    others: &[f32],
    dim: usize,
    each: impl Fn(&[f32]) -> T + Sync,
) -> Result<Vec<T>> {
    let shape = |e: ndarray::ShapeError| Error::Usage(format!("embeddings: {e}"));
    let others = ArrayView2::from_shape((others.len() / dim.max(1), dim), others).map_err(shape)?;
    let squares: Vec<f32> = others.axis_iter(Axis(0)).map(|row| row.dot(&row)).collect();
    let blocks: Result<Vec<Vec<T>>> = rows
        .par_chunks(BLOCK * dim.max(1))
        .map(|block| {
            let block = ArrayView2::from_shape((block.len() / dim.max(1), dim), block).map_err(shape)?;
            let products = block.dot(&others.t());
            let mut distances = vec![0.0; squares.len()];
            let rows = block.axis_iter(Axis(0)).zip(products.axis_iter(Axis(0)));
            let found = rows.map(|(row, products)| {
                let square = row.dot(&row);
                let terms = distances.iter_mut().zip(products).zip(&squares);
                terms.for_each(|((distance, product), other)| {
                    *distance = (square + other - 2.0 * product).max(0.0)
                });
                each(&distances)
            });
            Ok(found.collect())
        })
        .collect();
    Ok(blocks?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::probe::tests::clouds;

    #[test]
    fn clouds_become_clusters() {
        let found = clouds(1, 300, 0.2);
        let clusters = kmeans(&found.embeddings, found.dim, 3, 0).unwrap();
        assert!((3..300).all(|i| clusters[i] == clusters[i % 3]), "{clusters:?}");
        assert!(clusters[0] != clusters[1] && clusters[1] != clusters[2] && clusters[0] != clusters[2]);
    }

    #[test]
    fn the_seed_decides_and_threads_do_not() {
        let found = clouds(4, 700, 1.0);
        let run = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| kmeans(&found.embeddings, found.dim, 20, seed).unwrap())
        };
        assert_eq!(run(1, 5), run(3, 5));
        assert_ne!(run(1, 5), run(1, 6));
    }

    #[test]
    fn each_row_is_with_its_nearest_centre() {
        let found = clouds(2, 200, 1.0);
        let (dim, rows) = (found.dim, &found.embeddings);
        let clusters = kmeans(rows, dim, 7, 1).unwrap();
        let mut centres = vec![0.0; 7 * dim];
        move_centres(&mut centres, rows, dim, &clusters);
        let apart = |row: &[f32], centre: &[f32]| -> f32 {
            row.iter().zip(centre).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        for (row, &cluster) in rows.chunks_exact(dim).zip(&clusters) {
            let own = apart(row, &centres[cluster * dim..][..dim]);
            assert!(centres.chunks_exact(dim).all(|centre| own <= apart(row, centre) + 1e-4));
        }
    }

    #[test]
    fn odd_numbers_are_no_trouble() {
        assert_eq!(kmeans(&[1.0; 12], 3, 2, 0).unwrap().len(), 4);
        assert_eq!(kmeans(&[1.0, 2.0, 3.0], 3, 9, 0).unwrap(), [0]);
        assert_eq!(kmeans(&[], 3, 2, 0).unwrap(), Vec::<usize>::new());
    }
}
