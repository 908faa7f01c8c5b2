//! Attention: `softmax(scale · q kᵀ) v`, by what it computes.

use smalti_kernels::attention::Shape;
use smalti_kernels::{LevelMap, QuantParams};
use smalti_models::onnx::NodeProto;

use super::data::{Data, Function, State};
use super::{IMAGE, Lower, Result, Scores, Value, axis, input, need};
use crate::compile::constant::Constant;
use crate::compile::step::{HeadsView, ScoreMaps, Step, Target};
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
        let rank = self.dims(node)?.len();
        let axis = axis(node, -1, rank);
        match self.value(input(node, 0))? {
            Value::Scores(mut scores, State::Real | State::Dequantized(_))
                if scores.probabilities.is_none() && axis + 1 == rank =>
            {
                scores.probabilities = Some(Function::identity());
                self.define(node, Value::Scores(scores, State::Real));
            }
            _ => {
                let data = self.data(input(node, 0))?;
                let softmax = self.softmax_along(&data, axis)?;
                self.define_data(node, softmax);
            }
        }
        Ok(())
    }

    fn softmax_along(&mut self, data: &Data, axis: usize) -> Result<Data> {
        let mut order: Vec<usize> = (0..data.dims().len()).collect();
        let last = need(order.len().checked_sub(1), "a softmax of no axis")?;
        order.swap(axis, last);
        let turned = |view: &View| view.transpose(&order);
        let data = need(data.map(turned), "an axis that is not there")?;
        let x = self.span(&data)?;
        let out = self.buffer(x.rows, x.cols);
        self.steps.push(Step::Softmax { x, out });
        need(Data::new(out, View::whole(data.dims())).map(turned), "an axis that is not there")
    }

    /// A mask or a bias of the scores: a constant that is added to them, as they are so far.
    pub(super) fn biased(
        &mut self,
        node: &'a NodeProto,
        scores: &Scores,
        constant: &Constant,
    ) -> Result<Scores> {
        let dims = self.dims(node)?;
        let spread = need(constant.map(|view| view.broadcast(dims)), "a constant of a larger shape")?;
        let mut values = self.floats(&spread)?;
        if let Some(before) = &scores.bias {
            self.spend(size_of::<f32>() * values.len())?;
            values.iter_mut().zip(before.floats()).for_each(|(value, before)| *value += before);
        }
        Ok(Scores { bias: Some(Constant::owned(values, dims)), ..scores.clone() })
    }

    /// The scores, or their softmax, as a value.
    pub(super) fn scores_as_data(&mut self, scores: &Scores, state: State) -> Result<Data> {
        let product = self.product_of(&scores.q, &scores.k)?;
        let biased = match &scores.bias {
            None => Data { function: scores.scores.clone(), ..product },
            Some(bias) => {
                let a = self.span(&Data { function: scores.scores.clone(), ..product })?;
                let (values, out) = (self.floats(bias)?, self.buffer(a.rows, a.cols));
                self.steps.push(Step::AddConstant { a, values, out });
                Data::new(out, View::whole(bias.dims()))
            }
        };
        let Some(probabilities) = &scores.probabilities else { return Ok(Data { state, ..biased }) };
        let softmax = self.softmax_along(&biased, biased.dims().len() - 1)?;
        Ok(Data { function: probabilities.clone(), state, ..softmax })
    }

    /// The products of two computed sides of matrices, whose other axes broadcast.
    pub(super) fn product_of(&mut self, a: &Data, b: &Data) -> Result<Data> {
        let (&[ref batch_a @ .., m, k], &[ref batch_b @ .., _, n]) = (a.dims(), b.dims()) else {
            return Err("matrices of too few axes".into());
        };
        let rank = batch_a.len().max(batch_b.len());
        let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
        let batch: Vec<usize> = (0..rank).map(|i| at(batch_a, i).max(at(batch_b, i))).collect();
        let count: usize = batch.iter().product();
        let mut side = |data: &Data, matrix: [usize; 2]| {
            let dims: Vec<usize> = batch.iter().copied().chain(matrix).collect();
            let spread = need(data.map(|view| view.broadcast(&dims)), "sides that do not fit")?;
            self.span(&spread)
        };
        let (a, b) = (side(a, [m, k])?, side(b, [k, n])?);
        let out = self.buffer(count * m, n);
        self.steps.push(Step::Product { a, b, count, out });
        let dims: Vec<usize> = batch.into_iter().chain([m, n]).collect();
        Ok(Data::new(out, View::whole(&dims)))
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

    /// Probabilities times values: by the kernel for attention, or by products where it does not fit.
    pub(super) fn attention(
        &mut self,
        node: &'a NodeProto,
        scores: &Scores,
        state: State,
        v: &Data,
    ) -> Result<()> {
        let mixed = match self.fused_attention(self.dims(node)?, scores, v) {
            Ok(mixed) => mixed,
            Err(why) => {
                let products =
                    self.scores_as_data(scores, state).and_then(|weights| self.product_of(&weights, v));
                products.map_err(|other| format!("{why}; {other}"))?
            }
        };
        self.define_data(node, mixed);
        Ok(())
    }

    fn fused_attention(&mut self, dims: &[usize], scores: &Scores, v: &Data) -> Result<Data> {
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
        let bias = match &scores.bias {
            None => None,
            Some(bias) if bias.len() == heads * q.rows * k.rows => {
                // The kernel adds it before its factor.
                Some(self.floats(bias)?.into_iter().map(|bias| bias / scale).collect())
            }
            Some(_) => return Err("biases of another number".into()),
        };
        let probabilities = probability_map(scores.probabilities.as_ref())?;
        let maps = Box::new(ScoreMaps { scores: score_map, bias, probabilities });
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
        Ok(Data::new(buffer, View { offset: 0, dims: dims.to_vec(), strides }))
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
