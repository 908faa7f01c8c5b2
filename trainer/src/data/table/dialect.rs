//! From the bytes of a table to rows of fields: encoding, separator, quotes.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};

/// Rows that are looked at to choose the separator.
const SAMPLE: usize = 100;

/// One row of a table.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    /// The number of its first line, from 1.
    pub(super) line: u64,
    pub(super) fields: Vec<String>,
}

impl Record {
    /// The field in a column, unless it is empty.
    pub(super) fn field(&self, column: usize) -> Option<&str> {
        self.fields.get(column).map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// The rows of the table at `path`, without comments and rows of empty fields. `is_file` says whether a field is the path
/// of a file, which tells separators apart.
///
/// # Errors
/// A file that cannot be read or holds anything but UTF-8 text.
pub(super) fn read(path: &Path, is_file: &mut dyn FnMut(&str) -> bool) -> Result<Vec<Record>> {
    let wrong = |problem: String| Error::data(path.display().to_string(), problem);
    if !std::fs::metadata(path).map_err(Error::file("read", path))?.is_file() {
        return Err(wrong("not an ordinary file, expected a CSV table".into()));
    }
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    let text = text(&bytes).map_err(wrong)?;
    let tabs = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
    let (text, first, separator) = match announced(text) {
        Some((separator, rest)) => (rest, 2, separator),
        None => (text, 1, separator(text, tabs, is_file)),
    };
    records(text, separator, first, usize::MAX).map_err(wrong)
}

/// The text of a table, without a byte order mark.
fn text(bytes: &[u8]) -> Result<&str, String> {
    let starts = |with: &[u8]| bytes.starts_with(with);
    let save = "save it as a CSV file in UTF-8";
    if starts(&[0xff, 0xfe]) || starts(&[0xfe, 0xff]) {
        return Err(format!("the text is UTF-16, expected UTF-8; {save}"));
    }
    if starts(b"PK\x03\x04") || starts(&[0xd0, 0xcf, 0x11, 0xe0]) {
        return Err(format!("a workbook (Excel) or an archive, expected a CSV table; {save}"));
    }
    if bytes.iter().take(4096).any(|byte| *byte == 0) {
        return Err(format!(
            "holds zero bytes, as UTF-16 text and binary files do, expected UTF-8 text; {save}"
        ));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes.iter().take(e.valid_up_to()).filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8; {save}")
    })
}

/// The separator that Excel's first line `sep=;` announces, and the text behind that line.
fn announced(text: &str) -> Option<(u8, &str)> {
    let (line, rest) = text.split_once('\n')?;
    match line.trim_end().strip_prefix("sep=")?.as_bytes() {
        [separator] => Some((*separator, rest)),
        _ => None,
    }
}

/// The separator under which most rows name a file; among equals, under which most rows have the same number of fields,
/// two or more.
fn separator(text: &str, tabs: bool, is_file: &mut dyn FnMut(&str) -> bool) -> u8 {
    let candidates = if tabs { [b'\t', b',', b';', b'|'] } else { [b',', b';', b'\t', b'|'] };
    let mut score = |separator: u8| {
        let rows = records(text, separator, 1, SAMPLE).unwrap_or_default();
        let named = rows.iter().filter(|row| row.fields.iter().any(|field| is_file(field))).count();
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        rows.iter()
            .filter(|row| row.fields.len() > 1)
            .for_each(|row| *counts.entry(row.fields.len()).or_default() += 1);
        (named, counts.into_values().max().unwrap_or(0))
    };
    let scores: Vec<((usize, usize), u8)> = candidates.map(|candidate| (score(candidate), candidate)).into();
    // The first of the best.
    let best = scores.iter().map(|(score, _)| *score).max();
    scores.iter().find(|(score, _)| Some(*score) == best).map_or(candidates[0], |(_, candidate)| *candidate)
}

fn records(text: &str, separator: u8, first: u64, most: usize) -> Result<Vec<Record>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .delimiter(separator)
        .from_reader(text.as_bytes());
    let mut records = Vec::new();
    for record in reader.records().take(most) {
        let record = record.map_err(|e| format!("not a CSV table: {e}"))?;
        let line = record.position().map_or(0, |position| line_of(text, position)) + first - 1;
        if record.iter().any(|field| !field.is_empty()) {
            records.push(Record { line, fields: record.iter().map(str::to_owned).collect() });
        }
    }
    Ok(records)
}

/// The line that a record begins in: its position is where the blank lines and comments before it begin.
fn line_of(text: &str, position: &csv::Position) -> u64 {
    let rest = text.get(position.byte() as usize..).unwrap_or_default();
    let skipped = rest.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#'));
    position.line() + skipped.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str, bytes: &[u8]) -> Result<Vec<Vec<String>>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let records = read(&path, &mut |field| field.ends_with(".png"))?;
        Ok(records.into_iter().map(|record| record.fields).collect())
    }

    #[test]
    fn every_separator_is_found() {
        let expected = [["a.png", "cat"], ["b.png", "dog"]];
        for text in [
            "a.png,cat\nb.png,dog\n",
            "a.png;cat\nb.png;dog\n",
            "a.png\tcat\nb.png\tdog\n",
            "a.png|cat\r\nb.png|dog",
            "\u{feff}a.png, cat\n# a comment\n\nb.png ,dog\n,\n",
            "sep=;\na.png;cat\nb.png;dog",
            "a.png;\"cat\"\n\"b.png\";dog",
            "a.png,cat\rb.png,dog\r",
        ] {
            assert_eq!(fields("t.csv", text.as_bytes()).unwrap(), expected, "{text:?}");
        }
        assert_eq!(fields("t.tsv", b"a.png\tcat, small\nb.png\tdog").unwrap()[0], ["a.png", "cat, small"]);
        // Commas in a decimal number or in a name do not mislead.
        assert_eq!(fields("t.csv", b"a.png;1,5\nb.png;2,5").unwrap()[0], ["a.png", "1,5"]);
        assert_eq!(fields("t.csv", b"a.png\nb.png").unwrap(), [["a.png"], ["b.png"]]);
        assert_eq!(fields("t.csv", b"x;y\nz;w").unwrap()[1], ["z", "w"]);
    }

    #[test]
    fn lines_are_counted_from_the_file_s_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, "sep=;\n# comment\na;b\n\nc;d\n").unwrap();
        let lines: Vec<u64> = read(&path, &mut |_| false).unwrap().iter().map(|record| record.line).collect();
        assert_eq!(lines, [3, 5]);
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        let utf16: Vec<u8> = "a.png,cat\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, expected) in [
            ([&[0xff, 0xfe], &utf16[..]].concat(), "UTF-16"),
            (utf16, "UTF-16"),
            (b"PK\x03\x04rest".to_vec(), "Excel"),
            (b"a.png,cat\nb.png,caf\xe9\n".to_vec(), "line 2 is not UTF-8"),
        ] {
            let error = fields("t.csv", &bytes).unwrap_err();
            assert!(error.to_string().contains(expected) && error.exit_code() == 5, "{error}");
        }
    }
}
