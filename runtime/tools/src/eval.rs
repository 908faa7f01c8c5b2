//! Accuracy over the labelled images of a folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use smalti_models::accuracy;
use smalti_models::folder::Split;

use crate::threads;
use smalti_runtime::Model;
use smalti_runtime::images::{self, Labelled};
use smalti_runtime::{Error, Result};

/// How to evaluate.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Threads, each with a session of its own.
    pub threads: usize,
    /// Called with the number of images done and in all; from any thread.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings { threads: 1, progress: &|_, _| {} }
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The model's labels.
    pub labels: Vec<String>,
    /// The split that was measured on; none of a folder without splits.
    pub split: Option<Split>,
    /// How many images of the class in the row were taken for the class in the column.
    pub confusion: Vec<Vec<u64>>,
    /// Images that could not be used, with the reason, in order.
    pub bad: Vec<(PathBuf, String)>,
}

impl Evaluation {
    /// Images that were classified.
    pub fn n(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// Images that were classified rightly.
    pub fn correct(&self) -> u64 {
        (0..self.confusion.len()).map(|class| self.class(class).1).sum()
    }

    /// Images of a class, and how many of them were classified rightly.
    pub fn class(&self, class: usize) -> (u64, u64) {
        let row = self.confusion.get(class).map_or(&[][..], Vec::as_slice);
        (row.iter().sum(), row.get(class).copied().unwrap_or_default())
    }

    /// The fraction of right answers; 0 of nothing.
    pub fn accuracy(&self) -> f64 {
        share(self.correct(), self.n())
    }

    /// The mean over classes of the fraction of right answers.
    pub fn balanced_accuracy(&self) -> f64 {
        accuracy::balanced((0..self.confusion.len()).map(|class| self.class(class)))
    }

    /// The 95 % interval of the accuracy.
    pub fn interval(&self) -> [f64; 2] {
        accuracy::interval(self.accuracy(), self.n())
    }
}

/// `part / whole`, 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// One image's answer: its class and the class it was taken for, or what is wrong with it.
type Answer = Result<(usize, usize), (PathBuf, String)>;

/// Classifies the labelled images of a folder, of its test or val split if it has splits
/// ([`DataFolder::labelled`](images::DataFolder::labelled)). Images that cannot be used are listed, not fatal.
///
/// # Errors
/// A folder without labelled images; a failure of the model.
pub fn evaluate(model: &Model, folder: &Path, settings: &Settings<'_>) -> Result<Evaluation> {
    let Labelled { images, split } = images::labelled(folder, model.labels())?;
    let done = AtomicUsize::new(0);
    let total = images.len();
    let step = || (settings.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
    let answers = threads::share("evaluate", &images, settings.threads, |part| classify(model, part, &step))?;
    let classes = model.labels().len();
    let mut evaluation = Evaluation {
        labels: model.labels().to_vec(),
        split,
        confusion: vec![vec![0; classes]; classes],
        bad: Vec::new(),
    };
    for answer in answers {
        match answer {
            Ok((class, found)) => evaluation.confusion[class][found] += 1,
            Err(bad) => evaluation.bad.push(bad),
        }
    }
    Ok(evaluation)
}

/// Classifies one thread's share.
fn classify(model: &Model, images: &[(PathBuf, usize)], step: &(dyn Fn() + Sync)) -> Result<Vec<Answer>> {
    let mut session = model.session()?;
    let mut answers = Vec::with_capacity(images.len());
    for (path, class) in images {
        let prediction = images::open_for(path, model).and_then(|image| session.classify(&image));
        answers.push(match prediction {
            Ok(prediction) => Ok((*class, prediction.best().map_or(0, |best| best.index))),
            Err(Error::Data { problem, .. }) => Err((path.clone(), problem)),
            Err(other) => return Err(other),
        });
        step();
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_the_confusion_matrix() {
        let evaluation = Evaluation {
            labels: vec!["a".into(), "b".into()],
            split: None,
            confusion: vec![vec![3, 1], vec![0, 0]],
            bad: Vec::new(),
        };
        assert_eq!((evaluation.n(), evaluation.correct(), evaluation.accuracy()), (4, 3, 0.75));
        assert_eq!((evaluation.class(0), evaluation.class(1), evaluation.class(9)), ((4, 3), (0, 0), (0, 0)));
        assert_eq!(share(0, 0), 0.0);
    }
}
