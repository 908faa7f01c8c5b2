//! Weights and what operators make of them: views of the file's own bytes, which are decoded when a layer is packed.

use std::rc::Rc;

use prost::bytes::Bytes;
use smalti_models::onnx::TensorProto;

use super::view::View;
use crate::gate::{Kind, floats, integers};

/// Where a constant's numbers lie.
#[derive(Clone, Debug)]
enum Data {
    /// As the file has them: raw little-endian bytes.
    Raw(Kind, Bytes),
    /// Quantized here, to signed bytes or unsigned ones.
    Quantized { is_signed: bool, bytes: Rc<[u8]> },
    /// Decoded or computed.
    Owned(Rc<[f32]>),
}

impl Data {
    fn at(&self, place: usize) -> f32 {
        let byte = |bytes: &[u8], is_signed: bool| match bytes.get(place) {
            Some(&byte) if is_signed => f32::from(byte as i8),
            Some(&byte) => f32::from(byte),
            None => 0.0,
        };
        match self {
            Data::Raw(Kind::F32, bytes) => {
                bytes.as_chunks::<4>().0.get(place).map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
            }
            Data::Raw(kind, bytes) => byte(bytes, *kind == Kind::I8),
            Data::Quantized { is_signed, bytes } => byte(bytes, *is_signed),
            Data::Owned(values) => values.get(place).copied().unwrap_or_default(),
        }
    }

    /// Bytes of the file's that go with this, as nothing else holds them.
    fn sole_bytes(&self) -> usize {
        match self {
            Data::Raw(_, bytes) if bytes.is_unique() => bytes.len(),
            _ => 0,
        }
    }

    /// The signed bytes, if these are some.
    fn signed_bytes(&self) -> Option<Signed<'_>> {
        match self {
            Data::Raw(Kind::I8, bytes) => Some(bytes),
            Data::Quantized { is_signed: true, bytes } => Some(bytes),
            _ => None,
        }
    }
}

/// Signed bytes, as they lie in memory.
type Signed<'a> = &'a [u8];

/// Numbers in a shape.
#[derive(Clone, Debug)]
struct Part {
    data: Data,
    view: View,
}

/// A constant tensor of real numbers: `values`, or `(values - zero) · scale` of a quantized one.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    values: Part,
    /// Scale and zero, broadcast to the shape of the values.
    quantized: Option<Rc<[Part; 2]>>,
}

/// A weight `[outputs, inputs]` of signed bytes with a scale for each output.
#[derive(Clone, Debug)]
pub(super) struct QuantWeight {
    values: Part,
    pub(super) scales: Vec<f32>,
}

impl QuantWeight {
    pub(super) fn dims(&self) -> &[usize] {
        &self.values.view.dims
    }

    /// Bytes of the file's that go with it.
    pub(super) fn sole_bytes(&self) -> usize {
        self.values.data.sole_bytes()
    }

    /// The weight, read place by place.
    pub(super) fn matrix(&self) -> impl Fn(usize, usize) -> i8 + '_ {
        let View { offset, strides, .. } = &self.values.view;
        let (offset, step, stride) = (*offset, strides[0], strides[1]);
        let bytes = self.values.data.signed_bytes().unwrap_or_default();
        move |j, i| bytes.get(offset + j * step + i * stride).map_or(0, |&byte| byte as i8)
    }
}

/// Scale, zero point and the axis that they go along, of a `QuantizeLinear` or a `DequantizeLinear`.
pub(super) struct Params<'c> {
    pub(super) scale: &'c Constant,
    /// Zeros if there is none.
    pub(super) zero: Option<&'c Constant>,
    pub(super) axis: usize,
}

impl Params<'_> {
    /// Scale and zero point, one for each value of a shape.
    fn spread(&self, dims: &[usize]) -> Option<[Part; 2]> {
        let spread = |constant: &Constant| -> Option<Part> {
            let mut shape = vec![1; dims.len()];
            if constant.values.view.len() > 1 {
                *shape.get_mut(self.axis)? = constant.values.view.len();
            }
            let view = constant.values.view.reshape(&shape)?.broadcast(dims)?;
            Some(Part { data: constant.values.data.clone(), view })
        };
        let none = Constant::owned(vec![0.0], &[1]);
        Some([spread(self.scale)?, spread(self.zero.unwrap_or(&none))?])
    }
}

impl Constant {
    /// A checked tensor of the file.
    pub(super) fn of_tensor(tensor: &TensorProto, dims: &[usize]) -> Option<Constant> {
        let kind = Kind::from_onnx(tensor.data_type)?;
        let raw = !tensor.raw_data.is_empty() && matches!(kind, Kind::F32 | Kind::I8 | Kind::U8);
        let data = match kind {
            _ if raw => Data::Raw(kind, tensor.raw_data.clone()),
            Kind::F32 => Data::Owned(floats(tensor).collect()),
            _ => Data::Owned(integers(tensor, kind).into_iter().map(|value| value as f32).collect()),
        };
        Some(Constant { values: Part { data, view: View::whole(dims) }, quantized: None })
    }

    /// Computed numbers.
    pub(super) fn owned(values: Vec<f32>, dims: &[usize]) -> Constant {
        let view = View::whole(dims);
        Constant { values: Part { data: Data::Owned(values.into()), view }, quantized: None }
    }

    pub(super) fn dims(&self) -> &[usize] {
        &self.values.view.dims
    }

    /// Bytes of the file's that go with it.
    pub(super) fn sole_bytes(&self) -> usize {
        self.values.data.sole_bytes()
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.values.view.len()
    }

    /// The same numbers seen otherwise.
    pub(super) fn map(&self, change: impl Fn(&View) -> Option<View>) -> Option<Constant> {
        let map = |part: &Part| Some(Part { data: part.data.clone(), view: change(&part.view)? });
        let quantized = match self.quantized.as_deref() {
            Some([scale, zero]) => Some([map(scale)?, map(zero)?].into()),
            None => None,
        };
        Some(Constant { values: map(&self.values)?, quantized })
    }

    /// All values in order. They take four bytes each, which the caller has accounted for.
    pub(super) fn floats(&self) -> Vec<f32> {
        let all = |part: &Part| part.view.places().map(|place| part.data.at(place)).collect::<Vec<f32>>();
        let mut values = all(&self.values);
        if let Some([scale, zero]) = self.quantized.as_deref() {
            let (scales, zeros) = (scale.view.places(), zero.view.places());
            for ((value, at), zero_at) in values.iter_mut().zip(scales).zip(zeros) {
                *value = (*value - zero.data.at(zero_at)) * scale.data.at(at);
            }
        }
        values
    }

    /// The value of a tensor with one element.
    pub(super) fn single(&self) -> Option<f32> {
        (self.len() == 1).then(|| self.floats().first().copied()).flatten()
    }

    /// `QuantizeLinear` of this tensor: `saturate(round(x / scale) + zero)`, ties to even; the lowest level for no number.
    pub(super) fn quantize(&self, params: &Params<'_>, is_signed: bool) -> Option<Constant> {
        let dims = self.dims().to_vec();
        let [scale, zero] = params.spread(&dims)?;
        let (lowest, highest) = if is_signed { (-128.0, 127.0) } else { (0.0, 255.0) };
        let places = scale.view.places().zip(zero.view.places());
        let byte = |(value, (at, zero_at)): (f32, (usize, usize))| {
            let level = (value / scale.data.at(at)).round_ties_even() + zero.data.at(zero_at);
            level.max(lowest).min(highest) as i16 as u8
        };
        let bytes = self.floats().into_iter().zip(places).map(byte).collect();
        let data = Data::Quantized { is_signed, bytes };
        Some(Constant { values: Part { data, view: View::whole(&dims) }, quantized: None })
    }

    /// `DequantizeLinear` of this tensor.
    pub(super) fn dequantize(&self, params: &Params<'_>) -> Option<Constant> {
        let quantized = Some(params.spread(self.dims())?.into());
        self.quantized.is_none().then(|| Constant { values: self.values.clone(), quantized })
    }

    /// A matrix `[outputs, inputs]` read place by place.
    pub(super) fn matrix(&self) -> Option<impl Fn(usize, usize) -> f32 + '_> {
        let steps = |part: &Part| match part.view.strides[..] {
            [step, stride] => Some((part.view.offset, step, stride)),
            _ => None,
        };
        let at = |part: &Part, (offset, step, stride): (usize, usize, usize), j: usize, i: usize| {
            part.data.at(offset + j * step + i * stride)
        };
        let values = steps(&self.values)?;
        let quantized = match self.quantized.as_deref() {
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
    pub(super) fn quant_weight(&self) -> Option<QuantWeight> {
        let [scale, zero] = self.quantized.as_deref()?;
        let &[outputs, _] = &self.values.view.dims[..] else { return None };
        // The kernels' range: -128 has no negative.
        if self.values.data.signed_bytes()?.contains(&(i8::MIN as u8)) {
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
        Some(QuantWeight { values: self.values.clone(), scales })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(value: f32) -> Constant {
        Constant::owned(vec![value], &[])
    }

    #[test]
    fn a_constant_is_quantized_as_onnx_says() {
        let x = Constant::owned(vec![0.25, 0.75, -0.25, 1.25, 900.0, -900.0], &[2, 3]);
        let (scale, zero) = (single(0.5), single(3.0));
        let params = Params { scale: &scale, zero: Some(&zero), axis: 1 };
        // Ties go to even, then the zero point is added, then the range is kept.
        let unsigned = x.quantize(&params, false).unwrap();
        assert_eq!(unsigned.floats(), [3.0, 5.0, 3.0, 5.0, 255.0, 0.0]);
        let signed = x.quantize(&params, true).unwrap();
        assert_eq!(signed.floats(), [3.0, 5.0, 3.0, 5.0, 127.0, -128.0]);
        assert_eq!(signed.dequantize(&params).unwrap().floats(), [0.0, 1.0, 0.0, 1.0, 62.0, -65.5]);
        assert!(signed.dequantize(&params).unwrap().quant_weight().is_none(), "a zero point, and -128");
    }

    #[test]
    fn channels_have_their_own_scales() {
        let x = Constant::owned(vec![1.0, 2.0, -3.0, 4.0], &[2, 2]);
        let scale = Constant::owned(vec![0.5, 2.0], &[2]);
        for (axis, want) in [(0, [2.0, 4.0, -2.0, 2.0]), (1, [2.0, 1.0, -6.0, 2.0])] {
            let params = Params { scale: &scale, zero: None, axis };
            let levels = x.quantize(&params, true).unwrap();
            assert_eq!(levels.floats(), want);
            let real = levels.dequantize(&params).unwrap();
            assert_eq!(real.quant_weight().is_some(), axis == 0);
        }
        let params = Params { scale: &scale, zero: None, axis: 0 };
        let bytes = x.quantize(&params, true).unwrap().dequantize(&params).unwrap().quant_weight().unwrap();
        assert_eq!((bytes.scales.clone(), bytes.matrix()(1, 0)), (vec![0.5, 2.0], -2));
    }
}
