//! Shape arithmetic on numbers that are known before anything runs, in any shape.

use std::sync::Arc;

use super::super::value::{FEW, KNOWN, Kind, Value, elements};

/// Distances of neighbours along each axis, in order.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i].max(1);
    }
    strides
}

/// The values at the places `offset + Σ index · stride`, in order; none if they are too many to be known. A stride may
/// stand for a step backward, as a wrapped number.
fn read<T: Copy>(values: &[T], offset: usize, dims: &[usize], strides: &[usize]) -> Option<Vec<T>> {
    if elements(dims) > KNOWN as u64 {
        return None;
    }
    let mut places = vec![offset];
    for (&dim, &stride) in dims.iter().zip(strides) {
        places = places
            .iter()
            .flat_map(|place| (0..dim).map(move |i| place.wrapping_add(i.wrapping_mul(stride))))
            .collect();
    }
    places.into_iter().map(|place| values.get(place).copied()).collect()
}

/// Numbers of a value at the places `offset + Σ index · stride`, in a shape: known where the value is and they are not too
/// many, elsewhere only a shape. Of stored real numbers, which may be weights, `stored` are looked at.
pub(super) fn taken<'a>(
    input: &Value<'_>,
    stored: usize,
    dims: Vec<usize>,
    offset: usize,
    strides: &[usize],
) -> Value<'a> {
    let ints = input.ints.as_deref().and_then(|ints| read(ints, offset, &dims, strides));
    let floats = input.floats(stored).and_then(|floats| read(&floats, offset, &dims, strides));
    known_or_computed(input.kind, dims, ints, floats)
}

/// Strides that broadcast a shape to another.
pub(super) fn spreading(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let new = to.len().checked_sub(from.len())?;
    let own = from.iter().zip(strides(from));
    let own = own.map(|(&dim, stride)| if dim == 1 { 0 } else { stride });
    Some(std::iter::repeat_n(0, new).chain(own).collect())
}

/// The known integers of a value broadcast to a shape.
pub(super) fn spread(value: &Value<'_>, dims: &[usize]) -> Option<Vec<i64>> {
    read(value.ints.as_deref()?, 0, dims, &spreading(&value.dims, dims)?)
}

/// The known real numbers of a value broadcast to a shape, of stored ones no more than a few.
pub(super) fn spread_floats(value: &Value<'_>, dims: &[usize]) -> Option<Vec<f32>> {
    read(&few(value)?, 0, dims, &spreading(&value.dims, dims)?)
}

/// Known real numbers that are no weights.
pub(super) fn few(value: &Value<'_>) -> Option<Arc<[f32]>> {
    value.floats(FEW)
}

/// A result of shape arithmetic: known where all its values are, only a shape elsewhere.
pub(super) fn known_or_computed<'a>(
    kind: Kind,
    dims: Vec<usize>,
    ints: Option<Vec<i64>>,
    floats: Option<Vec<f32>>,
) -> Value<'a> {
    let count = elements(&dims);
    match (ints, floats) {
        (Some(ints), _) if ints.len() as u64 == count => Value::known(kind, dims, ints),
        (_, Some(floats)) if floats.len() as u64 == count && kind == Kind::F32 => {
            Value::known_floats(dims, floats)
        }
        _ => Value::computed(kind, dims),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_broadcast_in_any_shape() {
        let row = Value::known(Kind::I64, vec![3], vec![1, 2, 3]);
        assert_eq!(spread(&row, &[2, 3]).unwrap(), [1, 2, 3, 1, 2, 3]);
        let column = Value::known(Kind::I64, vec![2, 1], vec![5, 7]);
        assert_eq!(spread(&column, &[2, 3]).unwrap(), [5, 5, 5, 7, 7, 7]);
        assert_eq!(spread(&row, &[KNOWN, 3]), None, "too many to be known");
        assert_eq!(read(&[0, 1, 2, 3, 4, 5], 1, &[2, 2], &[3, 1]).unwrap(), [1, 2, 4, 5]);
        let real = Value::known_floats(vec![2, 1], vec![0.5, -1.0]);
        assert_eq!(spread_floats(&real, &[2, 2]).unwrap(), [0.5, 0.5, -1.0, -1.0]);
    }
}
