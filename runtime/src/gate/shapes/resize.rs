//! `Resize` of constants, as position embeddings are brought to the size of an image.

use super::super::node::Node;
use super::super::value::{Kind, Value};
use super::super::weights::dimensions;
use super::known;
use crate::error::Result;

/// The largest side of what comes out.
const MAX_SIDE: usize = 4096;

/// Height and width of a constant map `[N, C, H, W]` are made others: by sizes, or by factors.
pub(in super::super) fn resize<'a>(node: &Node<'a>) -> Result<Vec<Value<'a>>> {
    let input = node.input_of(0, Kind::F32)?;
    let (&[count, channels, height, width], true) = (&input.dims[..], input.constant) else {
        let allowed = "a constant [N, C, H, W] such as position embeddings: an image and what is computed of it keep \
                       their size";
        return node.refuse(input.describe(), allowed);
    };
    let given = |i: usize| node.optional(i).is_some_and(|value| value.elements() > 0);
    let dims = match (given(2), given(3)) {
        (false, true) => dimensions(node.list(3)?),
        (true, false) => {
            let Some(factors) = known::few(node.input(2)?).filter(|factors| factors.len() == 4) else {
                return node.refuse(format!("factors {}", node.input(2)?.describe()), "four constants");
            };
            let scaled = |(&dim, &factor): (&usize, &f32)| (f64::from(factor) * dim as f64).floor() as usize;
            Some(input.dims.iter().zip(factors.iter()).map(scaled).collect())
        }
        _ => return node.refuse("sizes and factors, or none of them", "one of both"),
    };
    match dims.as_deref() {
        Some(&[n, c, rows, columns])
            if (n, c) == (count, channels)
                && [rows, columns, height, width].iter().all(|side| (1..=MAX_SIDE).contains(side)) =>
        {
            Ok(vec![Value::computed(Kind::F32, vec![n, c, rows, columns])])
        }
        found => {
            let allowed = format!("[{count}, {channels}, H, W], sides from 1 to {MAX_SIDE}");
            node.refuse(format!("{:?} from {:?}", found.unwrap_or_default(), input.dims), allowed)
        }
    }
}
