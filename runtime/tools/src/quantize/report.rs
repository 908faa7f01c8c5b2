//! One page about a quantization, for people: self-contained HTML without scripts.

use super::plot::{Bar, bars};
use super::{Budget, Method, Quantized, Row};
use crate::markup::{self, escape};

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
.bar { fill: var(--accent) } .float { fill: var(--warm) } .grid { stroke: var(--line) }
.name { text-anchor: end } .mark { text-anchor: middle; fill: var(--soft) } tr.kept td, tr.kept th { color: var(--warm) }
";

/// The page.
pub fn html(page: &Page<'_>) -> String {
    let title = format!("{} in int8", page.name);
    let body = format!(
        "<h1>{}</h1>\n{}{}{}{}<h2>Command</h2>\n<p><code>{}</code></p>\n",
        escape(&title),
        summary(page),
        before_after(page),
        noise(&page.quantized.layers),
        ranges(&page.quantized.layers),
        escape(page.command)
    );
    markup::Page { title: &title, style: STYLE, body: &body, ..markup::Page::default() }.html()
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
    let rows = rows.iter().map(markup::Row::of_texts);
    format!("<h2>Before and after</h2>\n{}", markup::table(&["", "float", "int8", "change"], rows))
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
        let cells = [
            row.name.clone(),
            format!("{} × {}", row.inputs, row.outputs),
            format!("{:.1}", row.sqnr_db),
            pair(row.seen),
            pair(row.range),
            format!("{:.6}", row.scale),
            row.zero_point.to_string(),
        ];
        let class = if row.kept_float { "kept" } else { "" };
        markup::Row { class, ..markup::Row::of_texts(cells) }
    };
    let head = ["layer", "inputs × outputs", "dB", "seen", "range", "scale", "zero"];
    format!("<h2>Ranges of the layers' inputs</h2>\n{}", markup::table(&head, layers.iter().map(row)))
}
