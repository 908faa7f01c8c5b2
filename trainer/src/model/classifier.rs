//! The classifier: encoder, one vector out of all tokens, a linear head.
//!
//! With [`Pool::Token`] the class token goes through `norm`; with [`Pool::Mean`] the mean over patch tokens goes
//! through `fc_norm` (as timm and the masked autoencoder's fine-tuning code do).

use std::ops::Range;

use smalti_models::{Pool, VitConfig, names};

use super::encoder::{self, Encoder};
use crate::error::{Error, Result};
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, loss, resize_buffer};
use crate::model::params::Layout;
use crate::model::precision::Precision;
use crate::train::step::Settled;

/// The slots of a classifier.
#[derive(Clone, Debug)]
pub struct Classifier {
    layout: Layout,
    encoder: Encoder,
    pool: Pool,
    norm: LayerNorm,
    head: Linear,
}

/// Saved activations; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Saved<R> {
    encoder: encoder::Saved<R>,
    pooled: Vec<R>,
    stats: Vec<[R; 2]>,
    embedding: Vec<R>,
    logits: Vec<R>,
    dembedding: Vec<R>,
    dpooled: Vec<R>,
    dx: Vec<R>,
}

/// Images with their soft targets: what one pass works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, R> {
    /// `[batch, C, H, W]`, normalised.
    pub pixels: &'a [R],
    /// `[batch, seen]` places of the patches that the encoder sees.
    pub seen: &'a [u32],
    /// Stochastic depth's factors `[depth, 2, batch]`, if any.
    pub drop: Option<&'a [R]>,
    /// `[batch, classes]`, each row sums to 1. Empty where only predictions are asked.
    pub targets: &'a [R],
    /// Number of images.
    pub batch: usize,
}

impl<'a, R> Input<'a, R> {
    /// Images `from..to`; not for inputs with stochastic depth, whose factors are drawn for each micro-batch.
    pub fn slice(&self, from: usize, to: usize) -> Input<'a, R> {
        let part = |len: usize| from * len / self.batch..to * len / self.batch;
        Input {
            pixels: &self.pixels[part(self.pixels.len())],
            seen: &self.seen[part(self.seen.len())],
            drop: self.drop,
            targets: &self.targets[part(self.targets.len())],
            batch: to - from,
        }
    }
}

impl Classifier {
    /// Lays out a classifier.
    pub fn new(vit: &VitConfig, classes: usize, pool: Pool) -> Result<Classifier> {
        Classifier::with_precision(vit, classes, pool, Precision::F32)
    }

    /// As [`Classifier::new`], with layers that multiply in `precision`.
    pub fn with_precision(
        vit: &VitConfig,
        classes: usize,
        pool: Pool,
        precision: Precision,
    ) -> Result<Classifier> {
        vit.check()?;
        if !(1..=100_000).contains(&classes) {
            return Err(Error::Usage(format!("{classes} classes: expected 1 to 100000")));
        }
        let layout = Layout::new(names::classifier(vit, classes, pool), precision);
        Ok(Classifier {
            encoder: Encoder::find(&layout, vit, true)?,
            pool,
            norm: LayerNorm::find(&layout, names::pool_norm(pool))?,
            head: Linear::find(&layout, "head")?,
            layout,
        })
    }

    /// The encoder's configuration.
    pub fn vit(&self) -> &VitConfig {
        self.encoder.vit()
    }

    /// How tokens become one vector.
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.head.outputs()
    }

    /// The tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The tokens whose mean is the one vector, of a class token and `seen` patches.
    fn asked(&self, seen: usize) -> Range<usize> {
        match self.pool {
            Pool::Token => 0..1,
            Pool::Mean => 1..1 + seen,
        }
    }

    /// Everything up to the logits.
    fn run<R: Float>(&self, params: &[R], input: Input<'_, R>, s: &mut Saved<R>) {
        let (dim, batch) = (self.vit().dim, input.batch);
        let seen = input.seen.len() / batch;
        let asked = self.asked(seen);
        let share = R::ONE / R::of(asked.len() as f64);
        let each = asked.len() * dim;
        self.encoder.forward(params, input.pixels, input.seen, batch, asked, input.drop, &mut s.encoder);
        resize_buffer(&mut s.pooled, batch * dim);
        resize_buffer(&mut s.stats, batch);
        resize_buffer(&mut s.embedding, batch * dim);
        resize_buffer(&mut s.logits, batch * self.classes());
        for (pooled, tokens) in s.pooled.chunks_exact_mut(dim).zip(s.encoder.output().chunks_exact(each)) {
            pooled.fill(R::ZERO);
            R::column_sums(tokens, pooled);
            pooled.iter_mut().for_each(|x| *x = *x * share);
        }
        self.norm.forward(params, &s.pooled, &mut s.embedding, &mut s.stats);
        self.head.forward(params, &s.embedding, &mut s.logits);
    }

    /// Logits `[batch, classes]` and embeddings `[batch, dim]`.
    pub fn predict<'s, R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        s: &'s mut Saved<R>,
    ) -> (&'s [R], &'s [R]) {
        self.run(params, input, s);
        (&s.logits, &s.embedding)
    }

    /// Loss of these images: `weight · Σ cross-entropy`.
    pub fn loss<R: Float>(&self, params: &[R], input: Input<'_, R>, weight: f64, s: &mut Saved<R>) -> f64 {
        self.run(params, input, s);
        loss::cross_entropy(&mut s.logits, input.targets, self.classes(), weight)
    }

    /// [`Classifier::loss`], and its gradients added to `grads`; `settled` is told how far back they are complete.
    pub fn gradient<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        weight: f64,
        s: &mut Saved<R>,
        grads: &mut [R],
        settled: Settled<'_, R>,
    ) -> f64 {
        let loss = self.loss(params, input, weight, s);
        let (dim, batch) = (self.vit().dim, input.batch);
        // `logits` now holds its own gradient.
        self.head.backward_params(&s.embedding, &s.logits, grads);
        resize_buffer(&mut s.dembedding, batch * dim);
        self.head.backward_input(params, &s.logits, &mut s.dembedding);
        resize_buffer(&mut s.dpooled, batch * dim);
        s.dpooled.fill(R::ZERO);
        self.norm.backward(params, &s.pooled, &s.stats, &s.dembedding, &mut s.dpooled, grads);

        let asked = self.asked(input.seen.len() / batch).len();
        let share = R::ONE / R::of(asked as f64);
        resize_buffer(&mut s.dx, batch * asked * dim);
        s.dx.fill(R::ZERO);
        for (dx, dpooled) in s.dx.chunks_exact_mut(asked * dim).zip(s.dpooled.chunks_exact(dim)) {
            dx.chunks_exact_mut(dim).for_each(|row| R::axpy(share, dpooled, row));
        }
        self.encoder.backward(params, batch, input.drop, &mut s.encoder, &mut s.dx, grads, settled);
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, values};
    use crate::objective::mask::Mask;

    fn vit() -> VitConfig {
        VitConfig { img_size: 4, patch_size: 2, channels: 3, dim: 12, depth: 2, heads: 3 }
    }

    fn start(model: &Classifier) -> Vec<f64> {
        let noise = values(model.layout().len(), 4);
        model.layout().init::<f64>(3).iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect()
    }

    #[test]
    fn gradients_match_finite_differences() {
        let targets = [0.7, 0.1, 0.2, 0.0, 1.0, 0.0, 0.3, 0.3, 0.4];
        let pixels = values(3 * 3 * 16, 2);
        let factors = [2.0, 0.0, 1.0, 1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 2.0, 2.0, 0.0];
        for pool in [Pool::Token, Pool::Mean] {
            let model = Classifier::new(&vit(), 3, pool).unwrap();
            for (patches, drop) in [(4, None), (3, Some(&factors[..]))] {
                let seen = Mask::draw(1, 0, &[0, 1, 2], 4, patches).visible;
                let input = Input { pixels: &pixels, seen: &seen, drop, targets: &targets, batch: 3 };
                Check::at(model.layout(), start(&model)).run(
                    |p| model.loss(p, input, 1.0 / 3.0, &mut Saved::default()),
                    |p, grads| {
                        model.gradient(p, input, 1.0 / 3.0, &mut Saved::default(), grads, &mut |_, _| {});
                    },
                );
            }
        }
    }

    #[test]
    fn fast_f32_agrees_with_the_f64_reference() {
        let model = Classifier::new(&vit(), 3, Pool::Mean).unwrap();
        let (params, pixels) = (start(&model), values(2 * 3 * 16, 2));
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let seen = Mask::none(2, 4).visible;
        let wide_input = Input { pixels: &pixels, seen: &seen, drop: None, targets: &[], batch: 2 };
        let (pixels32, params32) = (narrow(&pixels), narrow(&params));
        let input = Input { pixels: &pixels32, seen: &seen, drop: None, targets: &[], batch: 2 };
        let (mut s64, mut s32) = (Saved::default(), Saved::default());
        let (want, _) = model.predict(&params, wide_input, &mut s64);
        let (got, _) = model.predict(&params32, input, &mut s32);
        for (want, got) in want.iter().zip(got) {
            assert!((want - f64::from(*got)).abs() < 1e-5, "{got} instead of {want}");
        }
    }
}
