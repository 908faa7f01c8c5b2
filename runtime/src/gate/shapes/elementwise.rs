//! Operators on single elements, with broadcasting; on known numbers they are computed.

use super::super::node::Node;
use super::super::value::{KNOWN, Kind, Value, elements};
use super::{broadcast, known};
use crate::error::Result;
use crate::scalar;

/// One float in, one float out: `Sqrt Erf Tanh Sigmoid Exp Neg Abs Relu Reciprocal HardSigmoid HardSwish Gelu` and others.
pub(in super::super) fn unary<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    Ok(vec![Value::computed(Kind::F32, input.dims.clone())])
}

/// `Ceil` and `Floor` of numbers that are known beforehand: no kernel computes them.
pub(in super::super) fn whole<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let Some(floats) = known::few(input) else {
        return node.refuse("numbers that are computed while running", "numbers known beforehand");
    };
    let round = if node.proto.op_type == "Ceil" { f32::ceil } else { f32::floor };
    Ok(vec![Value::known_floats(input.dims.clone(), floats.iter().map(|&x| round(x)).collect())])
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
    let (dims, op) = (broadcast(node, &a.dims, &b.dims)?, &*node.proto.op_type);
    if a.kind == Kind::F32 {
        let sides = known::spread_floats(a, &dims).zip(known::spread_floats(b, &dims));
        let out = sides.zip(scalar::binary(op)).map(|((x, y), function)| {
            x.into_iter().zip(y).map(|(x, y)| function(x, y)).collect::<Vec<f32>>()
        });
        let out = out.filter(|out| out.iter().all(|value| value.is_finite()));
        return Ok(vec![known::known_or_computed(Kind::F32, dims, None, out)]);
    }
    let (Some(x), Some(y)) = (known::spread(a, &dims), known::spread(b, &dims)) else {
        return node.refuse("integers that are computed while running", "integers known beforehand");
    };
    let mut out = Vec::new();
    for (x, y) in x.into_iter().zip(y) {
        match arithmetic(op, x, y) {
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

/// `Equal`, `Greater` and the like, on the numbers of shape arithmetic; `And` and `Or` on what comes of that.
pub(in super::super) fn compare<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (a, op) = (node.input(0)?, &*node.proto.op_type);
    let b = node.input_of(1, a.kind)?;
    let dims = broadcast(node, &a.dims, &b.dims)?;
    let ints = known::spread(a, &dims).zip(known::spread(b, &dims));
    let floats = known::spread_floats(a, &dims).zip(known::spread_floats(b, &dims));
    let out: Option<Vec<i64>> = match (ints, floats) {
        (Some((x, y)), _) => x.into_iter().zip(y).map(|(x, y)| holds(op, a.kind, &x, &y)).collect(),
        (_, Some((x, y))) => x.into_iter().zip(y).map(|(x, y)| holds(op, a.kind, &x, &y)).collect(),
        (None, None) => None,
    };
    match out {
        Some(out) if (out.len() as u64) == elements(&dims) => Ok(vec![Value::known(Kind::Bool, dims, out)]),
        _ => {
            let found = format!("{} and {} that are not both known beforehand", a.describe(), b.describe());
            node.refuse(found, "numbers known beforehand")
        }
    }
}

/// Whether a comparison holds, as 0 or 1; none for one that a type does not have.
fn holds<T: PartialOrd + Default>(op: &str, kind: Kind, x: &T, y: &T) -> Option<i64> {
    let nothing = T::default();
    let holds = match (op, kind) {
        ("Equal", _) => x == y,
        ("And", Kind::Bool) => *x != nothing && *y != nothing,
        ("Or", Kind::Bool) => *x != nothing || *y != nothing,
        ("Greater", Kind::F32 | Kind::I32 | Kind::I64) => x > y,
        ("GreaterOrEqual", Kind::F32 | Kind::I32 | Kind::I64) => x >= y,
        ("Less", Kind::F32 | Kind::I32 | Kind::I64) => x < y,
        ("LessOrEqual", Kind::F32 | Kind::I32 | Kind::I64) => x <= y,
        _ => return None,
    };
    Some(holds.into())
}

/// `Not` of what is known beforehand.
pub(in super::super) fn not<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::Bool)?;
    match &input.ints {
        Some(ints) => {
            let out = ints.iter().map(|&value| i64::from(value == 0)).collect();
            Ok(vec![Value::known(Kind::Bool, input.dims.clone(), out)])
        }
        None => node.refuse("a condition that is computed while running", "one that is known beforehand"),
    }
}

/// `Where` with a condition that is known beforehand.
pub(in super::super) fn choose<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (condition, a, b) = (node.input_of(0, Kind::Bool)?, node.input(1)?, node.input(2)?);
    if a.kind != b.kind || !matches!(a.kind, Kind::F32 | Kind::I64) {
        let found = format!("choices of types {} and {}", a.describe(), b.describe());
        return node.refuse(found, "two float32 or two int64 tensors");
    }
    let dims = broadcast(node, &broadcast(node, &condition.dims, &a.dims)?, &b.dims)?;
    let condition = known::spread(condition, &dims);
    if a.kind == Kind::F32 {
        let sides = known::spread_floats(a, &dims).zip(known::spread_floats(b, &dims));
        let out = condition.zip(sides).map(|(condition, (x, y))| chosen(&condition, x, y));
        return Ok(vec![known::known_or_computed(Kind::F32, dims, None, out)]);
    }
    let (Some(condition), Some(x), Some(y)) = (condition, known::spread(a, &dims), known::spread(b, &dims))
    else {
        return node.refuse("a choice between integers while running", "integers known beforehand");
    };
    Ok(vec![Value::known(Kind::I64, dims, chosen(&condition, x, y))])
}

/// Of two numbers the first where a condition holds.
fn chosen<T>(condition: &[i64], x: Vec<T>, y: Vec<T>) -> Vec<T> {
    let choices = condition.iter().zip(x.into_iter().zip(y));
    choices.map(|(&condition, (x, y))| if condition != 0 { x } else { y }).collect()
}

/// `Cast` between numbers. Integers come of real numbers that are known beforehand alone.
pub(in super::super) fn cast<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let number = node.int("to").unwrap_or(0);
    let to = i32::try_from(number).ok().and_then(Kind::from_onnx);
    let known = match (input.kind, to) {
        (from, Some(to)) if from == to => return Ok(vec![input.clone()]),
        (_, Some(Kind::F32)) => {
            let ints = input.ints.as_deref().filter(|ints| ints.len() <= KNOWN);
            let floats = ints.map(|ints| ints.iter().map(|&int| int as f32).collect());
            return Ok(vec![known::known_or_computed(Kind::F32, input.dims.clone(), None, floats)]);
        }
        (Kind::F32, Some(to)) => {
            known::few(input).and_then(|floats| floats.iter().map(|&x| integer(x, to)).collect())
        }
        (_, Some(Kind::I64)) => input.ints.as_deref().map(<[i64]>::to_vec),
        (_, Some(to)) => {
            let narrowed = |ints: &[i64]| ints.iter().map(|&int| narrow(int, to)).collect();
            input.ints.as_deref().and_then(narrowed)
        }
        (_, None) => None,
    };
    match (known, to) {
        (Some(ints), Some(to)) => {
            Ok(vec![known::known_or_computed(to, input.dims.clone(), Some(ints), None)])
        }
        _ => {
            let name = i32::try_from(number).map_or(number.to_string(), super::super::value::type_name);
            let allowed = "a cast to float32, or of numbers that are known beforehand (PyTorch's exporter with \
                           dynamo=True leaves no others in shapes)";
            node.refuse(format!("a cast from {} to {name}", input.kind.name()), allowed)
        }
    }
}

/// An integer or a truth value of a real number, towards 0; none if there is no such integer.
fn integer(x: f32, to: Kind) -> Option<i64> {
    // All whole numbers up to there are integers of 64 bits.
    let whole = (x.abs() < (1u64 << 62) as f32).then_some(x.trunc() as i64);
    if to == Kind::Bool { Some(i64::from(x != 0.0)) } else { whole.and_then(|int| narrow(int, to)) }
}

/// An integer as another type has it; none if it does not fit.
fn narrow(int: i64, to: Kind) -> Option<i64> {
    match to {
        Kind::I64 => Some(int),
        Kind::I32 => i32::try_from(int).is_ok().then_some(int),
        Kind::Bool => Some(i64::from(int != 0)),
        Kind::U8 | Kind::I8 | Kind::F32 => None,
    }
}
