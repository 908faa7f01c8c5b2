//! Label spreading: what is known or thought of images spreads to those that look alike to an encoder (Zhou et al. 2004,
//! "Learning with local and global consistency"; with neighbours as in arXiv 1904.04717).

use rayon::prelude::*;

use super::probe::linear::{moments, standardise};
use super::probe::{similarities, to_unit_length};
use crate::error::Result;

/// Neighbours of an image, at least.
const NEIGHBOURS: usize = 10;
/// The weight of an edge is this power of the cosine.
const POWER: i32 = 3;
/// After so many rounds nothing changes any more: 0.9^50 is 0.005.
const ROUNDS: usize = 50;

/// Images, each with those that look most alike.
#[derive(Clone, Debug)]
pub struct NeighbourGraph {
    /// Of each image: others, rising, and the normalised weights of their edges.
    edges: Vec<Vec<(u32, f32)>>,
}

impl NeighbourGraph {
    /// Links each image to the nearest others by the cosine of standardised embeddings `[images, dim]`.
    ///
    /// # Errors
    /// Embeddings that do not have this width.
    pub fn new(embeddings: &[f32], dim: usize) -> Result<NeighbourGraph> {
        let rows = standardised(embeddings, dim);
        let nearest = similarities(&rows, &rows, dim, true, |similar| {
            let mut pairs: Vec<(f32, u32)> = similar.iter().copied().zip(0..).collect();
            let count = NEIGHBOURS.min(pairs.len());
            if count < pairs.len() {
                pairs.select_nth_unstable_by(count, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            }
            pairs.truncate(count);
            pairs
        })?;
        let mut edges = vec![Vec::new(); nearest.len()];
        for (from, pairs) in nearest.iter().enumerate() {
            for &(cosine, to) in pairs.iter().filter(|(cosine, _)| *cosine > 0.0) {
                let weight = cosine.powi(POWER);
                edges[from].push((to, weight));
                edges[to as usize].push((from as u32, weight));
            }
        }
        for row in &mut edges {
            row.sort_unstable_by_key(|(to, _)| *to);
            // Both may be among the other's nearest.
            row.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0.0 };
                same
            });
        }
        let degree = |row: &Vec<(u32, f32)>| row.iter().map(|(_, weight)| weight).sum::<f32>();
        let roots: Vec<f32> = edges.iter().map(|row| degree(row).sqrt().max(f32::MIN_POSITIVE)).collect();
        for (row, root) in edges.iter_mut().zip(&roots) {
            row.iter_mut().for_each(|(to, weight)| *weight /= root * roots[*to as usize]);
        }
        Ok(NeighbourGraph { edges })
    }

    /// Multiply-adds of [`NeighbourGraph::spread`], about.
    pub fn work(images: usize, classes: usize) -> f64 {
        (2 * NEIGHBOURS * ROUNDS) as f64 * images as f64 * classes as f64
    }

    /// Distributions over the classes `[images, classes]` that agree with `start` and with each other: `alpha`, from 0 to
    /// below 1, says how much the neighbours count. An image of which nothing is known, and nothing spreads to, stays at 0.
    pub fn spread(&self, start: &[f32], classes: usize, alpha: f32) -> Vec<f32> {
        let mut now = start.to_vec();
        let mut next = vec![0.0; start.len()];
        for _ in 0..if alpha > 0.0 { ROUNDS } else { 0 } {
            let rows =
                next.par_chunks_exact_mut(classes).zip(&self.edges).zip(start.par_chunks_exact(classes));
            rows.for_each(|((next, edges), start)| {
                next.iter_mut().zip(start).for_each(|(next, start)| *next = (1.0 - alpha) * start);
                for (from, weight) in edges {
                    let from = &now[*from as usize * classes..][..classes];
                    next.iter_mut().zip(from).for_each(|(next, from)| *next += alpha * weight * from);
                }
            });
            std::mem::swap(&mut now, &mut next);
        }
        for row in now.chunks_exact_mut(classes) {
            let sum: f32 = row.iter().sum();
            if sum > 0.0 {
                row.iter_mut().for_each(|x| *x /= sum);
            }
        }
        now
    }
}

/// Columns with mean 0 and standard deviation 1, then rows of unit length.
fn standardised(embeddings: &[f32], dim: usize) -> Vec<f32> {
    let (mean, std) = moments(embeddings, dim);
    let mut rows = embeddings.to_vec();
    standardise(&mut rows, &mean, &std);
    rows.chunks_exact_mut(dim).for_each(to_unit_length);
    rows
}

#[cfg(test)]
mod tests {
    use super::super::probe::tests::clouds;
    use super::*;

    #[test]
    fn a_label_spreads_over_its_cloud() {
        let found = clouds(1, 300, 0.4);
        let graph = NeighbourGraph::new(&found.embeddings, found.dim).unwrap();
        // One image of each class has a label.
        let mut start = vec![0.0; 300 * 3];
        (0..3).for_each(|i| start[i * 3 + i] = 1.0);
        let said = graph.spread(&start, 3, 0.9);
        let right =
            said.chunks_exact(3).enumerate().filter(|(i, row)| super::super::top(row) == i % 3).count();
        assert!(right > 270, "{right} of 300");
        assert!(said.chunks_exact(3).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    }

    #[test]
    fn without_neighbours_nothing_changes() {
        let found = clouds(1, 30, 0.4);
        let graph = NeighbourGraph::new(&found.embeddings, found.dim).unwrap();
        let start: Vec<f32> = (0..90).map(|i| [0.5, 0.25, 0.25][i % 3]).collect();
        assert_eq!(graph.spread(&start, 3, 0.0), start);
        // One image, and none.
        for count in [0, 1] {
            let graph = NeighbourGraph::new(&found.embeddings[..count * found.dim], found.dim).unwrap();
            assert_eq!(graph.spread(&start[..count * 3], 3, 0.8), &start[..count * 3]);
        }
    }

    #[test]
    fn edges_are_those_of_the_formula() {
        let found = clouds(3, 40, 0.6);
        let graph = NeighbourGraph::new(&found.embeddings, found.dim).unwrap();
        let (rows, dim) = (standardised(&found.embeddings, found.dim), found.dim);
        let cosine = |a: usize, b: usize| -> f64 {
            let pairs = rows[a * dim..][..dim].iter().zip(&rows[b * dim..][..dim]);
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut dense = vec![0f64; 40 * 40];
        for a in 0..40 {
            let mut others: Vec<usize> = (0..40).filter(|b| *b != a).collect();
            others.sort_by(|b, c| cosine(a, *c).total_cmp(&cosine(a, *b)));
            for b in others.into_iter().take(NEIGHBOURS) {
                let weight = cosine(a, b).max(0.0).powi(POWER);
                dense[a * 40 + b] += weight;
                dense[b * 40 + a] += weight;
            }
        }
        let degree: Vec<f64> = dense.chunks_exact(40).map(|row| row.iter().sum()).collect();
        for a in 0..40 {
            for b in 0..40 {
                let want = dense[a * 40 + b] / (degree[a] * degree[b]).sqrt();
                let found =
                    graph.edges[a].iter().find(|(to, _)| *to as usize == b).map_or(0.0, |edge| edge.1);
                assert!((f64::from(found) - want).abs() < 1e-5, "{a} {b}: {found} {want}");
            }
        }
    }
}
