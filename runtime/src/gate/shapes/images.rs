//! Operators on images in NCHW: padding, pooling, batch norm.

use super::super::node::Node;
use super::super::value::{Kind, Value};
use super::super::weights::dimensions;
use super::super::windows::windows;
use super::known;
use crate::error::Result;

/// The largest padding of an axis.
const MAX_PAD: i64 = 4096;

/// An input of images: batch and channels, height and width.
fn image(node: &Node<'_>) -> Result<([usize; 2], [usize; 2])> {
    let input = node.input_of(0, Kind::F32)?;
    match input.dims[..] {
        [batch, channels, height, width] => Ok(([batch, channels], [height, width])),
        _ => node.refuse(format!("shape {:?}", input.dims), "images in NCHW (rank 4)"),
    }
}

/// `MaxPool` or `AveragePool` over windows of `kernel_shape`.
pub(in super::super) fn pool<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let ([batch, channels], sides) = image(node)?;
    let kernel = node.ints("kernel_shape").unwrap_or_default();
    let Some(&[down, across]) = dimensions(kernel).as_deref() else {
        return node.refuse(format!("kernel_shape {kernel:?}"), "two values");
    };
    match windows(node.proto, sides, [down, across]) {
        Ok(facts) if (0..2).all(|i| facts.padding[i] < facts.kernel[i]) => {
            let [rows, columns] = facts.output;
            Ok(vec![Value::computed(Kind::F32, vec![batch, channels, rows, columns])])
        }
        Ok(_) => node.refuse("windows beyond the image", "padding of less than a window"),
        Err((found, allowed)) => node.refuse(found, allowed),
    }
}

/// `GlobalAveragePool` and `GlobalMaxPool`, over all axes behind the channels.
pub(in super::super) fn global_average<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let mut dims = node.input_of(0, Kind::F32)?.dims.clone();
    match &mut dims[..] {
        [_, _, places @ ..] if !places.is_empty() => places.fill(1),
        _ => return node.refuse(format!("shape {dims:?}"), "a batch, channels and places (rank 3 or more)"),
    }
    Ok(vec![Value::computed(Kind::F32, dims)])
}

/// `BatchNormalization` for inference: scale, shift, mean and variance of each channel.
pub(in super::super) fn batch_norm<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    by_channel(node, 1..5)
}

/// `InstanceNormalization`: scale and shift of each channel.
pub(in super::super) fn instance_norm<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    by_channel(node, 1..3)
}

/// An operator that keeps the shape, with constants for each channel, the second axis.
fn by_channel<'a>(node: &Node<'a>, constants: std::ops::Range<usize>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let &[_, channels, ..] = &input.dims[..] else {
        return node.refuse(format!("shape {:?}", input.dims), "a batch and channels (rank 2 or more)");
    };
    for i in constants {
        let input = node.input_of(i, Kind::F32)?;
        if input.dims != [channels] || !input.constant {
            return node
                .refuse(format!("input {i}, {}", input.describe()), format!("constants [{channels}]"));
        }
    }
    Ok(vec![Value::computed(Kind::F32, node.input(0)?.dims.clone())])
}

/// `Pad` with constants: pads that are known beforehand and not negative.
pub(in super::super) fn pad<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (input, pads) = (node.input_of(0, Kind::F32)?, node.list(1)?);
    if node.optional(2).is_some() {
        let value = node.input_of(2, Kind::F32)?;
        if value.elements() != 1 || !value.constant {
            return node.refuse(format!("a padding {}", value.describe()), "one constant");
        }
    }
    let axes = match node.optional(3) {
        Some(_) => node.axes(node.list(3)?, input.rank())?,
        None => (0..input.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|pad| !(0..=MAX_PAD).contains(pad)) {
        let allowed = format!("{} values from 0 to {MAX_PAD}", 2 * axes.len());
        return node.refuse(format!("pads {pads:?}"), allowed);
    }
    let mut dims = input.dims.clone();
    for (i, &axis) in axes.iter().enumerate() {
        dims[axis] += (pads[i] + pads[i + axes.len()]) as usize;
    }
    Ok(vec![Value::computed(Kind::F32, dims)])
}

/// `Clip` between constants.
pub(in super::super) fn clip<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let mut bounds = [Some(f32::NEG_INFINITY), Some(f32::INFINITY)];
    for i in [1, 2] {
        if node.optional(i).is_some() {
            let bound = node.input_of(i, Kind::F32)?;
            if bound.elements() != 1 || !bound.constant {
                return node.refuse(format!("input {i}, {}", bound.describe()), "one constant");
            }
            bounds[i - 1] = known::few(bound).and_then(|bound| bound.first().copied());
        }
    }
    let known = match (known::few(input), bounds) {
        (Some(floats), [Some(low), Some(high)]) => {
            Some(floats.iter().map(|x| x.max(low).min(high)).collect())
        }
        _ => None,
    };
    Ok(vec![known::known_or_computed(Kind::F32, input.dims.clone(), None, known)])
}
