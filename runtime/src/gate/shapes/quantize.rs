//! Quantization in ONNX's own form: `QuantizeLinear` and `DequantizeLinear` with fixed scales.

use super::super::node::Node;
use super::super::value::{Kind, Value};
use super::super::weights;
use crate::error::Result;

/// Float to 8 bits.
pub(in super::super) fn quantize<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let kind = check_parameters(node, input)?.unwrap_or(Kind::U8);
    if !matches!(kind, Kind::U8 | Kind::I8) {
        return node.refuse(format!("a zero point of type {}", kind.name()), "uint8 or int8");
    }
    Ok(vec![Value::computed(kind, input.dims.clone())])
}

/// 8 bits (or the 32 bits of a bias) to float.
pub(in super::super) fn dequantize<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let kind = check_parameters(node, input)?;
    if !matches!(input.kind, Kind::U8 | Kind::I8 | Kind::I32) || kind.is_some_and(|kind| kind != input.kind) {
        let found = format!("input {}, zero point {}", input.describe(), kind.map_or("none", Kind::name));
        return node.refuse(found, "uint8, int8 or int32, and a zero point of the same type");
    }
    Ok(vec![Value::computed(Kind::F32, input.dims.clone())])
}

/// Checks scale and zero point: constants, finite and positive, one or one along the axis. Gives the zero
/// point's type.
fn check_parameters(node: &Node<'_>, input: &Value<'_>) -> Result<Option<Kind>> {
    let scale = node.input_of(1, Kind::F32)?;
    let Some(tensor) = scale.tensor else {
        return node.refuse("a scale that is computed while running", "a constant scale");
    };
    if let Some(bad) = weights::floats(tensor).find(|scale| !scale.is_normal() || *scale < 0.0) {
        return node.refuse(format!("scale {bad}"), "finite scales above zero");
    }
    if scale.elements() != 1 {
        let axis = node.axis(node.int("axis").unwrap_or(1), input.rank())?;
        if scale.dims != [input.dims[axis]] {
            return node
                .refuse(format!("scales of shape {:?}", scale.dims), format!("[{}]", input.dims[axis]));
        }
    } else if scale.rank() > 1 {
        return node.refuse(format!("a scale of shape {:?}", scale.dims), "one number");
    }
    let Some(zero) = node.optional(2) else { return Ok(None) };
    // One number may come as a scalar or as a vector of one.
    let fits = zero.dims == scale.dims || (zero.elements() == 1 && scale.elements() == 1 && zero.rank() <= 1);
    let Some(tensor) = zero.tensor.filter(|_| fits && zero.kind != Kind::F32) else {
        let found = format!("zero point {} with scale {}", zero.describe(), scale.describe());
        return node.refuse(found, "constant integers shaped as the scale");
    };
    if zero.kind == Kind::I32 && weights::integers(tensor, zero.kind).iter().any(|&zero| zero != 0) {
        return node.refuse("an int32 zero point other than 0", "0");
    }
    Ok(Some(zero.kind))
}
