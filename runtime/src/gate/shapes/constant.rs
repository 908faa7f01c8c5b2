//! Tensors out of nothing.

use super::super::attributes;
use super::super::node::Node;
use super::super::value::{KNOWN, Kind, Value, elements};
use super::super::weights::{self, dimensions};
use super::known;
use crate::error::Result;

/// `Constant` with a tensor.
pub(in super::super) fn constant<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    match attributes::tensor(node.proto, "value") {
        Some(tensor) => Ok(vec![weights::check(&node.place, tensor, node.limits)?]),
        None => node.refuse("no `value`", "a constant tensor in `value`"),
    }
}

/// `ConstantOfShape`: one value in a known shape.
pub(in super::super) fn of_shape<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let wanted = node.list(0)?;
    let Some(dims) = dimensions(wanted).filter(|dims| !dims.contains(&0)) else {
        return node.refuse(format!("shape {wanted:?}"), "positive dimensions");
    };
    let Some(tensor) = attributes::tensor(node.proto, "value") else {
        return Ok(vec![filled(Kind::F32, dims, None, Some(0.0))]);
    };
    let value = weights::check(&node.place, tensor, node.limits)?;
    if value.elements() != 1 {
        return node.refuse(format!("a value of shape {:?}", value.dims), "one element");
    }
    let int = value.ints.as_deref().and_then(<[i64]>::first).copied();
    let float = known::few(&value).and_then(|floats| floats.first().copied());
    Ok(vec![filled(value.kind, dims, int, float)])
}

/// One number everywhere; known where they are not too many.
fn filled<'a>(kind: Kind, dims: Vec<usize>, int: Option<i64>, float: Option<f32>) -> Value<'a> {
    if elements(&dims) > KNOWN as u64 {
        return Value::computed(kind, dims);
    }
    let count = elements(&dims) as usize;
    known::known_or_computed(
        kind,
        dims,
        int.map(|int| vec![int; count]),
        float.map(|float| vec![float; count]),
    )
}

/// `Range`: numbers at equal distances, from bounds that are known beforehand.
pub(in super::super) fn range<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let start = node.input(0)?;
    for i in 0..3 {
        let bound = node.input_of(i, start.kind)?;
        if bound.elements() != 1 || bound.rank() > 1 {
            return node.refuse(format!("input {i}, {}", bound.describe()), "one number");
        }
    }
    let allowed = format!("one to {KNOWN} numbers between bounds that are known beforehand");
    let bounds = [0, 1, 2].map(|i| node.optional(i));
    let ints = bounds.map(|bound| bound.and_then(|bound| bound.ints.as_deref()?.first().copied()));
    if let ([Some(start), Some(limit), Some(step)], Kind::I64) = (ints, start.kind) {
        let (first, span, distance) =
            (i128::from(start), i128::from(limit) - i128::from(start), i128::from(step));
        let count = if step == 0 { 0 } else { (span + distance - distance.signum()) / distance };
        if !(1..=KNOWN as i128).contains(&count) {
            return node.refuse(format!("{start}..{limit} by {step}"), allowed);
        }
        // Between the bounds, which are integers of 64 bits.
        let numbers: Vec<i64> = (0..count).map(|i| (first + i * distance) as i64).collect();
        return Ok(vec![Value::known(Kind::I64, vec![numbers.len()], numbers)]);
    }
    let floats = bounds.map(|bound| bound.and_then(|bound| known::few(bound)?.first().copied()));
    if let [Some(start), Some(limit), Some(step)] = floats {
        let count = ((f64::from(limit) - f64::from(start)) / f64::from(step)).ceil();
        if !(1.0..=KNOWN as f64).contains(&count) {
            return node.refuse(format!("{start}..{limit} by {step}"), allowed);
        }
        let numbers: Vec<f32> = (0..count as usize).map(|i| start + i as f32 * step).collect();
        return Ok(vec![Value::known_floats(vec![numbers.len()], numbers)]);
    }
    node.refuse("bounds that are computed while running", allowed)
}
