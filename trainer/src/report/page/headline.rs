//! The answer first: how good, from what, where it lies, what to type next; then what would help, and what competed.

use std::fmt::Write;

use smalti_tools::markup::{Row, escape, table, verbatim};

use super::{Section, bar};
use crate::console::out::{percent, seconds};
use crate::report::chart::short;
use crate::report::gather::RunReport;

/// The page's head.
pub(super) fn header(run: &RunReport, title: &str) -> String {
    let mut html = format!(
        "<p class=\"kind\">smalti {}</p>\n<h1>{}</h1>\n<p class=\"note\">{}</p>\n",
        run.command,
        escape(title),
        escape(&run.path.display().to_string())
    );
    if run.running {
        html += "<p class=\"running\">The run is at work. This page is written anew while it goes on.</p>\n";
    }
    html += "<dl class=\"facts\">\n";
    for (name, value, note, is_big) in facts(run) {
        let (class, note) = (
            if is_big { " class=\"big\"" } else { "" },
            if note.is_empty() { note } else { format!("<small>{}</small>", escape(&note)) },
        );
        _ = writeln!(html, "<div{class}><dt>{name}</dt><dd>{}{note}</dd></div>", escape(&value));
    }
    html += "</dl>\n";
    let next = &run.headline.next;
    if !next.is_empty() {
        html += "<p>Next:</p>\n";
        html += &verbatim(&next.join("\n"));
    }
    html
}

/// What the head says: name, value, what it means, and whether it is a main one.
fn facts(run: &RunReport) -> Vec<(&'static str, String, String, bool)> {
    let head = &run.headline;
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>, note: String, is_big| {
        facts.extend(value.map(|value| (name, value, note, is_big)));
    };
    let images = head.split.as_ref().map(|split| format!("of {} {split} images", head.n)).unwrap_or_default();
    let interval = head
        .interval
        .map(|[low, high]| format!("{images}; 95 % interval {:.1} to {}", 100.0 * low, percent(high)));
    add("Accuracy", head.accuracy.map(percent), interval.unwrap_or(images), true);
    add("Balanced accuracy", head.balanced_accuracy.map(percent), "mean over classes".into(), true);
    if head.accuracy.is_none() {
        let loss = head.loss.map(|[first, last]| (short(last), format!("{} at the beginning", short(first))));
        let (value, note) = loss.map_or((None, String::new()), |(value, note)| (Some(value), note));
        add("Loss", value, note, true);
    }
    let note = "of labelled images by their neighbours, without learning from labels";
    add("Nearest neighbours", head.neighbours.map(percent), note.into(), true);
    let decided = if head.chosen.is_some() { "which decided what is chosen" } else { "best of all epochs" };
    add("On held-out labelled images", head.validation.map(percent), decided.into(), false);
    let start = head.start.as_deref();
    add(
        "Chosen",
        head.chosen.clone(),
        start.map(|start| format!("start: {start}")).unwrap_or_default(),
        false,
    );
    let labels = head.labels.map(|labels| format!("{labels} labels"));
    let of = head
        .images
        .zip(head.classes)
        .map(|(images, classes)| format!("of {images} images, {classes} classes"));
    add("Learned from", labels, of.unwrap_or_default(), false);
    let time = head.cpu_seconds.map(|time| (seconds(time), "of CPU time, all threads".to_owned()));
    let clock =
        (head.seconds > 0.0).then(|| (seconds(head.seconds), format!("of training, {} steps", head.steps)));
    let (time, note) = time.or(clock).map_or((None, String::new()), |(time, note)| (Some(time), note));
    add("Time", time, note, false);
    add("Parameters", head.parameters.map(|n| short(n as f64)), String::new(), false);
    for file in &run.files {
        let size = format!("{:.2} MB", file.bytes as f64 / 1e6);
        add(
            if file.is_int8 { "Model, int8" } else { "Model" },
            Some(size),
            file.path.display().to_string(),
            false,
        );
    }
    facts
}

/// What would help most.
pub(super) fn advice(run: &RunReport) -> Option<Section> {
    if run.advice.is_empty() {
        return None;
    }
    let items: String = run.advice.iter().map(|text| format!("<li>{}</li>\n", escape(text))).collect();
    Some(Section::new("advice", "What would help most", format!("<ul class=\"plain\">\n{items}</ul>\n")))
}

/// The candidates that competed.
pub(super) fn candidates(run: &RunReport) -> Option<Section> {
    if run.candidates.is_empty() {
        return None;
    }
    let rows = run.candidates.iter().map(|candidate| Row {
        cells: vec![
            escape(&candidate.name),
            bar(candidate.validation, &percent(candidate.validation)),
            candidate.weight.map_or_else(String::new, percent),
        ],
        class: "",
    });
    let chosen = run.headline.chosen.as_deref().unwrap_or_default();
    let body = format!(
        "<p>Each was measured on labelled images that were held out from its training. Chosen: <strong>{}</strong>. Of equal ones \
         the first wins; an answer of several is taken where it is better, or at most five points worse and most images have no \
         label, because then they are learned from, too.</p>\n{}",
        escape(chosen),
        table(&["candidate", "right on held-out images", "weight in the common answer"], rows)
    );
    Some(Section::new("candidates", "What competed", body))
}
