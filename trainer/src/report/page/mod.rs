//! The page: sections in the order in which a person asks, each in a file of its own.

mod answers;
mod compared;
mod curves;
mod data;
mod device;
mod headline;
mod map;
mod settings;

use std::fmt::Write;

use smalti_tools::markup::{self, escape};

use super::Reports;
use super::chart;
use super::gather::RunReport;

/// The style of this page, besides what all pages and charts share.
const STYLE: &str = include_str!("style.css");
/// Shows the picture of the point that the pointer is on.
const SCRIPT: &str = include_str!("peek.js");

/// A section: its place in the page, its heading, its markup.
struct Section {
    id: &'static str,
    title: String,
    body: String,
}

impl Section {
    fn new(id: &'static str, title: &str, body: String) -> Section {
        Section { id, title: title.to_owned(), body }
    }
}

/// The page about these runs.
pub(super) fn html(reports: &Reports, reload: Option<u32>) -> String {
    let mut sections = Vec::new();
    let mut body = String::from("<header>\n");
    match &reports.whole {
        Some(run) => body += &headline::header(run, &reports.title),
        None => _ = writeln!(body, "<h1>{}</h1>", escape(&reports.title)),
    }
    body += "</header>\n";
    if let Some(run) = &reports.whole {
        sections.extend(about(run));
    }
    // Next to one run that is shown whole, others come after what competed in it.
    let place = sections.iter().position(|section| section.id == "curves").unwrap_or(sections.len());
    sections.splice(place..place, compared::section(reports));
    if sections.len() > 2 {
        body += "<nav aria-label=\"Sections\"><ul>\n";
        for Section { id, title, .. } in &sections {
            _ = writeln!(body, "<li><a href=\"#{id}\">{}</a></li>", escape(title));
        }
        body += "</ul></nav>\n";
    }
    body += "<main>\n";
    for Section { id, title, body: part } in &sections {
        _ = writeln!(body, "<section id=\"{id}\">\n<h2>{}</h2>\n{part}</section>", escape(title));
    }
    if let Some(run) = &reports.whole {
        body += &left_out(run);
    }
    let version = env!("CARGO_PKG_VERSION");
    _ = write!(
        body,
        "</main>\n<footer><p class=\"note\">Written by smalti {version}. This page is one file: nothing is loaded from a \
         network.</p></footer>\n"
    );
    if reports.whole.as_ref().is_some_and(|run| run.map.shown().is_some()) {
        _ = write!(body, "<script>\n{SCRIPT}</script>\n");
    }
    // A number and its sign stay on one line.
    let body = body.replace(" %", "\u{a0}%");
    let (title, style) = (format!("{}: smalti report", reports.title), format!("{}{STYLE}", chart::STYLE));
    markup::Page { title: &title, style: &style, reload, body: &body }.html()
}

/// The sections about one run.
fn about(run: &RunReport) -> Vec<Section> {
    let sections = [
        headline::advice(run),
        answers::section(run),
        answers::mistakes(run),
        answers::suspects(run),
        map::section(run),
        headline::candidates(run),
        curves::section(run),
        curves::reconstructions(run),
        data::section(run),
        device::section(run),
        device::card(run),
        settings::section(run),
    ];
    sections.into_iter().flatten().collect()
}

/// What the page does not show, and why.
fn left_out(run: &RunReport) -> String {
    let parts = [
        ("the images", run.data.left_out()),
        ("accuracy and mistakes", run.answers.left_out()),
        ("the map of embeddings", run.map.left_out()),
        ("the model card", run.card.left_out()),
    ];
    let known = parts.iter().filter_map(|(what, why)| Some((what, why.as_ref()?)));
    let items: String = known.map(|(what, why)| format!("<li>{what}: {}</li>\n", escape(why))).collect();
    if items.is_empty() {
        return items;
    }
    format!("<section id=\"left-out\">\n<h2>Left out</h2>\n<ul class=\"plain\">\n{items}</ul>\n</section>\n")
}

/// A figure with a caption.
fn figure(picture: &str, caption: &str) -> String {
    format!("<figure>\n{picture}<figcaption>{caption}</figcaption>\n</figure>\n")
}

/// A bar as long as a share, with the number beside it.
fn bar(share: f64, text: &str) -> String {
    format!(
        "<span class=\"meter\"><span style=\"width:{:.1}%\"></span></span> {}",
        100.0 * share.clamp(0.0, 1.0),
        escape(text)
    )
}
