//! Embeddings in the plane: principal components, and t-SNE.
//!
//! t-SNE is the exact one, for a few hundred points, and begins at the principal components: the same points give the same map,
//! and far clusters keep their places (Kobak and Berens 2019). The crate bhtsne scales to millions of points, for which it brings
//! an FFT, and sums in an order of its threads.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::rng::Rng;

/// Neighbours that a point has, about (van der Maaten and Hinton 2008, section 2).
const PERPLEXITY: f64 = 30.0;
/// Gradient steps, and those at the beginning that exaggerate attraction by [`EXAGGERATION`].
const STEPS: usize = 500;
const EARLY: usize = 120;
const EXAGGERATION: f64 = 12.0;
/// Rounds of orthogonal iteration.
const ROUNDS: usize = 300;

/// Points in the plane, and the share of the variance that each axis has.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// One a row.
    pub points: Vec<[f64; 2]>,
    /// Of all variance, 0 to 1.
    pub explained: [f64; 2],
}

/// The first two principal components of rows of `dim` values, by orthogonal iteration. Each axis points to where its largest
/// coefficient is positive.
pub fn principal_components(rows: &[f32], dim: usize) -> Components {
    let n = rows.len() / dim.max(1);
    let Ok(rows) = ArrayView2::from_shape((n, dim), &rows[..n * dim]) else {
        return Components { points: Vec::new(), explained: [0.0; 2] };
    };
    let mut rows = rows.mapv(f64::from);
    if let Some(mean) = rows.mean_axis(Axis(0)) {
        rows -= &mean;
    }
    let covariance = rows.t().dot(&rows);
    let total = covariance.diag().sum().max(f64::MIN_POSITIVE);
    let (mut axes, variances) = principal_axes(&covariance, 2, ROUNDS);
    for mut axis in axes.rows_mut() {
        let largest = axis.iter().copied().fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a });
        axis.mapv_inplace(|x| if largest < 0.0 { -x } else { x });
    }
    let points = rows.dot(&axes.t()).rows().into_iter().map(|row| [row[0], row[1]]).collect();
    Components { points, explained: [variances[0] / total, variances[1] / total] }
}

/// The first `count` principal axes `[count, dim]` of a covariance `[dim, dim]`, longest first, and the variances along them, by
/// orthogonal iteration.
pub fn principal_axes(covariance: &Array2<f64>, count: usize, rounds: usize) -> (Array2<f64>, Vec<f64>) {
    let mut rng = Rng::new(0, 0, [1, 2]);
    // Drawn in the order of columns.
    let mut axes = Array2::from_shape_fn((covariance.nrows(), count), |_| rng.normal()).reversed_axes();
    let mut variances = orthonormalise(&mut axes);
    for _ in 0..rounds {
        axes = axes.dot(covariance);
        variances = orthonormalise(&mut axes);
    }
    (axes, variances)
}

/// Rows of length 1 at right angles to each other (Gram-Schmidt), zeros where a row lies in the span of those before it; gives the
/// lengths that they had.
fn orthonormalise(axes: &mut Array2<f64>) -> Vec<f64> {
    let mut lengths = Vec::with_capacity(axes.nrows());
    for i in 0..axes.nrows() {
        let (before, mut rest) = axes.view_mut().split_at(Axis(0), i);
        let mut axis = rest.row_mut(0);
        let of_rounding = 1e-10 * axis.dot(&axis).sqrt();
        for other in before.rows() {
            let along = other.dot(&axis);
            axis.scaled_add(-along, &other);
        }
        let length = axis.dot(&axis).sqrt();
        axis.mapv_inplace(|x| if length > of_rounding { x / length } else { 0.0 });
        lengths.push(length);
    }
    lengths
}

/// A t-SNE map of rows of `dim` values, by Euclidean distance (van der Maaten and Hinton 2008), from `start` on. Time and memory
/// grow with the square of the rows.
pub fn tsne(rows: &[f32], dim: usize, start: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let n = start.len();
    if n < 4 || rows.len() != n * dim {
        return start.to_vec();
    }
    let near = affinities(rows, dim, n);
    let spread = (start.iter().map(|point| point[0] * point[0]).sum::<f64>() / n as f64).sqrt().max(1e-12);
    let mut points: Vec<[f64; 2]> = start.iter().map(|point| point.map(|x| x / spread * 1e-2)).collect();
    let (mut moves, mut gains) = (vec![[0.0; 2]; n], vec![[1.0f64; 2]; n]);
    // Belkina et al. 2019.
    let rate = (n as f64 / EXAGGERATION).max(20.0);
    for step in 0..STEPS {
        let early = step < EARLY;
        let gradient = gradient(&points, &near, if early { EXAGGERATION } else { 1.0 });
        let momentum = if early { 0.5 } else { 0.8 };
        for (i, gradient) in gradient.iter().enumerate() {
            for axis in 0..2 {
                let (g, moved) = (gradient[axis], &mut moves[i][axis]);
                let gain = &mut gains[i][axis];
                *gain = if (g > 0.0) == (*moved > 0.0) { *gain * 0.8 } else { *gain + 0.2 }.max(0.01);
                *moved = momentum * *moved - rate * *gain * g;
                points[i][axis] += *moved;
            }
        }
    }
    points
}

/// The symmetric probabilities `[n, n]` that two points are neighbours.
fn affinities(rows: &[f32], dim: usize, n: usize) -> Vec<f64> {
    let row = |i: usize| &rows[i * dim..(i + 1) * dim];
    let perplexity = PERPLEXITY.min((n - 1) as f64 / 3.0);
    let conditional: Vec<f64> = (0..n)
        .into_par_iter()
        .flat_map_iter(|i| {
            let apart = |j: usize| -> f64 {
                row(i).iter().zip(row(j)).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
            };
            let distances: Vec<f64> = (0..n).map(apart).collect();
            neighbourhood(&distances, i, perplexity.ln())
        })
        .collect();
    let all = 2.0 * n as f64;
    let both = |at: usize| (conditional[at] + conditional[at % n * n + at / n]) / all;
    (0..n * n).map(|at| both(at).max(1e-12)).collect()
}

/// The probabilities that each point is chosen as a neighbour of point `own`: a Gaussian as wide as the entropy says, in nats.
fn neighbourhood(distances: &[f64], own: usize, entropy: f64) -> Vec<f64> {
    let (mut beta, mut bounds) = (1.0, [0.0, f64::INFINITY]);
    let mut found = vec![0.0; distances.len()];
    let nearest = distances
        .iter()
        .enumerate()
        .filter(|(j, _)| *j != own)
        .map(|(_, d)| *d)
        .fold(f64::INFINITY, f64::min);
    for _ in 0..64 {
        for (j, (p, distance)) in found.iter_mut().zip(distances).enumerate() {
            *p = if j == own { 0.0 } else { (-beta * (distance - nearest)).exp() };
        }
        let sum: f64 = found.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        found.iter_mut().for_each(|p| *p /= sum);
        let is: f64 = -found.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        if (is - entropy).abs() < 1e-5 {
            break;
        }
        bounds[usize::from(is < entropy)] = beta;
        beta = if bounds[1].is_finite() { (bounds[0] + bounds[1]) / 2.0 } else { beta * 2.0 };
    }
    found
}

/// The gradient of the divergence between neighbours in the map and in space, times `exaggeration` for the latter.
fn gradient(points: &[[f64; 2]], near: &[f64], exaggeration: f64) -> Vec<[f64; 2]> {
    let n = points.len();
    let closeness = |a: &[f64; 2], b: &[f64; 2]| {
        let apart = [a[0] - b[0], a[1] - b[1]];
        1.0 / (1.0 + apart[0] * apart[0] + apart[1] * apart[1])
    };
    // Attraction, repulsion and its norm of each point; summed in order, so that threads change nothing.
    let parts: Vec<([f64; 2], [f64; 2], f64)> = points
        .par_iter()
        .enumerate()
        .map(|(i, a)| {
            let (mut pull, mut push, mut norm) = ([0.0; 2], [0.0; 2], 0.0);
            for (j, b) in points.iter().enumerate().filter(|(j, _)| *j != i) {
                let q = closeness(a, b);
                norm += q;
                for axis in 0..2 {
                    let apart = a[axis] - b[axis];
                    pull[axis] += near[i * n + j] * q * apart;
                    push[axis] += q * q * apart;
                }
            }
            (pull, push, norm)
        })
        .collect();
    let norm = parts.iter().map(|(.., norm)| norm).sum::<f64>().max(f64::MIN_POSITIVE);
    let total = |pull: f64, push: f64| 4.0 * (exaggeration * pull - push / norm);
    parts.iter().map(|(pull, push, _)| [total(pull[0], push[0]), total(pull[1], push[1])]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::probe::tests::clouds;

    #[test]
    fn components_are_the_axes_of_an_ellipse() {
        // Twice as wide along (3, 4) / 5 as across it, around (7, -2).
        let mut rng = Rng::new(5, 0, [0, 0]);
        let mut rows = Vec::new();
        for _ in 0..4000 {
            let (a, b) = (2.0 * rng.normal(), rng.normal());
            rows.extend([7.0 + 0.6 * a - 0.8 * b, -2.0 + 0.8 * a + 0.6 * b].map(|x| x as f32));
        }
        let found = principal_components(&rows, 2);
        assert!(
            (found.explained[0] - 0.8).abs() < 0.02
                && (found.explained.iter().sum::<f64>() - 1.0).abs() < 1e-9
        );
        let [x, y] = [f64::from(rows[0]) - 7.0, f64::from(rows[1]) + 2.0];
        let along = 0.6 * x + 0.8 * y;
        assert!((found.points[0][0] - along).abs() < 0.15, "{:?} {along}", found.points[0]);
        let mean = found.points.iter().map(|point| point[0]).sum::<f64>() / 4000.0;
        assert!(mean.abs() < 1e-9);
    }

    /// The fraction of points whose nearest other point has the same colour.
    fn purity(points: &[[f64; 2]], colours: usize) -> f64 {
        let apart = |a: &[f64; 2], b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        let is_same = |i: usize| {
            let others = (0..points.len()).filter(|j| *j != i);
            let nearest = others
                .min_by(|a, b| apart(&points[i], &points[*a]).total_cmp(&apart(&points[i], &points[*b])));
            nearest.is_some_and(|j| j % colours == i % colours)
        };
        (0..points.len()).filter(|i| is_same(*i)).count() as f64 / points.len() as f64
    }

    #[test]
    fn clouds_stay_apart_in_a_map_and_it_is_the_same_each_time() {
        let found = clouds(3, 150, 0.4);
        let start = principal_components(&found.embeddings, found.dim);
        let map = tsne(&found.embeddings, found.dim, &start.points);
        assert!(purity(&map, 3) > 0.95, "{}", purity(&map, 3));
        assert!(map.iter().flatten().all(|x| x.is_finite()));
        assert_eq!(map, tsne(&found.embeddings, found.dim, &start.points));
    }

    #[test]
    fn few_and_equal_points_are_no_trouble() {
        assert_eq!(principal_components(&[], 4).points, Vec::<[f64; 2]>::new());
        let same = principal_components(&[1.0; 40], 4);
        assert_eq!(same.points, [[0.0; 2]; 10]);
        assert!(tsne(&[1.0; 40], 4, &same.points).iter().flatten().all(|x| x.is_finite()));
        assert_eq!(tsne(&[1.0, 2.0], 1, &[[0.0; 2], [1.0; 2]]).len(), 2);
    }
}
