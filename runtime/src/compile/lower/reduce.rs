//! Means and sums over axes.

use smalti_models::onnx::NodeProto;

use super::data::Data;
use super::norm::Norm;
use super::{Lower, Result, Value, input, need};
use crate::compile::step::Step;
use crate::compile::view::View;
use crate::gate::attribute;

impl<'a> Lower<'a> {
    /// `ReduceMean` and `ReduceSum`.
    pub(super) fn reduce(&mut self, node: &'a NodeProto) -> Result<()> {
        let from = self.fact(input(node, 0))?;
        let axes: Vec<i64> = match node.input.get(1) {
            Some(_) => self.ints(node, 1)?.to_vec(),
            None => attribute(node, "axes").map(|attribute| attribute.ints.clone()).unwrap_or_default(),
        };
        let rank = from.dims.len();
        let axis = |&axis: &i64| if axis < 0 { axis + rank as i64 } else { axis } as usize;
        let mut axes: Vec<usize> = axes.iter().map(axis).collect();
        axes.sort_unstable();
        if axes.is_empty() {
            axes = (0..rank).collect();
        }
        let is_mean = node.op_type == "ReduceMean";
        // The mean of each row may be a norm's.
        let keeps = self.dims(node)?.len() == rank;
        if is_mean
            && keeps
            && axes == [rank.saturating_sub(1)]
            && let Some(norm) = Norm::mean(&self.value(input(node, 0))?)
        {
            self.define(node, Value::Norm(Box::new(norm)));
            return Ok(());
        }
        let (data, dims) = (self.data(input(node, 0))?, self.dims(node)?);
        let mean = self.mean_over(&data, &axes, dims)?;
        if is_mean {
            self.define_data(node, mean);
            return Ok(());
        }
        let count: usize = axes.iter().filter_map(|&axis| from.dims.get(axis)).product();
        let sum = mean.function.with_constant("Mul", count as f32, false);
        let sum = self.plain(&mean.real(need(sum, "a sum over too many values")?))?;
        self.define_data(node, sum);
        Ok(())
    }

    /// The means over some axes, as a value of shape `dims`.
    pub(super) fn mean_over(&mut self, data: &Data, axes: &[usize], dims: &[usize]) -> Result<Data> {
        // The axes that go become rows; those that stay, columns.
        let rank = data.dims().len();
        let (mut order, mut kept): (Vec<usize>, Vec<usize>) = (axes.to_vec(), Vec::new());
        kept.extend((0..rank).filter(|axis| !axes.contains(axis)));
        let cols = kept.iter().map(|&axis| data.dims()[axis]).product();
        order.extend(kept);
        let rows = data.view.len() / usize::max(cols, 1);
        let turned = need(data.map(|view| view.transpose(&order)), "an axis that is not there")?;
        let x = self.span(&turned)?;
        let x = crate::compile::step::Span { rows, cols, ..x };
        let out = self.buffer(1, cols);
        self.steps.push(Step::Mean { x, out });
        Ok(Data::new(out, View::whole(dims)))
    }
}
