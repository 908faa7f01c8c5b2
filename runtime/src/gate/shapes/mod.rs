//! Shape inference: what each operator makes of the shapes that go in, and when it would make no sense.

pub(super) mod constant;
pub(super) mod elementwise;
pub(super) mod images;
pub(super) mod index;
mod known;
pub(super) mod layout;
pub(super) mod normalise;
pub(super) mod product;
pub(super) mod quantize;
pub(super) mod resize;

use super::node::Node;
use super::value::Value;
use crate::error::Result;

/// The shape that two shapes broadcast to.
fn broadcast(node: &Node<'_>, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let mut dims = Vec::with_capacity(rank);
    for i in 0..rank {
        dims.push(match (at(a, i), at(b, i)) {
            (x, y) if x == y => x,
            (1, other) | (other, 1) => other,
            _ => return node.refuse(format!("shapes {a:?} and {b:?}"), "shapes that broadcast"),
        });
    }
    Ok(dims)
}

/// One output that keeps the type of `input` and the known values where the elements stay in order.
fn reshaped<'a>(input: &Value<'a>, dims: Vec<usize>) -> Vec<Value<'a>> {
    vec![Value { dims, tensor: None, floats: known::few(input), ..input.clone() }]
}
