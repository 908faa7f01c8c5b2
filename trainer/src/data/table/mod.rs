//! Tables of images: CSV lines of a path, a label and perhaps a split, with or without a header line.
//!
//! [`dialect`] makes rows of fields from the file, [`columns`] finds out which column is what, [`places`] where the
//! files are. An empty label is none; whole numbers count from 0; anything else is the name of a class. Rows of a table
//! without a split column belong to `train`. A path that is no text is written as [`escape`] says; a [`LabelTable`] is
//! written, too.

mod columns;
mod dialect;
mod escape;
mod label_table;
mod names;
mod places;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use smalti_models::folder::{Split, split_of_name};

pub use self::label_table::{LabelTable, Row};

use self::columns::{Columns, Label, SplitColumn};
use self::dialect::Record;
use self::places::{Found, Hint, Places};
use super::classes;
use super::listing::Listing;
use super::source::{Source, Store};
use crate::error::{Error, Result};

/// Whether this is the name of a table.
pub(crate) fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv") || e.eq_ignore_ascii_case("tsv"))
}

/// Reads the table at `path`, whose paths begin in `folder`, else in its own.
///
/// # Errors
/// What is no table of text; columns that cannot be told apart; a row without a path; a table most of whose files do
/// not exist.
pub(crate) fn read(path: &Path, folder: Option<&Path>) -> Result<Listing> {
    let wrong = |problem: String| Error::data(path.display().to_string(), problem);
    let mut places = Places::new(path, folder);
    let records = dialect::read(path, &mut |name| places.is_direct(name))?;
    if records.is_empty() {
        return Err(wrong("the table is empty, expected lines `path,label`".into()));
    }
    let columns = Columns::find(&records, &mut places).map_err(wrong)?;
    let title = match records.first().filter(|_| columns.has_header) {
        Some(header) => format!("the column `{}`", header.field(columns.path).unwrap_or_default()),
        None => format!("column {} (of a table without a header)", columns.path + 1),
    };
    let records = records.get(usize::from(columns.has_header)..).unwrap_or_default();
    if records.is_empty() {
        return Err(wrong("the table is empty below its header, expected lines `path,label`".into()));
    }
    let rows = Rows::read(path, records, &columns, &mut places)?;
    let missing = rows.check(&title)?;
    let numbered = classes::number(&rows.texts, None).map_err(wrong)?;
    let notes = [columns.note, missing, numbered.note()].into_iter().flatten();
    let notes = notes.map(|note| format!("{}: {note}", path.display())).collect();
    let source = Source::new(folder.unwrap_or(path), "a CSV table", Store::Files(rows.files));
    let splits = rows.texts.into_iter().map(|(split, _)| split).collect();
    Ok(Listing { source, labels: numbered.labels, classes: numbered.classes, splits, notes })
}

/// The rows of a table as they are read.
struct Rows<'a> {
    path: &'a Path,
    files: Vec<PathBuf>,
    texts: Vec<(Split, Option<String>)>,
    missing: usize,
    /// What the first missing file is called, its line, and where it was looked for.
    first_missing: Option<(String, u64, PathBuf)>,
}

impl<'a> Rows<'a> {
    fn read(path: &'a Path, records: &[Record], columns: &Columns, places: &mut Places) -> Result<Rows<'a>> {
        let (files, texts) = (Vec::new(), Vec::new());
        let mut rows = Rows { path, files, texts, missing: 0, first_missing: None };
        for record in records {
            let wrong = |problem: String| Error::data(format!("{}:{}", path.display(), record.line), problem);
            let Some(name) = record.field(columns.path) else {
                return Err(wrong("no path, expected `path,label`".into()));
            };
            let split = split(record, columns.split).map_err(wrong)?;
            let label = label(record, &columns.label).map_err(wrong)?;
            let hint = Hint {
                folder: columns.folder.and_then(|column| record.field(column)),
                label: label.as_deref(),
                split: split.filter(|_| columns.split.is_some()),
            };
            let file = match places.find(name, &hint) {
                Found::At(file) => file,
                Found::Several(one, other) => {
                    let (one, other) = (one.display(), other.display());
                    return Err(wrong(format!(
                        "`{name}` may be {one} or {other}, expected a path with its folder"
                    )));
                }
                Found::Nowhere(file) => {
                    rows.missing += 1;
                    rows.first_missing.get_or_insert_with(|| (name.to_owned(), record.line, file.clone()));
                    file
                }
            };
            rows.files.push(file);
            rows.texts.push((split.unwrap_or(Split::Train), label));
        }
        Ok(rows)
    }

    /// Refuses a table most of whose files are missing; a sentence where a few are. `title` says which column they are in.
    fn check(&self, title: &str) -> Result<Option<String>> {
        let Some((name, line, file)) = &self.first_missing else { return Ok(None) };
        let (missing, all, file) = (self.missing, self.files.len(), file.display());
        let problem = format!(
            "{missing} of {all} files in {title} do not exist; the first is `{name}` in line {line}, looked for at {file}"
        );
        if 2 * missing <= all {
            return Ok(Some(problem));
        }
        let folder = self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let problem = format!("{problem} and in all folders below {}", folder.display());
        Err(Error::data(self.path.display().to_string(), problem))
    }
}

/// The split of a row, if it names one.
fn split(record: &Record, column: Option<SplitColumn>) -> Result<Option<Split>, String> {
    match column {
        None => Ok(None),
        Some(SplitColumn::Named(column)) => match record.field(column) {
            None => Ok(None),
            Some(text) => match split_of_name(text) {
                Some(split) => Ok(Some(split)),
                None => Err(format!("`{text}` is not a split, expected train, val or test")),
            },
        },
        Some(SplitColumn::Flag(column, split)) => {
            let is_set = record.field(column).is_some_and(columns::is_one);
            Ok(Some(if is_set { split } else { Split::Train }))
        }
    }
}

/// The label of a row, if it has one.
fn label(record: &Record, label: &Label) -> Result<Option<String>, String> {
    match label {
        Label::None => Ok(None),
        Label::Column(column) => Ok(record.field(*column).map(str::to_owned)),
        Label::OneHot(classes) => {
            let set = classes.iter().filter(|(column, _)| record.field(*column).is_some_and(columns::is_one));
            let set: Vec<&str> = set.map(|(_, class)| class.as_str()).collect();
            match set[..] {
                [] => Ok(None),
                [class] if ["unlabelled", "unlabeled"].contains(&&*class.to_lowercase()) => Ok(None),
                [class] => Ok(Some(class.to_owned())),
                [one, other, ..] => {
                    Err(format!("has the labels `{one}` and `{other}`, expected one label an image"))
                }
            }
        }
    }
}
