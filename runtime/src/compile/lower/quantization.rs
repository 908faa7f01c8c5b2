//! `QuantizeLinear` and `DequantizeLinear`, of constants and of what is computed.

use smalti_kernels::QuantParams;
use smalti_models::onnx::NodeProto;

use super::data::{Data, Function, State};
use super::{Lower, Result, Value, axis, input, need};
use crate::compile::constant::{Constant, Params};
use crate::compile::step::{Span, Step, Target};
use crate::compile::table::Table;
use crate::gate::Kind;

/// Scale and zero point of a value as a whole.
#[derive(Clone, Copy)]
struct Single {
    scale: f32,
    zero: f32,
    is_signed: bool,
}

impl Single {
    /// For the kernels, which count levels from 0.
    fn quantize(self) -> Option<QuantParams> {
        let zero = self.zero + if self.is_signed { 128.0 } else { 0.0 };
        (0.0..=255.0).contains(&zero).then(|| QuantParams::new(self.scale, zero as u8)).flatten()
    }

    /// The integer that stands for a number: rounded, ties to even, and clipped; the lowest for no number.
    fn level(self, x: f32) -> f32 {
        let (lowest, highest) = if self.is_signed { (-128.0, 127.0) } else { (0.0, 255.0) };
        ((x / self.scale).round_ties_even() + self.zero).max(lowest).min(highest)
    }

    /// The number that an integer stands for.
    fn value(self, level: f32) -> f32 {
        (level - self.zero) * self.scale
    }
}

impl<'a> Lower<'a> {
    /// The node's scale and zero point, which must be one of each; `is_signed` is that of its integers.
    fn single(&self, node: &'a NodeProto, is_signed: bool) -> Result<Single> {
        let scale = need(self.constant(node, 1)?.single(), "a scale for each channel of what is computed")?;
        let zero = match self.optional(node, 2)? {
            Some(zero) => need(zero.single(), "a zero point for each channel")?,
            None => 0.0,
        };
        Ok(Single { scale, zero, is_signed })
    }

    pub(super) fn quantize(&mut self, node: &'a NodeProto) -> Result<()> {
        let is_signed = self.fact(node.output.first().map_or("", String::as_str))?.kind == Kind::I8;
        let name = input(node, 0);
        let value = match self.value_or_mean(name)? {
            Value::Scores(scores, _) if scores.is_biased() => Value::Data(self.data(name)?),
            other => other,
        };
        let value = match value {
            Value::Constant(constant) => {
                self.spend(size_of::<f32>() * constant.len())?;
                let quantized =
                    self.with_params(node, &constant, |params| constant.quantize(params, is_signed))?;
                Value::Constant(quantized)
            }
            Value::Data(data) => {
                let params = self.single(node, is_signed)?;
                Value::Data(self.quantize_data(&data, params)?)
            }
            Value::Scores(mut scores, State::Real | State::Dequantized(_)) => {
                let params = self.single(node, is_signed)?;
                let function = need(scores.function(), "scores that are quantized behind a bias")?;
                let table = need(levels(function, params), "scores under another function")?;
                *function = Function::Table(table);
                Value::Scores(scores, State::Quantized)
            }
            // Zeros have a level of their own, so that padding them comes to the same.
            Value::Padded(data, pads) => {
                let params = self.single(node, is_signed)?;
                Value::Padded(self.quantize_data(&data, params)?, pads)
            }
            Value::Scores(_, State::Quantized) => return Err("integers that are quantized again".into()),
            Value::Norm(_) | Value::IsNan(_) => return Err("a part of a norm that is quantized".into()),
        };
        self.define(node, value);
        Ok(())
    }

    /// Integers of a computed value.
    fn quantize_data(&mut self, data: &Data, params: Single) -> Result<Data> {
        if data.state == State::Quantized {
            return Err("integers that are quantized again".into());
        }
        let (data, table) = match levels(&data.function, params) {
            Some(table) => (data.clone(), table),
            // A function that a kernel computes, then a quantization of its results.
            None => {
                let data = self.plain(data)?;
                let table = need(levels(&data.function, params), "a scale out of reach")?;
                (data, table)
            }
        };
        Ok(Data { function: Function::Table(table), state: State::Quantized, ..data })
    }

    pub(super) fn dequantize(&mut self, node: &'a NodeProto) -> Result<()> {
        let is_signed = self.fact(input(node, 0))?.kind == Kind::I8;
        let value = match self.value(input(node, 0))? {
            Value::Constant(constant) => {
                Value::Constant(self.with_params(node, &constant, |params| constant.dequantize(params))?)
            }
            Value::Data(data) => {
                let params = self.single(node, is_signed)?;
                let (function, state) = reals(&data.function, data.state, params)?;
                Value::Data(Data { function, state, ..data })
            }
            Value::Scores(mut scores, state) => {
                let params = self.single(node, is_signed)?;
                let function = need(scores.function(), "scores that are quantized behind a bias")?;
                let (real, state) = reals(function, state, params)?;
                *function = real;
                Value::Scores(scores, state)
            }
            Value::Norm(_) | Value::IsNan(_) => return Err("a part of a norm that is quantized".into()),
            Value::Padded(data, pads) => {
                let params = self.single(node, is_signed)?;
                let (function, state) = reals(&data.function, data.state, params)?;
                Value::Padded(Data { function, state, ..data }, pads)
            }
        };
        self.define(node, value);
        Ok(())
    }

    /// Something made of a constant and the node's scale and zero point.
    fn with_params(
        &self,
        node: &'a NodeProto,
        constant: &Constant,
        make: impl FnOnce(&Params<'_>) -> Option<Constant>,
    ) -> Result<Constant> {
        let (scale, zero) = (self.constant(node, 1)?, self.optional(node, 2)?);
        let axis = axis(node, 1, constant.dims().len());
        need(make(&Params { scale: &scale, zero: zero.as_ref(), axis }), "scales that do not fit")
    }

    /// Levels of `quantize` as bytes, computed once; the value is dequantized by it.
    pub(super) fn bytes(&mut self, data: &Data, quantize: QuantParams) -> Result<Span> {
        let (levels_of, map) = match &data.function {
            Function::Table(table) if table.is_round_trip(quantize) => (table.levels_of(), None),
            Function::Table(table) => (Some(quantize), table.level_map()),
            // Computed already: each value is that of a level.
            Function::Formula(_) => (Some(quantize).filter(|_| data.function.is_identity()), None),
        };
        let levels_of = need(levels_of, "bytes of something that was not quantized")?;
        let x = self.base_span(data)?;
        let key = |(span, function, to, _): &&(Span, Function, QuantParams, usize)| {
            (*span, *to) == (x, levels_of) && *function == data.function
        };
        if let Some((.., out)) = self.quantized.iter().find(key) {
            return Ok(Span { buffer: *out, offset: 0, ..x });
        }
        let out = self.buffer(x.rows, x.cols);
        self.steps.push(match map {
            None => Step::Quantize { x, out, quantize: levels_of },
            Some(map) => {
                Step::Levels { x, map: Box::new(map), out: Target { buffer: out, quantize: Some(levels_of) } }
            }
        });
        self.quantized.push((x, data.function.clone(), levels_of, out));
        Ok(Span { buffer: out, offset: 0, ..x })
    }
}

/// The integers that a quantization makes of a function's results; none if the function has to be computed first.
fn levels(function: &Function, params: Single) -> Option<Table> {
    match function {
        Function::Table(table) => Some(table.map(|x| params.level(x))),
        Function::Formula(_) => {
            let factor = function.factor().filter(|&factor| factor > 0.0)?;
            let of = Single { scale: (f64::from(params.scale) / factor) as f32, ..params }.quantize()?;
            Some(Table::of_levels(of, params.is_signed))
        }
    }
}

/// The real numbers that integers stand for.
fn reals(function: &Function, state: State, params: Single) -> Result<(Function, State)> {
    match (function, state) {
        (Function::Table(table), State::Quantized) => {
            let state = params.quantize().map_or(State::Real, State::Dequantized);
            Ok((Function::Table(table.map(|level| params.value(level))), state))
        }
        _ => Err("a DequantizeLinear of what was not quantized".into()),
    }
}
