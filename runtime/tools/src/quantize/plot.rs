//! Bars as SVG, inside the page, in the page's colours.

use std::fmt::Write;

use crate::markup::escape;

/// Height of a bar with the space below, and width of the drawing, in its own units.
const ROW: usize = 22;
const WIDTH: usize = 640;
/// Where bars begin and how far they reach at most.
const LEFT: usize = 250;
const REACH: usize = 320;
/// The longest name that is written out, in characters.
const NAME: usize = 34;

/// One bar.
pub(super) struct Bar<'a> {
    pub(super) name: &'a str,
    /// In dB.
    pub(super) value: f64,
    /// Drawn in the other colour.
    pub(super) marked: bool,
}

/// Horizontal bars from 0 to `most` dB, one below the other.
pub(super) fn bars(bars: &[Bar<'_>], most: f64) -> String {
    let height = ROW * bars.len() + ROW;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"signal to noise by layer\">\n"
    );
    for mark in (0..=most as usize).step_by(10) {
        let x = LEFT + REACH * mark / (most.max(1.0) as usize);
        let (end, text) = (height - ROW, height - 6);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{end}\"/><text class=\"mark\" x=\"{x}\" y=\"{text}\">{mark}</text>"
        );
    }
    for (i, bar) in bars.iter().enumerate() {
        let (y, length) = (ROW * i, REACH as f64 * (bar.value / most.max(1.0)).clamp(0.0, 1.0));
        let (text, value_at) = (y + 15, LEFT as f64 + length + 6.0);
        let (class, note) = if bar.marked { ("bar float", " float") } else { ("bar", "") };
        let (name, before) = (escape(&shortened(bar.name)), LEFT - 8);
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{before}\" y=\"{text}\">{name}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\"/>\
             <text x=\"{value_at:.1}\" y=\"{text}\">{:.1}{note}</text>",
            y + 3,
            ROW - 6,
            bar.value
        );
    }
    svg + "</svg>\n"
}

/// The end of a long name, which tells more than its beginning.
fn shortened(name: &str) -> String {
    match name.chars().count().checked_sub(NAME) {
        None | Some(0) => name.to_owned(),
        Some(over) => format!("…{}", name.chars().skip(over + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_cut() {
        let long = format!("<script>{}", "x".repeat(100));
        let svg = bars(
            &[
                Bar { name: "<b>&\"", value: 20.0, marked: true },
                Bar { name: &long, value: -3.0, marked: false },
            ],
            40.0,
        );
        assert!(
            svg.contains("&lt;b&gt;&amp;&quot;") && !svg.contains("<b>") && !svg.contains("<script"),
            "{svg}"
        );
        assert!(
            svg.contains("width=\"160.0\"") && svg.contains("width=\"0.0\"") && svg.contains("20.0 float"),
            "{svg}"
        );
        assert!(bars(&[], 0.0).ends_with("</svg>\n"));
        assert_eq!(shortened(&"é".repeat(40)).chars().count(), NAME);
    }
}
