//! What is left of a selection: the table that labels go into, the contact sheet, copies to be sorted.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use smalti_models::files::sync_folder;
use smalti_trainer::data::{Dataset, LabelTable, Row};
use smalti_trainer::run::Owner;
use smalti_trainer::{Error, Result, files, sheet};

use super::{SHEET, TABLE};

/// Side of an image on the sheet, in pixels.
const SIDE: usize = 128;
const COLUMNS: usize = 10;
const GAP: usize = 4;
/// Images on the sheet, at most: the format ends at 65,535 pixels.
const SHOWN: usize = 2000;

/// What was chosen.
pub(super) struct Outcome<'a> {
    pub(super) data: &'a Dataset,
    /// In the order in which to label them.
    pub(super) picked: &'a [usize],
    pub(super) folder: &'a Path,
}

impl Outcome<'_> {
    /// Writes everything, the table last: where it is, the rest is, too. Gives its path.
    pub(super) fn write(&self, owner: &Owner, copy: Option<&Path>) -> Result<PathBuf> {
        owner.write(SHEET, &self.sheet()?)?;
        let rows = LabelTable::rows_of(self.data)?;
        if let Some(copy) = copy {
            copy_files(self.picked.iter().map(|i| rows[*i].file.as_path()), copy)?;
        }
        let labelled = rows.iter().filter(|row| row.label.is_some());
        let rows: Vec<Row> = labelled.chain(self.picked.iter().map(|i| &rows[*i])).cloned().collect();
        let path = owner.folder().join(TABLE);
        owner.add([Path::new(TABLE)])?;
        LabelTable::new(&path, self.folder, rows).save()?;
        Ok(path)
    }

    /// The images in the order of the table, as a JPEG.
    fn sheet(&self) -> Result<Vec<u8>> {
        let shown = &self.picked[..self.picked.len().min(SHOWN)];
        let thumbnails: Result<Vec<_>> =
            shown.par_iter().map(|i| sheet::thumbnail(self.data.image_for(*i, SIDE)?, SIDE)).collect();
        sheet::jpeg(&sheet::sheet(&thumbnails?, COLUMNS, GAP)?)
    }
}

/// Whether a table of an earlier command holds labels that the data set does not: someone gave them.
///
/// # Errors
/// A table that cannot be read.
pub(super) fn has_new_labels(table: &Path, folder: &Path, data: &Dataset) -> Result<bool> {
    if !table.exists() {
        return Ok(false);
    }
    let known: HashMap<PathBuf, Option<String>> =
        LabelTable::rows_of(data)?.into_iter().map(|row| (row.file, row.label)).collect();
    let table = LabelTable::open(table, folder)?;
    Ok(table.rows().iter().any(|row| row.label.is_some() && known.get(&row.file) != Some(&row.label)))
}

/// Refuses a folder for copies that holds something, or whose images would be part of the data set.
///
/// # Errors
/// Such a folder.
pub(super) fn check_copy(copy: &Path, folder: &Path) -> Result<()> {
    let refuse = |why: &str| Err(Error::Usage(format!("--copy {}: {why}", copy.display())));
    let full =
        |path: &Path| std::path::absolute(path).map(|path| std::fs::canonicalize(&path).unwrap_or(path));
    if let (Ok(copy), Ok(folder)) = (full(copy), full(folder))
        && copy.starts_with(folder)
    {
        return refuse("lies in DIR, where the copies would be images, too: name a folder elsewhere");
    }
    let holds_files = std::fs::read_dir(copy).is_ok_and(|mut entries| entries.next().is_some());
    match () {
        () if holds_files => refuse("holds files already: name a new folder"),
        () if copy.is_file() => refuse("is a file: name a new folder"),
        () => Ok(()),
    }
}

/// Copies files into a new folder, whole or not at all. Of two with the same name the second gets a number.
fn copy_files<'a>(sources: impl Iterator<Item = &'a Path>, folder: &Path) -> Result<()> {
    let failed = |e| Error::file("write", folder)(e);
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::make_folder(parent)?;
    let unfinished = tempfile::Builder::new().prefix(".copying-").tempdir_in(parent).map_err(failed)?;
    let mut taken = HashSet::new();
    for source in sources {
        let (stem, extension) =
            (source.file_stem().unwrap_or_default(), source.extension().unwrap_or_default());
        let mut name = PathBuf::from(source.file_name().unwrap_or_default());
        let mut number = 1;
        // Some file systems do not tell cases apart.
        while !taken.insert(name.as_os_str().to_ascii_lowercase()) {
            number += 1;
            let mut numbered = stem.to_owned();
            numbered.push(format!("-{number}."));
            numbered.push(extension);
            name = numbered.into();
        }
        let copy = unfinished.path().join(name);
        let copied = std::fs::copy(source, &copy).and_then(|_| std::fs::File::open(copy)?.sync_all());
        copied.map_err(Error::file("copy", source))?;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(unfinished.path(), std::fs::Permissions::from_mode(0o755))
            .map_err(failed)?;
    }
    sync_folder(unfinished.path()).map_err(failed)?;
    // An empty folder may be there.
    let _ = std::fs::remove_dir(folder);
    std::fs::rename(unfinished.path(), folder).and_then(|()| sync_folder(parent)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_their_names_and_replace_nothing() {
        let at = tempfile::tempdir().unwrap();
        let (data, copy) = (at.path().join("data"), at.path().join("new/copy"));
        let sources: Vec<PathBuf> =
            ["a/1.png", "b/1.png", "b/1-2.png", "c/1.PNG"].iter().map(|name| data.join(name)).collect();
        for source in &sources {
            std::fs::create_dir_all(source.parent().unwrap()).unwrap();
            std::fs::write(source, source.to_str().unwrap()).unwrap();
        }
        assert!(check_copy(&copy, &data).is_ok());
        copy_files(sources.iter().map(PathBuf::as_path), &copy).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(&copy)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["1-2-2.png", "1-2.png", "1-3.PNG", "1.png"]);
        assert_eq!(std::fs::read_dir(at.path().join("new")).unwrap().count(), 1);
        for (copy, why) in
            [(copy, "holds files"), (data.join("sort"), "lies in DIR"), (sources[0].clone(), "lies in DIR")]
        {
            assert!(check_copy(&copy, &data).unwrap_err().to_string().contains(why), "{copy:?}");
        }
        std::fs::create_dir(at.path().join("empty")).unwrap();
        assert!(check_copy(&at.path().join("empty"), &data).is_ok());
        assert!(check_copy(at.path(), &data).is_err(), "it holds the data");
    }
}
