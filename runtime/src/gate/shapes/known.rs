//! Shape arithmetic on integers that are known before anything runs, in any shape.

use super::super::value::{KNOWN, Kind, Value, elements};

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
pub(super) fn read(ints: &[i64], offset: usize, dims: &[usize], strides: &[usize]) -> Option<Vec<i64>> {
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
    places.into_iter().map(|place| ints.get(place).copied()).collect()
}

/// The known integers of a value broadcast to a shape.
pub(super) fn spread(value: &Value<'_>, dims: &[usize]) -> Option<Vec<i64>> {
    let new = dims.len().checked_sub(value.dims.len())?;
    let own = value.dims.iter().zip(strides(&value.dims));
    let own = own.map(|(&dim, stride)| if dim == 1 { 0 } else { stride });
    let strides: Vec<usize> = std::iter::repeat_n(0, new).chain(own).collect();
    read(value.ints.as_deref()?, 0, dims, &strides)
}

/// A result of shape arithmetic: known where all its values are, only a shape elsewhere.
pub(super) fn known_or_computed<'a>(kind: Kind, dims: Vec<usize>, ints: Option<Vec<i64>>) -> Value<'a> {
    match ints {
        Some(ints) if ints.len() as u64 == elements(&dims) => Value::known(kind, dims, ints),
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
        assert_eq!(spread(&row, &[100_000, 3]), None, "too many to be known");
        assert_eq!(read(&[0, 1, 2, 3, 4, 5], 1, &[2, 2], &[3, 1]).unwrap(), [1, 2, 4, 5]);
    }
}
