//! How training went: loss, learning rate, throughput, validation; and reconstructions over time.

use std::fmt::Write;

use smalti_tools::markup::escape;

use super::{Section, figure};
use crate::report::chart::{Axis, Chart, Series};
use crate::report::gather::RunReport;
use crate::report::history::{History, smooth};

/// Charts in two columns.
const SIZE: [f64; 2] = [400.0, 210.0];

/// The curves of all stages.
pub(super) fn section(run: &RunReport) -> Option<Section> {
    let stages: Vec<&History> = run.stages.iter().filter(|history| history.steps > 0).collect();
    let mut body = String::new();
    for history in &stages {
        if stages.len() > 1 {
            _ = writeln!(body, "<h3>{}</h3>", escape(&history.name));
        }
        body += &charts(history);
    }
    (!stages.is_empty()).then(|| Section::new("curves", "Training", body))
}

fn charts(history: &History) -> String {
    let line = |points: &[[f64; 2]], faint, dots| Series {
        points: points.to_vec(),
        faint,
        dots,
        ..Series::default()
    };
    let chart = |label: &str, percent, series: Vec<Series>| Chart {
        label: format!("{label} by step"),
        size: SIZE,
        x: Axis { title: "step".into(), whole: true, ..Axis::default() },
        y: Axis { percent, ..Axis::default() },
        series,
    };
    let mut html = String::from("<div class=\"pair\">\n");
    if !history.loss.is_empty() {
        let series = vec![line(&history.loss, true, false), line(&smooth(&history.loss), false, false)];
        html += &figure(&chart("loss", false, series).svg(), "Loss, and its running mean.");
    }
    let scores = [
        (&history.validation, "validation accuracy", "Accuracy on validation images, after each epoch."),
        (
            &history.neighbours,
            "accuracy of neighbours",
            "Labelled images whose nearest neighbours are of their class.",
        ),
    ];
    for (points, label, caption) in scores.into_iter().filter(|(points, ..)| !points.is_empty()) {
        html += &figure(&chart(label, true, vec![line(points, false, points.len() <= 40)]).svg(), caption);
    }
    if !history.lr.is_empty() {
        html += &figure(
            &chart("learning rate", false, vec![line(&history.lr, false, false)]).svg(),
            "Learning rate.",
        );
    }
    if !history.images_per_s.is_empty() {
        let series = vec![
            line(&history.images_per_s, true, false),
            line(&smooth(&history.images_per_s), false, false),
        ];
        html += &figure(&chart("throughput", false, series).svg(), "Images a second.");
    }
    html += "</div>\n";
    if history.damaged > 0 {
        _ = writeln!(
            html,
            "<p class=\"note\">{} damaged {} of metrics.jsonl left out.</p>",
            history.damaged,
            if history.damaged == 1 { "line" } else { "lines" }
        );
    }
    html
}

/// What the autoencoder made of hidden patches.
pub(super) fn reconstructions(run: &RunReport) -> Option<Section> {
    if run.reconstructions.is_empty() {
        return None;
    }
    let mut body = String::from(
        "<p>Each row is one image: as it is, what the model saw of it, and what it made of the rest.</p>\n<div class=\"recon\">\n",
    );
    for (step, uri) in &run.reconstructions {
        let picture = format!("<img src=\"{uri}\" alt=\"reconstructions at step {step}\" />\n");
        body += &figure(&picture, &format!("step {step}"));
    }
    Some(Section::new("reconstructions", "Reconstructions", body + "</div>\n"))
}
