//! Layer norm, softmax, mean.

use super::super::node::Node;
use super::super::value::{KNOWN, Kind, Value};
use super::known;
use crate::error::Result;

/// `LayerNormalization` over the axes from `axis` on.
pub(in super::super) fn layer_norm<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let axis = node.axis(node.int("axis").unwrap_or(-1), input.rank())?;
    for i in [1, 2] {
        if node.optional(i).is_some() && node.input_of(i, Kind::F32)?.dims != input.dims[axis..] {
            let found = format!("input {i} of shape {:?}", node.input(i)?.dims);
            return node.refuse(found, format!("{:?}", &input.dims[axis..]));
        }
    }
    Ok(vec![Value::computed(Kind::F32, input.dims.clone())])
}

/// `Softmax` along one axis. Before opset 13 it went over all axes from that one on, which is the same for the last.
pub(in super::super) fn softmax<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let is_old = node.opset < 13;
    let axis = node.axis(node.int("axis").unwrap_or(if is_old { 1 } else { -1 }), input.rank())?;
    if is_old && axis + 1 != input.rank() {
        let found = format!("a softmax over axis {axis} of {:?} at opset {}", input.dims, node.opset);
        return node.refuse(found, "the last axis, or an export at opset 13 or later");
    }
    Ok(vec![Value::computed(Kind::F32, input.dims.clone())])
}

/// `ReduceMean` over named axes: an attribute up to opset 17, an input from 18.
pub(in super::super) fn reduce_mean<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    reduce(node, 18)
}

/// `ReduceSum` over named axes: an attribute up to opset 12, an input from 13.
pub(in super::super) fn reduce_sum<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    reduce(node, 13)
}

/// A value for all along some axes, which are an input from the opset `since` on.
fn reduce<'a>(node: &Node<'a>, since: i64) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let is_sum = node.proto.op_type == "ReduceSum";
    if input.kind != Kind::F32 && !(is_sum && input.kind == Kind::I64) {
        let allowed = if is_sum { "float32, or int64 that is known beforehand" } else { "float32" };
        return node.refuse(format!("input 0 of type {}", input.describe()), allowed);
    }
    let axes = match node.moved_ints("axes", 1, since)? {
        Some([]) => return node.refuse("an empty list of axes", "at least one axis"),
        Some(axes) => node.axes(axes, input.rank())?,
        None => (0..input.rank()).collect(),
    };
    let keep = node.int("keepdims").unwrap_or(1) == 1;
    let dims = input.dims.iter().enumerate().filter_map(|(i, &dim)| match axes.contains(&i) {
        false => Some(dim),
        true => keep.then_some(1),
    });
    let dims = dims.collect();
    if input.kind == Kind::F32 {
        return Ok(vec![Value::computed(Kind::F32, dims)]);
    }
    match input
        .ints
        .as_deref()
        .filter(|_| input.elements() <= KNOWN as u64)
        .map(|ints| sums(ints, &input.dims, &axes))
    {
        Some(Some(sums)) => Ok(vec![Value::known(Kind::I64, dims, sums)]),
        Some(None) => node.refuse("a sum beyond 64 bits", "integers without overflow"),
        None => node.refuse("integers that are computed while running", "integers known beforehand"),
    }
}

/// Sums over some axes; none on overflow.
fn sums(ints: &[i64], dims: &[usize], axes: &[usize]) -> Option<Vec<i64>> {
    let kept: Vec<usize> =
        dims.iter().enumerate().map(|(i, &dim)| if axes.contains(&i) { 1 } else { dim }).collect();
    let mut sums = vec![0i64; kept.iter().product()];
    let (from, to) = (known::strides(dims), known::strides(&kept));
    for (place, &int) in ints.iter().enumerate() {
        let at = (0..dims.len())
            .filter(|i| !axes.contains(i))
            .map(|i| place / from[i] % dims[i] * to[i])
            .sum::<usize>();
        let sum = sums.get_mut(at)?;
        *sum = sum.checked_add(int)?;
    }
    Some(sums)
}
