//! The convolutional stem of `smalti_models::stem`: four stages, from pixels to one token for each 16 x 16 pixels.
//!
//! Only the outputs of convolutions are kept. What a convolution reads (the norm of the one before, its ReLU, the residual
//! sum) is computed again where it is needed, a few images at a time, straight into the borders that the convolution asks
//! for. So nothing but those outputs and two gradients goes through memory.
//!
//! Hidden patches (masked pretraining, token dropping) have no influence on the others: what they are made of is zero in
//! the input of every convolution, as in Hiera's `do_masked_conv` (arXiv 2306.00989), and does not count in statistics.

mod backward;

use smalti_models::{VitConfig, stem::Stage};

use super::Input;
use super::map::Visible;
use crate::clock::{self, Op};
use crate::error::Result;
use crate::model::ops::batch_norm::{Affine, Backward, BatchNorm, Statistics, Sums};
use crate::model::ops::conv::{Conv, Packed};
use crate::model::ops::winograd::Buffers;
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
    winograd: Buffers<R>,
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
            conv.forward(packed, &scratch.x, outputs, &mut scratch.winograd);
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
}

/// The images of a batch that a layer works on at a time: the first, and how many.
fn groups(conv: &Conv, batch: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = (GROUP / (conv.bordered_input() + conv.bordered_output())).clamp(1, batch.max(1));
    (0..batch).step_by(size).map(move |first| (first, size.min(batch - first)))
}
