//! Operators that take parts of a tensor.

use super::super::node::Node;
use super::super::value::{FEW, KNOWN, Kind, Value, elements};
use super::known;
use crate::error::Result;

/// `Shape`: the dimensions as integers, which static shapes make known.
pub(in super::super) fn shape<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let dims = &node.input(0)?.dims;
    let rank = dims.len() as i64;
    let bound = |name: &str, default: i64| match node.int(name).unwrap_or(default) {
        i if i < 0 => (i + rank).clamp(0, rank) as usize,
        i => i.min(rank) as usize,
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let part: Vec<i64> = dims.iter().take(end).skip(start).map(|&dim| dim as i64).collect();
    Ok(vec![Value::known(Kind::I64, vec![part.len()], part)])
}

/// `Size`: the number of elements.
pub(in super::super) fn size<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let count = node.input(0)?.elements() as i64;
    Ok(vec![Value::known(Kind::I64, Vec::new(), vec![count])])
}

/// `Gather` with indices that are known beforehand and in range, in any shape.
pub(in super::super) fn gather<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (input, places) = (node.input(0)?, node.input(1)?);
    let Some(indices) = places.ints.as_deref().filter(|_| matches!(places.kind, Kind::I64 | Kind::I32))
    else {
        let found = format!("indices ({}) that are not known beforehand", places.describe());
        return node.refuse(found, "constant integers");
    };
    let axis = node.axis(node.int("axis").unwrap_or(0), input.rank())?;
    let length = input.dims[axis] as i64;
    if let Some(index) = indices.iter().find(|index| !(-length..length).contains(index)) {
        return node.refuse(format!("index {index}"), format!("{} to {}", -length, length - 1));
    }
    let mut dims = input.dims.clone();
    dims.splice(axis..=axis, places.dims.iter().copied());
    if elements(&dims) > KNOWN as u64 {
        return Ok(vec![Value::computed(input.kind, dims)]);
    }
    let ints = input.ints.as_deref().and_then(|ints| picked(ints, &input.dims, axis, indices));
    let floats = known::few(input).and_then(|floats| picked(&floats, &input.dims, axis, indices));
    Ok(vec![known::known_or_computed(input.kind, dims, ints, floats)])
}

/// `GatherND` of a constant, with indices that are known beforehand and in range.
pub(in super::super) fn gather_nd<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (input, places) = (node.input_of(0, Kind::F32)?, node.input(1)?);
    let (Some(indices), Some((&depth, outer))) = (places.ints.as_deref(), places.dims.split_last()) else {
        let found = format!("indices ({}) that are not known beforehand", places.describe());
        return node.refuse(found, "constant integers");
    };
    if depth == 0 || depth > input.rank() {
        return node.refuse(format!("indices of {depth} axes"), format!("1 to {} axes", input.rank()));
    }
    for (index, length) in indices.iter().zip(input.dims[..depth].iter().cycle()) {
        let length = *length as i64;
        if !(-length..length).contains(index) {
            return node.refuse(format!("index {index}"), format!("{} to {}", -length, length - 1));
        }
    }
    let dims = outer.iter().chain(&input.dims[depth..]).copied().collect();
    Ok(vec![Value::computed(Kind::F32, dims)])
}

/// `ScatterND` of numbers that are known beforehand: a copy of the first input with the third at the places of the second.
pub(in super::super) fn scatter_nd<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (data, places) = (node.input(0)?, node.input_of(1, Kind::I64)?);
    let updates = node.input_of(2, data.kind)?;
    let (Some(indices), Some((&depth, outer))) = (places.ints.as_deref(), places.dims.split_last()) else {
        let found = format!("indices ({}) that are not known beforehand", places.describe());
        return node.refuse(found, "constant integers");
    };
    if depth == 0 || depth > data.rank() {
        return node.refuse(format!("indices of {depth} axes"), format!("1 to {} axes", data.rank()));
    }
    let (axes, rest) = data.dims.split_at(depth);
    if !updates.dims.iter().eq(outer.iter().chain(rest)) {
        let found = format!("updates {:?} at {:?} of {:?}", updates.dims, places.dims, data.dims);
        return node.refuse(found, "an update for each index");
    }
    let (strides, length) = (known::strides(axes), elements(rest) as usize);
    let mut starts = Vec::with_capacity(indices.len() / depth);
    for index in indices.chunks_exact(depth) {
        let mut start = 0;
        for ((&i, &dim), stride) in index.iter().zip(axes).zip(&strides) {
            let dim = dim as i64;
            if !(-dim..dim).contains(&i) {
                return node.refuse(format!("index {i}"), format!("{} to {}", -dim, dim - 1));
            }
            start += i.rem_euclid(dim) as usize * stride;
        }
        starts.push(start * length);
    }
    let ints = data.ints.as_deref().zip(updates.ints.as_deref());
    let ints = ints.and_then(|(data, updates)| scattered(data, updates, &starts, length));
    let floats = data.floats(KNOWN).zip(updates.floats(KNOWN));
    let floats = floats.and_then(|(data, updates)| scattered(&data, &updates, &starts, length));
    let value = known::known_or_computed(data.kind, data.dims.clone(), ints, floats);
    if !value.is_known() {
        let found = format!("{} that are changed while running", data.describe());
        return node
            .refuse(found, format!("at most {KNOWN} integers or real numbers that are known beforehand"));
    }
    Ok(vec![value])
}

/// A copy with parts of some length at places; none if there are too many numbers.
fn scattered<T: Copy>(data: &[T], updates: &[T], starts: &[usize], length: usize) -> Option<Vec<T>> {
    let mut out = (data.len() <= KNOWN).then(|| data.to_vec())?;
    for (&start, part) in starts.iter().zip(updates.chunks_exact(length.max(1))) {
        out.get_mut(start..start + length)?.copy_from_slice(part);
    }
    Some(out)
}

/// Known numbers by indices along an axis.
fn picked<T: Copy>(values: &[T], dims: &[usize], axis: usize, indices: &[i64]) -> Option<Vec<T>> {
    let (before, length, stride) =
        (elements(&dims[..axis]), dims[axis], elements(&dims[axis + 1..]) as usize);
    let mut picked = Vec::new();
    for first in 0..before as usize {
        for index in indices {
            let place = (first * length + index.rem_euclid(length as i64) as usize) * stride;
            picked.extend_from_slice(values.get(place..place + stride)?);
        }
    }
    Some(picked)
}

/// `Slice` with bounds that are known beforehand and steps forward; of known integers backward too.
pub(in super::super) fn slice<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (input, starts, ends) = (node.input(0)?, node.list(1)?, node.list(2)?);
    let count = starts.len();
    let axes = match node.optional(3) {
        Some(_) => node.list(3)?.to_vec(),
        None => (0..count as i64).collect(),
    };
    let steps = match node.optional(4) {
        Some(_) => node.list(4)?.to_vec(),
        None => vec![1; count],
    };
    if [ends.len(), axes.len(), steps.len()] != [count; 3] {
        return node.refuse("starts, ends, axes and steps of different lengths", "equal lengths");
    }
    let axes = node.axes(&axes, input.rank())?;
    let (mut dims, mut offset, mut strides) = (input.dims.clone(), 0, known::strides(&input.dims));
    for (i, &axis) in axes.iter().enumerate() {
        let length = input.dims[axis] as i64;
        if steps[i] < 0 && input.ints.is_some() {
            let bound = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(-1, length - 1);
            let (start, end) = (bound(starts[i]), bound(ends[i]));
            let step = steps[i].unsigned_abs() as usize;
            dims[axis] = ((start - end).max(0) as usize).div_ceil(step);
            offset += start.max(0) as usize * strides[axis];
            strides[axis] = strides[axis].wrapping_mul(step).wrapping_neg();
            continue;
        }
        let bound = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at.min(length) };
        let (start, end) = (bound(starts[i]), bound(ends[i]));
        let empty = start >= end && input.kind != Kind::I64;
        if empty || steps[i] < 1 || steps[i] > length.max(1) {
            let found = format!("{}..{} by {} of axis {axis} ({length})", starts[i], ends[i], steps[i]);
            return node.refuse(found, "a part that is not empty, with a step forward");
        }
        let step = steps[i] as usize;
        dims[axis] = ((end - start).max(0) as usize).div_ceil(step);
        offset += start as usize * strides[axis];
        strides[axis] *= step;
    }
    Ok(vec![known::taken(input, FEW, dims, offset, &strides)])
}

/// `Split` along one axis, in given or in equal parts.
pub(in super::super) fn split<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input(0)?;
    let axis = node.axis(node.int("axis").unwrap_or(0), input.rank())?;
    let (length, outputs) = (input.dims[axis], node.proto.output.len());
    let parts = match node.moved_ints("split", 1, 13)? {
        Some(parts) => parts.to_vec(),
        None if outputs > 0 && length.is_multiple_of(outputs) => vec![(length / outputs) as i64; outputs],
        None => return node.refuse(format!("{length} in {outputs} parts"), "equal parts"),
    };
    let sum = parts.iter().try_fold(0i64, |sum, part| sum.checked_add(*part));
    if parts.len() != outputs || parts.iter().any(|&part| part < 1) || sum != Some(length as i64) {
        return node.refuse(format!("{length} in parts {parts:?}"), format!("{outputs} parts that add up"));
    }
    let part = |&size: &i64| {
        let mut dims = input.dims.clone();
        dims[axis] = size as usize;
        Value::computed(input.kind, dims)
    };
    Ok(parts.iter().map(part).collect())
}
