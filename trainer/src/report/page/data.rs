//! The images: how many, some of each class, and what the audit found.

use std::fmt::Write;

use smalti_tools::markup::{Row, escape, table};

use super::Section;
use crate::report::data::DataSummary;
use crate::report::gather::RunReport;

/// Broken files and duplicates that are named.
const NAMED: usize = 8;

pub(super) fn section(run: &RunReport) -> Option<Section> {
    let data = run.data.shown()?;
    let audit = &data.audit;
    let mut body = format!(
        "<p><code>{}</code>, {}. {} images were learned from, {} of them with a label.</p>\n",
        escape(&audit.path),
        escape(&audit.kind),
        data.learned,
        data.labelled
    );
    let rows = audit.splits.iter().map(|split| {
        let (w, h) = (split.width, split.height);
        Row::of_texts([
            split.split.to_string(),
            split.images.to_string(),
            split.labelled.to_string(),
            split.looked_at.to_string(),
            format!("{} to {} × {} to {}", w.min, w.max, h.min, h.max),
        ])
    });
    body += &table(&["split", "images", "labelled", "looked at", "pixels"], rows);
    body += &findings(data);
    for sheet in &data.sheets {
        let class = sheet.class.as_deref().unwrap_or("without label");
        _ = writeln!(
            body,
            "<div class=\"sheet\"><p>{0} <span class=\"note\">{1} images</span></p>\
             <img src=\"{2}\" alt=\"{3} images of {0}\" /></div>",
            escape(class),
            sheet.images,
            sheet.uri,
            sheet.shown
        );
    }
    Some(Section::new("data", "Images", body))
}

/// What `smalti data` would say.
fn findings(data: &DataSummary) -> String {
    let audit = &data.audit;
    let mut items: Vec<String> = audit.advice.iter().map(|advice| escape(advice)).collect();
    items.extend(audit.unusable.first.iter().take(NAMED).map(|why| format!("unusable: {}", escape(why))));
    for pair in audit.duplicates.first.iter().take(NAMED) {
        let how = if pair.exact { "the same as" } else { "much like" };
        items.push(format!("<code>{}</code> is {how} <code>{}</code>", escape(&pair.b), escape(&pair.a)));
    }
    let (exact, near) = (audit.duplicates.exact, audit.duplicates.near);
    if exact + near > 0 {
        items.insert(0, format!("{exact} images repeat an earlier one exactly, {near} nearly"));
    }
    if items.is_empty() {
        return "<p>Nothing is wrong with those that were looked at. <code>smalti data</code> looks at all.</p>\n".into();
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<h3>What to know about them</h3>\n<ul class=\"plain\">\n{items}</ul>\n")
}
