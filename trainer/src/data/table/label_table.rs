//! A table of images and their labels that a program fills in: lines `path,label` under that header, an empty label
//! where there is none yet. [`smalti train --labels`](crate::data::Dataset::from_table) reads it at any time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{dialect, escape};
use crate::data::listing::Listing;
use crate::data::source::{Source, Store};
use crate::data::{Dataset, classes};
use crate::error::{Error, Result};
use crate::files;

/// Maximum bytes of a table that is filled in.
const LIMIT: u64 = 256 << 20;

/// An image and its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The file.
    pub file: PathBuf,
    /// Its class, if it has one yet.
    pub label: Option<String>,
}

/// The rows of a table, and the file that holds them.
#[derive(Debug)]
pub struct LabelTable {
    path: PathBuf,
    folder: PathBuf,
    rows: Vec<Row>,
    /// Digest of the file as this process last read or wrote it; none before the first save.
    known: Option<[u8; 32]>,
}

impl LabelTable {
    /// A table of these images, to be written at `path`; files lie below `folder`, where their paths begin.
    pub fn new(path: &Path, folder: &Path, rows: Vec<Row>) -> LabelTable {
        LabelTable { path: path.into(), folder: folder.into(), rows, known: None }
    }

    /// Reads the table at `path`, whose paths begin in `folder`. A file that it names twice is there once, with its last
    /// label.
    ///
    /// # Errors
    /// What is no table of images; columns other than a path and a label, which saving would lose.
    pub fn open(path: &Path, folder: &Path) -> Result<LabelTable> {
        let known = Some(digest(&files::read(path, LIMIT)?));
        let widest = dialect::read(path, &mut |_| false)?.iter().map(|record| record.fields.len()).max();
        if widest.is_some_and(|columns| columns > 2) {
            let problem = "has more columns than a path and a label, which would be lost when it is written: expected \
                           lines `path,label`";
            return Err(Error::data(path.display().to_string(), problem));
        }
        let data = Dataset::from_table(path, folder)?;
        let mut rows: Vec<Row> = Vec::with_capacity(data.len());
        let mut places: HashMap<PathBuf, usize> = HashMap::new();
        for row in LabelTable::rows_of(&data)? {
            match places.get(&row.file) {
                Some(&place) => rows[place].label = row.label.or(rows[place].label.take()),
                None => {
                    places.insert(row.file.clone(), rows.len());
                    rows.push(row);
                }
            }
        }
        Ok(LabelTable { path: path.into(), folder: folder.into(), rows, known })
    }

    /// Rows of all images of a data set, with the labels that they have there.
    ///
    /// # Errors
    /// Images that are not files of their own.
    pub fn rows_of(data: &Dataset) -> Result<Vec<Row>> {
        let label = |i| data.label(i).and_then(|label| data.classes().get(label as usize).cloned());
        Ok(data.files()?.into_iter().enumerate().map(|(i, file)| Row { file, label: label(i) }).collect())
    }

    /// The file that holds the table.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What row `i` is called, from the folder on: for people, as some names are no text.
    pub fn name(&self, i: usize) -> String {
        let file = self.rows.get(i).map(|row| row.file.as_path()).unwrap_or(Path::new(""));
        file.strip_prefix(&self.folder).unwrap_or(file).display().to_string()
    }

    /// The images of all rows, without their labels, in the same order.
    ///
    /// # Errors
    /// A table without rows.
    pub fn dataset(&self) -> Result<Dataset> {
        let files: Vec<PathBuf> = self.rows.iter().map(|row| row.file.clone()).collect();
        let labels = vec![None; files.len()];
        let source = Source::new(&self.folder, "a table of labels", Store::Files(files));
        Dataset::from_listing(Listing {
            source,
            labels,
            classes: Vec::new(),
            splits: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Gives row `i` a label, or none, and saves the table; gives back the label that it had. If it cannot be saved,
    /// nothing changes.
    ///
    /// # Errors
    /// What cannot be a class's name; as [`LabelTable::save`].
    pub fn set(&mut self, i: usize, label: Option<String>) -> Result<Option<String>> {
        let label = label.map(|label| label.trim().to_owned());
        if let Some(problem) = label.as_deref().and_then(classes::unusable_name) {
            return Err(Error::Usage(problem));
        }
        let count = self.rows.len();
        let row =
            self.rows.get_mut(i).ok_or_else(|| Error::Usage(format!("no row {i}, there are {count}")))?;
        let before = std::mem::replace(&mut row.label, label);
        match self.save() {
            Ok(()) => Ok(before),
            Err(error) => {
                self.rows[i].label = before;
                Err(error)
            }
        }
    }

    /// Replaces the file by the rows, whole or not at all.
    ///
    /// # Errors
    /// The file system; a file that another program has changed since this one read or wrote it.
    pub fn save(&mut self) -> Result<()> {
        if let Some(known) = self.known
            && self.path.exists()
            && digest(&files::read(&self.path, LIMIT)?) != known
        {
            let problem = "was changed by another program since it was read, and is left as it is: start again to go on \
                           with what it holds now";
            return Err(Error::data(self.path.display().to_string(), problem));
        }
        let bytes = self.bytes()?;
        files::write(&self.path, &bytes)?;
        self.known = Some(digest(&bytes));
        Ok(())
    }

    /// The text of the table.
    fn bytes(&self) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let wrong =
            |e: csv::Error| Error::data(self.path.display().to_string(), format!("cannot be written: {e}"));
        writer.write_record(["path", "label"]).map_err(wrong)?;
        for Row { file, label } in &self.rows {
            let path = file.strip_prefix(&self.folder).unwrap_or(file);
            writer
                .write_record([&escape::field(path), label.as_deref().unwrap_or_default()])
                .map_err(wrong)?;
        }
        writer.into_inner().map_err(|e| Error::file("write", &self.path)(e.into_error()))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that a table, a page or a shell may stumble over.
    const NAMES: [&str; 9] = [
        "plain.png",
        "with space.png",
        " led by one.png",
        "comma, \"quote\".png",
        "semi;colon|bar\ttab.png",
        "<script>alert(1)</script>.png",
        "#hash.png",
        "line\nbreak.png",
        "sub/back\\slash é.png",
    ];

    fn folder() -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let mut files: Vec<PathBuf> = NAMES.iter().map(|name| folder.path().join(name)).collect();
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            files.push(folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.png")));
        }
        for file in &files {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let image = image::GrayImage::from_pixel(2, 2, image::Luma([7]));
            image.save_with_format(file, image::ImageFormat::Png).unwrap();
        }
        (folder, files)
    }

    #[test]
    fn every_path_and_label_comes_back() {
        let (folder, files) = folder();
        let path = folder.path().join("labels.csv");
        let rows: Vec<Row> = files.into_iter().map(|file| Row { file, label: None }).collect();
        let mut table = LabelTable::new(&path, folder.path(), rows);
        table.save().unwrap();
        for (i, label) in ["cat", "a, \"b\"", "<b>", "é"].into_iter().enumerate() {
            assert_eq!(table.set(2 * i, Some(label.into())).unwrap(), None);
        }
        let again = LabelTable::open(&path, folder.path()).unwrap();
        assert_eq!(again.rows(), table.rows());
        // As a command that trains reads it.
        let data = Dataset::from_table(&path, folder.path()).unwrap();
        assert_eq!((data.len(), data.labelled().len(), data.classes().len()), (again.rows().len(), 4, 4));
        assert!((0..data.len()).all(|i| data.image(i).is_ok()));
        assert_eq!(table.set(0, None).unwrap().as_deref(), Some("cat"));
        assert_eq!(LabelTable::open(&path, folder.path()).unwrap().rows()[0].label, None);
    }

    #[test]
    fn what_cannot_be_kept_changes_nothing() {
        let (folder, files) = folder();
        let path = folder.path().join("labels.csv");
        let mut table =
            LabelTable::new(&path, folder.path(), vec![Row { file: files[0].clone(), label: None }]);
        table.save().unwrap();
        for name in ["", "  ", "a\nb"] {
            assert_eq!(table.set(0, Some(name.into())).unwrap_err().exit_code(), 2);
        }
        assert!(table.set(1, None).is_err());
        std::fs::write(&path, "path,label\nplain.png,dog\n").unwrap();
        let error = table.set(0, Some("cat".into())).unwrap_err();
        assert!(error.to_string().contains("changed by another program"), "{error}");
        assert_eq!(table.rows()[0].label, None);
        assert_eq!(LabelTable::open(&path, folder.path()).unwrap().rows()[0].label.as_deref(), Some("dog"));
        std::fs::write(&path, "path,label,split\nplain.png,dog,test\n").unwrap();
        let error = LabelTable::open(&path, folder.path()).unwrap_err();
        assert!(error.exit_code() == 5 && error.to_string().contains("more columns"), "{error}");
    }

    #[test]
    fn a_file_named_twice_is_one_row() {
        let (folder, _) = folder();
        let path = folder.path().join("labels.csv");
        std::fs::write(&path, "plain.png,dog\nwith space.png,\n./plain.png,cat\nwith space.png,\n").unwrap();
        let rows = LabelTable::open(&path, folder.path()).unwrap().rows;
        let labels: Vec<Option<&str>> = rows.iter().map(|row| row.label.as_deref()).collect();
        assert_eq!(labels, [Some("cat"), None]);
    }
}
