//! Sums, factors and functions of single values.

use smalti_models::onnx::NodeProto;
use smalti_models::onnx::tensor_proto::DataType;

use super::data::{Data, Function, State};
use super::{Lower, Result, Scores, Value, input, need};
use crate::compile::constant::Constant;
use crate::compile::scalar;
use crate::compile::step::{Span, Step};
use crate::compile::view::View;
use crate::gate::{Fact, attribute};

impl<'a> Lower<'a> {
    /// Between number types: the gate lets through what loses nothing, so the numbers stay what they are.
    pub(super) fn cast(&mut self, node: &'a NodeProto, fact: &Fact) -> Result<()> {
        let to_float = attribute(node, "to").is_some_and(|attribute| attribute.i == DataType::Float as i64);
        let name = input(node, 0);
        let value = match (self.value(name), &self.fact(name)?.ints) {
            (Ok(Value::Data(data)), _) if to_float => Value::Data(data.real(data.function.clone())),
            (Ok(Value::Scores(scores, _)), _) if to_float => Value::Scores(scores, State::Real),
            (Ok(value), _) => value,
            // Of other integers the gate knows what there is to know.
            (_, Some(_)) if !to_float => return Ok(()),
            (_, Some(ints)) => {
                let values = ints.iter().map(|&int| int as f32).collect();
                self.spend(size_of::<f32>() * ints.len())?;
                Value::Constant(Constant::owned(values, &fact.dims))
            }
            (Err(why), None) => return Err(why),
        };
        self.define(node, value);
        Ok(())
    }

    /// A function of single values.
    pub(super) fn unary(&mut self, node: &'a NodeProto) -> Result<()> {
        let op = &*node.op_type;
        let value = match self.value(input(node, 0))? {
            Value::Data(Data { state: State::Quantized, .. }) => return Err("a function of integers".into()),
            Value::Data(data) => {
                let function = need(data.function.then(op), "an operator without kernels")?;
                Value::Data(data.real(function))
            }
            Value::Constant(constant) => {
                let function = need(scalar::unary(op), "an operator without kernels")?;
                let values = self.floats(&constant)?.into_iter().map(function).collect();
                Value::Constant(self.folded(values, constant.dims())?)
            }
            Value::Scores(..) => return Err("attention with more in it".into()),
        };
        self.define(node, value);
        Ok(())
    }

    pub(super) fn binary(&mut self, node: &'a NodeProto) -> Result<()> {
        let (op, dims) = (&*node.op_type, self.dims(node)?);
        let [a, b] = [0, 1].map(|i| self.value(input(node, i)));
        match (a?, b?) {
            (Value::Constant(a), Value::Constant(b)) => {
                let function = need(scalar::binary(op), "an operator without kernels")?;
                let spread = |constant: Constant<'a>| constant.map(|view| view.broadcast(dims));
                let [a, b] = [a, b].map(|side| need(spread(side), "constants that do not fit"));
                let [a, b] = [self.floats(&a?)?, self.floats(&b?)?];
                let values = a.into_iter().zip(b).map(|(a, b)| function(a, b)).collect();
                let folded = self.folded(values, dims)?;
                self.define(node, Value::Constant(folded));
                Ok(())
            }
            (Value::Scores(mut scores, State::Real | State::Dequantized(_)), Value::Constant(constant)) => {
                *scores.function() = self.scored(node, &mut scores, &constant, false)?;
                self.define(node, Value::Scores(scores, State::Real));
                Ok(())
            }
            (Value::Constant(constant), Value::Scores(mut scores, State::Real | State::Dequantized(_))) => {
                *scores.function() = self.scored(node, &mut scores, &constant, true)?;
                self.define(node, Value::Scores(scores, State::Real));
                Ok(())
            }
            (Value::Data(a), Value::Data(b)) => self.two(node, &a, &b),
            (Value::Data(a), Value::Constant(b)) => self.with_constant(node, &a, &b, false),
            (Value::Constant(a), Value::Data(b)) => self.with_constant(node, &b, &a, true),
            _ => Err("attention with more in it".into()),
        }
    }

    /// Computed constants, if they are numbers.
    fn folded(&self, values: Vec<f32>, dims: &[usize]) -> Result<Constant<'a>> {
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(Constant::owned(values, dims)),
            false => Err("constants that are not finite".into()),
        }
    }

    /// Scores and a number.
    fn scored(
        &self,
        node: &'a NodeProto,
        scores: &mut Scores,
        constant: &Constant<'a>,
        first: bool,
    ) -> Result<Function> {
        let other = usize::from(first);
        let same_shape = self.fact(input(node, other))?.dims == self.dims(node)?;
        let value = need(constant.single().filter(|_| same_shape), "a mask in attention")?;
        need(scores.function().with_constant(&node.op_type, value, first), "attention with more in it")
    }

    /// Two computed sides: a function of the same value, or a sum.
    fn two(&mut self, node: &'a NodeProto, a: &Data, b: &Data) -> Result<()> {
        let is_integer = [a, b].iter().any(|side| side.state == State::Quantized);
        let is_same = (a.buffer, &a.view) == (b.buffer, &b.view) && !is_integer;
        if let Some(function) = a.function.with(&node.op_type, &b.function).filter(|_| is_same) {
            self.define_data(node, a.real(function));
            return Ok(());
        }
        if node.op_type != "Add" || a.dims() != b.dims() {
            return Err("two sides other than a sum".into());
        }
        let (dims, a, b) = (self.dims(node)?, self.span(a)?, self.span(b)?);
        let out = self.buffer(a.rows, a.cols);
        self.steps.push(Step::Add { a, b, out });
        self.define_data(node, Data::new(out, View::whole(dims)));
        Ok(())
    }

    /// One computed side and a constant.
    fn with_constant(
        &mut self,
        node: &'a NodeProto,
        data: &Data,
        constant: &Constant<'a>,
        first: bool,
    ) -> Result<()> {
        let (op, dims) = (&*node.op_type, self.dims(node)?);
        if data.state == State::Quantized {
            return Err("a function of integers".into());
        }
        if let Some(value) = constant.single().filter(|_| data.dims() == dims) {
            let function = data.function.with_constant(op, value, first);
            self.define_data(node, data.real(need(function, "an operator without kernels")?));
            return Ok(());
        }
        if data.dims() != dims || !matches!(op, "Add" | "Mul") {
            return Err("a constant of a larger shape, or under another operator".into());
        }
        let a = self.span(data)?;
        let multiply = op == "Mul";
        self.push_constant(node, a, constant, multiply)
    }

    /// `a + constant`, or `a · constant`, with a constant that broadcasts to the node's shape.
    pub(super) fn push_constant(
        &mut self,
        node: &'a NodeProto,
        a: Span,
        constant: &Constant<'a>,
        multiply: bool,
    ) -> Result<()> {
        let dims = self.dims(node)?;
        let row = constant.dims().last() == Some(&a.cols) && constant.len() == a.cols;
        let values = if row {
            self.floats(constant)?
        } else {
            let spread = need(constant.map(|view| view.broadcast(dims)), "a constant that does not fit")?;
            self.floats(&spread)?
        };
        let out = self.buffer(a.rows, a.cols);
        self.steps.push(Step::Constant { a, values, multiply, out });
        self.define_data(node, Data::new(out, View::whole(dims)));
        Ok(())
    }
}
