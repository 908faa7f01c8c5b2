//! Products with weights, in floats and in bytes.

use smalti_kernels::{Activation, Isa, matmul};
use smalti_models::onnx::NodeProto;

use super::data::{Data, Function, State};
use super::{Lower, Result, Scores, Value, input, need};
use crate::compile::constant::Constant;
use crate::compile::step::{Buffer, Convolution, Span, Step, Target, Weight};
use crate::compile::view::View;
use crate::gate::attribute;

impl<'a> Lower<'a> {
    /// The image's patches as rows. Of bytes, a function is computed on the way; of real numbers it is computed later.
    pub(super) fn patches(
        &mut self,
        image: &Data,
        patch: [usize; 2],
        [rows, cols]: [usize; 2],
    ) -> Result<Data> {
        let (bytes, function) = match &image.function {
            Function::Table(table) if table.levels_of().is_none() => {
                ((!table.is_bytes()).then(|| table.values().clone()), Function::identity())
            }
            function => (None, function.clone()),
        };
        let view = need(image.view.pick(0, 0), "no image")?;
        let buffer = self.buffer(rows, cols);
        self.steps.push(Step::Patches { image: view, patch, bytes, out: Target::floats(buffer) });
        Ok(Data { buffer, view: View::whole(&[rows, cols]), function, state: image.state })
    }

    /// A third input of one value for each output, or zeros.
    pub(super) fn bias(&mut self, node: &NodeProto, outputs: usize) -> Result<Vec<f32>> {
        match self.optional(node, 2)? {
            None => Ok(vec![0.0; outputs]),
            Some(bias) if bias.len() == outputs => self.floats(&bias),
            Some(_) => Err("a bias of another size".into()),
        }
    }

    fn linear(&mut self, node: &'a NodeProto, x: Span, weight: Weight, bias: Vec<f32>) -> Buffer {
        self.layer(node, x, None, weight, bias)
    }

    /// A linear layer, of the windows of a map if it is a convolution.
    pub(super) fn layer(
        &mut self,
        node: &'a NodeProto,
        x: Span,
        conv: Option<Box<Convolution>>,
        weight: Weight,
        bias: Vec<f32>,
    ) -> Buffer {
        let rows = conv.as_ref().map_or(x.rows, |conv| conv.windows.count());
        let buffer = self.buffer(rows, bias.len());
        let name = node.output.first().cloned().unwrap_or_default();
        let bias = bias.into_iter().map(f64::from).collect();
        let (scale, activation, residual, activate_sum) = (None, Activation::None, None, false);
        let (weight, out) = (Box::new(weight), Target::floats(buffer));
        self.steps.push(Step::Linear {
            name,
            x,
            conv,
            weight,
            bias,
            scale,
            activation,
            residual,
            activate_sum,
            out,
        });
        buffer
    }

    /// What a linear layer multiplies: bytes where both sides are.
    pub(super) fn operands(&mut self, x: &Data, weight: Constant) -> Result<(Span, Weight)> {
        match (x.state, weight.quant_weight()) {
            (State::Dequantized(quantize), Some(bytes)) => {
                Ok((self.bytes(x, quantize)?, Weight::Bytes(bytes, quantize)))
            }
            _ => Ok((self.span(x)?, Weight::Floats(weight))),
        }
    }

    /// `x · weightᵀ + bias` with a weight `[outputs, inputs]`.
    fn product(&mut self, node: &'a NodeProto, x: &Data, weight: Constant, bias: Vec<f32>) -> Result<()> {
        let dims = self.dims(node)?;
        let [_, inputs] = weight.dims() else { return Err("a weight of more axes".into()) };
        if x.dims().last() != Some(inputs) {
            return Err("rows of another length".into());
        }
        let (x, weight) = self.operands(x, weight)?;
        let out = self.linear(node, x, weight, bias);
        self.define_data(node, Data::new(out, View::whole(dims)));
        Ok(())
    }

    pub(super) fn mat_mul(&mut self, node: &'a NodeProto) -> Result<()> {
        let [a, b] = [0, 1].map(|i| self.value_or_mean(input(node, i)));
        match (a?, b?) {
            (Value::Constant(a), Value::Constant(b)) => self.constant_product(node, &a, &b),
            // A query that is learned.
            (Value::Constant(q), Value::Data(k)) => {
                let q = self.stored(&q)?;
                self.define(node, Value::Scores(Box::new(Scores::new(q, k)), State::Real));
                Ok(())
            }
            (Value::Data(x), Value::Constant(weight))
                if weight.dims().iter().rev().skip(2).all(|&dim| dim == 1) =>
            {
                let &[.., inputs, outputs] = weight.dims() else {
                    return Err("a weight of too few axes".into());
                };
                let change = |view: &View| view.reshape(&[inputs, outputs])?.transpose(&[1, 0]);
                let weight = need(weight.map(change), "a weight in pieces")?;
                self.product(node, &x, weight, vec![0.0; outputs])
            }
            (Value::Data(q), Value::Data(k)) => {
                self.define(node, Value::Scores(Box::new(Scores::new(q, k)), State::Real));
                Ok(())
            }
            (Value::Scores(scores, state @ (State::Real | State::Dequantized(_))), Value::Data(v))
                if scores.probabilities.is_some() =>
            {
                self.attention(node, &scores, state, &v)
            }
            (a, b) => {
                let [a, b] = [(0, a), (1, b)].map(|(i, side)| match side {
                    Value::Constant(constant) => self.stored(&constant),
                    _ => self.data(input(node, i)),
                });
                let scores = Scores::new(a?, b?);
                self.define(node, Value::Scores(Box::new(scores), State::Real));
                Ok(())
            }
        }
    }

    /// A constant in a buffer.
    fn stored(&mut self, constant: &Constant) -> Result<Data> {
        let (values, out) = (self.floats(constant)?, self.buffer_of(constant.dims()));
        self.steps.push(Step::StoreConstant { values, out, at: 0 });
        Ok(Data::new(out, View::whole(constant.dims())))
    }

    /// A product of constants, which are small: the gate bounds the work.
    fn constant_product(&mut self, node: &'a NodeProto, a: &Constant, b: &Constant) -> Result<()> {
        let dims = self.dims(node)?;
        let (&[ref batch @ .., m, n], Some(&k)) = (dims, a.dims().last()) else {
            return Err("matrices of too few axes".into());
        };
        let mut side = |constant: &Constant, matrix: [usize; 2]| {
            let dims: Vec<usize> = batch.iter().copied().chain(matrix).collect();
            let spread = need(constant.map(|view| view.broadcast(&dims)), "constants that do not fit")?;
            self.floats(&spread)
        };
        let (a, b) = (side(a, [m, k])?, side(b, [k, n])?);
        self.spend(size_of::<f32>() * dims.iter().product::<usize>())?;
        let mut values = vec![0.0; dims.iter().product()];
        let shape = matmul::Shape { m, k, n, a_row: k, a_col: 1, b_row: n, c_row: n, accumulate: false };
        let pairs = a.chunks_exact(m * k).zip(b.chunks_exact(k * n));
        for ((a, b), out) in pairs.zip(values.chunks_exact_mut(m * n)) {
            matmul::product(Isa::best(), shape, 1.0, a, b, out);
        }
        let product = self.folded(values, dims)?;
        self.define(node, Value::Constant(product));
        Ok(())
    }

    /// `alpha · a · b + beta · c`; `c` broadcasts to the result in any way.
    pub(super) fn gemm(&mut self, node: &'a NodeProto) -> Result<()> {
        let (x, weight) = (self.data(input(node, 0))?, self.constant(node, 1)?);
        let int = |name: &str| attribute(node, name).map_or(0, |attribute| attribute.i);
        let factor = |name: &str| attribute(node, name).map_or(1.0, |attribute| attribute.f);
        let (alpha, beta) = (factor("alpha"), factor("beta"));
        let turn = |view: &View| view.transpose(&[1, 0]);
        let x = if int("transA") == 1 { need(x.map(turn), "rows of other axes")? } else { x };
        let weight = if int("transB") == 1 { Some(weight) } else { weight.map(turn) };
        let weight = need(weight, "a weight of other axes")?;
        let outputs = weight.dims().first().copied().unwrap_or_default();
        let dims = self.dims(node)?;
        let addend = match self.optional(node, 2)? {
            Some(c) => Some(need(c.map(|view| view.broadcast(dims)), "an addend that does not fit")?),
            None => None,
        };
        // A row that is the same for all is a bias; anything else is added after the product.
        let row = addend.as_ref().and_then(|c| c.map(|view| view.same_rows()));
        let bias = match &row {
            Some(row) => self.floats(row)?.into_iter().map(|value| beta * value).collect(),
            None => vec![0.0; outputs],
        };
        self.product(node, &x, weight, bias)?;
        if alpha != 1.0 {
            let Some(Step::Linear { scale, .. }) = self.steps.last_mut() else {
                return Err("a factor of another product".into());
            };
            *scale = Some(vec![f64::from(alpha); outputs]);
        }
        let Some(addend) = addend.filter(|_| row.is_none()) else { return Ok(()) };
        let values = self.floats(&addend)?.into_iter().map(|value| beta * value).collect();
        let product = self.data(node.output.first().map_or("", String::as_str))?;
        let a = self.span(&product)?;
        self.push_constant(node, a, &Constant::owned(values, dims), false)
    }
}
