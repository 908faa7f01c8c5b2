//! Operators that move values: views where strides can say it, copies elsewhere.

use tract_onnx::pb::NodeProto;

use super::{Data, IMAGE, Lower, Result, Value, axis, need};
use crate::fuse::step::Step;
use crate::fuse::view::View;

impl<'a> Lower<'a> {
    /// An operator that only moves values.
    pub(super) fn layout(
        &mut self,
        node: &'a NodeProto,
        change: impl Fn(&View) -> Option<View>,
    ) -> Result<()> {
        let unfit = "a layout that strides cannot say";
        let value = match self.value(node.input.first().map_or("", String::as_str))? {
            Value::Data(data) => Value::Data(need(data.map(change), unfit)?),
            Value::Constant(constant) => Value::Constant(need(constant.map(change), unfit)?),
            Value::Scores(_) => return Err("attention with more in it".into()),
        };
        self.define(node, value);
        Ok(())
    }

    pub(super) fn reshape(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        let name = node.input.first().map_or("", String::as_str);
        match self.value(name)? {
            Value::Data(data) if data.view.reshape(dims).is_none() && data.buffer != IMAGE => {
                let span = self.span(&data)?;
                let view = View { offset: span.offset, ..View::whole(dims) };
                self.define(
                    node,
                    Value::Data(Data { quantize: data.quantize, ..Data::new(span.buffer, view) }),
                );
                Ok(())
            }
            _ => self.layout(node, |view| view.reshape(dims)),
        }
    }

    pub(super) fn slice(&mut self, node: &'a NodeProto) -> Result<()> {
        let input = self.fact(node.input.first().map_or("", String::as_str))?;
        let (starts, dims) = (self.ints(node, 1)?, self.dims(node)?);
        let axes: Vec<i64> = match node.input.get(3).filter(|name| !name.is_empty()) {
            Some(_) => self.ints(node, 3)?.to_vec(),
            None => (0..starts.len() as i64).collect(),
        };
        let steps: Vec<i64> = match node.input.get(4).filter(|name| !name.is_empty()) {
            Some(_) => self.ints(node, 4)?.to_vec(),
            None => vec![1; starts.len()],
        };
        let rank = input.dims.len() as i64;
        self.layout(node, |view| {
            let mut view = view.clone();
            for ((&start, &axis), &step) in starts.iter().zip(&axes).zip(&steps) {
                let axis = if axis < 0 { axis + rank } else { axis } as usize;
                let dim = *input.dims.get(axis)? as i64;
                let start = if start < 0 { (start + dim).max(0) } else { start.min(dim) };
                view = view.slice(axis, start as usize, *dims.get(axis)?, usize::try_from(step).ok()?)?;
            }
            Some(view)
        })
    }

    pub(super) fn split(&mut self, node: &'a NodeProto) -> Result<()> {
        let input = self.value(node.input.first().map_or("", String::as_str))?;
        let rank = self.dims(node)?.len();
        let axis = axis(node, 0, rank);
        let mut start = 0;
        for name in &node.output {
            let count = *need(self.fact(name)?.dims.get(axis), "an axis that is not there")?;
            let Value::Data(data) = &input else { return Err("an input of another kind".into()) };
            let part = need(data.map(|view| view.slice(axis, start, count, 1)), "parts that do not fit")?;
            self.values.insert(name, Value::Data(part));
            start += count;
        }
        Ok(())
    }

    pub(super) fn gather(&mut self, node: &'a NodeProto) -> Result<()> {
        let input = self.fact(node.input.first().map_or("", String::as_str))?;
        let index = self.fact(node.input.get(1).map_or("", String::as_str))?;
        let axis = axis(node, 0, input.dims.len());
        let (&[place], Some(&dim)) = (self.ints(node, 1)?, input.dims.get(axis)) else {
            return Err("several places".into());
        };
        let place = if place < 0 { place + dim as i64 } else { place } as usize;
        match index.dims.len() {
            0 => self.layout(node, |view| view.pick(axis, place)),
            1 => self.layout(node, |view| view.slice(axis, place, 1, 1)),
            _ => Err("an index of more axes".into()),
        }
    }

    /// Parts below each other, in a buffer of their own.
    pub(super) fn concat(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        let axis = axis(node, 0, dims.len());
        if dims[..axis].iter().any(|&dim| dim != 1) {
            return Err("parts side by side".into());
        }
        let out = self.buffer_of(dims);
        let mut at = 0;
        for name in &node.input {
            let step = match self.value(name)? {
                Value::Constant(constant) => Step::Put { values: constant.floats(), out, at },
                Value::Data(data) if data.buffer != IMAGE => {
                    let data = self.plain(&data)?;
                    Step::Copy { from: data.buffer, view: data.view, out, at }
                }
                _ => return Err("an input of another kind".into()),
            };
            at += self.fact(name)?.dims.iter().product::<usize>();
            self.steps.push(step);
        }
        self.define(node, Value::Data(Data::new(out, View::whole(dims))));
        Ok(())
    }
}
