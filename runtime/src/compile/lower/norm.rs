//! Layer norms and RMS norms that are written out, as exporters do before opset 17: `(x - mean) / sqrt(var + ε)`.

use smalti_models::onnx::NodeProto;

use super::data::Data;
use super::{Lower, Result, Value, input};
use crate::compile::constant::Constant;

/// How far a norm has come. All stages are of the same value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// The mean of each row.
    Mean,
    /// The values less their row's mean.
    Centred,
    /// The squares of those, or of the values themselves.
    Squares,
    /// The mean of the squares of each row.
    Variance,
    /// The same and a number.
    Shifted(f32),
    /// The root of that.
    Deviation(f32),
    /// One over the root.
    Inverse(f32),
}

/// A norm on its way.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    x: Data,
    /// Whether the mean is taken off: not in an RMS norm (arXiv 1910.07467).
    is_centred: bool,
    stage: Stage,
}

impl Norm {
    /// The mean of each row of a value, if that may be the beginning of a norm, or its variance.
    pub(super) fn mean(value: &Value) -> Option<Norm> {
        match value {
            Value::Norm(norm) if norm.stage == Stage::Squares => {
                Some(Norm { stage: Stage::Variance, ..(**norm).clone() })
            }
            Value::Data(data) => match data.squared() {
                Some(x) => Some(Norm { x, is_centred: false, stage: Stage::Variance }),
                None => Some(Norm { x: data.clone(), is_centred: true, stage: Stage::Mean }),
            },
            _ => None,
        }
    }

    /// Whether this is a stage of the norm of a value.
    fn is_of(&self, x: &Data) -> bool {
        self.x.is_same(x)
    }

    /// The norm after an operator on it alone.
    fn then(&self, op: &str) -> Option<Norm> {
        let stage = match (self.stage, op) {
            (Stage::Shifted(eps), "Sqrt") => Stage::Deviation(eps),
            (Stage::Deviation(eps), "Reciprocal") => Stage::Inverse(eps),
            _ => return None,
        };
        Some(Norm { stage, ..self.clone() })
    }

    /// The norm after an operator with a number; `first` if that comes first.
    fn with_number(&self, op: &str, number: f32, first: bool) -> Option<Norm> {
        let stage = match (self.stage, op) {
            (Stage::Centred, "Pow") if number == 2.0 && !first => Stage::Squares,
            (Stage::Variance, "Add") if number > 0.0 => Stage::Shifted(number),
            (Stage::Shifted(eps), "Pow") if number == 0.5 && !first => Stage::Deviation(eps),
            (Stage::Shifted(eps), "Pow") if number == -0.5 && !first => Stage::Inverse(eps),
            (Stage::Deviation(eps), "Div") if number == 1.0 && first => Stage::Inverse(eps),
            _ => return None,
        };
        Some(Norm { stage, ..self.clone() })
    }
}

/// What becomes of two sides: a norm on its way, or a value's norm with its epsilon.
enum Made {
    Norm(Norm),
    Normed { x: Data, is_centred: bool, eps: f32 },
}

/// Two sides of a norm under an operator.
fn joined(op: &str, a: &Value, b: &Value) -> Option<Made> {
    let normed = |norm: &Norm, eps| Made::Normed { x: norm.x.clone(), is_centred: norm.is_centred, eps };
    match (op, a, b) {
        ("Sub", Value::Data(x), Value::Norm(mean)) if mean.stage == Stage::Mean && mean.is_of(x) => {
            Some(Made::Norm(Norm { stage: Stage::Centred, ..(**mean).clone() }))
        }
        ("Mul", Value::Norm(a), Value::Norm(b))
            if a.is_of(&b.x) && [a.stage, b.stage] == [Stage::Centred; 2] =>
        {
            Some(Made::Norm(Norm { stage: Stage::Squares, ..(**a).clone() }))
        }
        ("Div", Value::Norm(a), Value::Norm(b)) => match (a.stage, b.stage) {
            (Stage::Centred, Stage::Deviation(eps)) if b.is_centred && b.is_of(&a.x) => Some(normed(b, eps)),
            _ => None,
        },
        ("Div", Value::Data(x), Value::Norm(b)) => match b.stage {
            Stage::Deviation(eps) if !b.is_centred && b.is_of(x) => Some(normed(b, eps)),
            _ => None,
        },
        ("Mul", Value::Norm(a), Value::Norm(b)) => match (a.stage, b.stage) {
            (Stage::Centred, Stage::Inverse(eps)) | (Stage::Inverse(eps), Stage::Centred)
                if a.is_centred && b.is_centred && b.is_of(&a.x) =>
            {
                Some(normed(b, eps))
            }
            _ => None,
        },
        ("Mul", Value::Data(x), Value::Norm(norm)) | ("Mul", Value::Norm(norm), Value::Data(x)) => {
            match norm.stage {
                Stage::Inverse(eps) if !norm.is_centred && norm.is_of(x) => Some(normed(norm, eps)),
                _ => None,
            }
        }
        _ => None,
    }
}

impl<'a> Lower<'a> {
    /// An operator on a norm that is written out; whether it was one.
    pub(super) fn norm_then(&mut self, node: &'a NodeProto) -> bool {
        let Ok(Value::Norm(norm)) = self.value(input(node, 0)) else { return false };
        let Some(next) = norm.then(&node.op_type) else { return false };
        self.define(node, Value::Norm(Box::new(next)));
        true
    }

    /// An operator on two sides, of which one at least belongs to a norm that is written out; whether it was one.
    pub(super) fn norm_with(&mut self, node: &'a NodeProto, a: &Value, b: &Value) -> Result<bool> {
        let op = &*node.op_type;
        let number = |constant: &Constant| constant.single();
        let made = match (a, b) {
            (Value::Norm(norm), Value::Constant(constant)) => {
                number(constant).and_then(|number| norm.with_number(op, number, false)).map(Made::Norm)
            }
            (Value::Constant(constant), Value::Norm(norm)) => {
                number(constant).and_then(|number| norm.with_number(op, number, true)).map(Made::Norm)
            }
            _ => joined(op, a, b),
        };
        match made {
            None => return Ok(false),
            Some(Made::Norm(norm)) => self.define(node, Value::Norm(Box::new(norm))),
            Some(Made::Normed { x, is_centred, eps }) => {
                let cols = x.dims().last().copied().unwrap_or(1);
                let normed = self.norm_rows(&x, is_centred, [vec![1.0; cols], vec![0.0; cols]], eps)?;
                self.define_data(node, normed);
            }
        }
        Ok(true)
    }

    /// A stage that is read by something else: the mean of each row, or the values less that.
    pub(super) fn norm_as_data(&mut self, norm: &Norm) -> Result<Data> {
        let mut dims = norm.x.dims().to_vec();
        let last = dims.len().saturating_sub(1);
        dims.iter_mut().skip(last).for_each(|dim| *dim = 1);
        match norm.stage {
            Stage::Mean => self.mean_over(&norm.x, &[last], &dims),
            Stage::Centred => {
                let mean = self.mean_over(&norm.x, &[last], &dims)?;
                self.difference(&norm.x, &mean)
            }
            _ => Err("a part of a norm that is read by something else".into()),
        }
    }
}
