//! Values on their way: a buffer, seen through a view and a function.

use smalti_kernels::QuantParams;

use super::{IMAGE, Lower, Result, need};
use crate::compile::formula::{Formula, Known};
use crate::compile::step::{Buffer, Pointwise, Span, Step, Target, Values};
use crate::compile::table::Table;
use crate::compile::view::View;
use crate::gate::Kind;
use crate::scalar;

/// What is made of each value of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Function {
    /// Of real numbers.
    Formula(Formula),
    /// Of a quantization's levels.
    Table(Table),
}

/// What the numbers are that a function gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Real,
    /// Integers that a `QuantizeLinear` made, or the bytes of an image. They are moved until a `DequantizeLinear` or a
    /// `Cast` comes.
    Quantized,
    /// Real numbers again, each of which stands for a level: an int8 layer reads the levels.
    Dequantized(QuantParams),
}

/// Values of a buffer, seen through a view and a function.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) buffer: Buffer,
    pub(super) view: View,
    pub(super) function: Function,
    pub(super) state: State,
}

impl Function {
    pub(super) fn identity() -> Function {
        Function::Formula(Formula::identity())
    }

    pub(super) fn is_identity(&self) -> bool {
        *self == Function::identity()
    }

    /// The function after one more operator of one input; none if there is no form for it.
    pub(super) fn then(&self, op: &str) -> Option<Function> {
        match self {
            Function::Formula(formula) => formula.then(op).map(Function::Formula),
            Function::Table(table) => Some(Function::Table(table.map(scalar::unary(op)?))),
        }
    }

    /// Two functions of the same value under an operator; none if there is no form for it.
    pub(super) fn with(&self, op: &str, other: &Function) -> Option<Function> {
        match (self, other) {
            (Function::Formula(a), Function::Formula(b)) => a.with(op, b).map(Function::Formula),
            (Function::Table(a), Function::Table(b)) => a.zip(b, scalar::binary(op)?).map(Function::Table),
            _ => None,
        }
    }

    /// The function and a constant under an operator; `first` if the constant comes first.
    pub(super) fn with_constant(&self, op: &str, value: f32, first: bool) -> Option<Function> {
        match self {
            Function::Formula(formula) => {
                let value = Formula::constant(f64::from(value));
                let (a, b) = if first { (&value, formula) } else { (formula, &value) };
                a.with(op, b).map(Function::Formula)
            }
            Function::Table(table) => {
                let binary = scalar::binary(op)?;
                let each = |x: f32| if first { binary(value, x) } else { binary(x, value) };
                Some(Function::Table(table.map(each)))
            }
        }
    }

    /// `min(max(x, low), high)` of the function; none if there is no form for it.
    pub(super) fn clip(&self, low: f32, high: f32) -> Option<Function> {
        match self {
            Function::Formula(formula) => formula.clip(low.into(), high.into()).map(Function::Formula),
            Function::Table(table) => Some(Function::Table(table.map(|x| x.max(low).min(high)))),
        }
    }

    /// `min(max(slope · x + shift, 0), 1)` of the function.
    pub(super) fn hard_sigmoid(&self, slope: f32, shift: f32) -> Option<Function> {
        match self {
            Function::Formula(formula) => {
                formula.hard_sigmoid(slope.into(), shift.into()).map(Function::Formula)
            }
            Function::Table(table) => {
                Some(Function::Table(table.map(|x| (slope * x + shift).clamp(0.0, 1.0))))
            }
        }
    }

    /// `x · min(max(x + 3, 0), 6) / 6` of the function; none if there is no form for it.
    pub(super) fn hard_swish(&self) -> Option<Function> {
        match self {
            Function::Formula(formula) => formula.hard_swish().map(Function::Formula),
            Function::Table(table) => {
                Some(Function::Table(table.map(|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0)))
            }
        }
    }

    /// GELU of the function, or its approximation by a hyperbolic tangent; none if there is no form for it.
    pub(super) fn gelu(&self, is_tanh: bool) -> Option<Function> {
        match self {
            Function::Formula(formula) => formula.gelu(is_tanh).map(Function::Formula),
            Function::Table(table) => Some(Function::Table(table.map(scalar::gelu(is_tanh)))),
        }
    }

    /// The factor, if the function is one.
    pub(super) fn factor(&self) -> Option<f64> {
        match self {
            Function::Formula(formula) => match formula.known()? {
                Known::Scale(factor) => Some(factor),
                Known::Activation(_) => None,
            },
            Function::Table(_) => None,
        }
    }
}

impl Data {
    /// Real numbers, as they are.
    pub(super) fn new(buffer: Buffer, view: View) -> Data {
        Data { buffer, view, function: Function::identity(), state: State::Real }
    }

    /// The image: real numbers, or bytes.
    pub(super) fn image(buffer: Buffer, dims: &[usize], kind: Kind) -> Data {
        let data = Data::new(buffer, View::whole(dims));
        match kind {
            Kind::U8 => {
                Data { function: Function::Table(Table::of_bytes()), state: State::Quantized, ..data }
            }
            _ => data,
        }
    }

    pub(super) fn dims(&self) -> &[usize] {
        &self.view.dims
    }

    /// The same values seen otherwise.
    pub(super) fn map(&self, change: impl Fn(&View) -> Option<View>) -> Option<Data> {
        Some(Data { view: change(&self.view)?, ..self.clone() })
    }

    /// Real numbers that another function gives.
    pub(super) fn real(&self, function: Function) -> Data {
        Data { function, state: State::Real, ..self.clone() }
    }

    /// Whether another value is the same.
    pub(super) fn is_same(&self, other: &Data) -> bool {
        self.buffer == other.buffer && self.view == other.view && self.function == other.function
    }

    /// What this is the square of, if it is one.
    pub(super) fn squared(&self) -> Option<Data> {
        let is_square = match &self.function {
            Function::Formula(formula) => formula.is_square(),
            Function::Table(_) => false,
        };
        is_square.then(|| self.base())
    }

    /// The buffer's own values.
    fn base(&self) -> Data {
        Data::new(self.buffer, self.view.clone())
    }
}

impl Lower<'_> {
    /// A value with its function computed, which is a kernel's.
    pub(super) fn plain(&mut self, data: &Data) -> Result<Data> {
        if data.state == State::Quantized {
            return Err("integers of a QuantizeLinear where real numbers are computed".into());
        }
        if data.function.is_identity() {
            return Ok(data.base());
        }
        if data.buffer == IMAGE {
            return Err("a function of the image itself".into());
        }
        let done = self.computed.iter().find(|(x, f, _)| *x == data.buffer && *f == data.function);
        let out = match done {
            Some((.., out)) => *out,
            None => self.compute(data)?,
        };
        Ok(Data { buffer: out, ..data.base() })
    }

    /// A buffer with the function of each value of another.
    fn compute(&mut self, data: &Data) -> Result<Buffer> {
        let unknown = "a function of single values that there is no kernel for";
        let [rows, cols] = self.buffers[data.buffer];
        let x = Span { buffer: data.buffer, offset: 0, rows, cols };
        let out = self.buffer(rows, cols);
        self.steps.push(match &data.function {
            Function::Formula(formula) => {
                let pointwise = |function| Step::Pointwise { x: data.buffer, function, out };
                match (formula.known(), formula.affine()) {
                    (Some(Known::Activation(activation)), _) => pointwise(Pointwise::Activation(activation)),
                    (Some(Known::Scale(factor)), _) => pointwise(Pointwise::Scale(factor as f32)),
                    (None, Some([scale, shift])) => {
                        Step::Affine { a: x, scale: vec![scale; cols], shift: vec![shift; cols], out }
                    }
                    (None, None) => return Err(unknown.into()),
                }
            }
            Function::Table(table) => {
                let map = Box::new(need(table.level_map(), unknown)?);
                Step::Levels { x, map, out: Target::floats(out) }
            }
        });
        self.computed.push((data.buffer, data.function.clone(), out));
        Ok(out)
    }

    /// A value as rows without a gap, in the order of its view.
    pub(super) fn span(&mut self, data: &Data) -> Result<Span> {
        let data = self.plain(data)?;
        self.contiguous(&data)
    }

    /// The buffer's own values as rows without a gap; the function waits.
    pub(super) fn base_span(&mut self, data: &Data) -> Result<Span> {
        self.contiguous(&data.base())
    }

    fn contiguous(&mut self, data: &Data) -> Result<Span> {
        if data.buffer == IMAGE {
            return Err("the image itself".into());
        }
        let cols = data.dims().last().copied().unwrap_or(1);
        let rows = data.view.len() / cols.max(1);
        if data.view.is_contiguous() {
            return Ok(Span { buffer: data.buffer, offset: data.view.offset, rows, cols });
        }
        let out = self.buffer(rows, cols);
        self.steps.push(Step::Copy { from: data.buffer, values: Values::of(&data.view), out, at: 0 });
        Ok(Span { buffer: out, offset: 0, rows, cols })
    }
}
