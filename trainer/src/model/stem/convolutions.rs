//! The convolutional stem of `smalti_models::stem`: four stages, from pixels to one token for each 16 x 16 pixels.
//!
//! Only the outputs of convolutions are kept. What a convolution reads (the norm of the one before, its ReLU, the residual
//! sum) is computed again where it is needed, a few images at a time, straight into the borders that the convolution asks
//! for. So nothing but those outputs and two gradients goes through memory.
//!
//! Hidden patches (masked pretraining, token dropping) have no influence on the others: what they are made of is zero in
//! the input of every convolution, as in Hiera's `do_masked_conv` (arXiv 2306.00989), and does not count in statistics.

use smalti_models::{VitConfig, stem::Stage};

use super::Input;
use super::map::Visible;
use crate::clock::{self, Op};
use crate::error::Result;
use crate::model::ops::batch_norm::{Affine, Backward, BatchNorm, Statistics, Sums};
use crate::model::ops::conv::{Conv, Packed};
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;

/// Values of inputs and gradients that a few images have in a convolution: they and the weight's gradient fit the second
/// cache.
const GROUP: usize = 1 << 16;

/// A convolution and the norm of its outputs.
#[derive(Clone, Copy, Debug)]
struct ConvNorm {
    conv: Conv,
    norm: BatchNorm,
}

/// What a convolution reads.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The image.
    Pixels,
    /// The output of a stage.
    Stage(usize),
    /// The norm and ReLU of a layer.
    Layer(usize),
}

/// The slots of a convolutional stem.
#[derive(Clone, Debug)]
pub(in crate::model) struct Convolutions {
    vit: VitConfig,
    stages: Vec<Stage>,
    /// In the order of the forward pass: `down`, and `conv1` and `conv2` of stages with a residual branch.
    layers: Vec<ConvNorm>,
}

/// What the backward pass needs of one layer.
#[derive(Clone, Debug, Default)]
struct LayerActivations<R> {
    packed: Packed<R>,
    /// The convolution's outputs `[batch, side, side, channels]`; undefined at hidden positions.
    outputs: Vec<R>,
    statistics: Statistics,
    affine: Affine<R>,
}

/// What the backward pass needs, and its buffers; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    visible: Visible,
    layers: Vec<LayerActivations<R>>,
    /// The gradient of a stage's output, then of its first norm's.
    dstage: Vec<R>,
    /// The gradient of the stage before.
    dbefore: Vec<R>,
    /// The gradient within a residual branch.
    dbranch: Vec<R>,
    scratch: Scratch<R>,
}

/// Buffers for a few images of one layer.
#[derive(Clone, Debug, Default)]
struct Scratch<R> {
    /// Inputs of the convolution, in borders of zeros.
    x: Vec<R>,
    /// Gradients of its outputs, in borders of zeros.
    dy: Vec<R>,
    /// Gradients of its inputs.
    dx: Vec<R>,
    dweight: Vec<R>,
    sums: Sums<R>,
    /// The sums of the next layer in the backward pass.
    next: Sums<R>,
    backward: Backward<R>,
}

/// What both passes work on.
struct Pass<'a, R> {
    params: &'a [R],
    input: &'a Input<'a, R>,
    visible: &'a Visible,
}

impl Convolutions {
    /// Finds the tensors of all stages.
    pub(super) fn find(layout: &Layout, vit: &VitConfig) -> Result<Convolutions> {
        let (stages, mut layers) = (vit.stages(), Vec::new());
        for (i, stage) in stages.iter().enumerate() {
            let mut find = |part: &str, inputs, side, stride| -> Result<()> {
                let name = format!("stages.{i}.{part}");
                let conv = Conv::find(layout, &name, inputs, side, stride)?;
                layers.push(ConvNorm { conv, norm: BatchNorm::find(layout, &name)? });
                Ok(())
            };
            find("down", stage.inputs, 2 * stage.side, 2)?;
            if stage.residual {
                find("conv1", stage.width, stage.side, 1)?;
                find("conv2", stage.width, stage.side, 1)?;
            }
        }
        Ok(Convolutions { vit: vit.clone(), stages, layers })
    }

    /// Width of a token.
    pub(super) fn dim(&self) -> usize {
        self.vit.dim
    }

    /// The first layer of a stage.
    fn down(&self, stage: usize) -> usize {
        self.stages[..stage].iter().map(|stage| if stage.residual { 3 } else { 1 }).sum()
    }

    /// What the first convolution of a stage reads.
    fn source(stage: usize) -> Source {
        stage.checked_sub(1).map_or(Source::Pixels, Source::Stage)
    }

    /// Computes `embedded` `[batch · visible, dim]`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        input: &Input<'_, R>,
        acts: &mut Activations<R>,
        embedded: &mut [R],
    ) {
        acts.visible.set(self.vit.grid(), input.visible, input.batch);
        acts.layers.resize_with(self.layers.len(), Default::default);
        let pass = Pass { params, input, visible: &acts.visible };
        for (i, stage) in self.stages.iter().enumerate() {
            let down = self.down(i);
            self.layer_forward(&pass, down, Self::source(i), &mut acts.layers, &mut acts.scratch);
            if stage.residual {
                for layer in [down + 1, down + 2] {
                    let source = Source::Layer(layer - 1);
                    self.layer_forward(&pass, layer, source, &mut acts.layers, &mut acts.scratch);
                }
            }
        }
        let _timer = clock::time(Op::Norms);
        let last = self.stages.len() - 1;
        for (token, embedded) in embedded.chunks_exact_mut(self.dim()).enumerate() {
            self.stage_output(&acts.layers, last, self.token_start(input, token), embedded);
            embedded.iter_mut().for_each(|x| *x = if *x > R::ZERO { *x } else { R::ZERO });
        }
    }

    /// Where a token's values begin in the last stage's output.
    fn token_start<R>(&self, input: &Input<'_, R>, token: usize) -> usize {
        let image = token * input.batch / input.visible.len().max(1);
        (image * self.vit.patches() + input.visible[token] as usize) * self.dim()
    }

    /// Values of the output of a stage from `start` on: whole positions.
    fn stage_output<R: Float>(
        &self,
        layers: &[LayerActivations<R>],
        stage: usize,
        start: usize,
        y: &mut [R],
    ) {
        let down = self.down(stage);
        let values = |layer: usize| &layers[layer].outputs[start..start + y.len()];
        layers[down].affine.relu(values(down), y);
        if self.stages[stage].residual {
            let branch = &layers[down + 2];
            branch.affine.add(&branch.outputs[start..start + y.len()], y);
        }
    }

    /// Writes what a convolution reads of `count` images from `first` on to `x`, in borders of zeros.
    fn fill<R: Float>(
        &self,
        pass: &Pass<'_, R>,
        source: Source,
        conv: &Conv,
        layers: &[LayerActivations<R>],
        [first, count]: [usize; 2],
        x: &mut Vec<R>,
    ) {
        let _timer = clock::time(Op::Norms);
        resize_buffer(x, count * conv.bordered_input());
        x.fill(R::ZERO);
        let (side, channels) = (conv.side(), conv.inputs());
        for (image, x) in (first..).zip(x.chunks_exact_mut(conv.bordered_input())) {
            for run in pass.visible.runs(image, side) {
                let to = ((run.row + 1) * (side + 2) + run.columns.start + 1) * channels;
                let from = (image * side + run.row) * side + run.columns.start;
                let x = &mut x[to..to + run.columns.len() * channels];
                match source {
                    Source::Pixels => {
                        let plane = side * side;
                        for channel in 0..channels {
                            let from = from + (image * (channels - 1) + channel) * plane;
                            let pixels = &pass.input.pixels[from..from + run.columns.len()];
                            let to = x.iter_mut().skip(channel).step_by(channels);
                            to.zip(pixels).for_each(|(x, &pixel)| *x = pixel);
                        }
                    }
                    Source::Stage(stage) => self.stage_output(layers, stage, from * channels, x),
                    Source::Layer(layer) => {
                        let layer = &layers[layer];
                        layer.affine.relu(&layer.outputs[from * channels..][..x.len()], x);
                    }
                }
            }
        }
    }

    /// Convolves, and finds the norm of the outputs.
    fn layer_forward<R: Float>(
        &self,
        pass: &Pass<'_, R>,
        layer: usize,
        source: Source,
        layers: &mut [LayerActivations<R>],
        scratch: &mut Scratch<R>,
    ) {
        let (ConvNorm { conv, norm }, batch) = (&self.layers[layer], pass.input.batch);
        let (before, after) = layers.split_at_mut(layer);
        let LayerActivations { packed, outputs, statistics, affine } = &mut after[0];
        conv.pack(pass.params, packed, &mut scratch.x);
        resize_buffer(outputs, batch * conv.output());
        let (sums, is_training) = (&mut scratch.sums, pass.input.batch_weight.is_some());
        sums.clear(norm.channels());
        for (first, count) in groups(conv, batch) {
            self.fill(pass, source, conv, before, [first, count], &mut scratch.x);
            let outputs = &mut outputs[first * conv.output()..][..count * conv.output()];
            conv.forward(packed, &scratch.x, outputs);
            if is_training {
                let _timer = clock::time(Op::Norms);
                for (image, y) in (first..).zip(outputs.chunks_exact(conv.output())) {
                    for range in pass.visible.ranges(image, conv.out_side(), norm.channels()) {
                        sums.add(&y[range.clone()], &y[range]);
                    }
                }
            }
        }
        match is_training {
            true => norm.of_batch(pass.params, sums, statistics, affine),
            false => norm.of_running(pass.params, affine),
        }
    }

    /// Adds the gradients of all stages from `dembedded` `[batch · visible, dim]`, after a forward pass in training.
    pub(super) fn backward<R: Float>(
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
        let Scratch { x, dy: bordered, dx, dweight, sums, next, backward } = scratch;
        let batch = pass.input.batch;
        let weight = pass.input.batch_weight.unwrap_or_default() * batch as f64;
        norm.backward(pass.params, sums, &acts.statistics, weight, grads, backward);
        if let Some(target) = &target {
            next.clear(self.layers[target.layer].norm.channels());
        }
        resize_buffer(dweight, conv.weight_len());
        dweight.fill(R::ZERO);
        for (first, count) in groups(conv, batch) {
            self.fill(pass, source, conv, layers, [first, count], x);
            border_gradient(pass, conv, backward, dy, &acts.outputs, [first, count], bordered);
            conv.backward_params(x, bordered, dweight);
            if let Some(target) = &mut target {
                resize_buffer(dx, count * conv.input());
                conv.backward_input(&acts.packed, bordered, dx);
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

/// The images of a batch that a layer works on at a time: the first, and how many.
fn groups(conv: &Conv, batch: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = (GROUP / (conv.bordered_input() + conv.bordered_output())).clamp(1, batch.max(1));
    (0..batch).step_by(size).map(move |first| (first, size.min(batch - first)))
}
