//! `metrics.jsonl`: what a run was like, step by step.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use smalti_trainer::Result;
use smalti_trainer::files;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 30;
/// Points of a curve: of more steps, means of neighbours.
const POINTS: usize = 400;

/// One training run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct History {
    /// Its name: that of the command, or of the stage.
    pub(super) name: String,
    /// Steps done.
    pub(super) steps: u64,
    /// Seconds of training.
    pub(super) seconds: f64,
    /// Lines of the file that could not be read.
    pub(super) damaged: usize,
    /// Curves over steps: points of a step and a value.
    #[serde(skip)]
    pub(super) loss: Vec<[f64; 2]>,
    #[serde(skip)]
    pub(super) lr: Vec<[f64; 2]>,
    #[serde(skip)]
    pub(super) images_per_s: Vec<[f64; 2]>,
    /// Fractions of validation images that are right.
    pub(super) validation: Vec<[f64; 2]>,
    /// Fractions of images whose neighbours vote for their class.
    pub(super) neighbours: Vec<[f64; 2]>,
}

impl History {
    /// Reads a run's history; an empty one where nothing is written yet.
    ///
    /// # Errors
    /// A file that cannot be read at all.
    pub(super) fn read(name: &str, run: &Path) -> Result<History> {
        let path = run.join("metrics.jsonl");
        let text = if path.is_file() { files::read(&path, MAX_BYTES)? } else { Vec::new() };
        Ok(History { name: name.to_owned(), ..History::parse(&String::from_utf8_lossy(&text)) })
    }

    fn parse(text: &str) -> History {
        let mut found = History::default();
        for line in text.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else { break }; // It is being written.
            let parsed = serde_json::from_str::<Value>(line).ok();
            if !line.trim().is_empty() && parsed.is_none_or(|line| !found.add(&line)) {
                found.damaged += 1;
            }
        }
        [&mut found.loss, &mut found.lr, &mut found.images_per_s].into_iter().for_each(thin);
        found
    }

    /// Adds one line; false if it says nothing of a step.
    fn add(&mut self, line: &Value) -> bool {
        let Some(step) = line["step"].as_u64() else { return false };
        let curves = [
            ("loss", &mut self.loss),
            ("lr", &mut self.lr),
            ("images_per_s", &mut self.images_per_s),
            ("val_accuracy", &mut self.validation),
            ("knn_accuracy", &mut self.neighbours),
        ];
        let mut said = false;
        for (key, curve) in curves {
            if let Some(value) = line[key].as_f64() {
                curve.push([step as f64, value]);
                said = true;
            }
        }
        self.steps = self.steps.max(step);
        self.seconds = line["seconds"].as_f64().unwrap_or(self.seconds);
        said
    }

    /// The loss at both ends: the mean over a twentieth of the run.
    pub(super) fn loss_ends(&self) -> Option<[f64; 2]> {
        let part = (self.loss.len() / 20).max(1);
        let mean =
            |points: &[[f64; 2]]| points.iter().map(|point| point[1]).sum::<f64>() / points.len() as f64;
        let last = self.loss.len().checked_sub(part)?;
        Some([mean(&self.loss[..part]), mean(&self.loss[last..])])
    }
}

/// At most [`POINTS`] points, each the mean of as many neighbours.
fn thin(points: &mut Vec<[f64; 2]>) {
    let group = points.len().div_ceil(POINTS).max(1);
    let mean = |group: &[[f64; 2]], axis: usize| {
        group.iter().map(|point| point[axis]).sum::<f64>() / group.len() as f64
    };
    *points = points.chunks(group).map(|group| [mean(group, 0), mean(group, 1)]).collect();
}

/// A curve without its noise: a running mean over a twentieth of it.
pub(super) fn smooth(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let weight = 2.0 / ((points.len() as f64 / 20.0).max(1.0) + 1.0);
    let mut mean = None;
    points
        .iter()
        .map(|[x, y]| {
            let next = mean.map_or(*y, |mean: f64| mean + weight * (y - mean));
            mean = Some(next);
            [*x, next]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_lines_are_counted_and_the_rest_is_shown() {
        let text = "{\"step\":1,\"loss\":2.0,\"lr\":0.1,\"images_per_s\":9,\"seconds\":1.5}\n\
                    {\"step\":2,\"loss\":1.0,\"lr\":0.2,\n\
                    \u{fffd}\n\n[1]\n{\"other\":1}\n\
                    {\"step\":2,\"epoch\":1,\"val_accuracy\":0.5}\n{\"step\":3,\"lo";
        let found = History::parse(text);
        assert_eq!((found.steps, found.damaged, found.seconds), (2, 4, 1.5));
        assert_eq!((&found.loss[..], &found.validation[..]), (&[[1.0, 2.0]][..], &[[2.0, 0.5]][..]));
        assert_eq!(History::parse(""), History::default());
    }

    #[test]
    fn long_curves_become_short_ones_of_the_same_mean() {
        let mut points: Vec<[f64; 2]> = (0..1200).map(|i| [f64::from(i), f64::from(i % 3)]).collect();
        thin(&mut points);
        assert_eq!((points.len(), points[0]), (400, [1.0, 1.0]));
        let found = History { loss: points, ..History::default() };
        assert_eq!(found.loss_ends(), Some([1.0, 1.0]));
        assert_eq!(History::default().loss_ends(), None);
        assert!(smooth(&[[0.0, 1.0], [1.0, 1.0]]).iter().all(|point| point[1] == 1.0));
    }
}
