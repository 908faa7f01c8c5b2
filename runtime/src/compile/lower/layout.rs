//! Operators that move values: views where strides can say it, copies elsewhere.

use smalti_models::onnx::NodeProto;

use super::convolution::PADDED;
use super::data::{Data, State};
use super::{IMAGE, Lower, Result, Value, axis, input, need};
use crate::compile::constant::Constant;
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
        let value = self.moved(&self.value(input(node, 0))?, change)?;
        self.define(node, value);
        Ok(())
    }

    fn moved(&self, value: &Value, change: impl Fn(&View) -> Option<View>) -> Result<Value> {
        let unfit = "a layout that strides cannot say";
        Ok(match value {
            Value::Data(data) => Value::Data(need(data.map(change), unfit)?),
            Value::Constant(constant) => Value::Constant(need(constant.map(change), unfit)?),
            Value::Scores(..) => return Err("attention with more in it".into()),
            Value::Padded(..) => return Err(PADDED.into()),
        })
    }

    pub(super) fn reshape(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        match self.value(input(node, 0))? {
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
        let value = self.value(input(node, 0))?;
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
        match self.value(input(node, 0))? {
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
                let (whole, values) = (View::whole(constant.dims()), self.floats(&constant)?);
                let places = self.places(&whole, axis, &indices)?;
                let picked = places.into_iter().map(|place| values[place]).collect();
                self.spend(size_of::<f32>() * dims.iter().product::<usize>())?;
                self.define(node, Value::Constant(Constant::owned(picked, dims)));
                Ok(())
            }
            _ => self.layout(node, view),
        }
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

    /// Parts below each other, in a buffer of their own.
    pub(super) fn concat(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        let axis = axis(node, 0, dims.len());
        if dims[..axis].iter().any(|&dim| dim != 1) {
            return Err("parts side by side".into());
        }
        let parts: Vec<Value> = node.input.iter().map(|name| self.value(name)).collect::<Result<_>>()?;
        if self.fact(node.output.first().map_or("", String::as_str))?.constant {
            return self.concat_constants(node, &parts);
        }
        let out = self.buffer_of(dims);
        let mut at = 0;
        for (name, part) in node.input.iter().zip(parts) {
            let fact = self.fact(name)?;
            let step = match part {
                Value::Constant(constant) if fact.kind == Kind::F32 => {
                    Step::StoreConstant { values: self.floats(&constant)?, out, at }
                }
                Value::Data(data) if data.buffer != IMAGE && data.state != State::Quantized => {
                    let data = self.plain(&data)?;
                    Step::Copy { from: data.buffer, values: self.values_of(&data.view)?, out, at }
                }
                _ => return Err("an input of another kind".into()),
            };
            at += fact.dims.iter().product::<usize>();
            self.steps.push(step);
        }
        self.define_data(node, Data::new(out, View::whole(dims)));
        Ok(())
    }

    /// Constants, real numbers or integers.
    fn concat_constants(&mut self, node: &'a NodeProto, parts: &[Value]) -> Result<()> {
        let mut values = Vec::new();
        for part in parts {
            let Value::Constant(part) = part else { return Err("an input of another kind".into()) };
            values.extend(self.floats(part)?);
        }
        let dims = self.dims(node)?;
        self.spend(size_of::<f32>() * dims.iter().product::<usize>())?;
        self.define(node, Value::Constant(Constant::owned(values, dims)));
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
