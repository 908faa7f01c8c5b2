//! CIFAR-10's binary version: `data_batch_*.bin`, `test_batch.bin` and `batches.meta.txt` (the names of the classes).
//!
//! A record is one label byte and three planes of 32 x 32 bytes, red, green and blue.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use smalti_models::folder::Split;

use super::listing::Listing;
use super::source::{Raw, Source, Store};
use crate::error::{Error, Result};

/// The folder inside the published archive.
pub(crate) const FOLDER: &str = "cifar-10-batches-bin";

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;
/// The published batches have 10,000 records; a file far beyond that is something else.
const MAX_FILE: u64 = 2 << 30;

/// Whether a file of this name is a training batch.
pub(crate) fn is_batch(name: &OsStr) -> bool {
    name.to_str().is_some_and(|n| n.starts_with("data_batch_") && n.ends_with(".bin"))
}

/// The splits there are files for.
pub(crate) fn splits(folder: &Path) -> Vec<Split> {
    let mut splits = vec![Split::Train];
    if folder.join("test_batch.bin").is_file() {
        splits.push(Split::Test);
    }
    splits
}

/// Reads a split into memory.
pub(crate) fn read(folder: &Path, split: Split) -> Result<Listing> {
    let mut paths: Vec<PathBuf> = Vec::new();
    if matches!(split, Split::Train | Split::All) {
        paths = batches(folder)?;
    }
    let test = folder.join("test_batch.bin");
    if split == Split::Test || (split == Split::All && test.is_file()) {
        paths.push(test);
    }
    let classes = class_names(folder)?;
    let mut raw = Raw { width: SIDE, height: SIDE, channels: 3, pixels: Vec::new(), files: Vec::new() };
    let mut labels = Vec::new();
    for path in paths {
        raw.files.push((labels.len(), path.clone()));
        read_batch(&path, classes.len(), &mut raw.pixels, &mut labels)?;
    }
    let (source, splits) =
        (Source::new(folder, "CIFAR-10 batches", Store::Raw(raw)), vec![split; labels.len()]);
    Ok(Listing { source, labels, classes, splits, notes: Vec::new() })
}

/// The training batches, by name.
fn batches(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::file("read", folder))? {
        let entry = entry.map_err(Error::file("read", folder))?;
        if is_batch(&entry.file_name()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_batch(
    path: &Path,
    classes: usize,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<Option<u32>>,
) -> Result<()> {
    let place = path.display();
    let size = std::fs::metadata(path).map_err(Error::file("read", path))?.len();
    if size == 0 || size % RECORD as u64 != 0 || size > MAX_FILE {
        let problem =
            format!("{size} bytes, expected whole records of {RECORD} bytes; download the file again");
        return Err(Error::data(place.to_string(), problem));
    }
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    pixels.reserve_exact(bytes.len() / RECORD * 3 * PLANE);
    for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
        let [label, planes @ ..] = record else { continue };
        if usize::from(*label) >= classes {
            let problem =
                format!("label {label}, expected less than {classes}; is it CIFAR-10's binary version?");
            return Err(Error::data(format!("{place}[{i}]"), problem));
        }
        labels.push(Some(u32::from(*label)));
        let (red, rest) = planes.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((r, g), b)| [*r, *g, *b]));
    }
    Ok(())
}

/// The names in `batches.meta.txt`, or digits without it.
fn class_names(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("batches.meta.txt");
    if !path.is_file() {
        return Ok((0..10).map(|i| i.to_string()).collect());
    }
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if names.is_empty() || names.len() > 256 {
        let problem = format!("{} class names, expected one a line, 1 to 256", names.len());
        return Err(Error::data(path.display().to_string(), problem));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn record(label: u8, fill: [u8; 3]) -> Vec<u8> {
        let mut record = vec![label];
        fill.iter().for_each(|&v| record.extend([v; PLANE]));
        record
    }

    #[test]
    fn planes_become_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join(FOLDER);
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("data_batch_1.bin"), [record(1, [1, 2, 3]), record(0, [4, 5, 6])].concat())
            .unwrap();
        std::fs::write(inner.join("data_batch_2.bin"), record(1, [7, 8, 9])).unwrap();
        std::fs::write(inner.join("test_batch.bin"), record(0, [9, 9, 9])).unwrap();
        std::fs::write(inner.join("batches.meta.txt"), "cat\ndog\n\n").unwrap();

        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((data.len(), data.classes()), (3, &["cat".to_owned(), "dog".to_owned()][..]));
        assert_eq!((data.label(0), data.label(1), data.shape()), (Some(1), Some(0), Some((32, 32, 3))));
        assert_eq!(data.image(1).unwrap().data()[..6], [4, 5, 6, 4, 5, 6]);
        assert!(data.place(2).ends_with("data_batch_2.bin[0]"), "{}", data.place(2));
        assert!(data.image(3).is_err());
        assert_eq!(Dataset::open(&inner, Split::All).unwrap().len(), 4);
        assert_eq!(Dataset::open(&inner, Split::Test).unwrap().len(), 1);
        let error = Dataset::open(&inner, Split::Val).unwrap_err();
        assert!(error.to_string().contains("no `val` split"), "{error}");
    }

    #[test]
    fn damaged_batches_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let batch = dir.path().join("data_batch_1.bin");
        for (bytes, expected) in [
            (vec![], "0 bytes"),
            (record(1, [0; 3])[..3072].to_vec(), "3072 bytes"),
            (record(10, [0; 3]), "label 10, expected less than 10"),
        ] {
            std::fs::write(&batch, bytes).unwrap();
            let error = Dataset::open(dir.path(), Split::Train).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.exit_code(), 5);
        }
    }
}
