//! Sums, factors and functions of single values.

use smalti_models::onnx::NodeProto;
use smalti_models::onnx::tensor_proto::DataType;

use super::convolution::{PADDED, map_view, pixels, turned};
use super::data::{Data, State};
use super::{IMAGE, Lower, Result, Scores, Value, input, need};
use crate::compile::constant::Constant;
use crate::compile::step::{Span, Step};
use crate::compile::view::View;
use crate::gate::attribute;
use crate::scalar;

impl<'a> Lower<'a> {
    /// Between number types: the gate lets through what loses nothing, so the numbers stay what they are.
    pub(super) fn cast(&mut self, node: &'a NodeProto) -> Result<()> {
        let to_float = attribute(node, "to").is_some_and(|attribute| attribute.i == DataType::Float as i64);
        let value = match self.value(input(node, 0))? {
            Value::Data(data) if to_float => Value::Data(data.real(data.function.clone())),
            Value::Scores(scores, _) if to_float => Value::Scores(scores, State::Real),
            value => value,
        };
        self.define(node, value);
        Ok(())
    }

    /// A function of single values.
    pub(super) fn unary(&mut self, node: &'a NodeProto) -> Result<()> {
        if self.norm_then(node) {
            return Ok(());
        }
        let op = &*node.op_type;
        let value = match self.settled(input(node, 0))? {
            Value::Data(Data { state: State::Quantized, .. }) => return Err("a function of integers".into()),
            Value::Data(data) => {
                // What there is no form for as one function may be two.
                let known = |data: &Data| match op {
                    "HardSigmoid" => {
                        let number = |name, default| attribute(node, name).map_or(default, |found| found.f);
                        data.function.hard_sigmoid(number("alpha", 0.2), number("beta", 0.5))
                    }
                    "HardSwish" => data.function.hard_swish(),
                    "Gelu" => {
                        let form = attribute(node, "approximate");
                        data.function.gelu(form.is_some_and(|form| form.s == b"tanh"))
                    }
                    _ => data.function.then(op),
                };
                let (data, function) = match known(&data) {
                    Some(function) => (data, Some(function)),
                    None => {
                        let data = self.plain(&data)?;
                        let function = known(&data);
                        (data, function)
                    }
                };
                Value::Data(data.real(need(function, "an operator without kernels")?))
            }
            Value::Constant(constant) => {
                let function = need(scalar::unary(op), "an operator without kernels")?;
                Value::Constant(self.each(&constant, function)?)
            }
            Value::Scores(..) | Value::Norm(_) | Value::IsNan(_) => {
                return Err("attention or a norm with more in it".into());
            }
            Value::Padded(..) => return Err(PADDED.into()),
        };
        self.define(node, value);
        Ok(())
    }

    /// A value where it is a number, else a constant. PyTorch writes this behind the softmax of attention, whose rows are
    /// no numbers if all of their scores are masked by infinity; the gate lets no such mask through.
    pub(super) fn choose(&mut self, node: &'a NodeProto) -> Result<()> {
        let (Value::IsNan(of), Value::Constant(_)) =
            (self.value(input(node, 0))?, self.value(input(node, 1))?)
        else {
            return Err("a choice by another condition".into());
        };
        let value = self.value(input(node, 2))?;
        if of != input(node, 2) || self.fact(&of)?.dims != self.dims(node)? {
            return Err("a choice between other values".into());
        }
        self.define(node, value);
        Ok(())
    }

    /// Between constant bounds, either of which may be left out.
    pub(super) fn clip(&mut self, node: &'a NodeProto) -> Result<()> {
        let mut bounds = [f32::NEG_INFINITY, f32::INFINITY];
        for (i, bound) in bounds.iter_mut().enumerate() {
            if let Some(constant) = self.optional(node, i + 1)? {
                *bound = need(constant.single(), "a bound for each value")?;
            }
        }
        let [low, high] = bounds;
        let data = self.data(input(node, 0))?;
        if data.state == State::Quantized || low > high {
            return Err("bounds without kernels".into());
        }
        let (data, function) = match data.function.clip(low, high) {
            Some(function) => (data, Some(function)),
            None => {
                let data = self.plain(&data)?;
                let function = data.function.clip(low, high);
                (data, function)
            }
        };
        self.define_data(node, data.real(need(function, "an operator without kernels")?));
        Ok(())
    }

    pub(super) fn binary(&mut self, node: &'a NodeProto) -> Result<()> {
        let (op, dims) = (&*node.op_type, self.dims(node)?);
        let [a, b] = [0, 1].map(|i| self.value(input(node, i)));
        match (a?, b?) {
            (Value::Constant(a), Value::Constant(b)) => {
                let function = need(scalar::binary(op), "an operator without kernels")?;
                let spread = |constant: Constant| constant.map(|view| view.broadcast(dims));
                let [a, b] = [a, b].map(|side| need(spread(side), "constants that do not fit"));
                let [a, b] = [self.floats(&a?)?, self.floats(&b?)?];
                let values = a.into_iter().zip(b).map(|(a, b)| function(a, b)).collect();
                let folded = self.folded(values, dims)?;
                self.define(node, Value::Constant(folded));
                Ok(())
            }
            (Value::Data(a), Value::Data(b)) => self.two(node, &a, &b),
            (Value::Data(a), Value::Constant(b)) => self.with_constant(node, &a, &b, false),
            (Value::Constant(a), Value::Data(b)) => self.with_constant(node, &b, &a, true),
            (a, b) => {
                if let Some(scores) = self.scored(node, &a, &b)? {
                    self.define(node, Value::Scores(Box::new(scores), State::Real));
                    return Ok(());
                }
                if self.norm_with(node, &a, &b)? {
                    return Ok(());
                }
                match (a, b) {
                    (Value::Constant(a), _) => {
                        let b = self.data(input(node, 1))?;
                        self.with_constant(node, &b, &a, true)
                    }
                    (_, Value::Constant(b)) => {
                        let a = self.data(input(node, 0))?;
                        self.with_constant(node, &a, &b, false)
                    }
                    _ => {
                        let [a, b] = [0, 1].map(|i| self.data(input(node, i)));
                        self.two(node, &a?, &b?)
                    }
                }
            }
        }
    }

    /// Computed constants, if they are numbers.
    pub(super) fn folded(&self, values: Vec<f32>, dims: &[usize]) -> Result<Constant> {
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(Constant::owned(values, dims)),
            false => Err("constants that are not finite".into()),
        }
    }

    /// Scores of attention under an operator with a constant, as far as attention goes on with them.
    fn scored(&mut self, node: &'a NodeProto, a: &Value, b: &Value) -> Result<Option<Scores>> {
        let (scores, constant, first) = match (a, b) {
            (Value::Scores(scores, State::Real | State::Dequantized(_)), Value::Constant(constant)) => {
                (scores, constant, false)
            }
            (Value::Constant(constant), Value::Scores(scores, State::Real | State::Dequantized(_))) => {
                (scores, constant, true)
            }
            _ => return Ok(None),
        };
        let other = usize::from(first);
        let same_shape = self.fact(input(node, other))?.dims == self.dims(node)?;
        let single = constant.single().filter(|_| same_shape);
        let mut scored = (**scores).clone();
        if let (Some(value), Some(function)) = (single, scored.function()) {
            let Some(changed) = function.with_constant(&node.op_type, value, first) else { return Ok(None) };
            *function = changed;
            return Ok(Some(scored));
        }
        let is_bias = node.op_type == "Add" && same_shape && scored.probabilities.is_none();
        if is_bias { self.biased(node, &scored, constant).map(Some) } else { Ok(None) }
    }

    /// Two computed sides: a function of the same value, a sum, or a product.
    fn two(&mut self, node: &'a NodeProto, a: &Data, b: &Data) -> Result<()> {
        let is_integer = [a, b].iter().any(|side| side.state == State::Quantized);
        let is_same = (a.buffer, &a.view) == (b.buffer, &b.view) && !is_integer;
        if let Some(function) = a.function.with(&node.op_type, &b.function).filter(|_| is_same) {
            self.define_data(node, a.real(function));
            return Ok(());
        }
        let is_product = node.op_type == "Mul";
        for (map, scales) in [(a, b), (b, a)] {
            if is_product && self.is_scaled(node, map, scales)? {
                return self.scale_channels(node, map, scales);
            }
        }
        let dims = self.dims(node)?;
        let (a, b) = match &*node.op_type {
            "Add" | "Mul" => (a.clone(), b.clone()),
            "Sub" => (a.clone(), self.negative(b)?),
            _ => return Err("two sides under another operator than a sum, a difference or a product".into()),
        };
        let [a, b] = &[a, b].map(|side| side.map(|view| view.broadcast(dims)));
        let (Some(a), Some(b)) = (a, b) else { return Err("sides that do not fit".into()) };
        // Maps are added as rows of pixels where they lie so.
        let map = pixels(a).or_else(|| pixels(b)).and_then(|_| Some((turned(a)?, turned(b)?)));
        let (a, b) = match &map {
            Some((a, b)) => (self.span(a)?, self.span(b)?),
            None => (self.span(a)?, self.span(b)?),
        };
        let out = self.buffer(a.rows, a.cols);
        self.steps.push(match is_product {
            true => Step::Multiply { a, b, out },
            false => Step::Add { a, b, out },
        });
        let view = match map {
            Some(_) => map_view(dims),
            None => View::whole(dims),
        };
        self.define_data(node, Data::new(out, view));
        Ok(())
    }

    fn negative(&mut self, data: &Data) -> Result<Data> {
        let plain = self.plain(data)?;
        Ok(plain.real(need(plain.function.then("Neg"), "a difference without kernels")?))
    }

    /// `a - b`, of the shape of `a`.
    pub(super) fn difference(&mut self, a: &Data, b: &Data) -> Result<Data> {
        let b = self.negative(b)?;
        let b = need(b.map(|view| view.broadcast(a.dims())), "sides that do not fit")?;
        let (a, b, view) = (self.span(a)?, self.span(&b)?, View::whole(a.dims()));
        let out = self.buffer(a.rows, a.cols);
        self.steps.push(Step::Add { a, b, out });
        Ok(Data::new(out, view))
    }

    /// Whether a product is that of a map with one value for each of its channels.
    fn is_scaled(&self, node: &NodeProto, map: &Data, scales: &Data) -> Result<bool> {
        let (&[1, channels, rows, columns], &[.., of, 1, 1]) = (map.dims(), scales.dims()) else {
            return Ok(false);
        };
        let fits = of == channels && scales.view.len() == channels && map.dims() == self.dims(node)?;
        Ok(fits && rows * columns > 1)
    }

    fn scale_channels(&mut self, node: &'a NodeProto, map: &Data, scales: &Data) -> Result<()> {
        let map = need(turned(map), "other axes than an image's")?;
        let x = self.span(&map)?;
        let scales = Span { rows: 1, cols: x.cols, ..self.span(scales)? };
        let out = self.buffer(x.rows, x.cols);
        self.steps.push(Step::ScaleColumns { x, scales, out });
        self.define_data(node, Data::new(out, map_view(self.dims(node)?)));
        Ok(())
    }

    /// One computed side and a constant.
    fn with_constant(
        &mut self,
        node: &'a NodeProto,
        data: &Data,
        constant: &Constant,
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
        let is_channelwise = matches!(op, "Add" | "Sub" | "Mul" | "Div") && !first;
        // An image whose channels are normalised one by one becomes a map.
        let image = match (is_channelwise && data.buffer == IMAGE, data.dims()) {
            (true, &[1, channels, rows, columns]) => {
                let map = self.patches(data, [1, 1], [rows * columns, channels])?;
                Some(Data { view: map_view(data.dims()), ..map })
            }
            _ => None,
        };
        let has_channel_values = |map: &Data| match (map.dims(), constant.dims()) {
            (&[_, _, _, channels], &[.., of, 1, 1]) => of == channels && constant.len() == channels,
            _ => false,
        };
        let map = pixels(image.as_ref().unwrap_or(data)).filter(|_| is_channelwise);
        if let Some(map) = map.filter(has_channel_values).filter(|_| dims.len() == 4) {
            return self.channelwise(node, &map, constant);
        }
        // A difference is a sum with the negative, a quotient a product with the reciprocal.
        let (data, constant, multiply) = match (op, first) {
            ("Add" | "Mul", _) => (data.clone(), constant.clone(), op == "Mul"),
            ("Sub", true) => (self.negative(data)?, constant.clone(), false),
            ("Sub", false) => (data.clone(), self.each(constant, |value| -value)?, false),
            ("Div", false) => (data.clone(), self.each(constant, f32::recip)?, true),
            _ => return Err("a constant under an operator without kernels".into()),
        };
        let data = need(data.map(|view| view.broadcast(dims)), "a constant that does not fit")?;
        let a = self.span(&data)?;
        self.push_constant(node, a, &constant, multiply)
    }

    /// A function of each value of a constant.
    fn each(&mut self, constant: &Constant, function: impl Fn(f32) -> f32) -> Result<Constant> {
        let values = self.floats(constant)?.into_iter().map(function).collect();
        self.folded(values, constant.dims())
    }

    /// A map and a constant for each channel.
    fn channelwise(&mut self, node: &'a NodeProto, map: &Data, constant: &Constant) -> Result<()> {
        let channels = constant.len();
        let values: Vec<f64> = self.floats(constant)?.into_iter().map(f64::from).collect();
        let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
        let (scale, shift) = match &*node.op_type {
            "Add" => (ones, values),
            "Sub" => (ones, values.iter().map(|value| -value).collect()),
            "Mul" => (values, zeros),
            _ => (values.iter().map(|value| 1.0 / value).collect(), zeros),
        };
        let affine = self.affine(map, scale, shift)?;
        self.define_data(node, Data { view: map_view(self.dims(node)?), ..affine });
        Ok(())
    }

    /// Rows, with a factor and a shift for each column.
    fn affine(&mut self, rows: &Data, scale: Vec<f64>, shift: Vec<f64>) -> Result<Data> {
        if scale.iter().chain(&shift).any(|value| !(*value as f32).is_finite()) {
            return Err("constants that are not finite".into());
        }
        let a = self.span(rows)?;
        let out = self.buffer(a.rows, a.cols);
        self.steps.push(Step::Affine { a, scale, shift, out });
        Ok(Data::new(out, View::whole(rows.dims())))
    }

    /// Each channel less its mean, over its standard deviation, with a factor and a shift; all are constants.
    pub(super) fn batch_norm(&mut self, node: &'a NodeProto) -> Result<()> {
        let data = self.data(input(node, 0))?;
        let mut numbers = Vec::with_capacity(4);
        for i in 1..5 {
            let constant = self.constant(node, i)?;
            numbers.push(self.floats(&constant)?.into_iter().map(f64::from).collect::<Vec<f64>>());
        }
        let eps = attribute(node, "epsilon").map_or(1e-5, |attribute| f64::from(attribute.f));
        let [factors, shifts, means, variances] = &numbers[..] else { return Err("four constants".into()) };
        let scale: Vec<f64> = factors
            .iter()
            .zip(variances)
            .map(|(factor, variance)| factor / (variance + eps).sqrt())
            .collect();
        let shift =
            shifts.iter().zip(means.iter().zip(&scale)).map(|(shift, (mean, scale))| shift - mean * scale);
        let shift = shift.collect();
        let dims = self.dims(node)?;
        let normed = match data.dims().len() {
            2 => self.affine(&data, scale, shift)?,
            _ => {
                let map = need(turned(&data), "other axes than an image's")?;
                Data { view: map_view(dims), ..self.affine(&map, scale, shift)? }
            }
        };
        self.define_data(node, normed);
        Ok(())
    }

    /// `a + constant`, or `a · constant`, with a constant that broadcasts to the node's shape.
    pub(super) fn push_constant(
        &mut self,
        node: &'a NodeProto,
        a: Span,
        constant: &Constant,
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
        self.steps.push(match multiply {
            true => Step::MulConstant { a, values, out },
            false => Step::AddConstant { a, values, out },
        });
        self.define_data(node, Data::new(out, View::whole(dims)));
        Ok(())
    }
}
