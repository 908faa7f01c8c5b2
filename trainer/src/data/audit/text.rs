//! The report in words.

use std::fmt;

use super::{Part, Report};
use crate::data::Split;

/// A class this many times larger than another is worth a word.
const IMBALANCE: usize = 3;
/// Classes that are listed one by one.
const LISTED: usize = 30;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.path, self.kind)?;
        for part in &self.parts {
            write!(f, "{part}")?;
        }
        let found = &self.duplicates;
        writeln!(
            f,
            "duplicates: {} exact, {} near; {} of them repeat an image of another part, {} one with another label",
            found.exact, found.near, found.across_parts, found.labels_differ
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

impl fmt::Display for Part {
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
        writeln!(f, "  mean {}, deviation {}", list(&self.mean), list(&self.std))?;
        for class in self.classes.iter().take(LISTED) {
            writeln!(f, "  {:>8} {}", class.images, class.name)?;
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
        advice.push(format!(
            "{} images cannot be used; they are left out of training, but look why",
            report.unusable.count
        ));
    }
    if report.duplicates.across_parts > 0 {
        advice.push(format!(
            "{} images repeat one of another part: a measured accuracy will look better than it is",
            report.duplicates.across_parts
        ));
    }
    if report.duplicates.labels_differ > 0 {
        advice.push(format!(
            "{} images repeat one with another label: one of the two is wrong",
            report.duplicates.labels_differ
        ));
    }
    if let Some(train) = report.parts.iter().find(|p| p.split == Split::Train) {
        advice.extend(about_classes(train));
    }
    if report.parts.len() == 1 && report.parts.iter().all(|p| p.labelled > 0) {
        advice.push("there is no test part: keep some images in test/ to measure by".into());
    }
    advice
}

fn about_classes(train: &Part) -> Vec<String> {
    let mut advice = Vec::new();
    if train.labelled == 0 {
        advice.push("no labels: the images can be pretrained on, not fine-tuned on".into());
        return advice;
    }
    if train.classes.len() == 1 {
        advice.push("only one class: is the path one folder too high?".into());
    }
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
