//! The points of a curve.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::console::out::percent;

/// All points, start by start, by rising numbers of labels. Accuracies are fractions from 0 to 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    schema_version: u32,
    /// CPU time of each training.
    budget: String,
    pub(crate) points: Vec<Point>,
}

/// One number of labels from one start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) start: String,
    pub(crate) labels: usize,
    /// In mean; none where all labels count.
    pub(super) labels_per_class: Option<usize>,
    /// Of each draw of labels.
    pub(super) accuracies: Vec<f64>,
    pub(super) balanced_accuracies: Vec<f64>,
    cpu_seconds: Vec<f64>,
}

impl Report {
    /// No points yet.
    pub(super) fn new(budget: String) -> Report {
        Report { schema_version: 1, budget, points: Vec::new() }
    }

    /// The names of the starts, in order.
    pub(crate) fn starts(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.points.iter().map(|point| point.start.as_str()).collect();
        names.dedup();
        names
    }

    /// A line for each number of labels, a column for each start.
    pub(crate) fn table(&self) -> String {
        let starts = self.starts();
        let mut text = format!("{:<18}", "labels");
        starts.iter().for_each(|start| _ = write!(text, "{start:>28}"));
        let first = |point: &&Point| Some(point.start.as_str()) == starts.first().copied();
        for row in self.points.iter().filter(first) {
            let of_each = row.labels_per_class.map_or("all".into(), |n| format!("{n} a class"));
            _ = write!(text, "\n{:<18}", format!("{} ({of_each})", row.labels));
            for start in &starts {
                let same = |point: &&Point| point.start == *start && point.labels == row.labels;
                let cell = self.points.iter().find(same).map(Point::text).unwrap_or_default();
                _ = write!(text, "{cell:>28}");
            }
        }
        text + "\nmean over draws of labels, and the lowest and the highest of them"
    }
}

impl Point {
    /// No draws yet.
    pub(super) fn new(start: &str, labels: usize, labels_per_class: Option<usize>) -> Point {
        Point {
            start: start.to_owned(),
            labels,
            labels_per_class,
            accuracies: Vec::new(),
            balanced_accuracies: Vec::new(),
            cpu_seconds: Vec::new(),
        }
    }

    /// Adds the report of a training.
    pub(super) fn add(&mut self, report: &Value) {
        let number = |key: &str| report[key].as_f64();
        self.accuracies.extend(number("accuracy"));
        self.balanced_accuracies.extend(number("balanced_accuracy"));
        self.cpu_seconds.extend(number("cpu_seconds"));
    }

    /// Mean, lowest and highest accuracy.
    pub(crate) fn spread(&self) -> Option<[f64; 3]> {
        let accuracies = self.accuracies.iter().copied();
        let mean = accuracies.clone().sum::<f64>() / self.accuracies.len() as f64;
        Some([mean, accuracies.clone().reduce(f64::min)?, accuracies.reduce(f64::max)?])
    }

    fn text(&self) -> String {
        match self.spread() {
            Some([mean, low, high]) if self.accuracies.len() > 1 => {
                format!("{} ({} to {})", percent(mean), percent(low), percent(high))
            }
            Some([mean, ..]) => percent(mean),
            None => "-".into(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// Two starts, two numbers of labels, two draws.
    pub(crate) fn example() -> Report {
        let mut report = Report::new("1m".into());
        for (start, gain) in [("auto", 0.2), ("scratch", 0.0)] {
            for (labels, of_each) in [(10, Some(1)), (400, None)] {
                let mut point = Point::new(start, labels, of_each);
                for draw in [0.3, 0.5] {
                    let accuracy = draw + gain + labels as f64 / 4000.0;
                    point.add(&json!({"accuracy": accuracy, "balanced_accuracy": 0.1, "cpu_seconds": 9.0}));
                }
                report.points.push(point);
            }
        }
        report
    }

    #[test]
    fn a_table_has_a_line_for_each_number_of_labels() {
        let table = example().table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].contains("auto") && lines[0].ends_with("scratch"));
        assert!(lines[1].contains("10 (1 a class)") && lines[2].contains("400 (all)"), "{table}");
        assert!(lines[1].ends_with("40.2 % (30.2 % to 50.2 %)"), "{table}");
    }

    #[test]
    fn a_training_without_an_accuracy_adds_nothing() {
        let mut point = Point::new("auto", 1, None);
        point.add(&json!({"accuracy": null}));
        assert_eq!((point.spread(), point.text()), (None, "-".into()));
    }
}
