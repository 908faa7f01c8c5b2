//! Layer norm, softmax, mean.

use super::super::node::Node;
use super::super::value::{Kind, Value};
use crate::error::Result;

/// `LayerNormalization` over the axes from `axis` on.
pub(in super::super) fn layer_norm<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let axis = node.axis(node.int("axis").unwrap_or(-1), input.rank())?;
    for i in [1, 2] {
        if node.optional(i).is_some() && node.input_of(i, Kind::F32)?.dims != input.dims[axis..] {
            let found = format!("input {i} of shape {:?}", node.input(i)?.dims);
            return node.refuse(found, format!("{:?}", &input.dims[axis..]));
        }
    }
    Ok(vec![Value::computed(Kind::F32, input.dims.clone())])
}

/// `Softmax` along one axis.
pub(in super::super) fn softmax<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    node.axis(node.int("axis").unwrap_or(-1), input.rank())?;
    Ok(vec![Value::computed(Kind::F32, input.dims.clone())])
}

/// `ReduceMean` over named axes: an attribute up to opset 17, an input from 18.
pub(in super::super) fn reduce_mean<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let named = match (node.ints("axes"), node.optional(1)) {
        (Some(axes), None) if node.opset < 18 => Some(axes),
        (None, Some(_)) if node.opset >= 18 => Some(node.known(1)?),
        (None, None) => None,
        _ => return node.refuse("axes in the wrong place", "an attribute up to opset 17, an input from 18"),
    };
    let axes = match named {
        Some([]) => return node.refuse("an empty list of axes", "at least one axis"),
        Some(axes) => node.axes(axes, input.rank())?,
        None => (0..input.rank()).collect(),
    };
    let keep = node.int("keepdims").unwrap_or(1) == 1;
    let dims = input.dims.iter().enumerate().filter_map(|(i, &dim)| match axes.contains(&i) {
        false => Some(dim),
        true => keep.then_some(1),
    });
    Ok(vec![Value::computed(Kind::F32, dims.collect())])
}
