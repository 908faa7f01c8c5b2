//! The backward pass of a convolutional stem, from the gradients of its tokens.

use super::{Activations, ConvNorm, Convolutions, LayerActivations, Pass, Scratch, Source, groups};
use crate::clock::{self, Op};
use crate::model::ops::batch_norm::{Backward, Sums};
use crate::model::ops::conv::Conv;
use crate::model::ops::{Float, resize_buffer};
use crate::model::stem::Input;

impl Convolutions {
    /// Adds the gradients of all stages from `dembedded` `[batch · visible, dim]`, after a forward pass in training.
    pub(in crate::model::stem) fn backward<R: Float>(
        &self,
        params: &[R],
        input: &Input<'_, R>,
        acts: &mut Activations<R>,
        dembedded: &[R],
        grads: &mut [R],
    ) {
        let Activations { visible, layers, dstage, dbefore, dbranch, scratch } = acts;
        let pass = Pass { params, input, visible };
        self.last_backward(input, layers, dembedded, dstage, &mut scratch.sums);
        for (i, stage) in self.stages.iter().enumerate().rev() {
            let (down, values) = (self.down(i), input.batch * stage.side * stage.side * stage.width);
            if stage.residual {
                resize_buffer(dbranch, values);
                let target = Target { values: dbranch, adds: false, layer: down + 1, relu: true };
                let source = Source::Layer(down + 1);
                self.layer_backward(&pass, down + 2, source, layers, dstage, Some(target), scratch, grads);
                let target = Target { values: dstage, adds: true, layer: down, relu: true };
                let source = Source::Layer(down);
                self.layer_backward(&pass, down + 1, source, layers, dbranch, Some(target), scratch, grads);
            }
            let target = if i == 0 {
                None
            } else {
                resize_buffer(dbefore, input.batch * self.layers[down].conv.input());
                let (layer, relu) = self.last_norm(i - 1);
                Some(Target { values: dbefore, adds: false, layer, relu })
            };
            self.layer_backward(&pass, down, Self::source(i), layers, dstage, target, scratch, grads);
            std::mem::swap(dstage, dbefore);
        }
    }

    /// The layer whose norm is the last before a stage's output, and whether a ReLU stands in between.
    fn last_norm(&self, stage: usize) -> (usize, bool) {
        let down = self.down(stage);
        if self.stages[stage].residual { (down + 2, false) } else { (down, true) }
    }

    /// From the gradient of the tokens to `dstage`, that of the last stage's output, and its sums.
    fn last_backward<R: Float>(
        &self,
        input: &Input<'_, R>,
        layers: &[LayerActivations<R>],
        dembedded: &[R],
        dstage: &mut Vec<R>,
        sums: &mut Sums<R>,
    ) {
        let _timer = clock::time(Op::Norms);
        let (dim, (layer, _)) = (self.dim(), self.last_norm(self.stages.len() - 1));
        resize_buffer(dstage, input.batch * self.vit.patches() * dim);
        sums.clear(dim);
        let mut output = vec![R::ZERO; dim];
        for (token, dembedded) in dembedded.chunks_exact(dim).enumerate() {
            let start = self.token_start(input, token);
            self.stage_output(layers, self.stages.len() - 1, start, &mut output);
            let dy = &mut dstage[start..start + dim];
            for ((dy, &dembedded), &output) in dy.iter_mut().zip(dembedded).zip(&output) {
                *dy = if output > R::ZERO { dembedded } else { R::ZERO };
            }
            sums.add(dy, &layers[layer].outputs[start..start + dim]);
        }
    }

    /// The backward pass of one layer from `dy`, the gradient of its norm's output, whose sums are in `scratch.sums`. Adds the
    /// gradients of its tensors, writes that of its input to `target`, and leaves the sums of that in `scratch.sums`.
    fn layer_backward<R: Float>(
        &self,
        pass: &Pass<'_, R>,
        layer: usize,
        source: Source,
        layers: &[LayerActivations<R>],
        dy: &[R],
        mut target: Option<Target<'_, R>>,
        scratch: &mut Scratch<R>,
        grads: &mut [R],
    ) {
        let (ConvNorm { conv, norm }, acts) = (&self.layers[layer], &layers[layer]);
        let Scratch { x, dy: bordered, dx, dweight, sums, next, backward, winograd } = scratch;
        let batch = pass.input.batch;
        let weight = pass.input.batch_weight.unwrap_or_default() * batch as f64;
        norm.backward(pass.params, sums, &acts.statistics, weight, grads, backward);
        if let Some(target) = &target {
            next.clear(self.layers[target.layer].norm.channels());
        }
        resize_buffer(dweight, conv.dweight_len());
        dweight.fill(R::ZERO);
        for (first, count) in groups(conv, batch) {
            self.fill(pass, source, conv, layers, [first, count], x);
            border_gradient(pass, conv, backward, dy, &acts.outputs, [first, count], bordered);
            conv.backward_params(x, bordered, dweight, winograd);
            if let Some(target) = &mut target {
                resize_buffer(dx, count * conv.input());
                conv.backward_input(&acts.packed, bordered, dx, winograd);
                target.write(pass, &layers[target.layer], conv, [first, count], dx, next);
            }
        }
        conv.add_gradient(dweight, grads, dx);
        std::mem::swap(sums, next);
    }
}

/// Where the gradient of a layer's input goes.
struct Target<'a, R> {
    /// `[batch, side, side, channels]`.
    values: &'a mut [R],
    /// Whether it is added, as on the residual stream, or overwrites.
    adds: bool,
    /// The layer whose norm made the input, and whether a ReLU stands in between.
    layer: usize,
    relu: bool,
}

impl<R: Float> Target<'_, R> {
    /// Takes the gradients `dx` of `count` images from `first` on back to the norm that made the input, and adds to its sums.
    fn write(
        &mut self,
        pass: &Pass<'_, R>,
        before: &LayerActivations<R>,
        conv: &Conv,
        [first, count]: [usize; 2],
        dx: &[R],
        sums: &mut Sums<R>,
    ) {
        let _timer = clock::time(Op::Norms);
        let size = conv.input();
        for (image, dx) in (first..first + count).zip(dx.chunks_exact(size)) {
            for range in pass.visible.ranges(image, conv.side(), conv.inputs()) {
                let all = image * size + range.start..image * size + range.end;
                let (values, outputs) = (&mut self.values[all.clone()], &before.outputs[all]);
                match self.adds {
                    true => R::axpy(R::ONE, &dx[range], values),
                    false => values.copy_from_slice(&dx[range]),
                }
                if self.relu {
                    before.affine.relu_backward(outputs, values);
                }
                sums.add(values, outputs);
            }
        }
    }
}

/// The gradients of a convolution's outputs, in borders of zeros, from those of its norm's outputs `dy`.
fn border_gradient<R: Float>(
    pass: &Pass<'_, R>,
    conv: &Conv,
    backward: &Backward<R>,
    dy: &[R],
    outputs: &[R],
    [first, count]: [usize; 2],
    bordered: &mut Vec<R>,
) {
    let _timer = clock::time(Op::Norms);
    resize_buffer(bordered, count * conv.bordered_output());
    bordered.fill(R::ZERO);
    let (side, channels) = (conv.out_side(), conv.outputs());
    for (image, bordered) in (first..).zip(bordered.chunks_exact_mut(conv.bordered_output())) {
        for run in pass.visible.runs(image, side) {
            let to = ((run.row + 1) * (side + 2) + run.columns.start + 1) * channels;
            let from = ((image * side + run.row) * side + run.columns.start) * channels;
            let values = from..from + run.columns.len() * channels;
            let bordered = &mut bordered[to..to + values.len()];
            backward.apply(&dy[values.clone()], &outputs[values], bordered);
        }
    }
}
