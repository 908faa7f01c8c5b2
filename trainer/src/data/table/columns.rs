//! Which column of a table is the path, the label, the split.

use smalti_models::folder::{Split, split_of_name};
use smalti_models::image::is_image_name;
use smalti_tools::suggest::nearest;

use super::dialect::Record;
use super::names::{FLAGS, FOLDERS, LABELS, PATHS, SPLITS, WEAK_PATHS, WEAK_SPLITS, plain};
use super::places::Places;

/// Rows that are looked at to tell paths from other texts.
const SAMPLE: usize = 100;

/// Where the label of a row is.
#[derive(Debug, PartialEq)]
pub(super) enum Label {
    None,
    Column(usize),
    /// A column of ones and zeros for each class.
    OneHot(Vec<(usize, String)>),
}

/// Where the split of a row is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SplitColumn {
    Named(usize),
    /// Rows with a one belong to this split, others to `train`.
    Flag(usize, Split),
}

/// Which column is what.
#[derive(Debug, PartialEq)]
pub(super) struct Columns {
    pub(super) has_header: bool,
    pub(super) path: usize,
    /// The column of the folder that the path begins in.
    pub(super) folder: Option<usize>,
    pub(super) label: Label,
    pub(super) split: Option<SplitColumn>,
    /// A sentence for the user about a choice that may be wrong.
    pub(super) note: Option<String>,
}

impl Columns {
    /// Finds the columns of a table that is not empty. The error is the problem alone; it names the columns.
    pub(super) fn find(records: &[Record], places: &mut Places) -> Result<Columns, String> {
        let hits = hits(records, places);
        let Some(header) = header(records, &hits, places) else { return Unnamed { records, hits }.columns() };
        let names = header.fields.iter().map(|name| plain(name)).collect();
        Named { titles: &header.fields, names, rows: records.get(1..).unwrap_or_default(), hits }.columns()
    }
}

/// For each column, the share of the rows behind the first that name a file in it: by its path if most do, else by any
/// name that a file below the table's folder has.
fn hits(records: &[Record], places: &mut Places) -> Vec<f64> {
    let rows = records.get(1..records.len().min(SAMPLE)).unwrap_or_default();
    let width = records.iter().map(|record| record.fields.len()).max().unwrap_or(0);
    let shares = |is_file: &mut dyn FnMut(&str) -> bool| -> Vec<f64> {
        let share = |column: usize| {
            let hits = rows.iter().filter(|row| row.field(column).is_some_and(&mut *is_file)).count();
            hits as f64 / rows.len().max(1) as f64
        };
        (0..width).map(share).collect()
    };
    let direct = shares(&mut |name| places.is_direct(name));
    let enough = direct.iter().any(|hits| *hits > 0.5);
    if enough { direct } else { shares(&mut |name| places.is_known(name)) }
}

/// The column with the most hits, the first among equals, if it has any.
fn most_hits(hits: &[f64], but: impl Fn(usize) -> bool) -> Option<usize> {
    let columns = (0..hits.len()).filter(|column| hits[*column] > 0.0 && !but(*column));
    columns.rev().max_by(|a, b| hits[*a].total_cmp(&hits[*b]))
}

/// The first row, if it names the columns: its words are known, or it names no file where later rows do.
fn header<'a>(records: &'a [Record], hits: &[f64], places: &mut Places) -> Option<&'a Record> {
    let (first, rows) = records.split_first()?;
    if first.fields.iter().any(|field| is_image_name(field.as_ref()) || places.is_direct(field)) {
        return None;
    }
    let known = |name: &str| [&PATHS[..], &LABELS, &WEAK_PATHS].iter().any(|list| list.contains(&name));
    if first.fields.iter().any(|field| known(&plain(field))) {
        return Some(first);
    }
    let path = most_hits(hits, |_| false)?;
    if places.is_known(first.field(path)?) {
        return None;
    }
    // A text that comes again below is a label and not the name of a column.
    let comes_again = |column: usize| {
        let field = first.field(column);
        column != path && field.is_some() && rows.iter().any(|row| row.field(column) == field)
    };
    (!(0..hits.len()).any(comes_again)).then_some(first)
}

/// A table with a header.
struct Named<'a> {
    /// The names as they are written.
    titles: &'a [String],
    names: Vec<String>,
    rows: &'a [Record],
    hits: Vec<f64>,
}

impl Named<'_> {
    fn columns(&self) -> Result<Columns, String> {
        let path = self.path()?;
        let split = self.split();
        let mut folder = self.first_of(&FOLDERS).filter(|column| *column != path);
        let split_column = split.map(|(SplitColumn::Named(column) | SplitColumn::Flag(column, _))| column);
        let used = [Some(path), folder, split_column];
        // The index that pandas writes has no name.
        let others: Vec<usize> = (0..self.names.len())
            .filter(|column| !used.contains(&Some(*column)) && !self.names[*column].is_empty())
            .collect();
        let known =
            LABELS.iter().find_map(|known| others.iter().find(|column| self.names[**column] == *known));
        let mut note = None;
        let label = match (known, &others[..]) {
            (Some(column), _) => Label::Column(*column),
            // Where nothing else says the class, the folder does.
            (None, []) => folder.take().map_or(Label::None, Label::Column),
            (None, [column]) => {
                note = Some(format!("labels are read from the column `{}`", self.titles[*column]));
                Label::Column(*column)
            }
            (None, others) => self.one_hot(others)?,
        };
        Ok(Columns { has_header: true, path, folder, label, split, note })
    }

    /// The column with the first of these names that there is.
    fn first_of(&self, known: &[&str]) -> Option<usize> {
        known.iter().find_map(|known| self.names.iter().position(|name| name == known))
    }

    /// By the name where files are found, by the files found, by the name.
    fn path(&self) -> Result<usize, String> {
        let with_files = |known: &[&str]| {
            let columns = known.iter().filter_map(|known| self.first_of(&[known]));
            columns.into_iter().find(|column| self.hits[*column] > 0.0)
        };
        let is_label =
            |column: usize| self.names.get(column).is_some_and(|name| LABELS.contains(&name.as_str()));
        let is_named = |column: usize| self.names.get(column).is_some_and(|name| !name.is_empty());
        with_files(&PATHS)
            .or_else(|| most_hits(&self.hits, |column| is_label(column) || !is_named(column)).filter(|column| self.hits[*column] > 0.5))
            .or_else(|| with_files(&WEAK_PATHS))
            .or_else(|| self.first_of(&PATHS))
            .or_else(|| self.first_of(&WEAK_PATHS))
            .ok_or_else(|| {
                let (found, all) = (self.listed(), (0..self.names.len()).collect::<Vec<_>>());
                let hint = self.meant(&all, &PATHS);
                format!(
                    "the columns are {found}: expected one that names files, called path, filename, image or image_id{hint}"
                )
            })
    }

    fn split(&self) -> Option<SplitColumn> {
        let all_splits = |column: &usize| {
            let entries: Vec<&str> = self.rows.iter().filter_map(|row| row.field(*column)).collect();
            !entries.is_empty() && entries.iter().all(|entry| split_of_name(entry).is_some())
        };
        let named = self.first_of(&SPLITS).or_else(|| self.first_of(&WEAK_SPLITS).filter(all_splits));
        let flag = || {
            FLAGS.iter().find_map(|(name, split)| Some(SplitColumn::Flag(self.first_of(&[name])?, *split)))
        };
        named.map(SplitColumn::Named).or_else(flag)
    }

    /// Of several columns without a known name those of ones and zeros are classes.
    fn one_hot(&self, columns: &[usize]) -> Result<Label, String> {
        let is_binary = |column: &&usize| {
            let mut entries = self.rows.iter().filter_map(|row| row.field(**column));
            entries.all(|entry| is_one(entry) || is_zero(entry))
        };
        let binary: Vec<usize> = columns.iter().filter(is_binary).copied().collect();
        if binary.len() < 2 {
            let found = self.listed();
            let hint = self.meant(columns, &LABELS);
            return Err(format!(
                "the columns are {found}: expected one called label, class or category, or a column of ones and zeros for \
                 each class{hint}"
            ));
        }
        Ok(Label::OneHot(binary.into_iter().map(|column| (column, self.titles[column].clone())).collect()))
    }

    /// A hint at the first of these columns whose name is nearly one of `known`.
    fn meant(&self, columns: &[usize], known: &[&'static str]) -> String {
        let near = columns
            .iter()
            .find_map(|column| Some((*column, nearest(&self.names[*column], known.iter().copied())?)));
        near.map_or(String::new(), |(column, name)| {
            format!("; if `{}` is it, call it `{name}`", self.titles[column])
        })
    }

    fn listed(&self) -> String {
        let most = 12;
        let mut names: Vec<String> =
            self.titles.iter().take(most).map(|title| format!("`{title}`")).collect();
        if self.titles.len() > most {
            names.push("...".into());
        }
        names.join(", ")
    }
}

/// A table without a header.
struct Unnamed<'a> {
    records: &'a [Record],
    hits: Vec<f64>,
}

impl Unnamed<'_> {
    fn columns(&self) -> Result<Columns, String> {
        let columns: Vec<usize> =
            (0..self.hits.len()).filter(|column| self.entries(*column).next().is_some()).collect();
        let is_image = |column: &&usize| self.entries(**column).all(|entry| is_image_name(entry.as_ref()));
        let by_name = columns.iter().find(is_image).copied();
        let path = by_name.or_else(|| most_hits(&self.hits, |_| false)).unwrap_or(0);
        let mut others: Vec<usize> = columns.into_iter().filter(|column| *column != path).collect();
        if others.len() > 1 {
            others.retain(|column| !self.is_index(*column));
        }
        let is_split = |column: &usize| self.entries(*column).all(|entry| split_of_name(entry).is_some());
        let split = if others.len() > 1 { others.iter().copied().find(is_split) } else { None };
        others.retain(|column| Some(*column) != split);
        let label = match others[..] {
            [] => Label::None,
            [column] => Label::Column(column),
            _ => {
                let width = self.hits.len();
                return Err(format!(
                    "{width} columns without a header: expected `path,label` or `path,label,split`, or a first line that \
                     names the columns"
                ));
            }
        };
        let split = split.map(SplitColumn::Named);
        Ok(Columns { has_header: false, path, folder: None, label, split, note: None })
    }

    fn entries(&self, column: usize) -> impl Iterator<Item = &str> {
        self.records.iter().filter_map(move |record| record.field(column))
    }

    /// Whether a column, the first, counts the rows.
    fn is_index(&self, column: usize) -> bool {
        let counts = |start: usize| self.entries(0).zip(start..).all(|(entry, n)| entry == n.to_string());
        column == 0 && self.records.len() > 2 && (counts(0) || counts(1))
    }
}

pub(super) fn is_one(entry: &str) -> bool {
    entry.eq_ignore_ascii_case("true") || entry.parse() == Ok(1.0)
}

fn is_zero(entry: &str) -> bool {
    entry.eq_ignore_ascii_case("false") || entry.parse() == Ok(0.0)
}
