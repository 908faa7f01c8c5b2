//! What would help most: the classes that are worst off, labels that are likely wrong, what more labels bring.

use super::answers::{Answers, Suspect};
use super::data::DataSummary;
use crate::autotrain::report::Report as Trained;
use crate::console::out::percent;
use crate::curve::report::Report as Curve;

/// Classes that are named.
const NAMED: usize = 3;
/// Held-out images of a class, from which its accuracy is looked at.
const LEAST: usize = 5;
/// A class this far below the mean of all, a calibration error and a gap between validation and test that are worth a word.
const BELOW: f64 = 0.05;
const UNSURE: f64 = 0.1;
const GAP: f64 = 0.1;

/// What is known of a run.
#[derive(Clone, Copy, Default)]
pub(super) struct Known<'a> {
    pub(super) answers: Option<&'a Answers>,
    pub(super) data: Option<&'a DataSummary>,
    pub(super) suspects: &'a [Suspect],
    pub(super) trained: Option<&'a Trained>,
    pub(super) curve: Option<&'a Curve>,
}

/// Sentences, the most helpful first.
pub(super) fn advice(known: Known<'_>) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(known.answers.map(|answers| about_classes(answers, known.data)).unwrap_or_default());
    found.extend(known.curve.and_then(more_labels));
    if !known.suspects.is_empty() {
        let n = known.suspects.len();
        found.push(format!(
            "Look at {n} {} below.",
            if n == 1 { "label that is likely wrong," } else { "labels that are likely wrong," }
        ));
    }
    if let Some((validation, measured)) =
        known.trained.and_then(|report| Some((report.validation?, report.accuracy?)))
        && validation - measured > GAP
    {
        found.push(format!(
            "Labels from where the model will work: {} of the held-out images among the labelled ones are right, but {} of the \
             images that it is measured on. These are of other places, people or cameras.",
            percent(validation),
            percent(measured)
        ));
    }
    if let Some(answers) = known.answers.filter(|answers| answers.reliability.ece > UNSURE) {
        let (sure, right) = (answers.reliability.confidence, answers.evaluation.accuracy);
        let how =
            if sure > right { "Do not trust its probabilities: it is" } else { "It is surer than it says:" };
        found.push(format!("{how} {} sure on average and right in {}.", percent(sure), percent(right)));
    }
    found
}

/// The classes that are wrong most often, with what they are taken for.
fn about_classes(answers: &Answers, data: Option<&DataSummary>) -> Vec<String> {
    let found = &answers.evaluation;
    let mut worst: Vec<usize> = (0..found.per_class.len())
        .filter(|i| {
            let class = &found.per_class[*i];
            class.n >= LEAST && class.accuracy < found.balanced_accuracy - BELOW
        })
        .collect();
    worst.sort_by(|a, b| found.per_class[*a].accuracy.total_cmp(&found.per_class[*b].accuracy));
    let sentence = |i: &usize| {
        let class = &found.per_class[*i];
        let row = found.confusion.get(*i)?;
        let others = row.iter().enumerate().filter(|(said, count)| said != i && **count > 0);
        let taken = others.max_by_key(|(said, count)| (**count, usize::MAX - said));
        let taken =
            taken.map(|(said, count)| format!("; {count} are taken for {}", found.per_class[said].name));
        let labels = data.and_then(|data| data.labels.iter().find(|label| label.name == class.name));
        let labels = labels.map(|label| format!(", learned from {} labels", label.images));
        Some(format!(
            "Label more of {}: {} of its {} {} images are right{}{}.",
            class.name,
            percent(class.accuracy),
            class.n,
            answers.split,
            labels.unwrap_or_default(),
            taken.unwrap_or_default()
        ))
    };
    worst.iter().take(NAMED).filter_map(sentence).collect()
}

/// What twice the labels would bring, by the learning curve: error falls as a power of their number (arXiv 1712.00409).
fn more_labels(curve: &Curve) -> Option<String> {
    let start = *curve.starts().first()?;
    let points: Vec<(f64, f64)> = curve
        .points
        .iter()
        .filter(|point| point.start == start && point.labels > 0)
        .filter_map(|point| Some((point.labels as f64, 1.0 - point.spread()?[0])))
        .filter(|(_, error)| *error > 0.0)
        .collect();
    let (slope, offset) = power_law(&points)?;
    let (labels, error) = *points.last()?;
    let then = (offset + slope * (2.0 * labels).ln()).exp();
    let gain = error - then;
    let share = accuracy_of(then);
    (slope < 0.0 && gain > 0.0).then(|| {
        format!(
            "More labels: by the learning curve from {start}, twice as many ({:.0}) would bring about {:.0} points, to {share}.",
            2.0 * labels,
            100.0 * gain
        )
    })
}

fn accuracy_of(error: f64) -> String {
    percent((1.0 - error).clamp(0.0, 1.0))
}

/// The line through the logarithms of points, by least squares: slope and offset. None of fewer than two different ones.
fn power_law(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|point| point.0), mean(&|point| point.1));
    let variance = mean(&|point| (point.0 - x).powi(2));
    let slope = mean(&|point| (point.0 - x) * (point.1 - y)) / variance;
    (points.len() > 1 && variance > 1e-12).then_some((slope, y - slope * x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::report::tests::example;
    use smalti_trainer::evaluate::{calibration::Reliability, evaluate};

    fn answers(said: &[usize], labels: &[u32]) -> Answers {
        let names: Vec<String> = ["glass", "paper", "trash"].map(String::from).into();
        let labels: Vec<Option<u32>> = labels.iter().map(|label| Some(*label)).collect();
        Answers {
            split: "test".into(),
            images: said.len(),
            evaluation: evaluate(said, &labels, &names).unwrap(),
            reliability: Reliability::default(),
            mistakes: Vec::new(),
            wrong: 0,
            explained_by: Default::default(),
        }
    }

    #[test]
    fn the_class_that_is_worst_off_is_named_with_what_it_is_taken_for() {
        let said = [0, 0, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2];
        let labels = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2];
        let answers = answers(&said, &labels);
        let found = advice(Known { answers: Some(&answers), ..Known::default() });
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("more of glass: 33.3 % of its 6") && found[0].contains("3 are taken for paper"),
            "{found:?}"
        );
        assert!(advice(Known::default()).is_empty());
    }

    #[test]
    fn a_power_law_is_found_and_carried_forward() {
        let points: Vec<(f64, f64)> = [10.0f64, 20.0, 40.0].map(|n| (n, 0.8 * n.powf(-0.25))).into();
        let (slope, offset) = power_law(&points).unwrap();
        assert!((slope + 0.25).abs() < 1e-9 && (offset.exp() - 0.8).abs() < 1e-9);
        assert_eq!(power_law(&points[..1]), None);
        assert_eq!(power_law(&[(5.0, 0.1), (5.0, 0.2)]), None);
        let found = more_labels(&example()).unwrap();
        assert!(found.contains("from auto, twice as many (800)"), "{found}");
    }
}
