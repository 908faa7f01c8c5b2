//! A curve as a chart: labels on a logarithmic axis, a line for each start, error bars from the lowest to the highest draw.

use super::report::{Point, Report};
use crate::report::chart::{Axis, Chart, Series};

/// The chart of a report.
pub(crate) fn chart(report: &Report) -> Chart {
    let mut marks: Vec<usize> = report.points.iter().map(|point| point.labels).collect();
    marks.sort_unstable();
    marks.dedup();
    let starts = report.starts();
    Chart {
        label: "accuracy by number of labels".into(),
        size: [640.0, 360.0],
        x: Axis {
            title: "labels".into(),
            log: true,
            marks: marks.into_iter().map(|labels| labels as f64).collect(),
            ..Axis::default()
        },
        y: Axis { percent: true, ..Axis::default() },
        series: starts.iter().enumerate().map(|(colour, start)| line(report, colour, start)).collect(),
    }
}

/// The line of one start.
fn line(report: &Report, colour: usize, start: &str) -> Series {
    let points = report.points.iter().filter(|point| point.start == start);
    let known: Vec<(f64, [f64; 3])> =
        points.filter_map(|point: &Point| Some((point.labels.max(1) as f64, point.spread()?))).collect();
    Series {
        name: start.to_owned(),
        colour,
        points: known.iter().map(|(labels, [mean, ..])| [*labels, *mean]).collect(),
        spreads: known.iter().map(|(_, [_, low, high])| [*low, *high]).collect(),
        dots: true,
        faint: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::report::tests::example;

    #[test]
    fn each_start_has_a_line_and_each_point_a_bar() {
        let drawn = chart(&example()).file();
        let count = |what: &str| drawn.matches(what).count();
        assert_eq!([count("<polyline"), count("<circle"), count("class=\"bar\"")], [2, 4, 4], "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        assert!(chart(&Report::new("1m".into())).file().ends_with("</svg>\n"));
        let mut hostile = example();
        hostile.points.iter_mut().for_each(|point| point.start = "<script>".into());
        assert!(!chart(&hostile).file().contains("<script>"));
    }
}
