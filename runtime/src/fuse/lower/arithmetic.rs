//! Sums, factors and functions of single values.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Data, Lower, Result, Scores, Value, need};
use crate::fuse::constant::Constant;
use crate::fuse::pointwise::Function;
use crate::fuse::step::Step;
use crate::fuse::view::View;
use crate::gate::{Fact, attribute};

impl<'a> Lower<'a> {
    /// Between number types: pixels to floats, known integers to floats.
    pub(super) fn cast(&mut self, node: &'a NodeProto, fact: &Fact) -> Result<()> {
        let to_float = attribute(node, "to").is_some_and(|attribute| attribute.i == DataType::Float as i64);
        let name = node.input.first().map_or("", String::as_str);
        if !to_float {
            // Of integers the gate knows what there is to know.
            return if fact.constant { Ok(()) } else { Err("a type without kernels".into()) };
        }
        let value = match (self.value(name), &self.fact(name)?.ints) {
            (Ok(value), _) => value,
            (_, Some(ints)) => {
                let values = ints.iter().map(|&int| int as f32).collect();
                Value::Constant(Constant::owned(values, &fact.dims))
            }
            (Err(why), None) => return Err(why),
        };
        self.define(node, value);
        Ok(())
    }

    pub(super) fn binary(&mut self, node: &'a NodeProto) -> Result<()> {
        let op = &*node.op_type;
        let [a, b] = [0, 1].map(|i| self.value(node.input.get(i).map_or("", String::as_str)));
        match (a?, b?) {
            (Value::Constant(a), Value::Constant(b)) => {
                let [a, b] = [a.single(), b.single()].map(|x| need(x, "constants that are not folded"));
                let [a, b] = [Function::constant(f64::from(a?)), Function::constant(f64::from(b?))];
                let y = need(a.with(op, &b).and_then(|y| y.at_any()), "an operator without kernels")?;
                self.define(node, Value::Constant(Constant::owned(vec![y as f32], self.dims(node)?)));
                Ok(())
            }
            (Value::Scores(scores), Value::Constant(factor)) if !scores.is_softmax => {
                let factor = f64::from(need(factor.single(), "a mask in attention")?);
                let scale = match op {
                    "Mul" => scores.scale * factor,
                    "Div" => scores.scale / factor,
                    _ => return Err("attention with more in it".into()),
                };
                self.define(node, Value::Scores(Box::new(Scores { scale, ..*scores })));
                Ok(())
            }
            (Value::Data(a), Value::Data(b)) => self.two(node, &a, &b),
            (Value::Data(a), Value::Constant(b)) => self.with_constant(node, &a, &b, false),
            (Value::Constant(a), Value::Data(b)) => self.with_constant(node, &b, &a, true),
            _ => Err("attention with more in it".into()),
        }
    }

    /// Two computed sides: a function of the same value, or a sum.
    pub(super) fn two(&mut self, node: &'a NodeProto, a: &Data, b: &Data) -> Result<()> {
        if (a.buffer, &a.view) == (b.buffer, &b.view) {
            let function = need(a.function.with(&node.op_type, &b.function), "an operator without kernels")?;
            self.define(node, Value::Data(Data { function, quantize: None, ..a.clone() }));
            return Ok(());
        }
        if node.op_type != "Add" || a.view.dims != b.view.dims {
            return Err("two sides other than a sum".into());
        }
        let (dims, a, b) = (self.dims(node)?, self.span(a)?, self.span(b)?);
        let out = self.buffer(a.rows, a.cols);
        self.steps.push(Step::Add { a, b, out });
        self.define(node, Value::Data(Data::new(out, View::whole(dims))));
        Ok(())
    }

    /// One computed side and a constant.
    pub(super) fn with_constant(
        &mut self,
        node: &'a NodeProto,
        data: &Data,
        constant: &Constant<'a>,
        first: bool,
    ) -> Result<()> {
        let (op, dims) = (&*node.op_type, self.dims(node)?);
        if let Some(value) = constant.single().filter(|_| data.view.dims == dims) {
            let value = Function::constant(f64::from(value));
            let (a, b) = if first { (&value, &data.function) } else { (&data.function, &value) };
            let function = need(a.with(op, b), "an operator without kernels")?;
            self.define(node, Value::Data(Data { function, quantize: None, ..data.clone() }));
            return Ok(());
        }
        if data.view.dims != dims || !matches!(op, "Add" | "Mul") {
            return Err("a constant of a larger shape, or under another operator".into());
        }
        let a = self.span(data)?;
        let row =
            constant.dims().last() == Some(&a.cols) && constant.dims().iter().product::<usize>() == a.cols;
        let values = if row {
            constant.floats()
        } else {
            need(constant.map(|view| view.broadcast(dims)), "a constant that does not fit")?.floats()
        };
        let out = self.buffer(a.rows, a.cols);
        self.steps.push(Step::Constant { a, values, multiply: op == "Mul", out });
        self.define(node, Value::Data(Data::new(out, View::whole(dims))));
        Ok(())
    }
}
