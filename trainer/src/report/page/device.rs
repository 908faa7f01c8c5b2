//! The model files: float next to int8; and what they say of themselves.

use smalti_tools::markup::{Row, escape, table};

use super::Section;
use crate::console::out::percent;
use crate::report::gather::RunReport;

/// Float next to int8.
pub(super) fn section(run: &RunReport) -> Option<Section> {
    let float = run.files.iter().find(|file| !file.is_int8)?;
    let rows = run.files.iter().map(|file| {
        let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
        let ratio = file.bytes as f64 / float.bytes.max(1) as f64;
        Row::of_texts([
            if file.is_int8 { "int8" } else { "float" }.to_owned(),
            format!("{:.2} MB", file.bytes as f64 / 1e6),
            if file.is_int8 { format!("× {ratio:.2}") } else { String::new() },
            share(file.accuracy),
            share(file.agreement),
            file.path.display().to_string(),
        ])
    });
    let mut body = table(&["", "size", "of float", "accuracy", "same answers", "file"], rows);
    if let Some(latency) = run.latency_ms {
        let agreement = run.runtime_agreement.map(|share| {
            format!("; trainer and runtime put {} of the images into the same class", percent(share))
        });
        body += &format!(
            "<p>In the device's runtime an image takes {latency:.2} ms on one thread of this machine (median){}.</p>\n",
            agreement.unwrap_or_default()
        );
    }
    body += "<p class=\"note\">Both hold weights, preprocessing, class names and test vectors: a device needs nothing else.</p>\n";
    Some(Section::new("device", "On the device", body))
}

/// The model card.
pub(super) fn card(run: &RunReport) -> Option<Section> {
    let card = run.card.shown()?;
    let rows =
        card.lines.iter().map(|(what, how)| Row { cells: vec![escape(what), escape(how)], class: "card" });
    let file = run.files.first().map(|file| file.path.display().to_string()).unwrap_or_default();
    let body = format!(
        "<p>What <code>{}</code> says of itself. A person who gets the file should also hear where it fails: see the mistakes \
         above.</p>\n{}",
        escape(&file),
        table(&["what", "value"], rows)
    );
    Some(Section::new("card", "Model card", body))
}
