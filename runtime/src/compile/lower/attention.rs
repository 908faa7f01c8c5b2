//! Attention: `softmax(scale · q kᵀ) v`, by what it computes.

use smalti_kernels::attention::Shape;
use smalti_kernels::{LevelMap, QuantParams};
use smalti_models::onnx::NodeProto;

use super::data::{Data, Function, State};
use super::{IMAGE, Lower, Result, Scores, Value, axis, input, need};
use crate::compile::step::{HeadsView, Step, Target};
use crate::compile::view::View;

/// One side of attention: where it lies, rows and width of each head, and its factor.
struct Side {
    at: HeadsView,
    rows: usize,
    width: usize,
    factor: f64,
}

impl<'a> Lower<'a> {
    /// Softmax of scores, or of rows.
    pub(super) fn softmax(&mut self, node: &'a NodeProto) -> Result<()> {
        let dims = self.dims(node)?;
        if axis(node, -1, dims.len()) + 1 != dims.len() {
            return Err("other axes than the last".into());
        }
        match self.value(input(node, 0))? {
            Value::Scores(mut scores, State::Real | State::Dequantized(_))
                if scores.probabilities.is_none() =>
            {
                scores.probabilities = Some(Function::identity());
                self.define(node, Value::Scores(scores, State::Real));
                Ok(())
            }
            Value::Data(data) => {
                let x = self.span(&data)?;
                let out = self.buffer(x.rows, x.cols);
                self.steps.push(Step::Softmax { x, out });
                self.define_data(node, Data::new(out, View::whole(dims)));
                Ok(())
            }
            _ => Err("softmax of something else".into()),
        }
    }

    /// One side of attention, `[batch.., rows, width]` with neighbours in a row. All axes of the batch are 1 but those
    /// of the heads, `several` (counted from the back): a side that is 1 there too is shared by all heads.
    fn side(&mut self, data: &Data, several: Option<(usize, usize)>) -> Result<Side> {
        let (factor, plain) = match data.function.factor() {
            Some(factor) if data.state != State::Quantized => (factor, data.real(Function::identity())),
            _ => (1.0, self.plain(data)?),
        };
        let &[ref batch @ .., rows, width] = plain.dims() else { return Err("too few axes".into()) };
        let mut head = 0;
        for (i, &dim) in batch.iter().enumerate().filter(|&(_, &dim)| dim != 1) {
            if several != Some((batch.len() - i, dim)) {
                return Err("several batches".into());
            }
            head = plain.view.strides[i];
        }
        let rank = plain.dims().len();
        let (row, neighbour) = (plain.view.strides[rank - 2], plain.view.strides[rank - 1]);
        if (neighbour != 1 && width != 1) || row == 0 && rows != 1 || plain.buffer == IMAGE {
            return Err("heads whose values are apart".into());
        }
        let at = HeadsView { buffer: plain.buffer, offset: plain.view.offset, head, row };
        Ok(Side { at, rows, width, factor })
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
        let &[ref batch @ .., _, _] = dims else { return Err("too few axes".into()) };
        let mut several =
            batch.iter().enumerate().filter(|(_, dim)| **dim != 1).map(|(i, &dim)| (batch.len() - i, dim));
        let heads_at = several.next();
        if several.next().is_some() {
            return Err("several batches".into());
        }
        let heads = heads_at.map_or(1, |(_, dim)| dim);
        let (q, k, v) =
            (self.side(&scores.q, heads_at)?, self.side(&keys, heads_at)?, self.side(v, heads_at)?);
        if k.width != q.width || v.rows != k.rows || v.factor != 1.0 {
            return Err("sides that do not fit".into());
        }
        let (scale, score_map) = score_map(&scores.scores, q.factor * k.factor)?;
        let maps = Box::new([score_map, probability_map(scores.probabilities.as_ref())?]);
        let shape = Shape { heads, tokens: k.rows, key: q.width, value: v.width, scale };
        let buffer = self.buffer(q.rows, heads * v.width);
        let out = Target::floats(buffer);
        self.steps.push(Step::Attention { qkv: [q.at, k.at, v.at], shape, maps, out });
        let mut strides = vec![0; dims.len()];
        if let [batch @ .., row, one] = &mut strides[..] {
            (*row, *one) = (heads * v.width, 1);
            if let Some((from_back, _)) = heads_at {
                let axis = batch.len() - from_back;
                batch[axis] = v.width;
            }
        }
        self.define_data(node, Data::new(buffer, View { offset: 0, dims: dims.to_vec(), strides }));
        Ok(())
    }
}

/// The factor of the products `q kᵀ` that goes into the softmax, or what a quantized model makes of them. `factor` is
/// that of the sides.
fn score_map(function: &Function, factor: f64) -> Result<(f32, Option<LevelMap>)> {
    let positive = |scale: f64| {
        let scale = scale as f32;
        need((scale > 0.0 && scale.is_finite()).then_some(scale), "a scale that is not positive")
    };
    match function {
        Function::Table(table) => {
            let of = need(table.levels_of(), "bytes in attention")?;
            let scale = (f64::from(of.scale()) / f64::from(positive(factor)?)) as f32;
            let of = need(QuantParams::new(scale, of.zero()), "a scale out of reach")?;
            Ok((1.0, Some(LevelMap::new(of, table.values()))))
        }
        Function::Formula(_) => {
            let own = need(function.factor(), "a function of scores that there is no kernel for")?;
            Ok((positive(own * factor)?, None))
        }
    }
}

/// What a quantized model makes of the softmax.
fn probability_map(function: Option<&Function>) -> Result<Option<LevelMap>> {
    match function {
        Some(Function::Table(table)) => need(table.level_map(), "bytes in attention").map(Some),
        Some(function) if function.is_identity() => Ok(None),
        _ => Err("a function of probabilities that there is no kernel for".into()),
    }
}
