//! Soft labels that agree with those of images that look alike to the teacher, or to the start: label spreading. Nothing says
//! that images that look alike are of one class, so held-out labels may forbid it.

use smalti_trainer::Result;
use smalti_trainer::evaluate::label_spreading::NeighbourGraph;
use smalti_trainer::evaluate::probabilities;
use smalti_trainer::evaluate::probe::linear::LinearHead;

use super::ensemble::{FLOOR, cross_entropies, fraction_right, temperature};
use super::folds::Fold;

/// How much neighbours count, from not at all.
const ALPHAS: [f32; 3] = [0.0, 0.5, 0.8];
/// By how many standard errors spread answers are less likely than those of the ensemble where they do not spread. It is a head's
/// answers that are compared: the ensemble's own would gain as well.
const WORSE_THAN_ENSEMBLE: f64 = 2.0;
/// Multiply-adds in a second of CPU time, low estimates: of products of embeddings, and of spreading.
const PRODUCTS_PER_SECOND: f64 = 1e10;
const SPREADING_PER_SECOND: f64 = 1e9;

/// What an encoder makes of images.
pub(super) struct Embeddings {
    /// `[images, dim]`.
    pub(super) rows: Vec<f32>,
    pub(super) dim: usize,
}

impl Embeddings {
    /// CPU seconds in which each image is compared with all others and labels spread, with a choice by so many folds.
    pub(super) fn seconds(&self, classes: usize, folds: usize) -> f64 {
        let images = self.rows.len() / self.dim.max(1);
        let spreads = (folds * (ALPHAS.len() - 1) + 1) as f64;
        images as f64 * self.rows.len() as f64 / PRODUCTS_PER_SECOND
            + spreads * NeighbourGraph::work(images, classes) / SPREADING_PER_SECOND
    }
}

/// Labels that count: the place of each among the images, rising, and its class.
pub(super) type Labels<'a> = &'a [(usize, u32)];

/// How labels spread.
pub(super) struct Spreading {
    graph: NeighbourGraph,
    alpha: f32,
    /// What the logarithms of spread labels are divided by, so that they are as sure as they are right.
    temperature: f64,
    /// The fraction of held-out labels that is right with the chosen `alpha`, and without spreading.
    pub(super) right: [f64; 2],
}

impl Spreading {
    /// Chooses how far the answers of a head spread that learned from a fold's labels: as far as held-out labels do not become
    /// less likely, by more than the standard error of that. With fewer labels than all they are likeliest where answers spread
    /// less than is best in the end. Not at all where an ensemble, whose losses on the same images are `losses`, knows them far
    /// better: who looks alike to a poor encoder says nothing new.
    pub(super) fn choose(
        embeddings: &Embeddings,
        labels: Labels<'_>,
        classes: usize,
        folds: &[Fold],
        losses: &[f64],
        head: impl Fn(&[usize]) -> Result<LinearHead>,
    ) -> Result<Spreading> {
        let graph = NeighbourGraph::new(&embeddings.rows, embeddings.dim)?;
        let mut truth = Vec::new();
        let mut found = ALPHAS.map(|_| Vec::new());
        for fold in folds {
            let logits = head(&fold.kept)?.logits(&embeddings.rows)?;
            let row = |place: usize| &logits[place * classes..(place + 1) * classes];
            let held: Vec<u32> = fold.held.iter().map(|i| labels[*i].1).collect();
            let said: Vec<f32> = fold.held.iter().flat_map(|i| row(labels[*i].0)).copied().collect();
            let temperature = temperature(&said, &held, classes);
            let mut start: Vec<f32> = logits
                .chunks_exact(classes)
                .flat_map(|row| probabilities(row, temperature))
                .map(|p| p as f32)
                .collect();
            fold.kept.iter().for_each(|i| certain(&mut start, labels[*i], classes));
            for (alpha, found) in ALPHAS.into_iter().zip(&mut found) {
                let spread = graph.spread(&start, classes, alpha);
                let row = |i: &usize| &spread[labels[*i].0 * classes..][..classes];
                found.extend(fold.held.iter().flat_map(row).map(|p| p.max(FLOOR).ln()));
            }
            truth.extend(held);
        }
        let fitted = found.each_ref().map(|logits| {
            let temperature = temperature(logits, &truth, classes);
            (
                temperature,
                fraction_right(logits, &truth, classes),
                cross_entropies(logits, &truth, classes, temperature).collect::<Vec<f64>>(),
            )
        });
        let likely = |i: &usize| !is_worse(&fitted[*i].2, &fitted[0].2, 1.0);
        let best = (0..ALPHAS.len()).rev().find(likely).unwrap_or(0);
        let is_poor = losses.len() == truth.len() && is_worse(&fitted[best].2, losses, WORSE_THAN_ENSEMBLE);
        let best = if is_poor { 0 } else { best };
        let (temperature, right, _) = fitted[best];
        Ok(Spreading { graph, alpha: ALPHAS[best], temperature, right: [right, fitted[0].1] })
    }

    /// Whether labels spread at all.
    pub(super) fn helps(&self) -> bool {
        self.alpha > 0.0
    }

    /// Spreads distributions `[images, classes]`, those of labelled images certain.
    pub(super) fn apply(&self, targets: &[f32], classes: usize) -> Vec<f32> {
        let spread = self.graph.spread(targets, classes, self.alpha);
        let sharpened = spread.chunks_exact(classes).flat_map(|row| {
            let logits: Vec<f32> = row.iter().map(|p| p.max(FLOOR).ln()).collect();
            // Nothing is known of an image that cannot be read.
            let known = row.iter().any(|p| *p > 0.0);
            probabilities(&logits, self.temperature)
                .into_iter()
                .map(move |p| if known { p as f32 } else { 0.0 })
        });
        sharpened.collect()
    }
}

/// Whether the losses of images are higher than others of the same images, by more than so many standard errors.
fn is_worse(losses: &[f64], others: &[f64], errors: f64) -> bool {
    let count = losses.len().max(1) as f64;
    let differences = || losses.iter().zip(others).map(|(loss, other)| loss - other);
    let mean = differences().sum::<f64>() / count;
    let variance = differences().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    mean > errors * (variance / count).sqrt()
}

/// Makes a row certain of its label.
pub(super) fn certain(targets: &mut [f32], (place, label): (usize, u32), classes: usize) {
    let row = &mut targets[place * classes..(place + 1) * classes];
    row.fill(0.0);
    row[label as usize] = 1.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two long clouds side by side: `(along, across)` of 60 images each.
    fn bands() -> (Embeddings, Vec<u32>) {
        let point = |i: usize| {
            let (along, across) = ((i / 2) as f32 / 60.0 * 12.0, (i % 2) as f32);
            let wave = |k: usize| (along * (k + 1) as f32).sin() * 0.05;
            let near = (0..12).map(move |k| (-(along - k as f32).powi(2)).exp());
            near.chain([across * 0.7, wave(0), wave(1)]).collect::<Vec<f32>>()
        };
        let rows: Vec<f32> = (0..120).flat_map(point).collect();
        (Embeddings { dim: rows.len() / 120, rows }, (0..120).map(|i| (i % 2) as u32).collect())
    }

    fn folds(labels: Labels<'_>) -> Vec<Fold> {
        let part =
            |fold: usize, held: bool| (0..labels.len()).filter(|i| (i / 2 % 3 == fold) == held).collect();
        (0..3).map(|fold| Fold { kept: part(fold, false), held: part(fold, true) }).collect()
    }

    fn head(embeddings: &Embeddings, labels: Labels<'_>, kept: &[usize]) -> Result<LinearHead> {
        let dim = embeddings.dim;
        let rows: Vec<f32> =
            kept.iter().flat_map(|i| &embeddings.rows[labels[*i].0 * dim..][..dim]).copied().collect();
        let classes: Vec<u32> = kept.iter().map(|i| labels[*i].1).collect();
        let images: Vec<u32> = (0..kept.len() as u32).collect();
        LinearHead::fit(&rows, &classes, &images, dim, 2)
    }

    #[test]
    fn labels_spread_where_that_helps() {
        let (embeddings, classes) = bands();
        let places = [0, 1, 20, 21, 40, 41, 60, 61, 80, 81, 110, 111];
        let labels: Vec<(usize, u32)> = places.iter().map(|i| (*i, classes[*i])).collect();
        let choose_beside = |labels: Labels<'_>, losses: &[f64]| {
            let of = |kept: &[usize]| head(&embeddings, labels, kept);
            Spreading::choose(&embeddings, labels, 2, &folds(labels), losses, of).unwrap()
        };
        let choose = |labels: Labels<'_>| choose_beside(labels, &[]);
        let helpful = choose(&labels);
        assert!(helpful.right[0] >= helpful.right[1], "{:?}", helpful.right);
        // Labels that have nothing to do with what images look like.
        let odd: Vec<(usize, u32)> = (0..120).step_by(3).map(|i| (i, (i * i / 7 % 2) as u32)).collect();
        let odd = choose(&odd);
        let spread = odd.apply(&[0.5; 240], 2);
        assert!(spread.iter().all(|p| (p - 0.5).abs() < 1e-3));
        let mut targets = vec![0.5; 240];
        labels.iter().for_each(|label| certain(&mut targets, *label, 2));
        let rows = helpful.apply(&targets, 2);
        assert!(rows.chunks_exact(2).all(|row| (row[0] + row[1] - 1.0).abs() < 1e-5));
        // Beside an ensemble that is sure of every label, or of none.
        let helps = |loss: f64| choose_beside(&labels, &vec![loss; labels.len()]).helps();
        assert_eq!([helps(0.0), helps(3.0)], [false, helpful.helps()]);
    }

    #[test]
    fn where_look_alikes_are_of_other_classes_nothing_spreads() {
        // 40 things, three photos of each; what tells classes apart is one small value.
        let class = |i: usize| (i * 7 + i / 3) as u32 % 2;
        let point = |i: usize| {
            let things = (0..40).map(move |k| if k == i / 3 { 1.0 } else { 0.0 });
            things.chain([class(i) as f32]).collect::<Vec<f32>>()
        };
        let rows: Vec<f32> = (0..120).flat_map(point).collect();
        let embeddings = Embeddings { dim: 41, rows };
        let labels: Vec<(usize, u32)> = (0..120).map(|i| (i, class(i))).collect();
        let of = |kept: &[usize]| head(&embeddings, &labels, kept);
        let spreading = Spreading::choose(&embeddings, &labels, 2, &folds(&labels), &[], of).unwrap();
        assert!(!spreading.helps(), "{:?}", spreading.right);
    }

    #[test]
    fn worse_is_more_than_chance() {
        assert!(!is_worse(&[1.0, 3.0, 1.0, 3.0], &[2.0, 2.0, 2.0, 1.9], 1.0));
        assert!(is_worse(&[2.0, 2.1, 2.0, 2.1], &[1.0; 4], 1.0));
        assert!(is_worse(&[2.0, 3.0], &[1.0; 2], 2.0) && !is_worse(&[2.0, 3.0], &[1.0; 2], 5.0));
        assert!(!is_worse(&[1.0; 4], &[1.0; 4], 1.0) && !is_worse(&[], &[], 1.0));
    }
}
