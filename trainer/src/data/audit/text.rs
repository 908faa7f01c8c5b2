//! The report in words.

use std::fmt;

use super::{Report, SplitReport};
use crate::data::Split;
use crate::data::classes::unusable_name;

/// A class this many times larger than another is worth a word.
const IMBALANCE: usize = 3;
/// Classes that are listed one by one.
const LISTED: usize = 30;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.path, self.kind)?;
        for split in &self.splits {
            write!(f, "{split}")?;
        }
        let found = &self.duplicates;
        writeln!(
            f,
            "duplicates: {} exact, {} near; {} of them repeat an image of another split, {} one with another label",
            found.exact, found.near, found.across_splits, found.labels_differ
        )?;
        for pair in &found.first {
            let how = if pair.exact { "the same as" } else { "much like" };
            writeln!(f, "  {} is {how} {}", pair.b, pair.a)?;
        }
        writeln!(f, "unusable: {}", self.unusable.count)?;
        for problem in &self.unusable.first {
            writeln!(f, "  {problem}")?;
        }
        for advice in &self.advice {
            writeln!(f, "note: {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SplitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = match self.labelled {
            0 => "no labels".to_owned(),
            n if n == self.images => format!("{} classes", self.classes.len()),
            n => format!("{} classes, {n} labelled", self.classes.len()),
        };
        write!(f, "{}: {} images, {labels}", self.split, self.images)?;
        if self.looked_at < self.images {
            write!(f, " ({} looked at)", self.looked_at)?;
        }
        let (w, h) = (self.width, self.height);
        writeln!(
            f,
            "\n  width {} / {} / {}, height {} / {} / {} (least / median / greatest), {} grey",
            w.min, w.median, w.max, h.min, h.median, h.max, self.grey
        )?;
        let list = |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
        writeln!(f, "  mean {}, std {}", list(&self.mean), list(&self.std))?;
        for class in self.classes.iter().take(LISTED) {
            // On one line, whatever the name.
            writeln!(f, "  {:>8} {}", class.images, class.name.replace(char::is_control, "?"))?;
        }
        if self.classes.len() > LISTED {
            writeln!(f, "  and {} more classes", self.classes.len() - LISTED)?;
        }
        Ok(())
    }
}

/// What to think about before training.
pub(super) fn advice(report: &Report) -> Vec<String> {
    let mut advice = Vec::new();
    if report.unusable.count > 0 {
        let n = report.unusable.count;
        advice.push(format!("{n} images cannot be used and are left out of training: look why"));
    }
    if report.duplicates.across_splits > 0 {
        let n = report.duplicates.across_splits;
        advice.push(format!(
            "{n} images repeat one of another split: a measured accuracy looks better than it is"
        ));
    }
    if report.duplicates.labels_differ > 0 {
        let n = report.duplicates.labels_differ;
        advice.push(format!("{n} images repeat one with another label: one of the two labels is wrong"));
    }
    match report.splits.iter().find(|split| split.split == Split::Train) {
        Some(train) => advice.extend(about_classes(train)),
        None => {
            advice.push("there is no train split: expected train/ next to the others, to learn from".into())
        }
    }
    let is_labelled = report.splits.iter().any(|split| split.labelled > 0);
    for split in report.splits.iter().filter(|split| is_labelled && split.split != Split::Train) {
        let (name, n) = (split.split, split.images - split.labelled);
        if n > 0 {
            advice.push(format!(
                "{n} of {} images of the {name} split have no label to measure by",
                split.images
            ));
        }
    }
    if is_labelled && report.splits.len() == 1 {
        advice.push("there is no test split: keep some images in test/ to measure on".into());
    }
    advice
}

fn about_classes(train: &SplitReport) -> Vec<String> {
    let mut advice = Vec::new();
    if train.labelled == 0 {
        advice.push("no labels: the images can be pretrained on, not fine-tuned on".into());
        return advice;
    }
    if train.classes.len() == 1 {
        advice.push("only one class: is the path one folder too high?".into());
    }
    advice.extend(train.classes.iter().filter_map(|class| unusable_name(&class.name)));
    let empty: Vec<&str> = train.classes.iter().filter(|c| c.images == 0).map(|c| c.name.as_str()).collect();
    if !empty.is_empty() {
        advice.push(format!("no images of {} of the classes, {} first", empty.len(), empty[0]));
    }
    let present = || train.classes.iter().filter(|c| c.images > 0);
    let (least, most) = (present().min_by_key(|c| c.images), present().max_by_key(|c| c.images));
    if let (Some(least), Some(most)) = (least, most)
        && most.images >= IMBALANCE * least.images
    {
        advice.push(format!(
            "classes are uneven, {} of {} and {} of {}: look at the accuracy of each class too",
            most.images, most.name, least.images, least.name
        ));
    }
    advice
}
