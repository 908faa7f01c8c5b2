//! Checkpoints: safetensors files with timm's tensor names, so that timm loads them with `load_state_dict`.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};
use crate::files;
use crate::model::params::Layout;

/// No checkpoint of ours is larger.
const LIMIT: u64 = 4 << 30;
/// The metadata key that our files use.
const KEY: &str = "smalti";

/// Tensors of a file: shape and values by name.
pub type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

fn unusable(path: &Path, problem: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.into(), problem: problem.into() }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Writes named tensors, with one JSON text as metadata.
pub fn save<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    details: &serde_json::Value,
) -> Result<()> {
    let tensors: Vec<_> = tensors.into_iter().map(|(name, shape, x)| (name, shape, bytes_of(x))).collect();
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (*name, view))
        })
        .collect();
    // One key: several would be written in random order.
    let metadata = HashMap::from([(KEY.to_string(), details.to_string())]);
    let bytes = views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|e| unusable(path, format!("cannot be written: {e}")))?;
    files::write(path, &bytes)
}

/// Writes a model's parameters under timm's names.
pub fn save_model(path: &Path, layout: &Layout, params: &[f32], details: &serde_json::Value) -> Result<()> {
    let tensors = layout.iter().map(|(spec, slot)| (spec.name.as_str(), &spec.shape[..], slot.of(params)));
    save(path, tensors, details)
}

/// Reads every f32, f16 or bf16 tensor of a safetensors file, and our metadata if it has any.
pub fn load(path: &Path) -> Result<(Tensors, serde_json::Value)> {
    let bytes = files::read(path, LIMIT)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| unusable(path, format!("is no safetensors file: {e}")))?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| unusable(path, format!("is no safetensors file: {e}")))?;
    let details = header.metadata().as_ref().and_then(|all| all.get(KEY));
    let details = details.map_or(Ok(serde_json::Value::Null), |text| serde_json::from_str(text));
    let details = details.map_err(|e| unusable(path, format!("metadata `{KEY}` is no JSON: {e}")))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        if let Some(values) = floats(view.dtype(), view.data()) {
            if let Some(i) = values.iter().position(|x| !x.is_finite()) {
                return Err(unusable(path, format!("tensor `{name}` holds {} at {i}", values[i])));
            }
            tensors.insert(name.to_string(), (view.shape().to_vec(), values));
        }
    }
    Ok((tensors, details))
}

/// The values of a floating-point tensor; none for other types.
fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        Dtype::BF16 => {
            let wide = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            Some(bytes.as_chunks::<2>().0.iter().map(wide).collect())
        }
        Dtype::F16 => Some(bytes.as_chunks::<2>().0.iter().map(|b| half(u16::from_le_bytes(*b))).collect()),
        _ => None,
    }
}

/// An IEEE half as f32.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, (bits >> 10) & 31, u32::from(bits & 1023));
    match exponent {
        0 => {
            let size = fraction as f32 * (1.0 / (1 << 24) as f32);
            if sign == 0 { size } else { -size }
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (u32::from(exponent) + 112) << 23 | fraction << 13),
    }
}

/// Copies the tensors that both have into `params`; returns the names that the file lacks. A shape that differs is
/// an error.
pub fn restore(path: &Path, tensors: &Tensors, layout: &Layout, params: &mut [f32]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for (spec, slot) in layout.iter() {
        match tensors.get(&spec.name) {
            None => missing.push(spec.name.clone()),
            Some((shape, values)) if *shape == spec.shape => slot.of_mut(params).copy_from_slice(values),
            Some((shape, _)) => {
                let problem = format!("tensor `{}` is {shape:?}, expected {:?}", spec.name, spec.shape);
                return Err(unusable(path, problem));
            }
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::precision::Precision;
    use smalti_models::names;
    use smalti_models::{Pool, VitConfig};

    fn layout() -> Layout {
        let vit = VitConfig { img_size: 4, patch_size: 2, channels: 1, dim: 8, depth: 1, heads: 2 };
        Layout::new(names::classifier(&vit, 3, Pool::Mean), Precision::F32)
    }

    #[test]
    fn a_model_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, path) = (layout(), folder.path().join("m.safetensors"));
        let params = layout.init::<f32>(5);
        save_model(&path, &layout, &params, &serde_json::json!({"a": 1})).unwrap();
        let (tensors, details) = load(&path).unwrap();
        assert_eq!(details["a"], 1);
        let mut back = vec![0.0; layout.len()];
        assert!(restore(&path, &tensors, &layout, &mut back).unwrap().is_empty());
        assert_eq!(back, params);
        save_model(&folder.path().join("n"), &layout, &params, &serde_json::json!({"a": 1})).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(folder.path().join("n")).unwrap());
    }

    #[test]
    fn halves_are_widened_exactly() {
        for (bits, want) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 5.960_464_5e-8), (0x7bff, 65504.0), (0x8000, 0.0)]
        {
            assert_eq!(half(bits), want);
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
        assert_eq!(floats(Dtype::BF16, &[0x80, 0x3f]), Some(vec![1.0]));
        assert_eq!(floats(Dtype::I64, &[0; 8]), None);
    }

    #[test]
    fn a_foreign_shape_is_named() {
        let (layout, path) = (layout(), Path::new("x"));
        let tensors = Tensors::from([("head.bias".to_string(), (vec![4], vec![0.0; 4]))]);
        let error = restore(path, &tensors, &layout, &mut vec![0.0; layout.len()]).unwrap_err();
        assert!(error.to_string().contains("`head.bias` is [4], expected [3]"));
    }
}
