//! MNIST's IDX files, plain or gzipped: `train-images-idx3-ubyte(.gz)` next to `train-labels-idx1-ubyte(.gz)`.
//!
//! The header is two zero bytes, the type (8: unsigned bytes), the number of dimensions, and the dimensions as
//! big-endian 32-bit numbers. Images are N x rows x columns, or N x rows x columns x channels. The classes are the
//! digits from 0 unless a `labels.txt` or `classes.txt` next to the files names them, one a line.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use smalti_models::folder::Split;

use super::classes;
use super::listing::Listing;
use super::source::{Raw, Source, Store};
use crate::error::{Error, Result};

/// Maximum size of one file once unpacked.
const MAX_BYTES: usize = 2 << 30;

/// A file of images, and where its labels should be.
pub(crate) struct Pair {
    pub(crate) split: Split,
    images: PathBuf,
    labels: PathBuf,
}

impl Pair {
    /// The pair that a file belongs to, when its name is one of an IDX file of images.
    pub(crate) fn of_images(path: &Path) -> Option<Pair> {
        let name = path.file_name()?.to_str()?;
        let bare = name.strip_suffix(".gz").unwrap_or(name);
        if !bare.contains("images")
            || !(bare.contains("idx3") || bare.contains("idx4") || bare.ends_with(".idx"))
        {
            return None;
        }
        let labels = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
        let mut labels = path.with_file_name(labels);
        if !labels.exists() {
            // One of the two may have been unpacked.
            let other = match labels.to_str()?.strip_suffix(".gz") {
                Some(plain) => plain.to_owned(),
                None => format!("{}.gz", labels.display()),
            };
            labels = other.into();
        }
        let split = if bare.contains("t10k") || bare.contains("test") {
            Split::Test
        } else if bare.contains("val") {
            Split::Val
        } else {
            Split::Train
        };
        Some(Pair { split, images: path.to_path_buf(), labels })
    }
}

/// Reads a split into memory.
pub(crate) fn read(root: &Path, pairs: &[Pair], split: Split) -> Result<Listing> {
    let mut raw = Raw { width: 0, height: 0, channels: 0, pixels: Vec::new(), files: Vec::new() };
    let mut labels = Vec::new();
    for pair in pairs.iter().filter(|p| split == Split::All || p.split == split) {
        let first = labels.len();
        let n = read_images(&pair.images, &mut raw)?;
        labels.extend(read_labels(pair, n)?);
        raw.files.push((first, pair.images.clone()));
    }
    let folder = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
    let classes = class_names(folder, &labels)?;
    let (source, splits) = (Source::new(root, "IDX files", Store::Raw(raw)), vec![split; labels.len()]);
    Ok(Listing { source, labels, classes, splits, notes: Vec::new() })
}

fn read_images(path: &Path, raw: &mut Raw) -> Result<usize> {
    let (dims, mut pixels) = read_file(path)?;
    let shape = match dims[..] {
        [n, height, width] => (n, height, width, 1),
        [n, height, width, channels @ (1 | 3)] => (n, height, width, channels),
        _ => {
            let problem =
                format!("dimensions {dims:?}, expected images x rows x columns, or these x 1 or 3 channels");
            return Err(Error::data(path.display().to_string(), problem));
        }
    };
    let (n, height, width, channels) = shape;
    if n == 0 || height == 0 || width == 0 {
        return Err(Error::data(
            path.display().to_string(),
            format!("dimensions {dims:?}, expected none of them 0"),
        ));
    }
    if raw.pixels.is_empty() {
        (raw.width, raw.height, raw.channels) = (width, height, channels);
    } else if (raw.width, raw.height, raw.channels) != (width, height, channels) {
        let problem = format!(
            "images of {width} x {height} x {channels}, but those before are {} x {} x {}",
            raw.width, raw.height, raw.channels
        );
        return Err(Error::data(path.display().to_string(), problem));
    }
    raw.pixels.append(&mut pixels);
    Ok(n)
}

/// The labels of `n` images: none at all when there is no file of labels.
fn read_labels(pair: &Pair, n: usize) -> Result<Vec<Option<u32>>> {
    if !pair.labels.exists() {
        return Ok(vec![None; n]);
    }
    let (dims, bytes) = read_file(&pair.labels)?;
    if dims[..] != [n] {
        let problem =
            format!("dimensions {dims:?}, expected [{n}]: one label for each image of the other file");
        return Err(Error::data(pair.labels.display().to_string(), problem));
    }
    Ok(bytes.into_iter().map(|b| Some(u32::from(b))).collect())
}

/// The dimensions and bytes of a file. Nothing is allocated on the header's word alone: bytes are taken as they come.
fn read_file(path: &Path) -> Result<(Vec<usize>, Vec<u8>)> {
    let file = File::open(path).map_err(Error::file("read", path))?;
    let found = file.metadata().map_err(Error::file("read", path))?;
    if !found.is_file() {
        return Err(Error::data(path.display().to_string(), "not an ordinary file, expected an IDX file"));
    }
    let plain = BufReader::new(file);
    let problem = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
        parse(&mut MultiGzDecoder::new(plain))
    } else {
        parse(&mut { plain })
    };
    problem.map_err(|problem| Error::data(path.display().to_string(), problem))
}

fn parse(from: &mut impl Read) -> Result<(Vec<usize>, Vec<u8>), String> {
    let short = |e: std::io::Error| format!("the header cannot be read ({e}), expected an IDX file");
    let mut magic = [0; 4];
    from.read_exact(&mut magic).map_err(short)?;
    let [0, 0, kind, rank @ 1..=4] = magic else {
        return Err(format!(
            "starts with {magic:02x?}, expected an IDX file: 00 00 08 and 1 to 4 dimensions"
        ));
    };
    if kind != 8 {
        return Err(format!("numbers of type {kind:#04x}, expected 0x08, unsigned bytes"));
    }
    let mut dims = Vec::new();
    for _ in 0..rank {
        let mut dim = [0; 4];
        from.read_exact(&mut dim).map_err(short)?;
        dims.push(u32::from_be_bytes(dim) as usize);
    }
    let expected = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_BYTES);
    let expected =
        expected.ok_or_else(|| format!("dimensions {dims:?}, expected at most {MAX_BYTES} bytes"))?;
    let mut bytes = Vec::new();
    from.take(expected as u64 + 1).read_to_end(&mut bytes).map_err(|e| {
        format!("ends after {} of {expected} bytes ({e}); download the file again", bytes.len())
    })?;
    if bytes.len() != expected {
        let found = if bytes.len() > expected { "more".to_owned() } else { bytes.len().to_string() };
        return Err(format!("{found} bytes after the header, which says {dims:?}: {expected}"));
    }
    Ok((dims, bytes))
}

/// The names in `labels.txt` or `classes.txt`, or digits up to the largest label.
fn class_names(folder: &Path, labels: &[Option<u32>]) -> Result<Vec<String>> {
    let Some(largest) = labels.iter().flatten().max() else { return Ok(Vec::new()) };
    match classes::names_file(folder)? {
        Some(names) => Ok(names),
        None => Ok((0..=(*largest).max(9)).map(|i| i.to_string()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::data::Dataset;

    fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|d| file.extend(d.to_be_bytes()));
        file.extend(bytes);
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn pairs_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| std::fs::write(dir.path().join(name), bytes).unwrap();
        put("train-images-idx3-ubyte.gz", gzip(&idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6])));
        put("train-labels-idx1-ubyte.gz", gzip(&idx(&[2], &[7, 3])));
        put("t10k-images-idx3-ubyte", idx(&[1, 1, 3], &[9, 9, 9]));
        put("t10k-labels-idx1-ubyte.gz", gzip(&idx(&[1], &[0])));
        let train = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.shape(), train.classes().len()), (2, Some((3, 1, 1)), 10));
        assert_eq!((train.label(1), train.image(1).unwrap().data()), (Some(3), &[4, 5, 6][..]));
        let all = Dataset::open(dir.path(), Split::All).unwrap();
        assert_eq!((all.len(), all.labels().unwrap()), (3, vec![0, 7, 3]));
        put("labels.txt", b"a\nb\nc\nd\n".to_vec());
        let error = Dataset::open(dir.path(), Split::Train).unwrap_err();
        assert!(error.to_string().contains("label 7, but there are 4 classes"), "{error}");
    }

    #[test]
    fn images_alone_are_unlabelled() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("images-idx4-ubyte"), idx(&[1, 1, 1, 3], &[1, 2, 3])).unwrap();
        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((data.shape(), data.label(0), data.classes().len()), (Some((1, 1, 3)), None, 0));
        assert!(data.labels().unwrap_err().to_string().contains("carry no labels"));
    }

    #[test]
    fn each_lie_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train-images-idx3-ubyte");
        let good = idx(&[2, 2, 2], &[0; 8]);
        let float = [&[0, 0, 13, 3][..], &good[4..]].concat();
        for (bytes, expected) in [
            (vec![], "header cannot be read"),
            (b"\x89PNG\r\n\x1a\n".to_vec(), "expected an IDX file"),
            (float, "expected 0x08"),
            (good[..10].to_vec(), "header cannot be read"),
            (good[..good.len() - 1].to_vec(), "7 bytes after the header"),
            ([&good[..], &[0]].concat(), "more bytes after the header"),
            (idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), "expected at most"),
            (idx(&[1 << 20, 28, 28], &[0; 100]), "100 bytes after the header"),
            (idx(&[0, 28, 28], &[]), "expected none of them 0"),
            (idx(&[8], &[0; 8]), "expected images x rows x columns"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Dataset::open(dir.path(), Split::Train).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} / {expected}");
        }
        std::fs::write(&path, &good).unwrap();
        std::fs::write(dir.path().join("train-labels-idx1-ubyte"), idx(&[3], &[0; 3])).unwrap();
        let error = Dataset::open(dir.path(), Split::Train).unwrap_err();
        assert!(error.to_string().contains("expected [2]"), "{error}");
    }

    #[test]
    fn a_cut_gzip_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let packed = gzip(&idx(&[10, 28, 28], &vec![7; 7840]));
        std::fs::write(dir.path().join("train-images-idx3-ubyte.gz"), &packed[..packed.len() / 2]).unwrap();
        let error = Dataset::open(dir.path(), Split::Train).unwrap_err();
        assert!(error.to_string().contains("train-images"), "{error}");
    }
}
