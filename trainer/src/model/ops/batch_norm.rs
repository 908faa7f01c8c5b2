//! Batch norm (arXiv 1502.03167): `y = (x - mean) / std · scale + shift` for each channel, with mean and standard deviation
//! over the positions of a batch of images, or in inference over those of all batches before.
//!
//! A batch is here one micro-batch of a lane. Its size follows from the plan of the batch alone, so the statistics, and the
//! bits of all gradients, do not depend on threads or ranks.
//!
//! Running mean and variance are tensors like others, but nothing trains them. What a backward pass adds to their
//! gradients is the batch's own statistics, each image with its weight in the whole batch. They travel with the gradients
//! through lanes and ranks; the trainer then moves the running ones towards the sum.
//!
//! Both passes are, for each channel, linear in what they read: `y = factor · x + offset`, and
//! `dx = a · dy + b · x + c`. So [`Affine`] is all that the layers around keep, and they fuse it with their own loops.

use smalti_models::stem::BATCH_NORM_EPS;

use super::{Float, resize_buffer};
use crate::error::Result;
use crate::model::params::{Layout, Slot};

/// Positions whose values are summed up in the models' type before they are added in f64.
const SHORT: usize = 64;

/// The slots of one batch norm.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    scale: Slot,
    shift: Slot,
    running_mean: Slot,
    running_var: Slot,
}

/// `Σ u` and `Σ u · v` for each channel, over any number of positions.
#[derive(Clone, Debug, Default)]
pub struct Sums<R> {
    plain: Vec<f64>,
    product: Vec<f64>,
    /// Both for a few positions, one after the other.
    short: Vec<R>,
    positions: usize,
}

/// A batch's mean and variance (of its values, not corrected) for each channel.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    mean: Vec<f64>,
    var: Vec<f64>,
    positions: usize,
}

/// `y = factor · x + offset` for each channel.
#[derive(Clone, Debug, Default)]
pub struct Affine<R> {
    factor: Vec<R>,
    offset: Vec<R>,
}

/// `dx = dy · a + x · b + c` for each channel: the backward pass of a batch norm.
#[derive(Clone, Debug, Default)]
pub struct Backward<R> {
    dy: Vec<R>,
    x: Vec<R>,
    constant: Vec<R>,
}

impl<R: Float> Sums<R> {
    /// Nothing, for so many channels.
    pub fn clear(&mut self, channels: usize) {
        self.plain.clear();
        self.plain.resize(channels, 0.0);
        self.product.clear();
        self.product.resize(channels, 0.0);
        resize_buffer(&mut self.short, 2 * channels);
        self.positions = 0;
    }

    /// Adds positions `[n, channels]` of `u` and `v`.
    pub fn add(&mut self, u: &[R], v: &[R]) {
        let channels = self.plain.len();
        self.positions += u.len() / channels.max(1);
        for (u, v) in u.chunks(SHORT * channels).zip(v.chunks(SHORT * channels)) {
            self.short.fill(R::ZERO);
            let (plain, product) = self.short.split_at_mut(channels);
            for (u, v) in u.chunks_exact(channels).zip(v.chunks_exact(channels)) {
                let sums = plain.iter_mut().zip(product.iter_mut());
                for ((plain, product), (&u, &v)) in sums.zip(u.iter().zip(v)) {
                    *plain = *plain + u;
                    *product = *product + u * v;
                }
            }
            self.plain.iter_mut().zip(plain).for_each(|(sum, short)| *sum += short.wide());
            self.product.iter_mut().zip(product).for_each(|(sum, short)| *sum += short.wide());
        }
    }
}

impl<R: Float> Affine<R> {
    fn channels(&self) -> impl Iterator<Item = (R, R)> + Clone {
        self.factor.iter().copied().zip(self.offset.iter().copied())
    }

    /// `y = relu(factor · x + offset)` for positions `[n, channels]`.
    pub fn relu(&self, x: &[R], y: &mut [R]) {
        let channels = self.factor.len();
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for ((y, &x), (factor, offset)) in y.iter_mut().zip(x).zip(self.channels()) {
                let value = factor * x + offset;
                *y = if value > R::ZERO { value } else { R::ZERO };
            }
        }
    }

    /// `y += factor · x + offset`.
    pub fn add(&self, x: &[R], y: &mut [R]) {
        let channels = self.factor.len();
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for ((y, &x), (factor, offset)) in y.iter_mut().zip(x).zip(self.channels()) {
                *y = *y + (factor * x + offset);
            }
        }
    }

    /// Turns `dy`, the gradient of [`Affine::relu`], into that of its affine function: 0 where that is not positive.
    pub fn relu_backward(&self, x: &[R], dy: &mut [R]) {
        let channels = self.factor.len();
        for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact_mut(channels)) {
            for ((dy, &x), (factor, offset)) in dy.iter_mut().zip(x).zip(self.channels()) {
                *dy = if factor * x + offset > R::ZERO { *dy } else { R::ZERO };
            }
        }
    }
}

impl<R: Float> Backward<R> {
    /// Computes `dx` for positions `[n, channels]` of the output's gradient `dy` and the input `x`.
    pub fn apply(&self, dy: &[R], x: &[R], dx: &mut [R]) {
        let channels = self.dy.len();
        let positions = dy.chunks_exact(channels).zip(x.chunks_exact(channels));
        for ((dy, x), dx) in positions.zip(dx.chunks_exact_mut(channels)) {
            let factors = self.dy.iter().zip(&self.x).zip(&self.constant);
            for (dx, ((&dy, &x), ((&a, &b), &c))) in dx.iter_mut().zip(dy.iter().zip(x).zip(factors)) {
                *dx = dy * a + x * b + c;
            }
        }
    }
}

impl BatchNorm {
    /// Finds `name.bn.{weight,bias,running_mean,running_var}`.
    pub fn find(layout: &Layout, name: &str) -> Result<BatchNorm> {
        let slot = |part: &str| layout.slot(&format!("{name}.bn.{part}"));
        Ok(BatchNorm {
            scale: slot("weight")?,
            shift: slot("bias")?,
            running_mean: slot("running_mean")?,
            running_var: slot("running_var")?,
        })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.scale.len()
    }

    /// Training: the statistics of a batch from the sums of its inputs and of their squares, and the norm with them.
    pub fn of_batch<R: Float>(
        &self,
        params: &[R],
        sums: &Sums<R>,
        statistics: &mut Statistics,
        affine: &mut Affine<R>,
    ) {
        let count = (sums.positions as f64).max(1.0);
        statistics.positions = sums.positions;
        statistics.mean.clear();
        statistics.mean.extend(sums.plain.iter().map(|sum| sum / count));
        statistics.var.clear();
        let squares = sums.product.iter().zip(&statistics.mean);
        statistics.var.extend(squares.map(|(square, mean)| (square / count - mean * mean).max(0.0)));
        let both = statistics.mean.iter().copied().zip(statistics.var.iter().copied());
        self.affine(params, both, affine);
    }

    /// Inference: the norm with the running statistics.
    pub fn of_running<R: Float>(&self, params: &[R], affine: &mut Affine<R>) {
        let [mean, var] = [self.running_mean, self.running_var].map(|slot| slot.of(params));
        self.affine(params, mean.iter().zip(var).map(|(mean, var)| (mean.wide(), var.wide())), affine);
    }

    fn affine<R: Float>(
        &self,
        params: &[R],
        statistics: impl Iterator<Item = (f64, f64)>,
        affine: &mut Affine<R>,
    ) {
        affine.factor.clear();
        affine.offset.clear();
        let channels = self.scale.of(params).iter().zip(self.shift.of(params)).zip(statistics);
        for ((scale, shift), (mean, var)) in channels {
            let factor = scale.wide() * rstd(var);
            affine.factor.push(R::of(factor));
            affine.offset.push(R::of(shift.wide() - mean * factor));
        }
    }

    /// Training: the backward pass from the sums of `dy` and of `dy · x`. Adds the gradients of scale and shift, and the
    /// statistics of the batch times `weight`, its images' share of all.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        sums: &Sums<R>,
        statistics: &Statistics,
        weight: f64,
        grads: &mut [R],
        backward: &mut Backward<R>,
    ) {
        let count = (statistics.positions as f64).max(1.0);
        // The variance of all positions from that of some, as PyTorch's running_var.
        let unbiased = count / (count - 1.0).max(1.0);
        backward.dy.clear();
        backward.x.clear();
        backward.constant.clear();
        for i in 0..self.channels() {
            let (mean, var) = (statistics.mean[i], statistics.var[i]);
            let (scale, rstd) = (self.scale.of(params)[i].wide(), rstd(var));
            let dshift = sums.plain[i];
            let dscale = rstd * (sums.product[i] - mean * dshift);
            for (slot, value) in [
                (self.scale, dscale),
                (self.shift, dshift),
                (self.running_mean, weight * mean),
                (self.running_var, weight * var * unbiased),
            ] {
                let value_of_all = &mut slot.of_mut(grads)[i];
                *value_of_all = *value_of_all + R::of(value);
            }
            let a = scale * rstd;
            let b = -a * rstd * dscale / count;
            backward.dy.push(R::of(a));
            backward.x.push(R::of(b));
            backward.constant.push(R::of(-a * dshift / count - b * mean));
        }
    }

    /// Scale and offset that stand for the norm in inference, for weights that are exported without it.
    pub fn folded(&self, params: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut affine = Affine::default();
        self.of_running(params, &mut affine);
        (affine.factor, affine.offset)
    }
}

/// `1 / std`.
fn rstd(var: f64) -> f64 {
    1.0 / (var + f64::from(BATCH_NORM_EPS)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, dot, layout, values};

    const CHANNELS: usize = 5;
    const POSITIONS: usize = 150;
    static SHAPE: [usize; 1] = [CHANNELS];

    fn model() -> (Layout, BatchNorm, Slot) {
        let parts = ["n.bn.weight", "n.bn.bias", "n.bn.running_mean", "n.bn.running_var"];
        let mut tensors = parts.map(|name| (name, &SHAPE[..])).to_vec();
        tensors.push(("x", &[POSITIONS, CHANNELS]));
        let layout = layout(&tensors);
        let (norm, x) = (BatchNorm::find(&layout, "n").unwrap(), layout.slot("x").unwrap());
        (layout, norm, x)
    }

    /// Statistics of `x` and the norm with them.
    fn of_batch(norm: &BatchNorm, params: &[f64], x: &[f64]) -> (Statistics, Affine<f64>) {
        let (mut sums, mut statistics, mut affine) =
            (Sums::default(), Statistics::default(), Affine::default());
        sums.clear(CHANNELS);
        sums.add(x, x);
        norm.of_batch(params, &sums, &mut statistics, &mut affine);
        (statistics, affine)
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (layout, norm, x) = model();
        let pull = values(POSITIONS * CHANNELS, 9);
        Check::new(&layout).skip(&["n.bn.running_mean", "n.bn.running_var"]).run(
            |p| {
                let mut y = vec![0.0; pull.len()];
                of_batch(&norm, p, x.of(p)).1.add(x.of(p), &mut y);
                dot(&y, &pull)
            },
            |p, grads| {
                let (statistics, _) = of_batch(&norm, p, x.of(p));
                let (mut sums, mut backward) = (Sums::default(), Backward::default());
                sums.clear(CHANNELS);
                sums.add(&pull, x.of(p));
                norm.backward(p, &sums, &statistics, 1.0, grads, &mut backward);
                backward.apply(&pull, x.of(p), x.of_mut(grads));
            },
        );
    }

    #[test]
    fn running_statistics_are_those_of_the_batch_by_its_weight() {
        let (layout, norm, x) = model();
        let params = values(layout.len(), 1);
        let (statistics, affine) = of_batch(&norm, &params, x.of(&params));
        let mut sums = Sums::default();
        sums.clear(CHANNELS);
        let (mut grads, mut backward) = (vec![0.0; layout.len()], Backward::default());
        norm.backward(&params, &sums, &statistics, 0.25, &mut grads, &mut backward);
        norm.backward(&params, &sums, &statistics, 0.75, &mut grads, &mut backward);
        for c in 0..CHANNELS {
            let column = || x.of(&params).iter().skip(c).step_by(CHANNELS);
            let mean = column().sum::<f64>() / POSITIONS as f64;
            let var = column().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (POSITIONS - 1) as f64;
            assert!((norm.running_mean.of(&grads)[c] - mean).abs() < 1e-12);
            assert!((norm.running_var.of(&grads)[c] - var).abs() < 1e-12);
        }
        // With the batch's own statistics, inference is training but for the correction of the variance.
        let mut moved = params.clone();
        norm.running_mean.of_mut(&mut moved).copy_from_slice(norm.running_mean.of(&grads));
        norm.running_var.of_mut(&mut moved).copy_from_slice(&statistics.var);
        let mut running = Affine::default();
        norm.of_running(&moved, &mut running);
        assert!(running.factor.iter().zip(&affine.factor).all(|(a, b)| (a - b).abs() < 1e-12));
        assert!(running.offset.iter().zip(&affine.offset).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn a_gradient_goes_through_where_the_output_is_positive() {
        let affine = Affine { factor: vec![2.0, -1.0], offset: vec![1.0, 0.0] };
        let (x, mut y, mut dy) = ([-1.0, -3.0, 1.0, 0.0], [9.0; 4], [5.0; 4]);
        affine.relu(&x, &mut y);
        affine.relu_backward(&x, &mut dy);
        assert_eq!((y, dy), ([0.0, 3.0, 3.0, 0.0], [0.0, 5.0, 5.0, 0.0]));
    }
}
