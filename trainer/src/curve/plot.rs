//! A curve as SVG: labels on a logarithmic axis, a line for each start, error bars from the lowest to the highest draw.

use std::fmt::Write;

use smalti_tools::markup::escape;

use super::report::{Point, Report};

/// The drawing and its margins, in its own units.
const SIZE: [f64; 2] = [640.0, 400.0];
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 60.0;
/// Colours of the starts, told apart by everybody (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Where numbers of labels and accuracies lie.
struct Axes {
    labels: [f64; 2],
    accuracy: [f64; 2],
}

impl Axes {
    fn of(points: &[Point]) -> Axes {
        let labels = points.iter().map(|point| point.labels.max(1) as f64);
        let spreads: Vec<[f64; 3]> = points.iter().filter_map(Point::spread).collect();
        let [low, high] = [labels.clone().fold(f64::MAX, f64::min), labels.fold(1.0, f64::max)];
        let least = spreads.iter().map(|[_, low, _]| *low).fold(1.0, f64::min);
        let most = spreads.iter().map(|[.., high]| *high).fold(0.0, f64::max);
        // Whole steps of ten percent around all of them.
        let accuracy = [(least * 10.0).floor() / 10.0, (most * 10.0).ceil() / 10.0];
        Axes {
            labels: [low.min(high), high],
            accuracy: if accuracy[0] < accuracy[1] { accuracy } else { [0.0, 1.0] },
        }
    }

    fn x(&self, labels: usize) -> f64 {
        let [low, high] = self.labels.map(f64::ln);
        let share = if high > low { ((labels.max(1) as f64).ln() - low) / (high - low) } else { 0.5 };
        LEFT + share * (SIZE[0] - LEFT - RIGHT)
    }

    fn y(&self, accuracy: f64) -> f64 {
        let [low, high] = self.accuracy;
        TOP + (high - accuracy) / (high - low) * (SIZE[1] - TOP - BOTTOM)
    }
}

/// The drawing of a report.
pub(super) fn svg(report: &Report) -> String {
    let (axes, [width, height]) = (Axes::of(&report.points), SIZE);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"accuracy by number of labels\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let [low, high] = axes.accuracy.map(|share| (share * 10.0).round() as usize);
    for tenth in low..=high {
        let y = axes.y(tenth as f64 / 10.0);
        _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
            width - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            10 * tenth
        );
    }
    let mut marks: Vec<usize> = report.points.iter().map(|point| point.labels).collect();
    marks.sort_unstable();
    marks.dedup();
    for labels in marks {
        let (x, y) = (axes.x(labels), height - BOTTOM + 18.0);
        _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{labels}</text>");
    }
    let middle = (LEFT + width - RIGHT) / 2.0;
    _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">labels</text>",
        height - BOTTOM + 36.0
    );
    for (i, start) in report.starts().iter().enumerate() {
        line(&mut svg, report, &axes, i, start);
    }
    svg + "</svg>\n"
}

/// The line of one start, its error bars, and its name below.
fn line(svg: &mut String, report: &Report, axes: &Axes, i: usize, start: &str) {
    let colour = COLOURS[i % COLOURS.len()];
    let mut path = String::new();
    for point in report.points.iter().filter(|point| point.start == start) {
        let Some([mean, low, high]) = point.spread() else { continue };
        let x = axes.x(point.labels);
        _ = write!(path, "{x:.1},{:.1} ", axes.y(mean));
        _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>",
            axes.y(low),
            axes.y(high),
            axes.y(mean)
        );
    }
    let (x, y) = (LEFT + 150.0 * i as f64, SIZE[1] - 8.0);
    _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
         <text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>",
        path.trim_end(),
        escape(start)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::report::tests::example;

    #[test]
    fn each_start_has_a_line_and_each_point_a_bar() {
        let drawn = svg(&example());
        assert_eq!((drawn.matches("<polyline").count(), drawn.matches("<circle").count()), (2, 4), "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        assert!(svg(&Report::new("1m".into())).ends_with("</svg>\n"));
        let mut hostile = example();
        hostile.points.iter_mut().for_each(|point| point.start = "<script>".into());
        assert!(!svg(&hostile).contains("<script>"));
    }
}
