//! What a quickstart has to show.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use smalti_models::accuracy;

use super::device::Device;
use crate::autotrain::report as training;
use crate::console::out::{self, percent, seconds};

/// The keys that measuring scripts read, and more. Accuracies are fractions from 0 to 1.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    schema_version: u32,
    accuracy: Option<f64>,
    balanced_accuracy: Option<f64>,
    /// From scratch, the same labels, the same CPU time.
    scratch_accuracy: Option<f64>,
    int8_accuracy: Option<f64>,
    /// What the first began with.
    start: String,
    chosen: String,
    /// Images to learn from and to measure on, and labels.
    images: usize,
    n: usize,
    labels: usize,
    classes: usize,
    /// CPU seconds of each.
    cpu_seconds: f64,
    scratch_cpu_seconds: f64,
    /// Share of the test images that trainer and runtime put into the same class.
    runtime_agreement: Option<f64>,
    largest_logit_difference: Option<f64>,
    latency_ms: Option<f64>,
    file_kb: Option<f64>,
    pub(super) seconds: f64,
    pub(super) model: PathBuf,
    int8_model: Option<PathBuf>,
    out: PathBuf,
}

impl Report {
    /// From the reports of both trainings.
    pub(super) fn new(trained: &training::Report, scratch: &training::Report, out: &Path) -> Report {
        Report {
            schema_version: 1,
            accuracy: trained.accuracy,
            balanced_accuracy: trained.balanced_accuracy,
            scratch_accuracy: scratch.accuracy,
            int8_accuracy: trained.int8_accuracy,
            start: trained.start.clone(),
            chosen: trained.chosen.clone(),
            images: trained.images,
            n: trained.n,
            labels: trained.labels,
            classes: trained.classes,
            cpu_seconds: trained.cpu_seconds,
            scratch_cpu_seconds: scratch.cpu_seconds,
            runtime_agreement: None,
            largest_logit_difference: None,
            latency_ms: None,
            file_kb: None,
            seconds: 0.0,
            model: trained.model.clone(),
            int8_model: trained.int8_model.clone(),
            out: out.into(),
        }
    }

    /// Notes how the device does.
    pub(super) fn add_device(&mut self, device: &Device) {
        self.runtime_agreement = Some(device.agreement);
        self.largest_logit_difference = Some(device.largest_difference);
        self.latency_ms = Some(device.latency_ms);
        self.file_kb = Some(device.bytes as f64 / 1e3);
    }

    /// The outcome as a table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        if let (Some(accuracy), Some(scratch)) = (self.accuracy, self.scratch_accuracy) {
            _ = writeln!(text, "accuracy on {} held-out images, {} labels", self.n, self.labels);
            let begun =
                if self.start == "scratch" { "trained".into() } else { format!("from {}", self.start) };
            self.row(&mut text, &begun, accuracy);
            if let Some(int8) = self.int8_accuracy {
                self.row(&mut text, "the same in int8", int8);
            }
            self.row(&mut text, "from scratch", scratch);
        }
        if let (Some(agreement), Some(latency), Some(kb)) =
            (self.runtime_agreement, self.latency_ms, self.file_kb)
        {
            let difference = self.largest_logit_difference.unwrap_or(0.0);
            _ = writeln!(text, "on the device");
            _ = writeln!(
                text,
                "  {:<26}{:>9}   logits differ by {difference:.0e} at most",
                "same answer as the trainer",
                percent(agreement)
            );
            _ = writeln!(text, "  {:<26}{:>9}   median, one thread", "an image", format!("{latency:.2} ms"));
            _ = writeln!(text, "  {:<26}{:>9}", "model file", format!("{kb:.0} kB"));
        }
        _ = write!(
            text,
            "{} in all; CPU time {} and {}",
            seconds(self.seconds),
            seconds(self.cpu_seconds),
            seconds(self.scratch_cpu_seconds)
        );
        text
    }

    fn row(&self, text: &mut String, name: &str, accuracy: f64) {
        let interval = out::interval(accuracy::interval(accuracy, self.n as u64));
        _ = writeln!(text, "  {name:<26}{:>9}   {interval}", percent(accuracy));
    }
}
