//! What `smalti train` has to show.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::console::out::{self, percent, quoted, seconds};

/// The keys that measuring scripts read, and more. Accuracies are fractions from 0 to 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema_version: u32,
    /// On the test images, where there are any.
    pub(crate) accuracy: Option<f64>,
    pub(crate) balanced_accuracy: Option<f64>,
    /// The 95 % interval of the accuracy.
    pub(crate) interval: Option<[f64; 2]>,
    pub(crate) n: usize,
    pub(crate) split: Option<String>,
    /// On held-out images among those with labels: what decided.
    pub(crate) validation: Option<f64>,
    pub(crate) chosen: String,
    pub(crate) start: String,
    /// What competed; nothing where there was only one way.
    #[serde(default)]
    pub(crate) candidates: Vec<Scored>,
    pub(crate) images: usize,
    pub(crate) labels: usize,
    pub(crate) classes: usize,
    pub(crate) cpu_seconds: f64,
    pub(crate) parameters: usize,
    pub(crate) run: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) int8_model: Option<PathBuf>,
    pub(crate) int8_accuracy: Option<f64>,
    pub(crate) int8_agreement: Option<f64>,
}

/// A candidate and how it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scored {
    pub(crate) name: String,
    /// The fraction of held-out images that it gets right.
    pub(crate) validation: f64,
    /// Its weight in the mean answer of several, if there is one.
    pub(crate) weight: Option<f64>,
}

impl Report {
    /// What to type after the training in `folder`.
    pub(crate) fn next(&self, folder: &Path) -> String {
        let model = self.int8_model.as_ref().unwrap_or(&self.model);
        format!("smalti report {}, or at once smalti-run run {} IMAGES", quoted(folder), quoted(model))
    }

    /// The outcome in a few lines.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let (Some(accuracy), Some(balanced), Some(interval), Some(split)) =
            (self.accuracy, self.balanced_accuracy, self.interval, &self.split)
        {
            _ = writeln!(
                text,
                "accuracy {} on {} {split} images ({}), balanced {}",
                percent(accuracy),
                self.n,
                out::interval(interval),
                percent(balanced)
            );
        }
        if let Some(validation) = self.validation {
            _ = writeln!(text, "accuracy {} on held-out labelled images, which decided", percent(validation));
        }
        _ = writeln!(
            text,
            "{}, from {} labels in {} classes; {} parameters; {} of CPU time",
            self.chosen,
            self.labels,
            self.classes,
            self.parameters,
            seconds(self.cpu_seconds)
        );
        _ = write!(text, "model: {}", self.model.display());
        if let Some(int8) = &self.int8_model {
            _ = write!(text, "\nint8:  {}", int8.display());
            if let Some(agreement) = self.int8_agreement {
                _ = write!(text, ", the same answer on {} of the images", percent(agreement));
            }
        }
        text
    }
}
