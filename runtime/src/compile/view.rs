//! Strided views: what reshaping, transposing, slicing and picking do to a tensor without moving a value.

use crate::gate::MAX_RANK;

/// A part of a buffer, read by strides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// The first value's place.
    pub(super) offset: usize,
    pub(super) dims: Vec<usize>,
    /// Distance of neighbours along each axis.
    pub(super) strides: Vec<usize>,
}

impl View {
    /// All of a buffer, in order.
    pub(crate) fn whole(dims: &[usize]) -> View {
        let mut strides = vec![1; dims.len()];
        for i in (1..dims.len()).rev() {
            strides[i - 1] = strides[i] * dims[i].max(1);
        }
        View { offset: 0, dims: dims.to_vec(), strides }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// The axes longer than 1: length and stride.
    pub(super) fn axes(&self) -> Vec<(usize, usize)> {
        self.dims.iter().copied().zip(self.strides.iter().copied()).filter(|&(dim, _)| dim != 1).collect()
    }

    /// The axes with neighbours joined where they lie in one row.
    fn joined(&self) -> Vec<(usize, usize)> {
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (dim, stride) in self.axes() {
            match joined.last_mut() {
                Some((length, step)) if *step == dim * stride => (*length, *step) = (*length * dim, stride),
                _ => joined.push((dim, stride)),
            }
        }
        joined
    }

    /// The same values in order, over as few axes as they take.
    pub(super) fn simple(&self) -> View {
        let (dims, strides) = self.joined().into_iter().unzip();
        View { offset: self.offset, dims, strides }
    }

    /// The largest place and one; there are values.
    pub(super) fn end(&self) -> usize {
        let reach = self.dims.iter().zip(&self.strides).map(|(dim, stride)| dim.saturating_sub(1) * stride);
        self.offset + reach.sum::<usize>() + 1
    }

    /// The values along the last axis: for each the first place, then the length and the distance of all.
    pub(super) fn lines(&self) -> (impl Iterator<Item = usize> + '_, usize, usize) {
        let last = self.dims.len().saturating_sub(1);
        let (length, step) = match (self.dims.get(last), self.strides.get(last)) {
            (Some(&length), Some(&step)) => (length, step),
            _ => (1, 1),
        };
        // Runs allocate nothing, and no tensor has more axes.
        let mut counter = [0; MAX_RANK];
        let mut place = self.offset;
        let lines = (0..self.dims[..last].iter().product()).map(move |_| {
            let now = place;
            for axis in (0..last).rev() {
                counter[axis] += 1;
                place += self.strides[axis];
                if counter[axis] < self.dims[axis] {
                    break;
                }
                place -= counter[axis] * self.strides[axis];
                counter[axis] = 0;
            }
            now
        });
        (lines, length, step)
    }

    /// Whether the values lie in order without a gap.
    pub(super) fn is_contiguous(&self) -> bool {
        matches!(self.joined()[..], [] | [(_, 1)])
    }

    /// The same values in order, in another shape; none where strides cannot say it.
    pub(super) fn reshape(&self, dims: &[usize]) -> Option<View> {
        if dims.iter().product::<usize>() != self.len() || self.len() == 0 {
            return None;
        }
        let mut parts = self.joined().into_iter();
        let (mut left, mut step) = (1, 1);
        let mut strides = Vec::with_capacity(dims.len());
        for &dim in dims {
            if dim == 1 {
                strides.push(step);
                continue;
            }
            if left == 1 {
                (left, step) = parts.next()?;
                step *= left;
            }
            if left % dim != 0 {
                return None;
            }
            (left, step) = (left / dim, step / dim);
            strides.push(step);
        }
        Some(View { offset: self.offset, dims: dims.to_vec(), strides })
    }

    /// Axes in another order.
    pub(super) fn transpose(&self, order: &[usize]) -> Option<View> {
        let pick =
            |from: &[usize]| order.iter().map(|&axis| from.get(axis).copied()).collect::<Option<Vec<_>>>();
        Some(View { offset: self.offset, dims: pick(&self.dims)?, strides: pick(&self.strides)? })
    }

    /// `count` places of an axis, from `start`, `step` apart.
    pub(super) fn slice(&self, axis: usize, start: usize, count: usize, step: usize) -> Option<View> {
        let (dim, stride) = (*self.dims.get(axis)?, *self.strides.get(axis)?);
        if count == 0 || start.checked_add((count - 1).checked_mul(step)?)? >= dim {
            return None;
        }
        let mut view = self.clone();
        view.offset += start * stride;
        (view.dims[axis], view.strides[axis]) = (count, stride * step);
        Some(view)
    }

    /// One place of an axis; the axis goes.
    pub(super) fn pick(&self, axis: usize, place: usize) -> Option<View> {
        let mut view = self.slice(axis, place, 1, 1)?;
        view.dims.remove(axis);
        view.strides.remove(axis);
        Some(view)
    }

    /// Axes of length 1 and new axes repeated to a larger shape.
    pub(super) fn broadcast(&self, dims: &[usize]) -> Option<View> {
        let new = dims.len().checked_sub(self.dims.len())?;
        let mut strides = vec![0; new];
        for (i, (&dim, &stride)) in self.dims.iter().zip(&self.strides).enumerate() {
            match (dim, dims[new + i]) {
                (a, b) if a == b => strides.push(stride),
                (1, _) => strides.push(0),
                _ => return None,
            }
        }
        Some(View { offset: self.offset, dims: dims.to_vec(), strides })
    }

    /// The first row, if all rows are the same one.
    pub(super) fn same_rows(&self) -> Option<View> {
        let (&[rows, _], &[stride, _]) = (&self.dims[..], &self.strides[..]) else { return None };
        (rows == 1 || stride == 0).then(|| self.pick(0, 0)).flatten()
    }

    /// The places of all values, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let (lines, length, step) = self.lines();
        lines.flat_map(move |first| (0..length).map(move |i| first + i * step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(view: &View) -> Vec<usize> {
        view.places().collect()
    }

    #[test]
    fn places_follow_the_strides() {
        let view = View::whole(&[2, 3]);
        assert_eq!(places(&view), [0, 1, 2, 3, 4, 5]);
        assert_eq!(places(&view.transpose(&[1, 0]).unwrap()), [0, 3, 1, 4, 2, 5]);
        assert_eq!(places(&view.pick(1, 2).unwrap()), [2, 5]);
        assert_eq!(places(&view.slice(1, 0, 2, 2).unwrap()), [0, 2, 3, 5]);
        let row = View::whole(&[3]).broadcast(&[2, 3]).unwrap();
        assert_eq!(places(&row), [0, 1, 2, 0, 1, 2]);
        let column = View::whole(&[2, 3]).slice(1, 1, 1, 1).unwrap();
        assert_eq!((places(&column), column.simple().dims, column.end()), (vec![1, 4], vec![2], 5));
        assert_eq!(places(&View { offset: 7, dims: vec![], strides: vec![] }), [7]);
    }

    #[test]
    fn reshaping_splits_and_joins_axes() {
        // Heads of a joint projection: [1, T, 3 h d] -> [1, T, 3, h, d] -> [3, 1, h, T, d] -> the keys.
        let rows = View::whole(&[1, 5, 24]);
        let heads = rows.reshape(&[1, 5, 3, 2, 4]).unwrap().transpose(&[2, 0, 3, 1, 4]).unwrap();
        let keys = heads.pick(0, 1).unwrap();
        assert_eq!((keys.offset, keys.axes()), (8, vec![(2, 4), (5, 24), (4, 1)]));
        assert!(keys.reshape(&[2, 20]).is_none(), "rows of one head do not touch");
        // And back: heads side by side are rows again.
        let mixed = View { offset: 0, dims: vec![1, 2, 5, 4], strides: vec![40, 4, 8, 1] };
        let rows = mixed.transpose(&[0, 2, 1, 3]).unwrap().reshape(&[1, 5, 8]).unwrap();
        assert!(rows.is_contiguous());
        // A map [1, D, 2, 3] stored by places.
        let map = View { offset: 0, dims: vec![1, 7, 2, 3], strides: vec![42, 1, 21, 7] };
        let rows = map.reshape(&[1, 7, 6]).unwrap().transpose(&[0, 2, 1]).unwrap();
        assert!(rows.is_contiguous() && rows.dims == [1, 6, 7]);
    }

    #[test]
    fn what_does_not_fit_is_none() {
        let view = View::whole(&[2, 3]);
        assert!(
            view.reshape(&[4]).is_none() && view.slice(1, 2, 2, 1).is_none() && view.pick(2, 0).is_none()
        );
        assert!(view.broadcast(&[2, 4]).is_none() && view.broadcast(&[3]).is_none());
        assert!(view.slice(1, usize::MAX, 2, 2).is_none() && view.transpose(&[0, 2]).is_none());
    }
}
