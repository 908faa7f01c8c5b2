//! One page about a quantization, for people: self-contained HTML without scripts.

use std::fmt::Write;

use super::plot::{Bar, bars};
use super::{Budget, Method, Quantized, Row};
use crate::markup::escape;

/// What was measured of one model file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// What the page says.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The float model's name.
    pub name: &'a str,
    /// The command line.
    pub command: &'a str,
    /// How ranges were found.
    pub method: Method,
    /// What could be lost.
    pub budget: Budget,
    /// The result.
    pub quantized: &'a Quantized,
    /// The float model.
    pub before: Speed,
    /// The int8 model.
    pub after: Speed,
}

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8884; --bar: #3b7dd8; --float: #d9822b; --soft: #8889 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
td, th { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
td:first-child, th:first-child { text-align: left }
code { overflow-wrap: anywhere; font-size: .875rem } .note { opacity: .75; font-size: .875rem }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: currentColor }
.bar { fill: var(--bar) } .float { fill: var(--float) } .grid { stroke: var(--line) }
@media (max-width: 32rem) { td, th { padding-right: .4rem; font-size: .875rem } }
.name { text-anchor: end } .mark { text-anchor: middle; opacity: .7 } tr.kept td { color: var(--float) }
";

/// The page.
pub fn html(page: &Page<'_>) -> String {
    let name = escape(page.name);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name} in int8</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{name} in int8</h1>\n"
    );
    html += &summary(page);
    html += &before_after(page);
    html += &noise(&page.quantized.layers);
    html += &ranges(&page.quantized.layers);
    let _ =
        write!(html, "<h2>Command</h2>\n<p><code>{}</code></p>\n</body>\n</html>\n", escape(page.command));
    html
}

/// What was done, in a sentence or two.
fn summary(page: &Page<'_>) -> String {
    let Quantized { layers, samples, comparison, .. } = page.quantized;
    let float = layers.iter().filter(|row| row.kept_float).count();
    let budget = match comparison.accuracy_a {
        Some(_) => format!("{:.2} points of accuracy", 100.0 * page.budget.points),
        None => format!("{:.2} % changed answers", 100.0 * page.budget.flips),
    };
    format!(
        "<p>{} of {} layers run in int8, {float} stay float. Ranges by <code>{}</code> from {samples} images, \
         measured on {}; the budget was {budget}.</p>\n",
        layers.len() - float,
        layers.len(),
        page.method.name(),
        comparison.n,
    )
}

/// Float beside int8.
fn before_after(page: &Page<'_>) -> String {
    let found = &page.quantized.comparison;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let mib = |bytes: u64| format!("{:.2} MiB", bytes as f64 / 1_048_576.0);
    let ratio = |after: f64, before: f64| format!("× {:.2}", after / before.max(1e-9));
    let mut rows = Vec::new();
    if let (Some(float), Some(int8)) = (found.accuracy_a, found.accuracy_b) {
        rows.push([
            "accuracy".into(),
            percent(float),
            percent(int8),
            format!("{:+.2} points", 100.0 * (int8 - float)),
        ]);
    }
    rows.push([
        "same answers".into(),
        String::new(),
        percent(found.agreement),
        format!("{} differ", found.flips.len()),
    ]);
    rows.push([
        format!("cosine of the {}", found.cosine_of),
        String::new(),
        format!("{:.5}", found.cosine),
        String::new(),
    ]);
    let (before, after) = (page.before, page.after);
    let sizes = ratio(after.size_bytes as f64, before.size_bytes as f64);
    rows.push(["file".into(), mib(before.size_bytes), mib(after.size_bytes), sizes]);
    let times = [before.p50_ms, after.p50_ms].map(|ms| format!("{ms:.3} ms"));
    let [float, int8] = times;
    rows.push(["median latency".into(), float, int8, ratio(after.p50_ms, before.p50_ms)]);
    let head = ["", "float", "int8", "change"].map(String::from);
    format!("<h2>Before and after</h2>\n{}", table(&head, rows.iter().map(|row| (&row[..], false))))
}

/// The plot.
fn noise(layers: &[Row]) -> String {
    let most = layers.iter().map(|row| row.sqnr_db).fold(10.0, f64::max).min(60.0);
    let bar = |row: &'_ Row| (row.name.clone(), row.sqnr_db, row.kept_float);
    let named: Vec<_> = layers.iter().map(bar).collect();
    let all: Vec<_> =
        named.iter().map(|(name, value, marked)| Bar { name, value: *value, marked: *marked }).collect();
    format!(
        "<h2>Noise by layer</h2>\n<p class=\"note\">Signal to noise of each layer's output in dB, with its input and \
         weight quantized and all others float: longer is better, 6 dB are one bit. Layers kept float are \
         orange.</p>\n{}",
        bars(&all, most)
    )
}

/// The numbers behind.
fn ranges(layers: &[Row]) -> String {
    let row = |row: &Row| {
        let pair = |(low, high): (f32, f32)| format!("{low:.3} to {high:.3}");
        let cells = vec![
            row.name.clone(),
            format!("{} × {}", row.inputs, row.outputs),
            format!("{:.1}", row.sqnr_db),
            pair(row.seen),
            pair(row.range),
            format!("{:.6}", row.scale),
            row.zero_point.to_string(),
        ];
        (cells, row.kept_float)
    };
    let rows: Vec<_> = layers.iter().map(row).collect();
    let head = ["layer", "inputs × outputs", "dB", "seen", "range", "scale", "zero"].map(String::from);
    let table = table(&head, rows.iter().map(|(cells, kept)| (&cells[..], *kept)));
    format!("<h2>Ranges of the layers' inputs</h2>\n{table}")
}

/// A table; marked rows have another colour.
fn table<'a>(head: &[String], rows: impl Iterator<Item = (&'a [String], bool)>) -> String {
    let cells = |cells: &[String], tag: &str| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let mut html = format!("<div class=\"wide\"><table>\n<tr>{}</tr>\n", cells(head, "th"));
    for (row, marked) in rows {
        let class = if marked { " class=\"kept\"" } else { "" };
        let _ = writeln!(html, "<tr{class}>{}</tr>", cells(row, "td"));
    }
    html + "</table></div>\n"
}
