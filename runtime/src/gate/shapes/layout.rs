//! Operators that move elements without changing them.

use super::super::node::Node;
use super::super::value::{FEW, KNOWN, Kind, Value, elements};
use super::super::weights::dimensions;
use super::{broadcast, known, reshaped};
use crate::error::Result;

/// `Reshape` to a shape that is known beforehand, with ONNX's 0 (keep) and -1 (the rest).
pub(in super::super) fn reshape<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (input, wanted) = (node.input(0)?, node.list(1)?);
    let zero_is_zero = node.int("allowzero").unwrap_or(0) == 1;
    let refuse = || node.refuse(format!("{:?} to {wanted:?}", input.dims), "a shape of as many elements");
    let mut dims = Vec::new();
    for (i, &dim) in wanted.iter().enumerate() {
        dims.push(match (dim, input.dims.get(i)) {
            (0, Some(&kept)) if !zero_is_zero => kept,
            (-1, _) => 1,
            (1.., _) => dim as usize,
            _ => return refuse(),
        });
    }
    match wanted.iter().filter(|&&dim| dim == -1).count() {
        0 => {}
        1 if input.elements().is_multiple_of(elements(&dims)) => {
            let rest = (input.elements() / elements(&dims)) as usize;
            for (dim, _) in dims.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted == -1) {
                *dim = rest;
            }
        }
        _ => return refuse(),
    }
    if elements(&dims) != input.elements() { refuse() } else { Ok(reshaped(input, dims)) }
}

/// `Flatten` to a matrix.
pub(in super::super) fn flatten<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let axis = match node.int("axis").unwrap_or(1) {
        axis if axis == input.rank() as i64 => input.rank(),
        axis => node.axis(axis, input.rank())?,
    };
    let (front, back) = input.dims.split_at(axis);
    let dims = vec![elements(front) as usize, elements(back) as usize];
    Ok(reshaped(input, dims))
}

/// `Transpose` by a permutation.
pub(in super::super) fn transpose<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let order = match node.ints("perm") {
        None => (0..input.rank()).rev().collect(),
        Some(order) => {
            if order.len() != input.rank() || order.iter().any(|&axis| axis < 0) {
                return node
                    .refuse(format!("perm {order:?}"), format!("a permutation of {} axes", input.rank()));
            }
            node.axes(order, input.rank())?
        }
    };
    let dims: Vec<usize> = order.iter().map(|&axis| input.dims[axis]).collect();
    let strides = known::strides(&input.dims);
    let strides: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
    Ok(vec![known::taken(input, FEW, dims, 0, &strides)])
}

/// `Squeeze` of axes of length 1.
pub(in super::super) fn squeeze<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let axes = match node.moved_ints("axes", 1, 13)? {
        Some(axes) => node.axes(axes, input.rank())?,
        None => (0..input.rank()).filter(|&axis| input.dims[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| input.dims[axis] != 1) {
        return node.refuse(format!("axis {axis} of shape {:?}", input.dims), "an axis of length 1");
    }
    let kept = input.dims.iter().enumerate().filter(|(i, _)| !axes.contains(i));
    Ok(reshaped(input, kept.map(|(_, &dim)| dim).collect()))
}

/// `Unsqueeze`: new axes of length 1.
pub(in super::super) fn unsqueeze<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let Some(axes) = node.moved_ints("axes", 1, 13)? else { return node.refuse("no axes", "the new axes") };
    let axes = node.axes(axes, input.rank() + axes.len())?;
    let mut old = input.dims.iter().copied();
    let rank = input.rank() + axes.len();
    let dims = (0..rank).map(|i| if axes.contains(&i) { 1 } else { old.next().unwrap_or(1) });
    Ok(reshaped(input, dims.collect()))
}

/// `Expand`: broadcasting to a known shape.
pub(in super::super) fn expand<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (input, wanted) = (node.input(0)?, node.list(1)?);
    let Some(wanted) = dimensions(wanted).filter(|dims| !dims.contains(&0)) else {
        return node.refuse(format!("shape {wanted:?}"), "positive dimensions");
    };
    let dims = broadcast(node, &input.dims, &wanted)?;
    Ok(vec![match known::spreading(&input.dims, &dims) {
        Some(strides) => known::taken(input, KNOWN, dims, 0, &strides),
        None => Value::computed(input.kind, dims),
    }])
}

/// `Tile`: each axis repeated a known number of times.
pub(in super::super) fn tile<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (input, repeats) = (node.input(0)?, node.list(1)?);
    let Some(repeats) = dimensions(repeats).filter(|r| r.len() == input.rank() && !r.contains(&0)) else {
        return node.refuse(format!("repeats {repeats:?}"), format!("{} positive numbers", input.rank()));
    };
    let dims = input.dims.iter().zip(repeats).map(|(&dim, repeat)| dim.saturating_mul(repeat)).collect();
    Ok(vec![Value::computed(input.kind, dims)])
}

/// `Concat` along one axis.
pub(in super::super) fn concat<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let first = node.input(0)?;
    let Some(axis) = node.int("axis") else { return node.refuse("no axis", "the axis to join along") };
    let axis = node.axis(axis, first.rank())?;
    let mut dims = first.dims.clone();
    dims[axis] = 0;
    for i in 0..node.inputs.len() {
        let part = node.input_of(i, first.kind)?;
        let fits =
            part.rank() == first.rank() && (0..first.rank()).all(|d| d == axis || part.dims[d] == dims[d]);
        if !fits {
            let found = format!("shapes {:?} and {:?}", first.dims, part.dims);
            return node.refuse(found, format!("shapes that differ in axis {axis} only"));
        }
        dims[axis] = dims[axis].saturating_add(part.dims[axis]);
    }
    if elements(&dims) > KNOWN as u64 || !matches!(first.kind, Kind::I64 | Kind::F32) {
        return Ok(vec![Value::computed(first.kind, dims)]);
    }
    let parts = || node.inputs.iter().flatten();
    let of_each = |part: &Value<'_>| elements(&part.dims[axis..]) as usize;
    let ints = parts().map(|part| Some((part.ints.as_deref()?, of_each(part)))).collect::<Option<Vec<_>>>();
    let floats: Option<Vec<_>> = parts().map(|part| Some((known::few(part)?, of_each(part)))).collect();
    let floats = floats.as_ref().map(|parts| parts.iter().map(|(part, each)| (&**part, *each)).collect());
    let before = elements(&dims[..axis]) as usize;
    let joined = known::known_or_computed(
        first.kind,
        dims,
        ints.map(|parts| joined(&parts, before)),
        floats.map(|parts: Vec<_>| joined(&parts, before)),
    );
    Ok(vec![joined])
}

/// Parts side by side, of each in turn as many numbers as it says, so many times.
fn joined<T: Copy>(parts: &[(&[T], usize)], times: usize) -> Vec<T> {
    let rows = (0..times).flat_map(|i| parts.iter().map(move |(part, each)| &part[i * each..(i + 1) * each]));
    rows.flatten().copied().collect()
}
