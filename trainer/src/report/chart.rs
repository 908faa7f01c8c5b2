//! Charts as SVG: lines over two axes, in the page's colours, or as a file of its own.

use std::fmt::Write;

use smalti_tools::markup::escape;

/// Margins around the plot, in the drawing's own units.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
/// Height of a line of the legend, and width that an entry has at least.
const LEGEND: f64 = 18.0;
/// Colours that there are; of more series they come again.
pub(crate) const COLOURS: usize = 12;

/// The style of charts: colours that everybody can tell apart (after Okabe and Ito), on light and dark paper.
pub(crate) const STYLE: &str = "\
:root { --s0: #0b63a5; --s1: #c2500a; --s2: #00795a; --s3: #a8437f; --s4: #8a6a00; --s5: #3d9ad1; --s6: #6a51a3; --s7: #c0392b;
  --s8: #4f9a1f; --s9: #7a4a2a; --s10: #1f9e9e; --s11: #6b6b6b }
@media (prefers-color-scheme: dark) { :root { --s0: #6fb5ee; --s1: #f08a4b; --s2: #3dbf98; --s3: #de8fc0; --s4: #e0b93a;
  --s5: #a9d9f7; --s6: #b3a2e8; --s7: #f2786b; --s8: #9ad06a; --s9: #c99b76; --s10: #5fd6d6; --s11: #b4b4b4 } }
.c0 { color: var(--s0) } .c1 { color: var(--s1) } .c2 { color: var(--s2) } .c3 { color: var(--s3) }
.c4 { color: var(--s4) } .c5 { color: var(--s5) } .c6 { color: var(--s6) } .c7 { color: var(--s7) }
.c8 { color: var(--s8) } .c9 { color: var(--s9) } .c10 { color: var(--s10) } .c11 { color: var(--s11) }
svg text { fill: var(--soft) } svg .end { text-anchor: end } svg .mid { text-anchor: middle }
svg .grid { stroke: var(--line); stroke-width: 1 }
svg .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round }
svg .faint { fill: none; stroke: currentColor; stroke-width: 1; opacity: .3 }
svg .dot { fill: currentColor } svg .bar { stroke: currentColor; stroke-width: 2 } svg .key { fill: var(--ink) }
";

/// How an axis runs, and what stands along it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Axis {
    pub(crate) title: String,
    /// As a share, in percent.
    pub(crate) percent: bool,
    /// Of whole numbers.
    pub(crate) whole: bool,
    /// By its logarithm.
    pub(crate) log: bool,
    /// From where to where, where the values do not say it.
    pub(crate) range: Option<[f64; 2]>,
    /// The values that are written out, where they are not round ones.
    pub(crate) marks: Vec<f64>,
}

/// A line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// In the legend, unless it is empty.
    pub(crate) name: String,
    pub(crate) colour: usize,
    pub(crate) points: Vec<[f64; 2]>,
    /// From where to where each point may lie.
    pub(crate) spreads: Vec<[f64; 2]>,
    /// Drawn thin, behind others.
    pub(crate) faint: bool,
    /// With a dot on each point.
    pub(crate) dots: bool,
}

/// A chart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chart {
    /// What it shows, for those who cannot see it.
    pub(crate) label: String,
    pub(crate) size: [f64; 2],
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// An axis with its range, from a place to another.
struct Scale<'a> {
    axis: &'a Axis,
    range: [f64; 2],
    places: [f64; 2],
}

impl Scale<'_> {
    fn of<'a>(axis: &'a Axis, values: impl Iterator<Item = f64> + Clone, places: [f64; 2]) -> Scale<'a> {
        let values = values.filter(|value| value.is_finite() && (!axis.log || *value > 0.0));
        let found = [values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max)];
        let mut range = axis.range.unwrap_or(if found[0] <= found[1] { found } else { [1.0, 2.0] });
        if range[1] - range[0] <= 1e-12 * range[1].abs().max(1e-12) {
            range =
                if axis.log { [range[0] / 1.5, range[1] * 1.5] } else { [range[0] - 0.5, range[1] + 0.5] };
        }
        Scale { axis, range, places }
    }

    fn place(&self, value: f64) -> f64 {
        let of = |value: f64| if self.axis.log { value.max(1e-300).ln() } else { value };
        let [low, high] = self.range.map(of);
        let share = ((of(value) - low) / (high - low)).clamp(0.0, 1.0);
        self.places[0] + share * (self.places[1] - self.places[0])
    }

    /// Round values within the range, about `count` of them.
    fn marks(&self, count: usize) -> Vec<f64> {
        if !self.axis.marks.is_empty() {
            return self.axis.marks.clone();
        }
        let [low, high] = self.range;
        if self.axis.log {
            let powers = low.log10().ceil() as i32..=high.log10().floor() as i32;
            return powers.map(|power| 10f64.powi(power)).collect();
        }
        let rough = (high - low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough).max(if self.axis.whole { 1.0 } else { 0.0 });
        let first = (low / step - 1e-9).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|mark| *mark <= high + 1e-9 * step).take(20).collect()
    }

    fn text(&self, mark: f64) -> String {
        if self.axis.percent {
            return format!("{} %", short(100.0 * mark));
        }
        short(mark)
    }
}

/// A number as short as it can be read.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size == 0.0 => return "0".into(),
        _ if size >= 1e6 => return format!("{}M", short(value / 1e6)),
        _ if size >= 1e4 => return format!("{}k", short(value / 1e3)),
        _ if size < 1e-3 => return format!("{value:.0e}"),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

impl Chart {
    /// The drawing inside a page that has [`STYLE`].
    pub(crate) fn svg(&self) -> String {
        self.draw("")
    }

    /// The drawing as a file.
    pub(crate) fn file(&self) -> String {
        let style = "svg { font: 12px system-ui, sans-serif; background: var(--paper) }\n\
                     :root { --paper: #fff; --ink: #1d2226; --soft: #59646e; --line: #d8dde2 }\n\
                     @media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e4e7ea; --soft: #a0abb5; --line: #333b43 } }\n";
        self.draw(&format!("<style>\n{style}{STYLE}</style>\n"))
    }

    fn draw(&self, head: &str) -> String {
        let [width, plot_height] = self.size;
        let named: Vec<&Series> = self.series.iter().filter(|series| !series.name.is_empty()).collect();
        let legend = if named.len() > 1 { self.legend(&named) } else { (String::new(), 0.0) };
        let height = plot_height + legend.1;
        let all = || self.series.iter().flat_map(|series| &series.points);
        let spreads = || self.series.iter().flat_map(|series| series.spreads.iter().flatten());
        let x = Scale::of(&self.x, all().map(|point| point[0]), [LEFT, width - RIGHT]);
        let y = Scale::of(
            &self.y,
            all().map(|point| point[1]).chain(spreads().copied()),
            [plot_height - BOTTOM, TOP],
        );
        let xmlns = if head.is_empty() { "" } else { "xmlns=\"http://www.w3.org/2000/svg\" " };
        let mut svg = format!(
            "<svg {xmlns}viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n{head}",
            escape(&self.label)
        );
        self.axes(&mut svg, &x, &y);
        for series in
            self.series.iter().filter(|series| series.faint).chain(self.series.iter().filter(|s| !s.faint))
        {
            series.draw(&mut svg, &x, &y);
        }
        svg + &legend.0 + "</svg>\n"
    }

    fn axes(&self, svg: &mut String, x: &Scale<'_>, y: &Scale<'_>) {
        let ([left, right], [bottom, _]) = (x.places, y.places);
        for mark in y.marks(4) {
            let at = y.place(mark);
            _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                left - 6.0,
                at + 4.0,
                y.text(mark)
            );
        }
        for mark in x.marks(5) {
            _ = writeln!(
                svg,
                "<text class=\"mid\" x=\"{:.1}\" y=\"{}\">{}</text>",
                x.place(mark),
                bottom + 16.0,
                x.text(mark)
            );
        }
        let middle = (left + right) / 2.0;
        _ = writeln!(
            svg,
            "<text class=\"mid\" x=\"{middle}\" y=\"{}\">{}</text>",
            bottom + 33.0,
            escape(&self.x.title)
        );
    }

    /// The names of the series below the plot, in columns, and the height that they take.
    fn legend(&self, named: &[&Series]) -> (String, f64) {
        let longest = named.iter().map(|series| series.name.chars().count()).max().unwrap_or(0) as f64;
        let [width, top] = self.size;
        let columns = ((width - LEFT) / (7.0 * longest + 34.0)).floor().clamp(1.0, named.len() as f64);
        let mut svg = String::new();
        for (i, series) in named.iter().enumerate() {
            let column = (i as f64) % columns;
            let (x, y) = (
                LEFT + column * (width - LEFT) / columns,
                top + LEGEND * (i as f64 / columns).floor() + 10.0,
            );
            _ = writeln!(
                svg,
                "<g class=\"c{}\"><line class=\"line\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\"/>\
                 <text class=\"key\" x=\"{:.1}\" y=\"{}\">{}</text></g>",
                series.colour % COLOURS,
                x + 16.0,
                x + 22.0,
                y + 4.0,
                escape(&series.name)
            );
        }
        (svg, LEGEND * (named.len() as f64 / columns).ceil() + 6.0)
    }
}

impl Series {
    fn draw(&self, svg: &mut String, x: &Scale<'_>, y: &Scale<'_>) {
        let class = if self.faint { "faint" } else { "line" };
        let is_drawn = |point: &&[f64; 2]| point.iter().all(|value| value.is_finite());
        _ = write!(svg, "<g class=\"c{}\">", self.colour % COLOURS);
        if self.points.len() > 1 {
            let points = self.points.iter().filter(is_drawn);
            let places: Vec<String> =
                points.map(|point| format!("{:.1},{:.1}", x.place(point[0]), y.place(point[1]))).collect();
            _ = write!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", places.join(" "));
        }
        for (point, [low, high]) in self.points.iter().zip(&self.spreads) {
            let at = x.place(point[0]);
            _ = write!(
                svg,
                "<line class=\"bar\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y.place(*low),
                y.place(*high)
            );
        }
        if self.dots || self.points.len() == 1 {
            for point in self.points.iter().filter(is_drawn) {
                _ = write!(
                    svg,
                    "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}, {}</title></circle>",
                    x.place(point[0]),
                    y.place(point[1]),
                    x.text(point[0]),
                    if y.axis.percent { format!("{:.1} %", 100.0 * point[1]) } else { y.text(point[1]) }
                );
            }
        }
        *svg += "</g>\n";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_line_for_each_series_and_no_number_that_is_none() {
        let series =
            |name: &str, points: Vec<[f64; 2]>| Series { name: name.into(), points, ..Series::default() };
        let chart = Chart {
            label: "<b>".into(),
            size: [400.0, 220.0],
            series: vec![
                series("<script>", vec![[0.0, 1.0], [10.0, f64::NAN], [20.0, 3.0]]),
                series("b", vec![[5.0, 2.0]]),
                series("", Vec::new()),
            ],
            ..Chart::default()
        };
        for svg in [chart.svg(), chart.file(), Chart { size: [400.0, 220.0], ..Chart::default() }.svg()] {
            assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("<script>"), "{svg}");
        }
        let svg = chart.svg();
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (1, 1), "{svg}");
        assert!(svg.contains("points=\"52.0,180.0 378.0,14.0\""), "{svg}");
    }

    #[test]
    fn marks_are_round() {
        let marks = |low: f64, high: f64, log: bool| {
            let axis = Axis { log, ..Axis::default() };
            Scale::of(&axis, [low, high].into_iter(), [0.0, 1.0]).marks(4)
        };
        assert_eq!(marks(0.0, 1.0, false), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(marks(3.0, 97.0, false), [25.0, 50.0, 75.0]);
        assert_eq!(marks(0.02, 300.0, true), [0.1, 1.0, 10.0, 100.0]);
        let whole = Axis { whole: true, ..Axis::default() };
        assert_eq!(Scale::of(&whole, [1.0, 3.0].into_iter(), [0.0, 1.0]).marks(4), [1.0, 2.0, 3.0]);
        assert!(marks(5.0, 5.0, false).len() > 2);
        let texts = [0.0, 0.25, 1.0, 12.5, 1500.0, 25_000.0, 2e6, 0.0001].map(short);
        assert_eq!(texts, ["0", "0.25", "1", "12.5", "1500", "25k", "2M", "1e-4"]);
    }
}
