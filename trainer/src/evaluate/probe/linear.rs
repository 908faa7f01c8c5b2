//! Multinomial logistic regression on standardised embeddings, to its optimum by L-BFGS (Liu and Nocedal 1989).
//!
//! The loss is the mean cross-entropy plus `decay / 2` times the squared weights; it is convex, so there is no
//! learning rate to choose. The decay is the one of least cross-entropy in cross-validation, so that every label is learned
//! from in the end; with a few dozen labels, accuracy is too coarse to choose by.

use std::collections::VecDeque;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::evaluate::top;
use crate::model::params::Layout;
use crate::rng::{Rng, stream};

/// The decays that are tried.
const DECAYS: [f64; 8] = [1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Parts of the images, each of which is held out once.
const FOLDS: usize = 5;
/// Maximum number of rows in cross-validation: more change nothing about the decay.
const CROSS_VALIDATED: usize = 8000;
/// Cross-validation ends after so many decays in a row that are worse than the best one.
const PATIENCE: usize = 2;
/// Pairs of steps and gradient changes that the optimizer remembers.
const MEMORY: usize = 10;
/// Rows of one task; sums over tasks are taken in order, so that threads change nothing.
const ROWS: usize = 2048;

/// A linear layer on embeddings as they are: standardisation is folded into it.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearHead {
    /// `[class, dim]`.
    pub weight: Vec<f32>,
    /// One a class.
    pub bias: Vec<f32>,
    /// The decay that it was fitted with.
    pub decay: f64,
    /// Fraction of the images that is right in cross-validation; NaN where there are too few to hold any out.
    pub validation: f64,
}

impl LinearHead {
    /// Fits a head to embeddings `rows` `[rows, dim]`. Rows of one image (its crops) have the same number in `images`, and
    /// are held out together.
    ///
    /// # Errors
    /// No rows, or a label that is not below `classes`.
    pub fn fit(
        rows: &[f32],
        labels: &[u32],
        images: &[u32],
        dim: usize,
        classes: usize,
    ) -> Result<LinearHead> {
        LinearHead::fit_with(rows, labels, images, dim, classes, None)
    }

    /// As [`LinearHead::fit`], with a decay that is known.
    ///
    /// # Errors
    /// As [`LinearHead::fit`].
    pub fn fit_with(
        rows: &[f32],
        labels: &[u32],
        images: &[u32],
        dim: usize,
        classes: usize,
        decay: Option<f64>,
    ) -> Result<LinearHead> {
        check_labels(labels, classes)?;
        let (mut rows, (mean, std)) = (rows.to_vec(), moments(rows, dim));
        standardise(&mut rows, &mean, &std);
        let train_set = TrainSet { rows: &rows, labels, images, dim, classes };
        let (decay, validation) = match decay {
            Some(decay) => (decay, f64::NAN),
            None => train_set.choose_decay()?,
        };
        let found = train_set.solve(decay, None, FIT)?;
        let mut head = LinearHead { weight: Vec::new(), bias: Vec::new(), decay, validation };
        for class in found.chunks_exact(dim + 1) {
            let weight = class.iter().zip(&std).map(|(w, std)| w / std);
            let moved: f64 = weight.clone().zip(&mean).map(|(w, mean)| w * mean).sum();
            head.weight.extend(weight.map(|w| w as f32));
            head.bias.push((class[dim] - moved) as f32);
        }
        Ok(head)
    }

    /// Writes the head into a classifier's parameters.
    ///
    /// # Errors
    /// A model without a head.
    pub fn write(&self, layout: &Layout, params: &mut [f32]) -> Result<()> {
        layout.slot("head.weight")?.of_mut(params).copy_from_slice(&self.weight);
        layout.slot("head.bias")?.of_mut(params).copy_from_slice(&self.bias);
        Ok(())
    }

    /// The head in a classifier's parameters.
    ///
    /// # Errors
    /// A model without a head.
    pub fn read(layout: &Layout, params: &[f32]) -> Result<LinearHead> {
        let values = |name| Ok::<_, Error>(layout.slot(name)?.of(params).to_vec());
        let (weight, bias) = (values("head.weight")?, values("head.bias")?);
        Ok(LinearHead { weight, bias, decay: f64::NAN, validation: f64::NAN })
    }

    /// The class of each row.
    pub fn classify(&self, rows: &[f32]) -> Result<Vec<usize>> {
        Ok(self.logits(rows)?.chunks_exact(self.bias.len().max(1)).map(top).collect())
    }

    /// Logits `[rows, classes]` of embeddings `rows`.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn logits(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let (classes, dim) = (self.bias.len(), self.weight.len() / self.bias.len().max(1));
        let rows = ArrayView2::from_shape((rows.len() / dim.max(1), dim), rows).map_err(shape)?;
        let weight = ArrayView2::from_shape((classes, dim), &self.weight).map_err(shape)?;
        let logits = rows.dot(&weight.t()) + ndarray::ArrayView1::from(&self.bias);
        Ok(logits.iter().copied().collect())
    }
}

/// Refuses no labels, and labels of other classes.
pub(super) fn check_labels(labels: &[u32], classes: usize) -> Result<()> {
    if labels.is_empty() {
        return Err(Error::Usage("a probe needs labelled images to learn from, and there are none".into()));
    }
    match labels.iter().find(|label| **label as usize >= classes) {
        Some(label) => Err(Error::Usage(format!("label {label} is not one of {classes} classes"))),
        None => Ok(()),
    }
}

/// Mean and standard deviation of each column.
pub(crate) fn moments(rows: &[f32], dim: usize) -> (Vec<f64>, Vec<f64>) {
    let n = (rows.len() / dim.max(1)).max(1) as f64;
    let column = |d: usize| rows.iter().skip(d).step_by(dim).map(|&x| f64::from(x));
    let mean: Vec<f64> = (0..dim).map(|d| column(d).sum::<f64>() / n).collect();
    let apart = |d: usize| column(d).map(|x| (x - mean[d]) * (x - mean[d])).sum::<f64>() / n;
    let std = (0..dim).map(|d| apart(d).sqrt().max(1e-6)).collect();
    (mean, std)
}

/// Columns with mean 0 and standard deviation 1, by their moments.
pub(crate) fn standardise(rows: &mut [f32], mean: &[f64], std: &[f64]) {
    for row in rows.chunks_exact_mut(mean.len().max(1)) {
        for ((x, mean), std) in row.iter_mut().zip(mean).zip(std) {
            *x = ((f64::from(*x) - mean) / std) as f32;
        }
    }
}

/// What is learned from.
struct TrainSet<'a> {
    rows: &'a [f32],
    labels: &'a [u32],
    /// Which image each row is of.
    images: &'a [u32],
    dim: usize,
    classes: usize,
}

/// A part of cross-validation.
struct Part {
    rows: Vec<f32>,
    labels: Vec<u32>,
    held: Vec<f32>,
    held_labels: Vec<u32>,
    /// Of the decay before.
    weights: Option<Vec<f64>>,
}

/// When the optimizer ends.
#[derive(Clone, Copy)]
struct Effort {
    /// Maximum number of steps.
    steps: usize,
    /// Gradient norm that counts as the optimum.
    gradient_norm: f64,
}

/// For a head that is used.
const FIT: Effort = Effort { steps: 200, gradient_norm: 1e-5 };
/// For one that is only compared with those of other decays.
const COMPARISON: Effort = Effort { steps: 60, gradient_norm: 1e-3 };

fn shape(error: ndarray::ShapeError) -> Error {
    Error::Usage(format!("embeddings: {error}"))
}

/// The logits of rows under weights `[class, dim + 1]`, the last column a constant.
fn logits(rows: &[f32], dim: usize, weights: &[f64], classes: usize) -> Result<Array2<f32>> {
    let weight = |class: usize, d: usize| weights.get(class * (dim + 1) + d).copied().unwrap_or(0.0) as f32;
    let product = Array2::from_shape_fn((dim, classes), |(d, class)| weight(class, d));
    let constants = Array2::from_shape_fn((1, classes), |(_, class)| weight(class, dim));
    let rows = ArrayView2::from_shape((rows.len() / dim.max(1), dim), rows).map_err(shape)?;
    Ok(rows.dot(&product) + constants)
}

impl TrainSet<'_> {
    /// The decay of least cross-entropy in cross-validation, and the fraction that is right there. From the strongest decay
    /// down, each solution starts from that of the one before.
    fn choose_decay(&self) -> Result<(f64, f64)> {
        let mut folds = self.train_and_held_out();
        let judged: usize = folds.iter().map(|fold| fold.held_labels.len()).sum();
        // A single image: any decay will do.
        let (mut best, mut best_loss, mut worse) = ((DECAYS[4], f64::NAN), f64::INFINITY, 0);
        for decay in DECAYS.iter().rev().filter(|_| judged > 0) {
            let (mut loss, mut right) = (0.0, 0);
            for fold in &mut folds {
                let (of_fold, right_of_fold) = self.score(fold, *decay)?;
                loss += of_fold;
                right += right_of_fold;
            }
            if loss < best_loss {
                (best, best_loss, worse) = ((*decay, right as f64 / judged as f64), loss, 0);
            } else {
                worse += 1;
            }
            if worse == PATIENCE {
                break;
            }
        }
        Ok(best)
    }

    /// The parts of cross-validation in which there is something to learn from and to hold out.
    fn train_and_held_out(&self) -> Vec<Part> {
        let fold_of = self.folds();
        let part = |fold: usize| {
            let rows = |held: bool| {
                let rows =
                    (0..fold_of.len()).filter(|&row| (fold_of[row] == fold) == held && fold_of[row] < FOLDS);
                self.select(&rows.collect::<Vec<_>>())
            };
            let ((rows, labels), (held, held_labels)) = (rows(false), rows(true));
            Part { rows, labels, held, held_labels, weights: None }
        };
        let is_usable = |part: &Part| !part.labels.is_empty() && !part.held_labels.is_empty();
        (0..FOLDS).map(part).filter(is_usable).collect()
    }

    /// Summed cross-entropy on the held-out rows of a part, and how many of them are right; leaves the weights in it.
    fn score(&self, part: &mut Part, decay: f64) -> Result<(f64, usize)> {
        let Part { rows, labels, held, held_labels, weights } = part;
        let start = weights.take();
        let found = TrainSet { rows, labels, images: &[], ..*self }.solve(decay, start, COMPARISON)?;
        let logits = logits(held, self.dim, &found, self.classes)?;
        *weights = Some(found);
        let (mut loss, mut right) = (0.0, 0);
        for (row, &truth) in logits.rows().into_iter().zip(held_labels.iter()) {
            let row = row.to_vec();
            let most = row[top(&row)];
            let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
            loss += sum.ln() - f64::from(row[truth as usize] - most);
            right += usize::from(top(&row) == truth as usize);
        }
        Ok((loss, right))
    }

    /// The fold that each row is held out in: each class is dealt out evenly; rows of one image stay together. Images
    /// beyond [`CROSS_VALIDATED`] rows have none ([`FOLDS`]).
    fn folds(&self) -> Vec<usize> {
        let mut images: Vec<(u32, u32)> =
            self.images.iter().copied().zip(self.labels.iter().copied()).collect();
        images.sort_unstable();
        images.dedup_by_key(|(image, _)| *image);
        Rng::new(0, stream::PROBE, []).shuffle(&mut images);
        images.truncate((CROSS_VALIDATED * images.len()).div_ceil(self.images.len().max(1)));
        images.sort_by_key(|(_, label)| *label);
        let dealt = images.iter().enumerate().map(|(i, (image, _))| (*image, i % FOLDS));
        let folds: std::collections::BTreeMap<u32, usize> = dealt.collect();
        self.images.iter().map(|image| folds.get(image).copied().unwrap_or(FOLDS)).collect()
    }

    /// Rows and labels of these numbers.
    fn select(&self, chosen: &[usize]) -> (Vec<f32>, Vec<u32>) {
        let row = |&i: &usize| self.rows.get(i * self.dim..(i + 1) * self.dim).unwrap_or_default();
        let rows = chosen.iter().flat_map(row).copied().collect();
        (rows, chosen.iter().filter_map(|&i| self.labels.get(i).copied()).collect())
    }

    /// Loss and gradient.
    fn loss(&self, weights: &[f64], decay: f64) -> Result<(f64, Vec<f64>)> {
        let (dim, classes) = (self.dim, self.classes);
        let parts: Result<Vec<(f64, Vec<f64>)>> = self
            .rows
            .par_chunks(ROWS * dim)
            .zip(self.labels.par_chunks(ROWS))
            .map(|(rows, labels)| part_loss(rows, labels, dim, weights, classes))
            .collect();
        let n = self.labels.len() as f64;
        let (mut loss, mut gradient) = (0.0, vec![0.0; weights.len()]);
        for (part, of_part) in parts? {
            loss += part / n;
            gradient.iter_mut().zip(of_part).for_each(|(sum, part)| *sum += part / n);
        }
        for (i, (gradient, &weight)) in gradient.iter_mut().zip(weights).enumerate() {
            if i % (dim + 1) != dim {
                loss += 0.5 * decay * weight * weight;
                *gradient += decay * weight;
            }
        }
        Ok((loss, gradient))
    }

    /// The weights of least loss, sought from `start` on, or from zeros.
    fn solve(&self, decay: f64, start: Option<Vec<f64>>, effort: Effort) -> Result<Vec<f64>> {
        let mut weights = start.unwrap_or_else(|| vec![0.0; self.classes * (self.dim + 1)]);
        let (mut loss, mut gradient) = self.loss(&weights, decay)?;
        let mut memory = VecDeque::new();
        for _ in 0..effort.steps {
            if dot(&gradient, &gradient).sqrt() < effort.gradient_norm {
                break;
            }
            let direction = direction(&gradient, &memory);
            let slope = dot(&gradient, &direction);
            let mut size =
                if memory.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
            // Halving until the loss falls as far as the slope promises (Armijo).
            let step = loop {
                let next: Vec<f64> = weights.iter().zip(&direction).map(|(w, d)| w + size * d).collect();
                let (next_loss, next_gradient) = self.loss(&next, decay)?;
                if next_loss <= loss + 1e-4 * size * slope {
                    break Some((next, next_loss, next_gradient));
                }
                size /= 2.0;
                if size < 1e-10 {
                    break None;
                }
            };
            let Some((next, next_loss, next_gradient)) = step else { break };
            let moved: Vec<f64> = next.iter().zip(&weights).map(|(a, b)| a - b).collect();
            let changed: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
            if dot(&moved, &changed) > 1e-12 {
                memory.push_back((moved, changed));
            }
            if memory.len() > MEMORY {
                memory.pop_front();
            }
            (weights, loss, gradient) = (next, next_loss, next_gradient);
        }
        Ok(weights)
    }
}

/// Summed loss and gradient of some rows.
fn part_loss(
    rows: &[f32],
    labels: &[u32],
    dim: usize,
    weights: &[f64],
    classes: usize,
) -> Result<(f64, Vec<f64>)> {
    let mut logits = logits(rows, dim, weights, classes)?;
    let mut loss = 0.0;
    for (mut row, &label) in logits.rows_mut().into_iter().zip(labels) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
        for (class, x) in row.iter_mut().enumerate() {
            let share = f64::from(*x - most).exp() / sum;
            if class == label as usize {
                loss -= share.max(f64::MIN_POSITIVE).ln();
            }
            *x = (share - f64::from(u8::from(class == label as usize))) as f32;
        }
    }
    let rows = ArrayView2::from_shape((labels.len(), dim), rows).map_err(shape)?;
    let product = logits.t().dot(&rows);
    let constants = logits.sum_axis(ndarray::Axis(0));
    let mut gradient = Vec::with_capacity(weights.len());
    for (row, constant) in product.rows().into_iter().zip(&constants) {
        gradient.extend(row.iter().chain([constant]).map(|&x| f64::from(x)));
    }
    Ok((loss, gradient))
}

/// The two loops of L-BFGS: minus the inverse Hessian, as remembered, times the gradient.
fn direction(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(memory.len());
    for (moved, changed) in memory.iter().rev() {
        let share = dot(moved, &q) / dot(moved, changed);
        q.iter_mut().zip(changed).for_each(|(q, c)| *q -= share * c);
        shares.push(share);
    }
    if let Some((moved, changed)) = memory.back() {
        let scale = dot(moved, changed) / dot(changed, changed).max(1e-30);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((moved, changed), share) in memory.iter().zip(shares.iter().rev()) {
        let back = dot(changed, &q) / dot(moved, changed);
        q.iter_mut().zip(moved).for_each(|(q, m)| *q += (share - back) * m);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{labelled, linear_probe, tests::clouds};
    use super::*;

    #[test]
    fn the_gradient_is_the_loss_s() {
        let (rows, labels) = labelled(&clouds(3, 40, 0.7));
        let train_set = TrainSet { rows: &rows, labels: &labels, images: &[], dim: 6, classes: 3 };
        let weights: Vec<f64> = (0..21).map(|i| (i as f64 * 0.7).sin()).collect();
        let (_, gradient) = train_set.loss(&weights, 0.1).unwrap();
        for i in 0..21 {
            let at = |change: f64| {
                let mut weights = weights.clone();
                weights[i] += change;
                train_set.loss(&weights, 0.1).unwrap().0
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - gradient[i]).abs() < 1e-3, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn the_fit_is_an_optimum() {
        let (rows, labels) = labelled(&clouds(4, 200, 1.0));
        let train_set = TrainSet { rows: &rows, labels: &labels, images: &[], dim: 6, classes: 3 };
        let weights = train_set.solve(1e-2, None, FIT).unwrap();
        let (_, gradient) = train_set.loss(&weights, 1e-2).unwrap();
        assert!(dot(&gradient, &gradient).sqrt() < 1e-3);
    }

    #[test]
    fn a_regression_tells_clouds_apart() {
        let said = linear_probe(&clouds(1, 600, 0.5), &clouds(2, 90, 0.5), 3).unwrap();
        let right = said.iter().enumerate().filter(|(i, said)| **said == i % 3).count();
        assert!(right > 80, "{right} of 90");
        assert_eq!(linear_probe(&clouds(1, 4, 0.1), &clouds(2, 9, 0.1), 3).unwrap().len(), 9);
    }

    #[test]
    fn a_head_says_of_raw_embeddings_what_the_fit_says_of_standardised_ones() {
        let (mut rows, labels) = labelled(&clouds(5, 120, 0.8));
        rows.iter_mut().enumerate().for_each(|(i, x)| *x = *x * (1 + i % 6) as f32 + 3.0);
        let images: Vec<u32> = (0..labels.len() as u32).collect();
        let head = LinearHead::fit(&rows, &labels, &images, 6, 3).unwrap();
        let said = head.classify(&rows).unwrap();
        let right = said.iter().zip(&labels).filter(|(said, label)| **said == **label as usize).count();
        let fraction = right as f64 / labels.len() as f64;
        assert!(
            fraction > 0.8 && head.validation > 0.7 && head.validation < 1.0,
            "{fraction} {}",
            head.validation
        );

        let (mean, std) = moments(&rows, 6);
        let mut standard = rows.clone();
        standardise(&mut standard, &mean, &std);
        let again = LinearHead::fit(&standard, &labels, &images, 6, 3).unwrap();
        assert_eq!(again.classify(&standard).unwrap(), said);
    }

    #[test]
    fn crops_of_one_image_are_held_out_together() {
        let (rows, labels) = labelled(&clouds(6, 60, 0.5));
        let images: Vec<u32> = (0..labels.len() as u32).map(|i| i / 3).collect();
        let train_set = TrainSet { rows: &rows, labels: &labels, images: &images, dim: 6, classes: 3 };
        let folds = train_set.folds();
        assert!(folds.chunks(3).all(|crops| crops.iter().all(|fold| *fold == crops[0])));
        assert!((0..FOLDS).all(|fold| folds.contains(&fold)));
        let one = LinearHead::fit(&rows[..6], &labels[..1], &[0], 6, 3).unwrap();
        assert!(one.validation.is_nan() && one.weight.iter().all(|w| w.is_finite()));
    }
}
