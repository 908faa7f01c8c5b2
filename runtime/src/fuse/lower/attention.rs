//! Attention: `softmax(scale · q kᵀ) v`, by what it computes.

use smalti_kernels::attention::Shape;
use tract_onnx::pb::NodeProto;

use super::{Data, IMAGE, Lower, Result, Scores, Value, axis, need};
use crate::fuse::pointwise::{Function, Known};
use crate::fuse::step::{HeadsAt, Step, Target};
use crate::fuse::view::View;

impl<'a> Lower<'a> {
    pub(super) fn softmax(&mut self, node: &'a NodeProto) -> Result<()> {
        let rank = self.dims(node)?.len();
        match self.value(node.input.first().map_or("", String::as_str))? {
            Value::Scores(scores) if !scores.is_softmax && axis(node, -1, rank) + 1 == rank => {
                self.define(node, Value::Scores(Box::new(Scores { is_softmax: true, ..*scores })));
                Ok(())
            }
            _ => Err("softmax outside attention".into()),
        }
    }

    /// One side of attention: `[heads, rows, width]` with neighbours in a row, and its factor.
    pub(super) fn heads(&mut self, data: &Data) -> Result<(HeadsAt, [usize; 3], f64)> {
        let (factor, plain) = match data.function.known() {
            Some(Known::Scale(factor)) => (factor, Data { function: Function::IDENTITY, ..data.clone() }),
            _ => (1.0, self.plain(data)?),
        };
        let &[ref batch @ .., rows, width] = &plain.view.dims[..] else { return Err("too few axes".into()) };
        let several: Vec<usize> = (0..batch.len()).filter(|&axis| batch[axis] != 1).collect();
        let (heads, head) = match several[..] {
            [] => (1, 0),
            [axis] => (batch[axis], plain.view.strides[axis]),
            _ => return Err("several batches".into()),
        };
        let rank = plain.view.dims.len();
        let (row, neighbour) = (plain.view.strides[rank - 2], plain.view.strides[rank - 1]);
        if (neighbour != 1 && width != 1) || row == 0 && rows != 1 || plain.buffer == IMAGE {
            return Err("heads whose values are apart".into());
        }
        let at = HeadsAt { buffer: plain.buffer, offset: plain.view.offset, head, row };
        Ok((at, [heads, rows, width], factor))
    }

    pub(super) fn attention(&mut self, node: &'a NodeProto, scores: &Scores, v: &Data) -> Result<()> {
        let dims = self.dims(node)?;
        let turned = |view: &View| {
            let rank = view.dims.len();
            let mut order: Vec<usize> = (0..rank).collect();
            order.swap(rank.checked_sub(2)?, rank - 1);
            view.transpose(&order)
        };
        let keys = need(scores.k.map(turned), "too few axes")?;
        let (q, [heads, queries, key], q_factor) = self.heads(&scores.q)?;
        let (k, [k_heads, tokens, k_width], k_factor) = self.heads(&keys)?;
        let (v, [v_heads, v_tokens, value], v_factor) = self.heads(v)?;
        if [k_heads, v_heads] != [heads; 2] || k_width != key || v_tokens != tokens || v_factor != 1.0 {
            return Err("sides that do not fit".into());
        }
        let scale = (scores.scale * q_factor * k_factor) as f32;
        if !(scale > 0.0 && scale.is_finite()) {
            return Err("a scale that is not positive".into());
        }
        let shape = Shape { heads, tokens, key, value, scale };
        let buffer = self.buffer(queries, heads * value);
        let out = Target { buffer, quantize: None };
        self.steps.push(Step::Attention { qkv: [q, k, v], shape, out });
        let mut strides = vec![0; dims.len()];
        if let [batch @ .., row, one] = &mut strides[..] {
            (*row, *one) = (heads * value, 1);
            let several = dims.iter().take(batch.len()).position(|&dim| dim != 1);
            several.into_iter().for_each(|axis| batch[axis] = value);
        }
        self.define(node, Value::Data(Data::new(buffer, View { offset: 0, dims: dims.to_vec(), strides })));
        Ok(())
    }
}
