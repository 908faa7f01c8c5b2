//! Weights and what layout operators make of them: views of the file's own bytes, decoded when read.

use std::rc::Rc;

use tract_onnx::pb::TensorProto;

use super::view::View;
use crate::gate::{Kind, floats, integers};

/// Where a constant's numbers lie.
#[derive(Clone, Debug)]
enum Data<'a> {
    /// In the file, as raw little-endian bytes.
    Raw(Kind, &'a [u8]),
    /// Decoded or computed.
    Owned(Rc<[f32]>),
}

impl Data<'_> {
    fn at(&self, place: usize) -> f32 {
        match self {
            Data::Raw(Kind::F32, bytes) => {
                bytes.as_chunks::<4>().0.get(place).map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
            }
            Data::Raw(Kind::I8, bytes) => bytes.get(place).map_or(0.0, |&byte| f32::from(byte as i8)),
            Data::Raw(_, bytes) => bytes.get(place).map_or(0.0, |&byte| f32::from(byte)),
            Data::Owned(values) => values.get(place).copied().unwrap_or_default(),
        }
    }
}

/// Numbers in a shape.
#[derive(Clone, Debug)]
struct Part<'a> {
    data: Data<'a>,
    view: View,
}

/// A constant tensor of real numbers: `values`, or `(values - zero) · scale` of a quantized one.
#[derive(Clone, Debug)]
pub(super) struct Constant<'a> {
    values: Part<'a>,
    /// Scale and zero, broadcast to the shape of the values.
    quantized: Option<[Part<'a>; 2]>,
}

/// A weight `[outputs, inputs]` of signed bytes with a scale for each output.
#[derive(Clone, Debug)]
pub(super) struct Bytes<'a> {
    raw: &'a [u8],
    view: View,
    pub(super) scales: Vec<f32>,
}

impl Bytes<'_> {
    /// The weight, read place by place.
    pub(super) fn matrix(&self) -> impl Fn(usize, usize) -> i8 + '_ {
        let (offset, step, stride) = (self.view.offset, self.view.strides[0], self.view.strides[1]);
        move |j, i| self.raw.get(offset + j * step + i * stride).map_or(0, |&byte| byte as i8)
    }
}

impl<'a> Constant<'a> {
    /// A checked tensor of the file.
    pub(super) fn of_tensor(tensor: &'a TensorProto, dims: &[usize]) -> Option<Constant<'a>> {
        let kind = Kind::from_onnx(tensor.data_type)?;
        let raw = !tensor.raw_data.is_empty() && matches!(kind, Kind::F32 | Kind::I8 | Kind::U8);
        let data = match kind {
            _ if raw => Data::Raw(kind, &tensor.raw_data),
            Kind::F32 => Data::Owned(floats(tensor).collect()),
            _ => Data::Owned(integers(tensor, kind).into_iter().map(|value| value as f32).collect()),
        };
        Some(Constant { values: Part { data, view: View::whole(dims) }, quantized: None })
    }

    /// Computed numbers.
    pub(super) fn owned(values: Vec<f32>, dims: &[usize]) -> Constant<'a> {
        let view = View::whole(dims);
        Constant { values: Part { data: Data::Owned(values.into()), view }, quantized: None }
    }

    pub(super) fn dims(&self) -> &[usize] {
        &self.values.view.dims
    }

    /// The same numbers seen otherwise.
    pub(super) fn map(&self, change: impl Fn(&View) -> Option<View>) -> Option<Constant<'a>> {
        let map = |part: &Part<'a>| Some(Part { data: part.data.clone(), view: change(&part.view)? });
        let quantized = match &self.quantized {
            Some([scale, zero]) => Some([map(scale)?, map(zero)?]),
            None => None,
        };
        Some(Constant { values: map(&self.values)?, quantized })
    }

    /// All values in order.
    pub(super) fn floats(&self) -> Vec<f32> {
        let all = |part: &Part<'_>| part.view.places().map(|place| part.data.at(place)).collect::<Vec<f32>>();
        let mut values = all(&self.values);
        if let Some([scale, zero]) = &self.quantized {
            for ((value, scale), zero) in values.iter_mut().zip(all(scale)).zip(all(zero)) {
                *value = (*value - zero) * scale;
            }
        }
        values
    }

    /// The value of a tensor with one element.
    pub(super) fn single(&self) -> Option<f32> {
        (self.values.view.len() == 1).then(|| self.floats().first().copied()).flatten()
    }

    /// `DequantizeLinear` of this tensor.
    pub(super) fn dequantize(
        &self,
        scale: &Constant<'a>,
        zero: Option<&Constant<'a>>,
        axis: usize,
    ) -> Option<Constant<'a>> {
        let dims = self.dims();
        let spread = |constant: &Constant<'a>| -> Option<Part<'a>> {
            let mut shape = vec![1; dims.len()];
            if constant.values.view.len() > 1 {
                *shape.get_mut(axis)? = constant.values.view.len();
            }
            let view = constant.values.view.reshape(&shape)?.broadcast(dims)?;
            Some(Part { data: constant.values.data.clone(), view })
        };
        let none = Constant::owned(vec![0.0], &[1]);
        let quantized = Some([spread(scale)?, spread(zero.unwrap_or(&none))?]);
        (self.quantized.is_none()).then(|| Constant { values: self.values.clone(), quantized })
    }

    /// A matrix `[outputs, inputs]` read place by place.
    pub(super) fn matrix(&self) -> Option<impl Fn(usize, usize) -> f32 + '_> {
        let steps = |part: &Part<'_>| match part.view.strides[..] {
            [step, stride] => Some((part.view.offset, step, stride)),
            _ => None,
        };
        let at = |part: &Part<'_>, (offset, step, stride): (usize, usize, usize), j: usize, i: usize| {
            part.data.at(offset + j * step + i * stride)
        };
        let values = steps(&self.values)?;
        let quantized = match &self.quantized {
            Some([scale, zero]) => Some([(scale, steps(scale)?), (zero, steps(zero)?)]),
            None => None,
        };
        Some(move |j: usize, i: usize| {
            let value = at(&self.values, values, j, i);
            match &quantized {
                Some([scale, zero]) => (value - at(zero.0, zero.1, j, i)) * at(scale.0, scale.1, j, i),
                None => value,
            }
        })
    }

    /// A quantized matrix `[outputs, inputs]`, if it is one of signed bytes around 0 with a scale for each output.
    pub(super) fn bytes(&self) -> Option<Bytes<'a>> {
        let [scale, zero] = self.quantized.as_ref()?;
        let (&[outputs, _], &Data::Raw(Kind::I8, raw)) = (&self.values.view.dims[..], &self.values.data)
        else {
            return None;
        };
        // The kernels' range: -128 has no negative.
        if raw.contains(&(i8::MIN as u8)) {
            return None;
        }
        // Zeros are few: one, or one for each output.
        let centred = zero.view.strides[1] == 0
            && (0..outputs).all(|j| zero.data.at(zero.view.offset + j * zero.view.strides[0]) == 0.0);
        if scale.view.strides[1] != 0 || !centred {
            return None;
        }
        let scales =
            (0..outputs).map(|j| scale.data.at(scale.view.offset + j * scale.view.strides[0])).collect();
        Some(Bytes { raw, view: self.values.view.clone(), scales })
    }
}
