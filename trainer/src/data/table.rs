//! Tables of images: CSV lines `path,label`, or `path,label,split`, with or without a header line.
//!
//! Paths are relative to the table's folder. An empty label is none; whole numbers count from 0; anything else is the
//! name of a class. Lines of a table without a `split` column all belong to `train`.

use std::path::{Path, PathBuf};

use super::source::{Source, Store};
use super::{Listing, Split, folder, labels};
use crate::error::{Error, Result};

/// Whether this is the name of a table.
pub(crate) fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv") || e.eq_ignore_ascii_case("tsv"))
}

/// One line.
struct Row {
    path: PathBuf,
    label: Option<String>,
    split: Split,
}

/// Where the columns are.
struct Columns {
    path: usize,
    label: Option<usize>,
    split: Option<usize>,
}

impl Columns {
    /// The columns that a header line names, if it is one.
    fn of_header(header: &csv::StringRecord) -> Option<Columns> {
        let place =
            |names: &[&str]| header.iter().position(|h| names.contains(&h.to_ascii_lowercase().as_str()));
        Some(Columns {
            path: place(&["path", "file", "filename", "filepath", "image", "image_path"])?,
            label: place(&["label", "class", "target"]),
            split: place(&["split", "part", "subset"]),
        })
    }
}

/// The parts that the table names.
pub(crate) fn parts(path: &Path) -> Result<Vec<Split>> {
    Ok(rows(path)?.iter().map(|row| row.split).collect())
}

/// Reads the lines of a part; the classes are those of the whole table.
pub(crate) fn read(path: &Path, split: Split) -> Result<Listing> {
    let mut rows = rows(path)?;
    let texts: Vec<Option<String>> = rows.iter_mut().map(|row| row.label.take()).collect();
    let (classes, labels) =
        labels::number(texts, None).map_err(|p| Error::data(path.display().to_string(), p))?;
    let kept = rows.into_iter().zip(labels).filter(|(row, _)| split == Split::All || row.split == split);
    let (files, labels) = kept.map(|(row, label)| (row.path, label)).unzip();
    Ok(Listing { source: Source::new(path, "a CSV table", Store::Files(files)), labels, classes })
}

fn rows(path: &Path) -> Result<Vec<Row>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = std::fs::File::open(path).map_err(Error::file("read", path))?;
    let tabs = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .delimiter(if tabs { b'\t' } else { b',' })
        .from_reader(file);
    let mut columns = Columns { path: 0, label: Some(1), split: Some(2) };
    let mut rows = Vec::new();
    for (i, record) in reader.records().enumerate() {
        let record =
            record.map_err(|e| Error::data(path.display().to_string(), format!("not a CSV table: {e}")))?;
        if i == 0
            && let Some(named) = Columns::of_header(&record)
        {
            columns = named;
            continue;
        }
        let line = record.position().map_or(i as u64 + 1, csv::Position::line);
        let wrong = |problem: String| Error::data(format!("{}:{line}", path.display()), problem);
        let field =
            |column: Option<usize>| column.and_then(|c| record.get(c)).filter(|text| !text.is_empty());
        let Some(file) = field(Some(columns.path)) else {
            return Err(wrong("no path, expected `path,label`".into()));
        };
        let split = match field(columns.split) {
            None => Split::Train,
            Some(text) => folder::split_of_name(text)
                .ok_or_else(|| wrong(format!("`{text}` is not a part, expected train, val or test")))?,
        };
        rows.push(Row { path: folder.join(file), label: field(columns.label).map(str::to_owned), split });
    }
    if rows.is_empty() {
        return Err(Error::data(
            path.display().to_string(),
            "the table is empty, expected lines `path,label`",
        ));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn table(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        std::fs::write(&path, text).unwrap();
        image::GrayImage::from_pixel(4, 4, image::Luma([9])).save(dir.path().join("a.png")).unwrap();
        (dir, path)
    }

    #[test]
    fn lines_are_images() {
        let (_dir, path) = table("a.png,dog\n\"sub/b, c.png\",cat\n# no image\nx.png,\n");
        let data = Dataset::open(&path, Split::Train).unwrap();
        assert_eq!(data.classes(), ["cat", "dog"]);
        assert_eq!((data.label(0), data.label(1), data.label(2)), (Some(1), Some(0), None));
        assert_eq!(data.image(0).unwrap().data(), [9; 16]);
        assert!(data.place(1).ends_with("sub/b, c.png"));
        assert!(data.image(1).unwrap_err().to_string().contains("cannot be read"));
        assert!(data.labels().unwrap_err().to_string().contains("1 of 3 images have none"));
    }

    #[test]
    fn a_header_names_the_columns() {
        let (_dir, path) = table("split,Label,filename\ntest,2,a.png\ntrain,0,b.png\ntrain,1,c.png\n");
        assert_eq!(Dataset::parts(&path).unwrap(), [Split::Train, Split::Test]);
        let test = Dataset::open(&path, Split::Test).unwrap();
        assert_eq!((test.len(), test.label(0), test.classes().len()), (1, Some(2), 3));
        assert_eq!(Dataset::open(&path, Split::All).unwrap().len(), 3);
        let paths_alone = table("a.png\n");
        assert!(Dataset::open(&paths_alone.1, Split::Train).unwrap().classes().is_empty());
    }

    #[test]
    fn damaged_tables_are_refused() {
        for (text, expected) in [
            ("", "the table is empty"),
            ("path,label\n", "the table is empty"),
            ("a.png,1\n,2\n", "table.csv:2: no path"),
            ("path,label,split\na.png,1,dev\n", "`dev` is not a part"),
            ("a.png,1\nb.png,4000000000\n", "4000000000"),
        ] {
            let (_dir, path) = table(text);
            let error = Dataset::open(&path, Split::Train).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} / {expected}");
            assert_eq!(error.exit_code(), 5);
        }
        let (_dir, path) = table("a.png,1\n");
        std::fs::write(&path, [b'a', b',', 0xff, b'\n']).unwrap();
        assert!(Dataset::open(&path, Split::Train).unwrap_err().to_string().contains("not a CSV table"));
    }
}
