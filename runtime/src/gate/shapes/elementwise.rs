//! Operators on single elements, with broadcasting; on known integers they are computed.

use super::super::node::Node;
use super::super::value::{Kind, Value};
use super::{broadcast, known};
use crate::error::Result;

/// One float in, one float out: `Sqrt Erf Tanh Sigmoid Exp Neg Abs Relu Reciprocal HardSigmoid HardSwish Gelu` and others.
pub(in super::super) fn unary<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    Ok(vec![Value::computed(Kind::F32, input.dims.clone())])
}

/// `Identity` and `Dropout` (which does nothing outside training).
pub(in super::super) fn identity<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    if node.optional(2).is_some_and(|training| training.ints.as_deref() != Some(&[0])) {
        return node.refuse("dropout in training mode", "a model exported for inference");
    }
    Ok(vec![node.input(0)?.clone()])
}

/// `IsNaN` of floats.
pub(in super::super) fn is_nan<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    Ok(vec![Value::computed(Kind::Bool, input.dims.clone())])
}

/// `Max` and `Min` of floats.
pub(in super::super) fn extreme<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let mut dims = node.input_of(0, Kind::F32)?.dims.clone();
    for i in 1..node.inputs.len() {
        dims = broadcast(node, &dims, &node.input_of(i, Kind::F32)?.dims)?;
    }
    Ok(vec![Value::computed(Kind::F32, dims)])
}

/// Two numbers in, one out: `Add Sub Mul Div Pow Mod`.
pub(in super::super) fn binary<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    if a.kind != b.kind || !matches!(a.kind, Kind::F32 | Kind::I64) {
        let found = format!("inputs of types {} and {}", a.describe(), b.describe());
        return node.refuse(found, "two float32 or two int64 tensors");
    }
    let dims = broadcast(node, &a.dims, &b.dims)?;
    if a.kind == Kind::F32 {
        return Ok(vec![Value::computed(Kind::F32, dims)]);
    }
    let (Some(x), Some(y)) = (known::spread(a, &dims), known::spread(b, &dims)) else {
        return node.refuse("integers that are computed while running", "integers known beforehand");
    };
    let mut out = Vec::new();
    for (x, y) in x.into_iter().zip(y) {
        match arithmetic(&node.proto.op_type, x, y) {
            Some(value) => out.push(value),
            None => {
                return node.refuse(format!("{x} and {y}"), "integers without overflow, no division by 0");
            }
        }
    }
    Ok(vec![Value::known(Kind::I64, dims, out)])
}

/// One integer operation; none on overflow or division by zero.
fn arithmetic(op: &str, x: i64, y: i64) -> Option<i64> {
    match op {
        "Add" => x.checked_add(y),
        "Sub" => x.checked_sub(y),
        "Mul" => x.checked_mul(y),
        "Div" => x.checked_div(y),
        // The sign of the divisor, as ONNX has it; shapes are positive.
        "Mod" => x.checked_rem_euclid(y).filter(|_| x >= 0 && y > 0),
        _ => None,
    }
}

/// `Equal` on the integers of shape arithmetic.
pub(in super::super) fn equal<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (a, b) = (node.input_of(0, Kind::I64)?, node.input_of(1, Kind::I64)?);
    let dims = broadcast(node, &a.dims, &b.dims)?;
    let (Some(x), Some(y)) = (known::spread(a, &dims), known::spread(b, &dims)) else {
        return node.refuse("integers that are computed while running", "integers known beforehand");
    };
    let out = x.into_iter().zip(y).map(|(x, y)| i64::from(x == y)).collect();
    Ok(vec![Value::known(Kind::Bool, dims, out)])
}

/// `Where` with a condition that is known beforehand.
pub(in super::super) fn choose<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (condition, a, b) = (node.input_of(0, Kind::Bool)?, node.input(1)?, node.input(2)?);
    if a.kind != b.kind || !matches!(a.kind, Kind::F32 | Kind::I64) {
        let found = format!("choices of types {} and {}", a.describe(), b.describe());
        return node.refuse(found, "two float32 or two int64 tensors");
    }
    let dims = broadcast(node, &broadcast(node, &condition.dims, &a.dims)?, &b.dims)?;
    if a.kind == Kind::F32 {
        return Ok(vec![Value::computed(Kind::F32, dims)]);
    }
    let sides = [condition, a, b].map(|side| known::spread(side, &dims));
    let [Some(condition), Some(x), Some(y)] = sides else {
        return node.refuse("a choice between integers while running", "integers known beforehand");
    };
    let choices = condition.into_iter().zip(x.into_iter().zip(y));
    let out = choices.map(|(condition, (x, y))| if condition != 0 { x } else { y });
    Ok(vec![Value::known(Kind::I64, dims, out.collect())])
}

/// `Cast` between numbers, as far as it loses nothing that shape arithmetic needs.
pub(in super::super) fn cast<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let number = node.int("to").unwrap_or(0);
    let to = i32::try_from(number).ok().and_then(Kind::from_onnx);
    match (input.kind, to) {
        (from, Some(to)) if from == to => Ok(vec![input.clone()]),
        (_, Some(Kind::F32)) => Ok(vec![Value::computed(Kind::F32, input.dims.clone())]),
        (Kind::Bool, Some(Kind::I64)) => Ok(vec![Value { kind: Kind::I64, tensor: None, ..input.clone() }]),
        (from, _) => {
            let name = i32::try_from(number).map_or(number.to_string(), super::super::value::type_name);
            let allowed =
                "a cast to float32 (PyTorch's exporter with dynamo=True leaves no others in shapes)";
            node.refuse(format!("a cast from {} to {name}", from.name()), allowed)
        }
    }
}
