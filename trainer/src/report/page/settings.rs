//! The command that would do it again, and all settings.

use std::fmt::Write;

use smalti_tools::markup::{escape, verbatim};

use super::Section;
use crate::report::gather::RunReport;

pub(super) fn section(run: &RunReport) -> Option<Section> {
    let (first, _) = run.settings.first()?;
    let root = run.root.as_ref().map_or_else(|| "DIR".into(), |root| root.display().to_string());
    let command = match run.command {
        "train" => format!("smalti train {root} --config {first} -o NEW"),
        command => format!("smalti {command} --config {first} --out NEW"),
    };
    let mut body =
        String::from("<p>The same again, to the last bit on a machine with the same instructions:</p>\n");
    body += &verbatim(&command);
    for (name, text) in &run.settings {
        _ = write!(
            body,
            "<details><summary><code>{}</code></summary>\n{}</details>\n",
            escape(name),
            verbatim(text.trim_end())
        );
    }
    Some(Section::new("settings", "Command and settings", body))
}
