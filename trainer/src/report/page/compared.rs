//! Several runs: side by side, their curves over one another, and learning curves.

use smalti_tools::markup::{Row, escape, table, verbatim};

use super::{Section, figure};
use crate::console::out::{percent, seconds};
use crate::curve::plot;
use crate::report::Reports;
use crate::report::chart::{Axis, Chart, Series, short};
use crate::report::gather::RunReport;
use crate::report::history::smooth;

pub(super) fn section(reports: &Reports) -> Vec<Section> {
    let mut sections = Vec::new();
    if reports.compared.len() > 1 {
        let mut body = side_by_side(&reports.compared);
        body += &by_labels(&reports.compared);
        body += &over_one_another(&reports.compared);
        sections.push(Section::new("compared", "Side by side", body));
    }
    for (path, curve) in &reports.curves {
        let caption = "Accuracy by number of labels, for each start: mean over draws of labels, and the lowest and the highest of them.";
        let mut body = format!("<p><code>{}</code></p>\n", escape(&path.display().to_string()));
        body += &figure(&plot::chart(curve).svg(), caption);
        body += &verbatim(&curve.table());
        sections.push(Section::new("labels", "What more labels bring", body));
    }
    sections
}

fn side_by_side(runs: &[RunReport]) -> String {
    let rows = runs.iter().map(|run| {
        let head = &run.headline;
        let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
        let interval = head
            .interval
            .map_or_else(String::new, |[low, high]| format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high));
        let time =
            head.cpu_seconds.map_or_else(|| seconds(head.seconds), |time| format!("{} CPU", seconds(time)));
        let how = match &head.chosen {
            Some(chosen) => format!("smalti {}: {chosen}", run.command),
            None => format!("smalti {}", run.command),
        };
        let mut row = Row::of_texts([
            share(head.accuracy),
            interval,
            share(head.balanced_accuracy),
            share(head.validation),
            head.labels.map_or_else(|| "–".to_owned(), |labels| labels.to_string()),
            head.loss.map_or_else(|| "–".to_owned(), |[_, last]| short(last)),
            head.steps.to_string(),
            time,
        ]);
        row.cells.insert(0, format!("{}<small>{}</small>", escape(&run.name), escape(&how)));
        row
    });
    let head =
        ["run", "accuracy", "95 % interval", "balanced", "validation", "labels", "loss", "steps", "time"];
    table(&head, rows)
}

/// Accuracy by number of labels, where runs differ in that.
fn by_labels(runs: &[RunReport]) -> String {
    let known = runs.iter().filter_map(|run| {
        let head = &run.headline;
        Some((head.start.clone().unwrap_or_default(), head.labels? as f64, head.accuracy?, head.interval?))
    });
    let mut known: Vec<(String, f64, f64, [f64; 2])> = known.collect();
    known.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut marks: Vec<f64> = known.iter().map(|(_, labels, ..)| *labels).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    if marks.len() < 2 {
        return String::new();
    }
    let mut series: Vec<Series> = Vec::new();
    for (start, labels, accuracy, interval) in known {
        if series.last().is_none_or(|series| series.name != start) {
            series.push(Series { name: start, colour: series.len(), dots: true, ..Series::default() });
        }
        if let Some(series) = series.last_mut() {
            series.points.push([labels, accuracy]);
            series.spreads.push(interval);
        }
    }
    let chart = Chart {
        label: "accuracy by number of labels".into(),
        size: [640.0, 320.0],
        x: Axis { title: "labels".into(), log: true, marks, ..Axis::default() },
        y: Axis { percent: true, ..Axis::default() },
        series,
    };
    figure(&chart.svg(), "Accuracy by number of labels, for each start, with 95 % intervals.")
}

/// Loss and validation of the last stage of each run.
fn over_one_another(runs: &[RunReport]) -> String {
    let series = |of: &dyn Fn(&crate::report::history::History) -> Vec<[f64; 2]>, dots| {
        let lines = runs.iter().enumerate().filter_map(|(colour, run)| {
            let points = of(run.stages.last()?);
            (!points.is_empty()).then(|| Series {
                name: run.name.clone(),
                colour,
                points,
                dots,
                ..Series::default()
            })
        });
        lines.collect::<Vec<Series>>()
    };
    let chart = |label: &str, percent, series| Chart {
        label: format!("{label} by step"),
        size: [400.0, 230.0],
        x: Axis { title: "step".into(), whole: true, ..Axis::default() },
        y: Axis { percent, ..Axis::default() },
        series,
    };
    let mut html = String::from("<div class=\"pair\">\n");
    let loss = series(&|history| smooth(&history.loss), false);
    if !loss.is_empty() {
        html += &figure(
            &chart("loss", false, loss).svg(),
            "Loss of the last stage, running mean. Losses of different commands are not comparable.",
        );
    }
    let validation = series(&|history| history.validation.clone(), true);
    if !validation.is_empty() {
        html +=
            &figure(&chart("validation accuracy", true, validation).svg(), "Accuracy on validation images.");
    }
    html + "</div>\n"
}
