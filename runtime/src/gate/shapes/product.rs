//! Matrix products and convolutions.

use super::super::node::Node;
use super::super::value::{Kind, Value, elements};
use super::super::weights::dimensions;
use super::super::windows::windows;
use super::broadcast;
use crate::error::Result;

/// `MatMul` of two tensors of rank 2 or more, batch axes broadcast.
pub(in super::super) fn mat_mul<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (a, b) = (node.input_of(0, Kind::F32)?, node.input_of(1, Kind::F32)?);
    let ([batch_a @ .., m, k], [batch_b @ .., inner, n]) = (&a.dims[..], &b.dims[..]) else {
        return node.refuse(format!("shapes {:?} and {:?}", a.dims, b.dims), "matrices (rank 2 or more)");
    };
    if k != inner {
        return node.refuse(format!("shapes {:?} and {:?}", a.dims, b.dims), "equal inner dimensions");
    }
    let mut dims = broadcast(node, batch_a, batch_b)?;
    dims.extend([*m, *n]);
    Ok(vec![Value::computed(Kind::F32, dims)])
}

/// `Gemm`: `alpha · A · B + beta · C` with optional transposition.
pub(in super::super) fn gemm<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (a, b) = (node.input_of(0, Kind::F32)?, node.input_of(1, Kind::F32)?);
    let matrix = |value: &Value<'_>, transposed: &str| match (&value.dims[..], node.int(transposed)) {
        (&[rows, columns], Some(1)) => Ok((columns, rows)),
        (&[rows, columns], _) => Ok((rows, columns)),
        _ => node.refuse(format!("shape {:?}", value.dims), "matrices (rank 2)"),
    };
    let ((m, k), (inner, n)) = (matrix(a, "transA")?, matrix(b, "transB")?);
    if k != inner {
        return node.refuse(format!("inner dimensions {k} and {inner}"), "equal inner dimensions");
    }
    if node.optional(2).is_some() {
        let c = node.input_of(2, Kind::F32)?;
        if broadcast(node, &c.dims, &[m, n])? != [m, n] {
            return node.refuse(format!("an addend of shape {:?}", c.dims), format!("[{m}, {n}] or less"));
        }
    }
    Ok(vec![Value::computed(Kind::F32, vec![m, n])])
}

/// `Conv` over images in NCHW.
pub(in super::super) fn conv<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let (x, w) = (node.input_of(0, Kind::F32)?, node.input_of(1, Kind::F32)?);
    let (&[batch, channels, height, width], &[outputs, per_group, kernel_h, kernel_w]) =
        (&x.dims[..], &w.dims[..])
    else {
        return node.refuse(format!("shapes {:?} and {:?}", x.dims, w.dims), "images in NCHW (rank 4)");
    };
    let groups = node.int("group").unwrap_or(1) as usize;
    if per_group.checked_mul(groups) != Some(channels) || !outputs.is_multiple_of(groups) {
        let found = format!("{channels} channels, {groups} groups, weights {:?}", w.dims);
        return node.refuse(found, "groups that divide input and output channels");
    }
    if node.optional(2).is_some() && node.input_of(2, Kind::F32)?.dims != [outputs] {
        return node.refuse(format!("a bias of shape {:?}", node.input(2)?.dims), format!("[{outputs}]"));
    }
    if let Some(kernel) = node.ints("kernel_shape")
        && dimensions(kernel).as_deref() != Some(&[kernel_h, kernel_w])
    {
        return node.refuse(format!("kernel_shape {kernel:?}"), format!("[{kernel_h}, {kernel_w}]"));
    }
    let facts = match windows(node.proto, [height, width], [kernel_h, kernel_w]) {
        Ok(facts) => facts,
        Err((found, allowed)) => return node.refuse(found, allowed),
    };
    let [rows, columns] = facts.output;
    // The engine may lay the patches out side by side.
    let patches = elements(&[batch, rows, columns, channels, kernel_h, kernel_w]);
    if patches > node.limits.tensor {
        return node.refuse(format!("{patches} values in all windows"), node.limits.tensor.to_string());
    }
    Ok(vec![Value::computed(Kind::F32, vec![batch, outputs, rows, columns])])
}

/// Elements that the windows of a convolution or a pooling reach beyond their map.
pub(in super::super) fn padding(node: &Node<'_>) -> u64 {
    let Some(&[batch, channels, height, width]) = node.optional(0).map(|x| &x.dims[..]) else { return 0 };
    let kernel = match &*node.proto.op_type {
        "Conv" => node.optional(1).and_then(|w| w.dims.get(2..)?.first_chunk().copied()),
        "MaxPool" | "AveragePool" => dimensions(node.ints("kernel_shape").unwrap_or_default())
            .and_then(|kernel| kernel.first_chunk().copied()),
        _ => None,
    };
    let Some(Ok(facts)) = kernel.map(|kernel| windows(node.proto, [height, width], kernel)) else { return 0 };
    let reach = |i: usize, side: usize| {
        let windows = (facts.output[i] - 1) * facts.stride[i] + (facts.kernel[i] - 1) * facts.dilation[i] + 1;
        windows.max(facts.padding[i] + side)
    };
    elements(&[batch, channels, reach(0, height), reach(1, width)])
        - elements(&[batch, channels, height, width])
}

/// Elements that all windows of a pooling cover.
pub(in super::super) fn covered(node: &Node<'_>, out: u64) -> u64 {
    let taps =
        |kernel: &[i64]| kernel.iter().fold(1u64, |taps, &side| taps.saturating_mul(side.max(1) as u64));
    out.saturating_mul(node.ints("kernel_shape").map_or(1, taps))
}

/// Multiply-adds of a product: elements out times length of the inner sum.
pub(in super::super) fn work(node: &Node<'_>, out: u64) -> u64 {
    let weights = node.optional(1).map_or(&[][..], |w| &w.dims);
    let inner = match (&*node.proto.op_type, weights) {
        ("Conv", [_, rest @ ..]) => elements(rest),
        ("Gemm", [_, inner]) if node.int("transB") == Some(1) => *inner as u64,
        (_, [.., inner, _]) => *inner as u64,
        _ => 1,
    };
    out.saturating_mul(inner)
}
