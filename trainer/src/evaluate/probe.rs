//! How much frozen embeddings know: nearest neighbours, and logistic regression ([`linear`]).
//!
//! The embedding of a classifier is the vector in front of its head. That of a pretrained encoder is the mean over
//! its patch tokens, then the layer norm that pretraining put behind the encoder (`norm`), with its trained scale. That of
//! imported weights is pooled as the program did that they come from.

use std::path::Path;

use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;
use smalti_models::Pooling;

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::{self, Predictions};
use crate::model::Classifier;
use crate::model::weights::{Take, Weights};
use crate::run::{ModelFiles, RunDir};
use crate::stages::finetune::{self, Finetuned};
use crate::train::ExecConfig;
use crate::train::step::GradLanes;

pub mod linear;

use linear::LinearHead;

/// Neighbours that have a say.
pub const NEIGHBOURS: usize = 20;
/// A neighbour's say is `exp(cosine / TEMPERATURE)` (Wu et al. 2018, arXiv 1805.01978).
const TEMPERATURE: f32 = 0.07;
/// Images that are compared with all others in one product.
const BLOCK: usize = 128;

/// Reads a run of any kind as something that embeds images. One without a head gets one class without a meaning.
pub fn load(path: &Path) -> Result<Finetuned> {
    let run = RunDir::open(path)?;
    let ModelFiles { config, preprocess, labels } = run.load_model_files()?;
    if !labels.is_empty() {
        return finetune::load(path);
    }
    let model = Classifier::new(&config.encoder, 1, config.pool.unwrap_or(Pooling::Mean))?;
    let mut params = model.layout().init::<f32>(0);
    Weights::open(&run.model("last"))?.load(model.layout(), &mut params, Take::Embedding)?;
    Ok(Finetuned { model, params, preprocess, labels: Vec::new() })
}

/// Embeddings of all usable images.
pub fn embed(model: &Finetuned, data: &Dataset, exec: &ExecConfig) -> Result<Predictions> {
    let loader = evaluate::loader(data, &model.preprocess, exec)?;
    evaluate::predict(&model.model, &model.params, &loader, &GradLanes::new(exec.threads, 0)?, &|| None)
}

/// The labelled rows of some predictions: embeddings and labels.
fn labelled(found: &Predictions) -> (Vec<f32>, Vec<u32>) {
    let rows = found.embeddings.chunks_exact(found.dim.max(1)).zip(&found.labels);
    let (rows, labels): (Vec<&[f32]>, Vec<u32>) =
        rows.filter_map(|(row, label)| Some((row, (*label)?))).unzip();
    (rows.concat(), labels)
}

/// Refuses to learn from nothing.
fn check(train: &Predictions, test: &Predictions, labels: &[u32], classes: usize) -> Result<()> {
    if train.dim != test.dim {
        return Err(Error::Usage(format!(
            "embeddings of width {} and {}: expected one model's",
            train.dim, test.dim
        )));
    }
    linear::check_labels(labels, classes)
}

/// The class of each test image by a logistic regression fitted on the labelled training images.
pub fn linear_probe(train: &Predictions, test: &Predictions, classes: usize) -> Result<Vec<usize>> {
    let (rows, labels) = labelled(train);
    check(train, test, &labels, classes)?;
    let images: Vec<u32> = (0..labels.len() as u32).collect();
    LinearHead::fit(&rows, &labels, &images, train.dim, classes)?.classify(&test.embeddings)
}

/// The class of each test image by the [`NEIGHBOURS`] most similar labelled training images.
pub fn knn(train: &Predictions, test: &Predictions, classes: usize) -> Result<Vec<usize>> {
    let (mut known, labels) = labelled(train);
    check(train, test, &labels, classes)?;
    let mut queries = test.embeddings.clone();
    [&mut known, &mut queries]
        .into_iter()
        .for_each(|rows| rows.chunks_exact_mut(train.dim).for_each(to_unit_length));
    votes(&known, &queries, &labels, classes, false)
}

/// The fraction of labelled images whose class the [`NEIGHBOURS`] most similar other ones vote for.
///
/// # Errors
/// Fewer than two labelled images.
pub fn leave_one_out(found: &Predictions, classes: usize) -> Result<f64> {
    let (mut rows, labels) = labelled(found);
    check(found, found, &labels, classes)?;
    if labels.len() < 2 {
        return Err(Error::Usage("one labelled image has no neighbours".into()));
    }
    rows.chunks_exact_mut(found.dim).for_each(to_unit_length);
    let said = votes(&rows, &rows, &labels, classes, true)?;
    let right = said.iter().zip(&labels).filter(|(said, label)| **said == **label as usize).count();
    Ok(right as f64 / labels.len() as f64)
}

/// What the labelled rows of `known` say of each row of `queries`; all rows have unit length. Where the two are the same,
/// no row votes for itself.
fn votes(known: &[f32], queries: &[f32], labels: &[u32], classes: usize, same: bool) -> Result<Vec<usize>> {
    let dim = known.len() / labels.len();
    similarities(known, queries, dim, same, |similar| vote(similar.iter().copied(), labels, classes))
}

/// Calls `each` with the cosines of each row of `queries` with all rows of `known`; all rows have unit length. Where the two
/// are the same, a row's cosine with itself is -∞.
pub(crate) fn similarities<T: Send>(
    known: &[f32],
    queries: &[f32],
    dim: usize,
    same: bool,
    each: impl Fn(ArrayView1<'_, f32>) -> T + Sync,
) -> Result<Vec<T>> {
    let shape = |e: ndarray::ShapeError| Error::Usage(format!("embeddings: {e}"));
    let known = ArrayView2::from_shape((known.len() / dim, dim), known).map_err(shape)?;
    let blocks: Result<Vec<Vec<T>>> = queries
        .par_chunks(BLOCK * dim)
        .enumerate()
        .map(|(number, block)| {
            let block = ArrayView2::from_shape((block.len() / dim, dim), block).map_err(shape)?;
            let mut similar = block.dot(&known.t());
            if same {
                let own = |(i, mut row): (usize, ndarray::ArrayViewMut1<'_, f32>)| {
                    row[number * BLOCK + i] = f32::NEG_INFINITY;
                };
                similar.rows_mut().into_iter().enumerate().for_each(own);
            }
            Ok(similar.rows().into_iter().map(&each).collect())
        })
        .collect();
    Ok(blocks?.into_iter().flatten().collect())
}

pub(crate) fn to_unit_length(row: &mut [f32]) {
    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    row.iter_mut().for_each(|x| *x /= length);
}

/// The class with the most say among the nearest; of equal ones the lower.
fn vote(similar: impl Iterator<Item = f32>, labels: &[u32], classes: usize) -> usize {
    let mut pairs: Vec<(f32, u32)> = similar.zip(labels.iter().copied()).collect();
    let nearest = NEIGHBOURS.min(pairs.len());
    if nearest < pairs.len() {
        pairs.select_nth_unstable_by(nearest, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    let mut votes = vec![0f64; classes];
    for (similarity, label) in pairs.iter().take(nearest) {
        if let Some(vote) = votes.get_mut(*label as usize).filter(|_| similarity.is_finite()) {
            *vote += f64::from(*similarity / TEMPERATURE).exp();
        }
    }
    (0..classes).rev().max_by(|&a, &b| votes[a].total_cmp(&votes[b])).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Three clouds of points; the label of every seventh is unknown.
    pub(crate) fn clouds(seed: u64, n: usize, spread: f64) -> Predictions {
        let (dim, classes, mut rng) = (6, 3, Rng::new(seed, 0, []));
        let mut embeddings = Vec::new();
        for i in 0..n {
            let at = |d: usize| if d == i % classes { 2.0 } else { 0.0 } + spread * rng.normal();
            embeddings.extend((0..dim).map(at).map(|x| x as f32));
        }
        let labels = (0..n).map(|i| (i % 7 != 6).then_some((i % classes) as u32)).collect();
        Predictions {
            classes,
            dim,
            ids: (0..n as u32).collect(),
            logits: vec![0.0; n * classes],
            embeddings,
            labels,
        }
    }

    #[test]
    fn neighbours_tell_clouds_apart() {
        let said = knn(&clouds(1, 300, 0.5), &clouds(2, 90, 0.5), 3).unwrap();
        let right = said.iter().enumerate().filter(|(i, said)| **said == i % 3).count();
        assert!(right > 80, "{right} of 90");
    }

    #[test]
    fn no_image_is_its_own_neighbour() {
        assert!(leave_one_out(&clouds(1, 300, 0.5), 3).unwrap() > 0.85);
        // Three images of three classes: each one's neighbours are of the others.
        let mut three = clouds(1, 3, 0.01);
        assert_eq!(leave_one_out(&three, 3).unwrap(), 0.0);
        three.labels = vec![Some(0), None, None];
        assert!(leave_one_out(&three, 3).is_err());
    }

    #[test]
    fn few_images_and_wrong_labels_are_no_trouble() {
        let said = knn(&clouds(1, 2, 0.1), &clouds(2, 5, 0.1), 3).unwrap();
        assert_eq!(said.len(), 5);
        assert!(knn(&clouds(1, 30, 0.1), &clouds(2, 5, 0.1), 2).is_err());
        let mut none = clouds(1, 30, 0.1);
        none.labels.fill(None);
        assert!(knn(&none, &clouds(2, 5, 0.1), 3).is_err());
        assert_eq!(vote([f32::NAN, 0.5].into_iter(), &[1, 0], 2), 0);
    }
}
