//! What a quickstart has to show.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::device::Device;
use crate::console::out::{percent, seconds};

/// One draw of labels, and what was learned from it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Draw {
    pub(super) seed: u64,
    pub(super) pretrained: f64,
    pub(super) scratch: f64,
}

/// The keys that measuring scripts read, and more.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Mean over draws; none for images without labels.
    pub(super) pretrained_accuracy: Option<f64>,
    pub(super) scratch_accuracy: Option<f64>,
    /// Share of the test images that trainer and runtime put into the same class.
    pub(super) runtime_agreement: Option<f64>,
    pub(super) largest_logit_difference: Option<f64>,
    pub(super) runtime_accuracy: Option<f64>,
    pub(super) latency_ms: Option<f64>,
    pub(super) file_kb: Option<f64>,
    pub(super) seconds: f64,
    pub(super) model: Option<PathBuf>,
    pub(super) out: PathBuf,
    /// Images to learn from and to measure on, labels of each draw.
    pub(super) images: usize,
    pub(super) test_images: usize,
    pub(super) labels: usize,
    pub(super) draws: Vec<Draw>,
    pub(super) pretrain_epochs: u64,
    pub(super) finetune_epochs: Option<u64>,
    pub(super) finetune_steps: Option<u64>,
    pub(super) pretrain_images_per_s: f64,
    pub(super) threads: usize,
    pub(super) quick: bool,
}

impl Report {
    /// Notes the means of the draws.
    pub(super) fn add_draws(&mut self, draws: Vec<Draw>) {
        let mean = |of: fn(&Draw) -> f64| {
            (!draws.is_empty()).then(|| draws.iter().map(of).sum::<f64>() / draws.len() as f64)
        };
        self.pretrained_accuracy = mean(|draw| draw.pretrained);
        self.scratch_accuracy = mean(|draw| draw.scratch);
        self.draws = draws;
    }

    /// Notes how the device does.
    pub(super) fn add_device(&mut self, file: &Path, device: &Device) {
        self.model = Some(file.into());
        self.runtime_agreement = Some(device.agreement);
        self.largest_logit_difference = Some(device.largest_difference);
        self.runtime_accuracy = Some(device.accuracy);
        self.latency_ms = Some(device.latency_ms);
        self.file_kb = Some(device.bytes as f64 / 1e3);
    }

    /// The outcome as a table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        if let (Some(pretrained), Some(scratch)) = (self.pretrained_accuracy, self.scratch_accuracy) {
            _ = writeln!(text, "accuracy on {} held-out images, {} labels", self.test_images, self.labels);
            _ = write!(text, "  {:<26}{:>9}", "", "mean");
            self.draws.iter().for_each(|draw| _ = write!(text, "{:>9}", format!("draw {}", draw.seed)));
            self.row(&mut text, "pretrained without labels", pretrained, |draw| draw.pretrained);
            self.row(&mut text, "from scratch", scratch, |draw| draw.scratch);
            _ = writeln!(
                text,
                "\n  pretraining brings {:+.1} points at the same labels and the same {} steps of fine-tuning",
                (pretrained - scratch) * 100.0,
                self.finetune_steps.unwrap_or(0)
            );
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
        _ = writeln!(
            text,
            "{} in all: {} epochs of pretraining at {:.0} images/s on {} threads",
            seconds(self.seconds),
            self.pretrain_epochs,
            self.pretrain_images_per_s,
            self.threads
        );
        text
    }

    fn row(&self, text: &mut String, name: &str, mean: f64, of: fn(&Draw) -> f64) {
        _ = write!(text, "\n  {name:<26}{:>9}", percent(mean));
        self.draws.iter().for_each(|draw| _ = write!(text, "{:>9}", percent(of(draw))));
    }
}
