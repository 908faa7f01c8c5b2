//! Tensors out of nothing.

use super::super::attributes;
use super::super::node::Node;
use super::super::value::{Kind, Value};
use super::super::weights::{self, dimensions};
use crate::error::Result;

/// `Constant` with a tensor.
pub(in super::super) fn constant<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    match attributes::tensor(node.proto, "value") {
        Some(tensor) => Ok(vec![weights::check(&node.place, tensor, node.limits)?]),
        None => node.refuse("no `value`", "a constant tensor in `value`"),
    }
}

/// `ConstantOfShape`: one value in a known shape.
pub(in super::super) fn of_shape<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let wanted = node.list(0)?;
    let Some(dims) = dimensions(wanted).filter(|dims| !dims.contains(&0)) else {
        return node.refuse(format!("shape {wanted:?}"), "positive dimensions");
    };
    let (mut kind, mut ints) = (Kind::F32, None);
    if let Some(tensor) = attributes::tensor(node.proto, "value") {
        let value = weights::check(&node.place, tensor, node.limits)?;
        if value.elements() != 1 {
            return node.refuse(format!("a value of shape {:?}", value.dims), "one element");
        }
        (kind, ints) = (value.kind, value.ints);
    }
    let known =
        ints.filter(|_| kind == Kind::I64 && dims.len() == 1 && dims[0] <= super::super::value::KNOWN);
    Ok(vec![match known.as_deref() {
        Some(&[one]) => Value::known(kind, dims.clone(), vec![one; dims[0]]),
        _ => Value::computed(kind, dims),
    }])
}
