//! Sentences about the files that are not read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::tree::{LeftOut, MARKER, MAX_DEPTH};
use crate::image::foreign_name;

/// Files of formats that are not read: their number and the first of each.
#[derive(Clone, Debug, Default)]
pub struct ForeignFiles(BTreeMap<&'static str, (usize, PathBuf)>);

impl ForeignFiles {
    /// Counts a file if its name is that of an image or video of a format that is not read.
    pub fn count(&mut self, path: &Path) {
        if let Some(format) = foreign_name(path) {
            self.0.entry(format).or_insert_with(|| (0, path.to_owned())).0 += 1;
        }
    }

    /// One sentence about all of them, if there are any.
    pub fn note(&self) -> Option<String> {
        let first = self.0.values().map(|(_, path)| path).min()?;
        let files = |n: usize| if n == 1 { "file" } else { "files" };
        let counts = self.0.iter().map(|(format, (n, _))| format!("{n} {format} {}", files(*n)));
        let counts = list(&counts.collect::<Vec<_>>());
        let is_one = self.0.values().map(|(n, _)| n).sum::<usize>() == 1;
        let (verb, them) = if is_one { ("is", "it") } else { ("are", "them") };
        let first = shown(first);
        Some(format!("{counts} {verb} left out: convert {them} to JPEG or PNG; the first is {first}"))
    }
}

impl LeftOut {
    /// One sentence for each kind of file or folder.
    pub(super) fn notes(&self) -> Vec<String> {
        let runs = (
            format!("a folder that Smalti wrote ({MARKER})"),
            format!("folders that Smalti wrote ({MARKER})"),
        );
        let deep = format!("more than {MAX_DEPTH} levels deep, or reached by too many links");
        let kinds = [
            (&self.runs, runs),
            (&self.broken_links, ("a broken link".into(), "broken links".into())),
            (&self.specials, ("a pipe, socket or device".into(), "pipes, sockets or devices".into())),
            (&self.too_deep, (format!("a folder {deep}"), format!("folders {deep}"))),
        ];
        let left_out = kinds.iter().filter_map(|(paths, (one, many))| sentence(paths, one, many));
        self.foreign.note().into_iter().chain(left_out).collect()
    }
}

fn sentence(paths: &[PathBuf], one: &str, many: &str) -> Option<String> {
    let first = shown(paths.first()?);
    Some(match paths.len() {
        1 => format!("left out {one}: {first}"),
        n => format!("left out {n} {many}; the first is {first}"),
    })
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// At most `most` names in backquotes, then how many more there are.
pub(super) fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>, most: usize) -> String {
    let n = names.len();
    let mut shown: Vec<String> = names.take(most).map(quoted).collect();
    if n > most {
        shown.push(format!("{} more", n - most));
    }
    list(&shown)
}

/// A name in backquotes.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", one_line(name))
}

/// A path in a message.
pub(super) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// A text with control characters escaped, so that a message stays on one line.
fn one_line(text: &str) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}
