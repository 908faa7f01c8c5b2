//! Safetensors files: named tensors, and one JSON text as metadata.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use smalti_models::foreign::{Wanted, recognize};
use smalti_models::starts;

use crate::error::{Error, Result};
use crate::files;
use crate::model::params::Layout;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 4 << 30;
/// The metadata key that our files use.
const KEY: &str = "smalti";

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Slowest axis first.
    pub shape: Vec<usize>,
    /// The type in the file.
    pub dtype: Dtype,
    /// The values of an f32, f16 or bf16 tensor; empty for every other type.
    pub values: Vec<f32>,
}

/// The tensors of a file by name, in the order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

impl Tensor {
    /// An f32 tensor.
    pub fn new(shape: &[usize], values: Vec<f32>) -> Tensor {
        Tensor { shape: shape.to_vec(), dtype: Dtype::F32, values }
    }

    /// Whether there are as many values as the shape says.
    pub(super) fn is_whole(&self) -> bool {
        let count = self.shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
        !self.is_float() || count == Some(self.values.len())
    }

    /// Whether the type is one whose values are read.
    pub fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }
}

pub(crate) fn unusable(path: &Path, problem: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.into(), problem: problem.into() }
}

/// Writes named tensors as f32, with `details` as metadata.
///
/// # Errors
/// A shape that does not fit its values, or the file system.
pub fn save<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    details: &Value,
) -> Result<()> {
    files::write(path, &encode(path, tensors, details)?)
}

/// The bytes that [`save`] writes to `path`.
pub(crate) fn encode<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    details: &Value,
) -> Result<Vec<u8>> {
    encode_as(path, tensors, details, Dtype::F32, bytes_of)
}

/// As [`save`], rounded to f16: half of the size.
///
/// # Errors
/// As [`save`].
pub fn save_half<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    details: &Value,
) -> Result<()> {
    let halves = |values: &[f32]| values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
    files::write(path, &encode_as(path, tensors, details, Dtype::F16, halves)?)
}

fn encode_as<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    details: &Value,
    dtype: Dtype,
    bytes_of: impl Fn(&[f32]) -> Vec<u8>,
) -> Result<Vec<u8>> {
    let tensors: Vec<_> = tensors.into_iter().map(|(name, shape, x)| (name, shape, bytes_of(x))).collect();
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, shape, bytes)| TensorView::new(dtype, shape.to_vec(), bytes).map(|view| (*name, view)))
        .collect();
    // One key: several would be written in random order.
    let metadata = HashMap::from([(KEY.to_string(), details.to_string())]);
    views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|e| unusable(path, format!("cannot be written: {e}")))
}

/// Writes a model's parameters under timm's names.
///
/// # Errors
/// As [`save`].
pub fn save_model(path: &Path, layout: &Layout, params: &[f32], details: &Value) -> Result<()> {
    let tensors = layout.iter().map(|(spec, slot)| (spec.name.as_str(), &spec.shape[..], slot.of(params)));
    save(path, tensors, details)
}

/// The bytes of a file of weights, or of the start of this name.
pub(crate) fn bytes(path: &Path) -> Result<Cow<'static, [u8]>> {
    let start = path.to_str().and_then(starts::find).filter(|_| !path.exists());
    start.map_or_else(|| files::read(path, LIMIT).map(Cow::Owned), |start| Ok(start.weights.into()))
}

/// Reads every tensor of a file, or of the start of this name ([`starts`]), and our metadata if it has any (else null).
///
/// # Errors
/// A file that is no safetensors file, a value that is not finite, or the file system.
pub fn load(path: &Path) -> Result<(Tensors, Value)> {
    load_with_text(path).map(|(tensors, details, _)| (tensors, details))
}

/// As [`load`], with the text of our metadata.
pub(crate) fn load_with_text(path: &Path) -> Result<(Tensors, Value, String)> {
    let bytes = bytes(path)?;
    let foreign = |e| {
        let problem = match recognize(&bytes, Wanted::Weights) {
            Some((what, remedy)) => format!("is no safetensors file but {what}: {remedy}"),
            None => format!("is no safetensors file: {e}"),
        };
        unusable(path, problem)
    };
    let file = SafeTensors::deserialize(&bytes).map_err(foreign)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(foreign)?;
    let text = header.metadata().as_ref().and_then(|all| all.get(KEY)).cloned();
    let details = text.as_ref().map_or(Ok(Value::Null), |text| serde_json::from_str(text));
    let details = details.map_err(|e| unusable(path, format!("metadata `{KEY}` is no JSON: {e}")))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let values = floats(view.dtype(), view.data());
        if let Some(i) = values.iter().position(|x| !x.is_finite()) {
            return Err(unusable(path, format!("tensor `{name}` holds {} at {i}", values[i])));
        }
        let tensor = Tensor { shape: view.shape().to_vec(), dtype: view.dtype(), values };
        tensors.insert(name.to_string(), tensor);
    }
    Ok((tensors, details, text.unwrap_or_default()))
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The values of a floating-point tensor; none for other types.
fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
    match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::BF16 => pairs().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
        Dtype::F16 => pairs().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file of one tensor.
    fn write(path: &Path, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        std::fs::write(path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
    }

    #[test]
    fn halves_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("half.safetensors");
        let values = [1.0, -2.0, 5.960_464_5e-8, 65504.0, 0.1];
        save_half(&path, [("x", &[5usize][..], &values[..])], &Value::Null).unwrap();
        let (tensors, _) = load(&path).unwrap();
        assert_eq!((tensors["x"].dtype, &tensors["x"].values[..4]), (Dtype::F16, &values[..4]));
        assert!((tensors["x"].values[4] - 0.1).abs() < 1e-4);
    }

    #[test]
    fn three_types_hold_values_and_others_are_kept_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let types: [(Dtype, &[u8], &[f32]); 4] = [
            (Dtype::F32, &[0, 0, 128, 63], &[1.0]),
            (Dtype::BF16, &[0x80, 0x3f], &[1.0]),
            (Dtype::F16, &[0, 0x3c], &[1.0]),
            (Dtype::I64, &[1, 0, 0, 0, 0, 0, 0, 0], &[]),
        ];
        for (dtype, bytes, values) in types {
            write(&path, dtype, &[1, 1], bytes);
            let found = load(&path).unwrap().0.remove("x").unwrap();
            assert_eq!((found.dtype, &found.shape[..], &found.values[..]), (dtype, &[1, 1][..], values));
            assert_eq!(found.is_float(), !values.is_empty());
        }
    }

    #[test]
    fn values_that_are_not_finite_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write(&path, Dtype::F16, &[2], &[0, 0, 0, 0x7e]);
        assert!(load(&path).unwrap_err().to_string().ends_with("tensor `x` holds NaN at 1"));
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        save(&path, [("x", &[2usize][..], &[1.0f32, 2.0][..])], &Value::Null).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(whole[..8].try_into().unwrap());
        let text = String::from_utf8_lossy(&whole[8..8 + header as usize]).into_owned();
        let with = |from: &str, to: &str| {
            let text = text.replace(from, to);
            [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &whole[whole.len() - 8..]].concat()
        };
        let lies = [
            Vec::new(),
            whole[..7].to_vec(),
            whole[..whole.len() - 1].to_vec(),
            [&whole[..], b"!"].concat(),
            u64::MAX.to_le_bytes().to_vec(),
            with("[2]", "[3]"),
            with("[2]", "[-2]"),
            with("[2]", "[9223372036854775807,9223372036854775807]"),
            with("[0,8]", "[8,0]"),
            with("[0,8]", "[0,9]"),
            with("F32", "F33"),
            with("\"null\"", "\"{\""),
        ];
        for lie in lies {
            std::fs::write(&path, &lie).unwrap();
            assert_eq!(load(&path).unwrap_err().exit_code(), 5, "{lie:?}");
        }
        std::fs::write(&path, b"PK\x03\x04 and more than eight bytes").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("zip archive, as PyTorch's files are"));
        assert_eq!(load(&folder.path().join("none")).unwrap_err().exit_code(), 6);
    }
}
