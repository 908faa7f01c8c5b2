//! Products with weights, in floats and in bytes, and the quantization around them.

use smalti_kernels::{Activation, Quantize};
use tract_onnx::pb::NodeProto;

use super::{Data, IMAGE, Lower, Result, Scores, Value, axis, need};
use crate::fuse::constant::Constant;
use crate::fuse::step::{Buffer, Span, Step, Target, Weight};
use crate::fuse::view::View;
use crate::gate::{attribute, windows_touch};

impl<'a> Lower<'a> {
    /// A convolution whose windows touch but do not overlap: a linear layer on patches.
    pub(super) fn conv(&mut self, node: &'a NodeProto) -> Result<()> {
        let (image, weight) =
            (self.data(node.input.first().map_or("", String::as_str))?, self.constant(node, 1)?);
        let (&[1, dim, down, across], &[_, channels, height, width]) = (self.dims(node)?, weight.dims())
        else {
            return Err("other axes than an image's".into());
        };
        let touching = windows_touch(node, [height, width]);
        let whole = image.view.dims == [1, channels, down * height, across * width];
        if image.buffer != IMAGE || !image.is_plain() || !touching || !whole {
            return Err("windows other than patches of the image".into());
        }
        let view = need(image.view.pick(0, 0), "no image")?;
        let (rows, cols) = (down * across, channels * height * width);
        let patches = self.buffer(rows, cols);
        let out = Target { buffer: patches, quantize: None };
        self.steps.push(Step::Patches { image: view, patch: [height, width], out });
        let bias = self.bias(node, dim)?;
        let weight = need(weight.map(|view| view.reshape(&[dim, cols])), "a weight in pieces")?;
        let x = Span { buffer: patches, offset: 0, rows, cols };
        let (x, weight) = self.operands(x, image.quantize, weight);
        let out = self.linear(node, x, weight, bias);
        let view =
            View { offset: 0, dims: vec![1, dim, down, across], strides: vec![0, 1, across * dim, dim] };
        self.define(node, Value::Data(Data::new(out, view)));
        Ok(())
    }

    /// A third input of one value for each output, or zeros.
    pub(super) fn bias(&self, node: &NodeProto, outputs: usize) -> Result<Vec<f32>> {
        if node.input.get(2).is_none_or(String::is_empty) {
            return Ok(vec![0.0; outputs]);
        }
        let bias = self.constant(node, 2)?.floats();
        if bias.len() == outputs { Ok(bias) } else { Err("a bias of another size".into()) }
    }

    pub(super) fn linear(
        &mut self,
        node: &'a NodeProto,
        x: Span,
        weight: Weight<'a>,
        bias: Vec<f32>,
    ) -> Buffer {
        let buffer = self.buffer(x.rows, bias.len());
        let name = node.output.first().cloned().unwrap_or_default();
        let out = Target { buffer, quantize: None };
        let (gain, activation, residual) = (None, Activation::None, None);
        let weight = Box::new(weight);
        self.steps.push(Step::Linear { name, x, weight, bias, gain, activation, residual, out });
        buffer
    }

    /// What a linear layer multiplies: bytes where both sides are.
    fn operands(&mut self, x: Span, quantize: Option<Quantize>, weight: Constant<'a>) -> (Span, Weight<'a>) {
        match (quantize, weight.bytes()) {
            (Some(quantize), Some(bytes)) => {
                let buffer = self.bytes(x, quantize);
                (Span { buffer, offset: 0, ..x }, Weight::Bytes(bytes, quantize))
            }
            _ => (x, Weight::Floats(weight)),
        }
    }

    /// `x · weightᵀ + bias` with a weight `[outputs, inputs]`.
    pub(super) fn product(
        &mut self,
        node: &'a NodeProto,
        x: &Data,
        weight: Constant<'a>,
        bias: Vec<f32>,
    ) -> Result<()> {
        let dims = self.dims(node)?;
        let span = self.span(x)?;
        let [_, inputs] = weight.dims() else { return Err("a weight of more axes".into()) };
        if span.cols != *inputs {
            return Err("rows of another length".into());
        }
        let (x, weight) = self.operands(span, x.quantize, weight);
        let out = self.linear(node, x, weight, bias);
        self.define(node, Value::Data(Data::new(out, View::whole(dims))));
        Ok(())
    }

    /// Rows as bytes, computed once.
    pub(super) fn bytes(&mut self, span: Span, quantize: Quantize) -> Buffer {
        if let Some((.., out)) = self.quantized.iter().find(|(x, q, _)| (*x, *q) == (span, quantize)) {
            return *out;
        }
        let out = self.buffer(span.rows, span.cols);
        self.steps.push(Step::Quantize { x: span, out, quantize });
        self.quantized.push((span, quantize, out));
        out
    }

    pub(super) fn mat_mul(&mut self, node: &'a NodeProto) -> Result<()> {
        let [a, b] = [0, 1].map(|i| self.value(node.input.get(i).map_or("", String::as_str)));
        match (a?, b?) {
            (Value::Data(x), Value::Constant(weight)) => {
                let (&[.., inputs, outputs], true) =
                    (weight.dims(), weight.dims().iter().rev().skip(2).all(|&dim| dim == 1))
                else {
                    return Err("several weights".into());
                };
                let change = |view: &View| view.reshape(&[inputs, outputs])?.transpose(&[1, 0]);
                let weight = need(weight.map(change), "a weight in pieces")?;
                self.product(node, &x, weight, vec![0.0; outputs])
            }
            (Value::Data(q), Value::Data(k)) => {
                let scores = Scores { q, k, scale: 1.0, is_softmax: false };
                self.define(node, Value::Scores(Box::new(scores)));
                Ok(())
            }
            (Value::Scores(scores), Value::Data(v)) if scores.is_softmax => self.attention(node, &scores, &v),
            _ => Err("a product of another kind".into()),
        }
    }

    pub(super) fn gemm(&mut self, node: &'a NodeProto) -> Result<()> {
        let (x, weight) =
            (self.data(node.input.first().map_or("", String::as_str))?, self.constant(node, 1)?);
        let int = |name: &str| attribute(node, name).map_or(0, |attribute| attribute.i);
        let one = |name: &str| attribute(node, name).is_none_or(|attribute| attribute.f == 1.0);
        if !one("alpha") || !one("beta") || int("transA") != 0 {
            return Err("factors or a transposed input".into());
        }
        let weight =
            if int("transB") == 1 { Some(weight) } else { weight.map(|view| view.transpose(&[1, 0])) };
        let weight = need(weight, "a weight of other axes")?;
        let outputs = weight.dims().first().copied().unwrap_or_default();
        let bias = self.bias(node, outputs)?;
        self.product(node, &x, weight, bias)
    }

    pub(super) fn quantize(&mut self, node: &'a NodeProto) -> Result<()> {
        let value = self.value(node.input.first().map_or("", String::as_str))?;
        let Value::Data(data) = value else {
            // Between the products of attention: kept as it was.
            self.define(node, value);
            return Ok(());
        };
        let scale = need(self.constant(node, 1)?.single(), "a scale for each channel")?;
        let zero = match node.input.get(2) {
            Some(name) if !name.is_empty() => {
                let signed = self.fact(name)?.is_signed;
                let zero = need(self.constant(node, 2)?.single(), "a zero for each channel")?;
                zero + if signed { 128.0 } else { 0.0 }
            }
            _ => 0.0,
        };
        let quantize = need(Quantize::new(scale, zero as u8), "a scale out of reach")?;
        self.define(node, Value::Data(Data { quantize: Some(quantize), ..data }));
        Ok(())
    }

    pub(super) fn dequantize(&mut self, node: &'a NodeProto) -> Result<()> {
        let value = match self.value(node.input.first().map_or("", String::as_str))? {
            Value::Constant(constant) => {
                let zero = node.input.get(2).filter(|name| !name.is_empty());
                let zero = zero.map(|_| self.constant(node, 2)).transpose()?;
                let axis = axis(node, 1, constant.dims().len());
                let real = constant.dequantize(&self.constant(node, 1)?, zero.as_ref(), axis);
                Value::Constant(need(real, "scales that do not fit")?)
            }
            other => other,
        };
        self.define(node, value);
        Ok(())
    }
}
