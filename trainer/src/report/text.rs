//! The headline for a terminal, with curves a line high.

use std::fmt::Write;

use super::Reports;
use super::chart::short;
use super::gather::RunReport;
use crate::console::out::{interval, percent, seconds};

/// Columns of a sparkline.
const COLUMNS: usize = 40;
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// All runs, one after the other, and tables of learning curves.
pub(super) fn text(reports: &Reports) -> String {
    let runs = reports.whole.iter().chain(&reports.compared);
    let mut parts: Vec<String> = runs.map(about).collect();
    parts.extend(reports.curves.iter().map(|(path, curve)| format!("{}\n{}", path.display(), curve.table())));
    parts.join("\n\n")
}

fn about(run: &RunReport) -> String {
    let head = &run.headline;
    let mut text = format!("{} (smalti {})", run.path.display(), run.command);
    if run.running {
        text += ", at work";
    }
    if let Some(accuracy) = head.accuracy {
        _ = write!(text, "\naccuracy {}", percent(accuracy));
        if let Some(split) = &head.split {
            _ = write!(text, " on {} {split} images", head.n);
        }
        if let Some(found) = head.interval {
            _ = write!(text, " ({})", interval(found));
        }
        if let Some(balanced) = head.balanced_accuracy {
            _ = write!(text, ", balanced {}", percent(balanced));
        }
    }
    if let Some(validation) = head.validation {
        _ = write!(text, "\naccuracy {} on held-out labelled images", percent(validation));
    }
    if let Some(chosen) = &head.chosen {
        _ = write!(text, "\n{chosen}");
    }
    if let Some(answers) = run.answers.shown() {
        let error = percent(answers.reliability.ece);
        _ = write!(
            text,
            "\n{} of {} wrong; expected calibration error {error}",
            answers.wrong, answers.evaluation.n
        );
    }
    for history in &run.stages {
        if let Some([first, last]) = history.loss_ends() {
            let line = sparkline(&history.loss);
            _ = write!(text, "\n{:<12} loss {line} {} → {}", history.name, short(first), short(last));
        }
        for (name, points) in [("validation", &history.validation), ("neighbours", &history.neighbours)] {
            if let Some([_, last]) = points.last() {
                _ = write!(text, "\n{:<12} {name} {} {}", history.name, sparkline(points), percent(*last));
            }
        }
        let time = seconds(history.seconds);
        _ = write!(text, "\n{:<12} {} steps in {time}", history.name, history.steps);
        if history.damaged > 0 {
            _ = write!(text, ", {} damaged lines left out", history.damaged);
        }
    }
    for advice in &run.advice {
        _ = write!(text, "\n- {advice}");
    }
    for command in &head.next {
        _ = write!(text, "\nnext: {command}");
    }
    text
}

/// A curve in [`COLUMNS`] characters, from its lowest value to its highest.
fn sparkline(points: &[[f64; 2]]) -> String {
    let group = points.len().div_ceil(COLUMNS).max(1);
    let means: Vec<f64> = points
        .chunks(group)
        .map(|group| group.iter().map(|point| point[1]).sum::<f64>() / group.len() as f64)
        .collect();
    let [low, high] = [
        means.iter().copied().fold(f64::INFINITY, f64::min),
        means.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    ];
    let step = |value: f64| ((value - low) / (high - low).max(1e-300) * 7.0).round().clamp(0.0, 7.0) as usize;
    means.into_iter().map(|value| STEPS.get(step(value)).copied().unwrap_or(' ')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_rises_as_its_values_do() {
        let points: Vec<[f64; 2]> = (0..8).map(|i| [f64::from(i), f64::from(i)]).collect();
        assert_eq!(sparkline(&points), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[[0.0, 2.0], [1.0, 2.0]]), "▁▁");
        assert_eq!(sparkline(&[]), "");
        let many: Vec<[f64; 2]> = (0..1000).map(|i| [f64::from(i), -f64::from(i)]).collect();
        assert_eq!(sparkline(&many).chars().count(), COLUMNS);
    }
}
