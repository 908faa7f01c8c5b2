//! Weights: dimensions against the length of the data, types, finite values.

use smalti_models::onnx::TensorProto;
use smalti_models::onnx::tensor_proto::DataLocation;

use super::limits::Limits;
use super::value::{Kind, Value, elements, type_name};
use crate::error::{Error, Result};

/// The most axes that a tensor may have.
pub(crate) const MAX_RANK: usize = 8;

/// Checks a stored tensor wholly and says what it is.
pub(super) fn check<'a>(place: &str, tensor: &'a TensorProto, limits: &Limits) -> Result<Value<'a>> {
    let refuse = |found: String, allowed: &str| Err(Error::refused(place, found, allowed));
    let external = tensor.data_location == Some(DataLocation::External as i32);
    if external || !tensor.external_data.is_empty() {
        return refuse(
            "weights in another file".into(),
            "weights inside the model file, or beside it with --external-data (OpenOptions::external_data)",
        );
    }
    if tensor.segment.is_some() {
        return refuse("a segmented tensor".into(), "a whole tensor");
    }
    let Some(kind) = Kind::from_onnx(tensor.data_type) else {
        return refuse(type_name(tensor.data_type), "float32, uint8, int8, int32, int64 or bool");
    };
    let dims = dimensions(&tensor.dims)
        .filter(|dims| dims.len() <= MAX_RANK && elements(dims) <= limits.tensor)
        .filter(|dims| matches!(kind, Kind::I64 | Kind::F32) || !dims.contains(&0));
    let Some(dims) = dims else {
        let allowed = format!("at most {MAX_RANK} axes and {} elements, none of them empty", limits.tensor);
        return refuse(format!("shape {:?}", tensor.dims), &allowed);
    };
    let wanted = elements(&dims) as usize;
    if let Some(found) = wrong_length(tensor, kind, wanted) {
        return refuse(found, &format!("the data of {wanted} {} elements, once", kind.name()));
    }
    if kind == Kind::F32 && !floats_are_finite(tensor) {
        return refuse("a weight that is not a number or infinite".into(), "finite weights");
    }
    let known = matches!(kind, Kind::I64 | Kind::I32 | Kind::Bool);
    let ints = known.then(|| integers(tensor, kind).into());
    Ok(Value { kind, dims, constant: true, ints, floats: None, tensor: Some(tensor) })
}

/// Dimensions as sizes; none if one is negative.
pub(super) fn dimensions(dims: &[i64]) -> Option<Vec<usize>> {
    dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
}

/// What is wrong with the amount of data, if anything: exactly one field of the right length may be filled.
fn wrong_length(tensor: &TensorProto, kind: Kind, wanted: usize) -> Option<String> {
    let fields = [
        ("raw_data", tensor.raw_data.len(), Some(kind.bytes())),
        ("float_data", tensor.float_data.len(), (kind == Kind::F32).then_some(1)),
        ("int64_data", tensor.int64_data.len(), (kind == Kind::I64).then_some(1)),
        ("int32_data", tensor.int32_data.len(), (kind != Kind::F32 && kind != Kind::I64).then_some(1)),
        ("double_data", tensor.double_data.len(), None),
        ("uint64_data", tensor.uint64_data.len(), None),
        ("string_data", tensor.string_data.len(), None),
    ];
    let mut filled = fields.into_iter().filter(|(_, length, _)| *length > 0);
    match (filled.next(), filled.next()) {
        (None, _) => (wanted != 0).then(|| "no data".into()),
        (Some((name, _, None)), _) => Some(format!("data in `{name}`")),
        (Some((name, length, Some(size))), None) => {
            (Some(length) != wanted.checked_mul(size)).then(|| format!("{length} values in `{name}`"))
        }
        (Some(_), Some(_)) => Some("data in two fields".into()),
    }
}

/// The numbers of a float tensor that passed the gate, in row-major order.
pub fn floats(tensor: &TensorProto) -> impl Iterator<Item = f32> + '_ {
    let raw = tensor.raw_data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    raw.chain(tensor.float_data.iter().copied())
}

/// Whether all floats are finite.
fn floats_are_finite(tensor: &TensorProto) -> bool {
    floats(tensor).all(f32::is_finite)
}

/// The values of a checked integer or boolean tensor.
pub(crate) fn integers(tensor: &TensorProto, kind: Kind) -> Vec<i64> {
    let raw = &tensor.raw_data;
    let mut values: Vec<i64> = match kind {
        Kind::I64 => raw.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        Kind::I32 => raw.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
        Kind::I8 => raw.iter().map(|&byte| (byte as i8).into()).collect(),
        Kind::U8 | Kind::Bool => raw.iter().map(|&byte| byte.into()).collect(),
        Kind::F32 => Vec::new(),
    };
    values.extend(&tensor.int64_data);
    values.extend(tensor.int32_data.iter().map(|&value| i64::from(value)));
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::onnx::StringStringEntryProto;

    fn floats_of(dims: &[i64], values: &[f32]) -> TensorProto {
        TensorProto { dims: dims.to_vec(), data_type: 1, float_data: values.to_vec(), ..Default::default() }
    }

    fn refused(tensor: &TensorProto, word: &str) {
        let message = check("weight `w`", tensor, &Limits::default()).unwrap_err().to_string();
        assert!(message.contains("weight `w`") && message.contains(word), "{message}");
    }

    #[test]
    fn data_must_fit_the_shape() {
        assert!(check("w", &floats_of(&[2, 2], &[0.0; 4]), &Limits::default()).is_ok());
        refused(&floats_of(&[2, 3], &[0.0; 4]), "6 float32");
        refused(&floats_of(&[-1, 2], &[0.0; 2]), "shape");
        refused(&floats_of(&[i64::MAX, 4], &[0.0; 2]), "shape");
        refused(&floats_of(&[1 << 32, 1 << 32], &[0.0; 2]), "shape");
        refused(&floats_of(&[1; 9], &[0.0]), "axes");
        refused(&floats_of(&[2], &[]), "no data");
        let twice = TensorProto { raw_data: vec![0; 4].into(), ..floats_of(&[1], &[0.0]) };
        refused(&twice, "two fields");
        refused(&TensorProto { data_type: 7, ..floats_of(&[1], &[0.0]) }, "float_data");
    }

    #[test]
    fn weights_are_finite_numbers_of_this_file() {
        refused(&floats_of(&[1], &[f32::NAN]), "not a number");
        refused(&floats_of(&[1], &[f32::INFINITY]), "infinite");
        refused(&TensorProto { data_type: 8, ..floats_of(&[1], &[0.0]) }, "string");
        let entry = StringStringEntryProto { key: "location".into(), value: "/etc/passwd".into() };
        refused(&TensorProto { external_data: vec![entry], ..floats_of(&[1], &[0.0]) }, "another file");
    }

    #[test]
    fn short_integers_are_known() {
        let raw: Vec<u8> = [3i64, -1].iter().flat_map(|i| i.to_le_bytes()).collect();
        let tensor = TensorProto { dims: vec![2], data_type: 7, raw_data: raw.into(), ..Default::default() };
        let value = check("w", &tensor, &Limits::default()).unwrap();
        assert_eq!(value.ints.as_deref(), Some(&[3, -1][..]));
    }
}
