//! How good a model is on held-out images: accuracy, confusion, calibration, and probes of frozen embeddings; what it looks at,
//! and how its embeddings lie.

pub mod calibration;
pub mod label_errors;
pub mod label_spreading;
pub mod occlusion;
pub mod probe;
pub mod projection;
pub mod reconstruct;
pub mod rollout;

use serde::Serialize;
use smalti_models::{Preprocess, accuracy};

use crate::data::{Dataset, Loader, LoaderSettings, Share};
use crate::error::{Error, Result};
use crate::model::{Classifier, classifier};
use crate::objective::mask::Mask;
use crate::train::step::{GradLanes, micro_batch};
use crate::train::{ExecConfig, StopCheck};

/// Images of a batch that is measured.
pub(crate) const BATCH: usize = 256;

/// What a model says of a data set's images.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Number of classes.
    pub classes: usize,
    /// Width of an embedding.
    pub dim: usize,
    /// The images' numbers in the data set: those that could be read.
    pub ids: Vec<u32>,
    /// `[images, classes]`.
    pub logits: Vec<f32>,
    /// `[images, dim]`.
    pub embeddings: Vec<f32>,
    /// The true labels, where known.
    pub labels: Vec<Option<u32>>,
}

/// How right the predictions are. The keys are those that measuring scripts read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Version of these keys.
    pub schema_version: u32,
    /// Share of the images that the model gets right.
    pub accuracy: f64,
    /// Mean over classes of the share that the model gets right.
    pub balanced_accuracy: f64,
    /// The 95 % interval of the accuracy.
    pub interval: [f64; 2],
    /// Number of labelled images.
    pub n: usize,
    /// Each class: its name, how many there are, the share that is right.
    pub per_class: Vec<ClassScore>,
    /// `confusion[truth][said]`.
    pub confusion: Vec<Vec<usize>>,
}

/// One class's part of an [`Evaluation`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScore {
    /// The class.
    pub name: String,
    /// Images of it.
    pub n: usize,
    /// Share that is right.
    pub accuracy: f64,
}

/// The place of the largest value.
pub fn top(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, &x)| if x > values[best] { i } else { best })
}

/// The softmax of `logits / temperature` of one image.
pub fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let most = f64::from(logits.get(top(logits)).copied().unwrap_or_default());
    let powers: Vec<f64> = logits.iter().map(|x| ((f64::from(*x) - most) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|x| x / sum).collect()
}

/// How much likelier the likeliest class is than the second, from 0 to 1: a small margin is an unsure answer.
pub fn margin(logits: &[f32]) -> f32 {
    let [first, second] = probabilities(logits, 1.0)
        .into_iter()
        .fold([0.0; 2], |[first, second], p| if p > first { [p, first] } else { [first, second.max(p)] });
    (first - second) as f32
}

/// Batches of every image once, in order, unchanged; of several ranks each has its share of every batch.
pub fn loader(data: &Dataset, preprocess: &Preprocess, exec: &ExecConfig) -> Result<Loader> {
    let share = exec.ranks.clone();
    let settings = LoaderSettings {
        share: share.map(|ranks| Share::new(false, move |_, images| ranks.share(images))),
        threads: exec.loader_threads,
        cache: exec.cache.clone(),
        max_bad: exec.max_bad,
        ..LoaderSettings::new(BATCH, preprocess.clone())
    };
    Loader::new(data.clone(), settings)
}

/// Runs the model over all images of a loader. Ends with [`Error::Interrupted`] when `stop` says so.
pub fn predict(
    model: &Classifier,
    params: &[f32],
    loader: &Loader,
    lanes: &GradLanes<classifier::Activations<f32>>,
    stop: StopCheck<'_>,
) -> Result<Predictions> {
    predict_pass(model, params, loader, 0, lanes, stop)
}

/// As [`predict`], over the images as pass `pass` over the data set shows them.
pub(crate) fn predict_pass(
    model: &Classifier,
    params: &[f32],
    loader: &Loader,
    pass: u64,
    lanes: &GradLanes<classifier::Activations<f32>>,
    stop: StopCheck<'_>,
) -> Result<Predictions> {
    let vit = model.vit();
    let mut found = Predictions {
        classes: model.classes(),
        dim: vit.dim,
        ids: Vec::new(),
        logits: Vec::new(),
        embeddings: Vec::new(),
        labels: Vec::new(),
    };
    for batch in loader.epoch(pass, 0) {
        let batch = batch?;
        if let Some(code) = stop() {
            return Err(Error::Interrupted { step: 0, code });
        }
        let visible = Mask::none(batch.len(), vit.patches()).visible;
        let input = classifier::Input {
            pixels: batch.pixels(),
            visible: &visible,
            drop: None,
            batch: batch.len(),
            batch_weight: None,
        };
        let parts = lanes.map(batch.len(), micro_batch(vit.tokens()), |part, acts| {
            let (logits, embeddings) = model.predict(params, input.slice(part.start, part.end), acts);
            (logits.to_vec(), embeddings.to_vec())
        });
        for (logits, embeddings) in parts {
            found.logits.extend(logits);
            found.embeddings.extend(embeddings);
        }
        found.ids.extend(batch.ids);
        found.labels.extend(batch.labels);
    }
    Ok(found)
}

impl Predictions {
    /// The class that each image is put into.
    pub fn said(&self) -> impl Iterator<Item = usize> + '_ {
        self.logits.chunks_exact(self.classes).map(top)
    }

    /// How many labelled images are right, and how many there are.
    pub fn right(&self) -> (usize, usize) {
        let judged =
            self.said().zip(&self.labels).filter_map(|(said, label)| Some(label.as_ref()? == &(said as u32)));
        judged.fold((0, 0), |(right, all), hit| (right + usize::from(hit), all + 1))
    }

    /// Share of the labelled images that are right.
    pub fn accuracy(&self) -> Result<f64> {
        let (right, all) = self.right();
        share(right, all)
    }

    /// The whole [`Evaluation`] under these class names.
    pub fn evaluate(&self, names: &[String]) -> Result<Evaluation> {
        let said: Vec<usize> = self.said().collect();
        evaluate(&said, &self.labels, names)
    }
}

/// The share of `all` labelled images that `right` of them are.
pub fn share(right: usize, all: usize) -> Result<f64> {
    if all == 0 {
        return Err(Error::Usage("accuracy needs labelled images, and there are none".into()));
    }
    Ok(right as f64 / all as f64)
}

/// An [`Evaluation`] of answers against labels.
pub fn evaluate(said: &[usize], labels: &[Option<u32>], names: &[String]) -> Result<Evaluation> {
    let classes = names.len();
    let mut confusion = vec![vec![0; classes]; classes];
    for (&said, label) in said.iter().zip(labels) {
        let Some(truth) = label else { continue };
        match confusion.get_mut(*truth as usize).and_then(|row| row.get_mut(said)) {
            Some(count) => *count += 1,
            None => {
                return Err(Error::Usage(format!(
                    "label {truth} is not one of the model's {classes} classes"
                )));
            }
        }
    }
    let n: usize = confusion.iter().flatten().sum();
    if n == 0 {
        return Err(Error::Usage("accuracy needs labelled images, and there are none".into()));
    }
    let share_of = |right: usize, n: usize| if n == 0 { 0.0 } else { right as f64 / n as f64 };
    let per_class: Vec<ClassScore> = names
        .iter()
        .zip(&confusion)
        .enumerate()
        .map(|(i, (name, row))| {
            let n = row.iter().sum();
            ClassScore { name: name.clone(), n, accuracy: share_of(row[i], n) }
        })
        .collect();
    let right = (0..classes).map(|i| confusion[i][i]).sum();
    let classes =
        confusion.iter().enumerate().map(|(i, row)| (row.iter().sum::<usize>() as u64, row[i] as u64));
    let balanced_accuracy = accuracy::balanced(classes);
    Ok(Evaluation {
        schema_version: 1,
        accuracy: share_of(right, n),
        balanced_accuracy,
        interval: accuracy::interval(share_of(right, n), n as u64),
        n,
        per_class,
        confusion,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_between_the_two_likeliest() {
        assert!((margin(&[2.0, 0.0, 1.0]) - (0.66524 - 0.24473)).abs() < 1e-4);
        assert_eq!((margin(&[3.0, 3.0]), margin(&[5.0])), (0.0, 1.0));
    }

    #[test]
    fn counts_are_right() {
        let names: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let labels = [Some(0), Some(0), Some(1), Some(1), Some(1), None];
        let found = evaluate(&[0, 1, 1, 1, 2, 0], &labels, &names).unwrap();
        assert_eq!((found.n, found.accuracy), (5, 0.6));
        assert_eq!(found.confusion, [[1, 1, 0], [0, 2, 1], [0, 0, 0]]);
        assert!((found.balanced_accuracy - (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(found.per_class[2].n, 0);
        assert!(evaluate(&[0], &[None], &names).is_err());
        assert!(evaluate(&[0], &[Some(7)], &names).is_err());
    }

    #[test]
    fn ties_and_nans_do_not_panic() {
        assert_eq!(top(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(top(&[f32::NAN, 3.0]), 0);
        assert_eq!(top(&[]), 0);
        assert_eq!(probabilities(&[], 1.0), Vec::<f64>::new());
        assert_eq!(probabilities(&[1000.0, 1000.0], 1.0), [0.5, 0.5]);
    }
}
