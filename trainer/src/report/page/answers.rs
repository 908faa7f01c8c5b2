//! How right, how sure, and where it errs.

use std::fmt::Write;

use smalti_models::accuracy;
use smalti_tools::markup::{Row, WIDE, escape, table};

use super::{Section, bar, figure};
use crate::console::out::percent;
use crate::report::answers::{Answers, Explain, confusions};
use crate::report::chart::{Axis, COLOURS, Chart, Series};
use crate::report::gather::RunReport;

/// A confusion matrix with more classes than this is told by its most frequent mistakes.
const MATRIX: usize = 25;
/// Of these so many.
const FREQUENT: usize = 12;

/// Accuracy by class, confusion, reliability.
pub(super) fn section(run: &RunReport) -> Option<Section> {
    let answers = run.answers.shown()?;
    let found = &answers.evaluation;
    let mut body = format!(
        "<p>{} of {} {} images are right ({}).{}</p>\n",
        found.n - answers.wrong,
        found.n,
        escape(&answers.split),
        percent(found.accuracy),
        if answers.images > found.n {
            format!(" {} were asked about, evenly spread over {}.", found.n, answers.images)
        } else {
            String::new()
        }
    );
    body += &classes(run, answers);
    body += "<h3>Confusion</h3>\n";
    body += &if found.per_class.len() <= MATRIX { matrix(answers) } else { frequent(answers) };
    body += "<h3>How sure, and how right</h3>\n";
    body += &reliability(answers);
    Some(Section::new("accuracy", "Accuracy", body))
}

/// A line for each class, the worst first.
fn classes(run: &RunReport, answers: &Answers) -> String {
    let found = &answers.evaluation;
    let labels = run.data.shown().map(|data| &data.labels);
    let mut order: Vec<usize> = (0..found.per_class.len()).collect();
    order.sort_by(|a, b| {
        let of = |i: usize| (found.per_class[i].n == 0, found.per_class[i].accuracy);
        of(*a).0.cmp(&of(*b).0).then(of(*a).1.total_cmp(&of(*b).1))
    });
    let rows = order.iter().map(|&i| {
        let class = &found.per_class[i];
        let labels = labels.and_then(|labels| labels.iter().find(|label| label.name == class.name));
        let said: usize = found.confusion.iter().map(|row| row[i]).sum();
        let precision =
            if said == 0 { "–".into() } else { percent(found.confusion[i][i] as f64 / said as f64) };
        let [low, high] = accuracy::interval(class.accuracy, class.n as u64);
        let (right, interval) = match class.n {
            0 => ("–".into(), String::new()),
            _ => (
                bar(class.accuracy, &percent(class.accuracy)),
                format!("{:.0} to {:.0} %", 100.0 * low, 100.0 * high),
            ),
        };
        let count = labels.map_or_else(String::new, |label| label.images.to_string());
        Row {
            cells: vec![escape(&class.name), count, class.n.to_string(), right, interval, precision],
            class: "",
        }
    });
    table(&["class", "labels", "images", "right (recall)", "95 % interval", "precision"], rows)
}

fn matrix(answers: &Answers) -> String {
    let found = &answers.evaluation;
    let mut html = format!(
        "<p class=\"note\">Rows are what an image is, columns what the model says. Shades are shares of a row.</p>\n\
         {WIDE}<table class=\"matrix\">\n<thead><tr><th scope=\"col\">truth</th>",
    );
    for (i, class) in found.per_class.iter().enumerate() {
        let name = escape(&class.name);
        _ = write!(html, "<th scope=\"col\" title=\"{name}\" abbr=\"{name}\">{}</th>", i + 1);
    }
    html += "</tr></thead>\n<tbody>\n";
    for (truth, (class, row)) in found.per_class.iter().zip(&found.confusion).enumerate() {
        _ = write!(html, "<tr><th scope=\"row\">{} {}</th>", truth + 1, escape(&class.name));
        for (said, &count) in row.iter().enumerate() {
            // Text stays readable on at most 55 % of a colour.
            let shade = 55.0 * count as f64 / class.n.max(1) as f64;
            let kind = match count {
                0 => "none",
                _ if said == truth => "hit",
                _ => "miss",
            };
            let text = if count == 0 { "·".to_owned() } else { count.to_string() };
            _ = write!(html, "<td class=\"{kind}\" style=\"--v:{shade:.0}%\">{text}</td>");
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table></div>\n"
}

/// The most frequent mistakes.
fn frequent(answers: &Answers) -> String {
    let found = &answers.evaluation;
    let name = |class: usize| found.per_class[class].name.as_str();
    let rows = confusions(found, FREQUENT).into_iter().map(|(truth, said, count)| {
        Row::of_texts([name(truth), name(said), &format!("{count} of {}", found.per_class[truth].n)])
    });
    format!(
        "<p class=\"note\">The most frequent of all.</p>\n{}",
        table(&["truth", "taken for", "images"], rows)
    )
}

fn reliability(answers: &Answers) -> String {
    let found = &answers.reliability;
    let points = |of: &dyn Fn(&smalti_trainer::evaluate::calibration::Bin) -> f64| {
        let bins = found.bins.iter().filter(|bin| bin.n > 0);
        bins.map(|bin| [bin.confidence, of(bin)]).collect::<Vec<_>>()
    };
    let spread =
        |bin: &smalti_trainer::evaluate::calibration::Bin| accuracy::interval(bin.accuracy, bin.n as u64);
    let share =
        |title: &str| Axis { title: title.into(), percent: true, range: Some([0.0, 1.0]), ..Axis::default() };
    let chart = Chart {
        label: format!("reliability diagram, expected calibration error {}", percent(found.ece)),
        size: [400.0, 300.0],
        x: share("probability that the model states"),
        y: share("fraction that is right"),
        series: vec![
            Series {
                points: vec![[0.0, 0.0], [1.0, 1.0]],
                colour: COLOURS - 1,
                faint: true,
                ..Series::default()
            },
            Series {
                points: points(&|bin| bin.accuracy),
                spreads: found.bins.iter().filter(|bin| bin.n > 0).map(spread).collect(),
                dots: true,
                ..Series::default()
            },
        ],
    };
    let caption = format!(
        "Fraction of answers that are right, by the probability that the model gives them; on the thin line it is as sure as it \
         is right. Bars are 95 % intervals. It is {} sure in the mean and right in {}; expected calibration error {}.",
        percent(found.confidence),
        percent(answers.evaluation.accuracy),
        percent(found.ece)
    );
    format!("<div class=\"narrow\">{}</div>\n", figure(&chart.svg(), &caption))
}

/// The surest wrong answers.
pub(super) fn mistakes(run: &RunReport) -> Option<Section> {
    let answers = run.answers.shown().filter(|answers| !answers.mistakes.is_empty())?;
    let (shown, mapped) =
        (answers.mistakes.len(), answers.mistakes.iter().filter(|mistake| mistake.heat.is_some()).count());
    let how = match answers.explained_by {
        _ if mapped == 0 => "",
        Explain::Occlusion => {
            " Right of each photo, as the model gets it, yellow marks what speaks for its answer: when that part is covered, the \
             answer's probability falls. Where none does, the photo stays dark."
        }
        Explain::Attention => {
            " Right of each photo, as the model gets it, yellow marks where attention leads (rollout), whatever the answer."
        }
    };
    let limit = match mapped {
        0 => String::new(),
        _ if mapped == shown => String::new(),
        _ => format!(" There was time for {mapped} of them; <code>smalti report</code> takes more."),
    };
    let mut body = format!(
        "<p>The {shown} wrong answers that the model is surest of, of {}.{how}{limit}</p>\n<ul class=\"cards two\">\n",
        answers.wrong,
    );
    for mistake in &answers.mistakes {
        let (truth, said, place) = (escape(&mistake.truth), escape(&mistake.said), escape(&mistake.place));
        let heat = mistake.heat.as_ref().map_or_else(String::new, |heat| {
            format!("<img src=\"{heat}\" width=\"144\" height=\"144\" alt=\"what speaks for {said}\" />")
        });
        _ = writeln!(
            body,
            "<li><div class=\"views\"><img src=\"{}\" width=\"144\" height=\"144\" alt=\"{truth}, taken for {said}\" />{heat}</div>\
             <p><strong>{said}</strong> {}; is <strong>{truth}</strong> {}</p><p class=\"place\">{place}</p></li>",
            mistake.photo,
            percent(mistake.probability),
            percent(mistake.of_truth)
        );
    }
    Some(Section::new("mistakes", "Worst mistakes", body + "</ul>\n"))
}

/// Labels that are likely wrong.
pub(super) fn suspects(run: &RunReport) -> Option<Section> {
    if run.suspects.is_empty() {
        return None;
    }
    let mut body = String::from(
        "<p>Images whose label a classifier that has not learned from it finds improbable (confident learning). Some are wrong, some \
         only unusual: look at each. Held-out images here are mistakes of the model, too.</p>\n<ul class=\"cards\">\n",
    );
    for suspect in &run.suspects {
        let (label, said) = (escape(&suspect.label), escape(&suspect.said));
        let learned = if suspect.learned { "learned from" } else { "held out" };
        _ = writeln!(
            body,
            "<li><img src=\"{}\" width=\"144\" height=\"144\" alt=\"labelled {label}, looks like {said}\" />\
             <p>labelled <strong>{label}</strong> {}, looks like <strong>{said}</strong> {}</p>\
             <p class=\"place\">{learned}: {}</p></li>",
            suspect.photo,
            percent(suspect.of_label),
            percent(suspect.probability),
            escape(&suspect.place)
        );
    }
    Some(Section::new("suspects", "Labels to check", body + "</ul>\n"))
}
