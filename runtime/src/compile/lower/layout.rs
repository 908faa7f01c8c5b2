//! Operators that move values: views where strides can say it, copies elsewhere.

use smalti_models::onnx::NodeProto;

use super::convolution::PADDED;
use super::data::{Data, State};
use super::{IMAGE, Lower, Result, Value, axis, input, need};
use crate::compile::constant::Constant;
use crate::compile::resize::Resize;
use crate::compile::step::{Step, Values};
use crate::compile::view::View;
use crate::gate::Kind;

impl<'a> Lower<'a> {
    /// An operator that only moves values.
    pub(super) fn layout(
        &mut self,
        node: &'a NodeProto,
        change: impl Fn(&View) -> Option<View>,
    ) -> Result<()> {
        let value = self.settled(input(node, 0))?;
        let value = self.moved(&value, change)?;
        self.define(node, value);
        Ok(())
    }

    /// A value that operators may move: products of attention and parts of norms are computed.
    pub(super) fn settled(&mut self, name: &'a str) -> Result<Value> {
        match self.value(name)? {
            Value::Scores(..) => self.data(name).map(Value::Data),
            _ => self.value_or_mean(name),
        }
    }

    fn moved(&self, value: &Value, change: impl Fn(&View) -> Option<View>) -> Result<Value> {
        let unfit = "a layout that strides cannot say";
        Ok(match value {
            Value::Data(data) => Value::Data(need(data.map(change), unfit)?),
            Value::Constant(constant) => Value::Constant(need(constant.map(change), unfit)?),
            Value::Scores(..) | Value::Norm(_) | Value::IsNan(_) => {
                return Err("attention or a norm with more in it".into());
            }
            Value::Padded(..) => return Err(PADDED.into()),
        })
    }

    pub(super) fn reshape(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        match self.settled(input(node, 0))? {
            Value::Data(data) if data.view.reshape(dims).is_none() && data.buffer != IMAGE => {
                // The buffer's own values are put in order; the function waits.
                let span = self.base_span(&data)?;
                let view = View { offset: span.offset, ..View::whole(dims) };
                self.define_data(node, Data { buffer: span.buffer, view, ..data });
                Ok(())
            }
            Value::Constant(constant) if constant.map(|view| view.reshape(dims)).is_none() => {
                let values = self.floats(&constant)?;
                self.define(node, Value::Constant(Constant::owned(values, dims)));
                Ok(())
            }
            _ => self.layout(node, |view| view.reshape(dims)),
        }
    }

    pub(super) fn slice(&mut self, node: &'a NodeProto) -> Result<()> {
        let from = self.fact(input(node, 0))?;
        let (starts, dims) = (self.ints(node, 1)?, self.dims(node)?);
        let axes: Vec<i64> = match input(node, 3) {
            "" => (0..starts.len() as i64).collect(),
            _ => self.ints(node, 3)?.to_vec(),
        };
        let steps: Vec<i64> = match input(node, 4) {
            "" => vec![1; starts.len()],
            _ => self.ints(node, 4)?.to_vec(),
        };
        let rank = from.dims.len() as i64;
        self.layout(node, |view| {
            let mut view = view.clone();
            for ((&start, &axis), &step) in starts.iter().zip(&axes).zip(&steps) {
                let axis = if axis < 0 { axis + rank } else { axis } as usize;
                let dim = *from.dims.get(axis)? as i64;
                let start = if start < 0 { start.saturating_add(dim).max(0) } else { start.min(dim) };
                view = view.slice(axis, start as usize, *dims.get(axis)?, usize::try_from(step).ok()?)?;
            }
            Some(view)
        })
    }

    pub(super) fn split(&mut self, node: &'a NodeProto) -> Result<()> {
        let value = self.settled(input(node, 0))?;
        let rank = self.dims(node)?.len();
        let axis = axis(node, 0, rank);
        let mut start = 0;
        for name in &node.output {
            let count = *need(self.fact(name)?.dims.get(axis), "an axis that is not there")?;
            let part = self.moved(&value, |view| view.slice(axis, start, count, 1))?;
            self.values.insert(name, Box::new(part));
            start += count;
        }
        Ok(())
    }

    /// Places of an axis by constant indices of any shape.
    pub(super) fn gather(&mut self, node: &'a NodeProto) -> Result<()> {
        let (from, index) = (self.fact(input(node, 0))?, self.fact(input(node, 1))?);
        let (axis, dims) = (axis(node, 0, from.dims.len()), self.dims(node)?);
        let dim = *need(from.dims.get(axis), "an axis that is not there")?;
        let place = |&place: &i64| if place < 0 { place + dim as i64 } else { place } as usize;
        let indices: Vec<usize> = self.ints(node, 1)?.iter().map(place).collect();
        let regular = progression(&indices);
        let view = |view: &View| match regular {
            Some((start, _)) if index.dims.is_empty() => view.pick(axis, start),
            Some((start, step)) => view.slice(axis, start, indices.len(), step)?.reshape(dims),
            None => None,
        };
        match self.settled(input(node, 0))? {
            Value::Data(data) if data.map(view).is_none() => {
                if data.buffer == IMAGE {
                    return Err("the image itself".into());
                }
                let places = self.places(&data.view, axis, &indices)?;
                let out = self.buffer_of(dims);
                self.steps.push(Step::Copy { from: data.buffer, values: Values::Places(places), out, at: 0 });
                self.define_data(node, Data { buffer: out, view: View::whole(dims), ..data });
                Ok(())
            }
            Value::Constant(constant) if constant.map(view).is_none() => {
                let values = self.floats(&constant)?;
                let picked = self.picked(&values, constant.dims(), axis, &indices)?;
                self.define(node, Value::Constant(Constant::owned(picked, dims)));
                Ok(())
            }
            _ => self.layout(node, view),
        }
    }

    /// Places of a constant by indices of its first axes.
    pub(super) fn gather_nd(&mut self, node: &'a NodeProto) -> Result<()> {
        let (constant, index) = (self.constant(node, 0)?, self.fact(input(node, 1))?);
        let (indices, dims) = (self.ints(node, 1)?, self.dims(node)?);
        let (whole, values) = (View::whole(constant.dims()), self.floats(&constant)?);
        let depth = *need(index.dims.last(), "indices of no axes")?;
        let length: usize = whole.dims[depth..].iter().product();
        self.spend(size_of::<f32>() * dims.iter().product::<usize>())?;
        let mut picked = Vec::with_capacity(dims.iter().product());
        for index in indices.chunks_exact(depth) {
            let axes = whole.dims.iter().zip(&whole.strides).zip(index);
            let place =
                |((&dim, &stride), &i): ((&usize, &usize), &i64)| i.rem_euclid(dim as i64) as usize * stride;
            let first: usize = axes.map(place).sum();
            picked.extend_from_slice(&values[first..first + length]);
        }
        self.define(node, Value::Constant(Constant::owned(picked, dims)));
        Ok(())
    }

    /// Axes repeated: axes of length 1 as a view, others of constants alone.
    pub(super) fn tile(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        let view = |view: &View| view.broadcast(dims);
        match self.settled(input(node, 0))? {
            Value::Constant(constant) if constant.map(view).is_none() => {
                let (mut shape, mut values) = (constant.dims().to_vec(), self.floats(&constant)?);
                for (axis, &dim) in dims.iter().enumerate() {
                    if shape[axis] != dim {
                        let indices: Vec<usize> = (0..shape[axis]).cycle().take(dim).collect();
                        values = self.picked(&values, &shape, axis, &indices)?;
                        shape[axis] = dim;
                    }
                }
                self.define(node, Value::Constant(Constant::owned(values, dims)));
                Ok(())
            }
            _ => self.layout(node, view),
        }
    }

    /// A constant map of another height and width.
    pub(super) fn resize(&mut self, node: &'a NodeProto) -> Result<()> {
        let (map, dims) = (self.constant(node, 0)?, self.dims(node)?);
        let factors = match self.facts.get(input(node, 2)) {
            Some(fact) if fact.dims == [dims.len()] => {
                self.optional(node, 2)?.map(|factors| factors.floats())
            }
            _ => None,
        };
        let values = self.floats(&map)?;
        self.spend(2 * size_of::<f32>() * dims.iter().product::<usize>().max(values.len()))?;
        let resized = Resize::of(node).apply(values, map.dims(), dims, factors.as_deref());
        self.define(
            node,
            Value::Constant(Constant::owned(need(resized, "other axes than an image's")?, dims)),
        );
        Ok(())
    }

    /// A constant's values, those along an axis by indices.
    fn picked(
        &mut self,
        values: &[f32],
        shape: &[usize],
        axis: usize,
        indices: &[usize],
    ) -> Result<Vec<f32>> {
        let places = self.places(&View::whole(shape), axis, indices)?;
        self.spend(size_of::<f32>() * places.len())?;
        Ok(places.into_iter().map(|place| values[place]).collect())
    }

    /// The places of a view's values, those along an axis by indices.
    fn places(&mut self, view: &View, axis: usize, indices: &[usize]) -> Result<Vec<usize>> {
        let part = |dims: &[usize], strides: &[usize], offset| View {
            offset,
            dims: dims.to_vec(),
            strides: strides.to_vec(),
        };
        let outer = part(&view.dims[..axis], &view.strides[..axis], view.offset);
        let inner = part(&view.dims[axis + 1..], &view.strides[axis + 1..], 0);
        let stride = view.strides[axis];
        self.spend(size_of::<usize>() * outer.len() * indices.len() * inner.len())?;
        let mut places = Vec::with_capacity(outer.len() * indices.len() * inner.len());
        for first in outer.places() {
            for index in indices {
                places.extend(inner.places().map(|place| first + index * stride + place));
            }
        }
        Ok(places)
    }

    /// Parts one after the other in a buffer of their own, whose outermost axis is the one that they are joined along.
    pub(super) fn concat(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        let axis = axis(node, 0, dims.len());
        let mut order: Vec<usize> = (0..dims.len()).collect();
        // Where all axes before it are 1 it is the outermost one already.
        if dims[..axis].iter().any(|&dim| dim != 1) {
            order.remove(axis);
            order.insert(0, axis);
        }
        let stored: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
        let view = need(View::whole(&stored).transpose(&back), "axes that are not there")?;
        if self.fact(node.output.first().map_or("", String::as_str))?.constant {
            return self.concat_constants(node, &order, &stored, &view);
        }
        let out = self.buffer_of(&stored);
        let mut at = 0;
        for name in &node.input {
            let fact = self.fact(name)?;
            let turned = |view: &View| view.transpose(&order);
            let step = match self.value(name)? {
                Value::Constant(constant) if fact.kind == Kind::F32 => {
                    let constant = need(constant.map(turned), "axes that are not there")?;
                    Step::StoreConstant { values: self.floats(&constant)?, out, at }
                }
                Value::Constant(_) => return Err("an input of another kind".into()),
                _ => {
                    let data = self.data(name)?;
                    if data.buffer == IMAGE || data.state == State::Quantized {
                        return Err("an input of another kind".into());
                    }
                    let data = self.plain(&data)?;
                    let data = need(data.map(turned), "axes that are not there")?;
                    Step::Copy { from: data.buffer, values: Values::of(&data.view), out, at }
                }
            };
            at += fact.dims.iter().product::<usize>();
            self.steps.push(step);
        }
        self.define_data(node, Data::new(out, view));
        Ok(())
    }

    /// Constants, real numbers or integers.
    fn concat_constants(
        &mut self,
        node: &'a NodeProto,
        order: &[usize],
        stored: &[usize],
        view: &View,
    ) -> Result<()> {
        let mut values = Vec::new();
        for name in &node.input {
            let Value::Constant(part) = self.value(name)? else {
                return Err("an input of another kind".into());
            };
            let part = need(part.map(|view| view.transpose(order)), "axes that are not there")?;
            values.extend(self.floats(&part)?);
        }
        self.spend(size_of::<f32>() * values.len())?;
        let joined = Constant::owned(values, stored).map(|_| Some(view.clone()));
        self.define(node, Value::Constant(need(joined, "axes that are not there")?));
        Ok(())
    }
}

/// The first index and the distance of neighbours, if that is the same everywhere and forward.
fn progression(indices: &[usize]) -> Option<(usize, usize)> {
    let (&first, step) = match indices {
        [one] => (one, 1),
        [first, second, ..] => (first, second.checked_sub(*first).filter(|&step| step > 0)?),
        [] => return None,
    };
    indices.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(step)).then_some((first, step))
}

#[cfg(test)]
mod tests {
    use super::progression;

    #[test]
    fn regular_indices_are_slices() {
        assert_eq!(progression(&[3]), Some((3, 1)));
        assert_eq!(progression(&[1, 3, 5]), Some((1, 2)));
        for other in [&[][..], &[2, 2], &[3, 1], &[0, 1, 3]] {
            assert_eq!(progression(other), None, "{other:?}");
        }
    }
}
