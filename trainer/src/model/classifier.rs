//! The classifier: an encoder, pooling over its tokens, a norm, a linear head.
//!
//! With [`Pooling::Token`] the class token goes through `norm`. With [`Pooling::Mean`] the mean of the patch tokens goes
//! through `fc_norm`, as in timm and in the masked autoencoder's fine-tuning code. Behind a convolutional stem the mean of
//! the tokens goes to the head as it is.
//!
//! The forward pass has two parts with a seam between them: [`Classifier::embed`] gives embeddings, [`Classifier::head`]
//! gives logits. Each has its own backward pass, so an objective may compare logits, embeddings or both. It reads
//! [`Activations::embeddings`] or [`Activations::logits`], writes their gradients next to them, and runs the backward
//! passes in reverse.

use std::ops::Range;

use smalti_models::{Pooling, VitConfig, names};

use super::encoder::{self, Encoder};
use super::grads::Grads;
use crate::error::{Error, Result};
use crate::model::ops::layer_norm::LayerNorm;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;
use crate::model::precision::Precision;

/// The slots of a classifier.
#[derive(Clone, Debug)]
pub struct Classifier {
    layout: Layout,
    encoder: Encoder,
    pool: Pooling,
    norm: Option<LayerNorm>,
    head: Linear,
}

/// What the backward passes need, and the gradients at the seams; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Activations<R> {
    encoder: encoder::Activations<R>,
    pooled: Vec<R>,
    stats: Vec<[R; 2]>,
    dpooled: Vec<R>,
    dencoded: Vec<R>,
    /// The output of [`Classifier::embed`], `[batch, dim]`.
    pub embeddings: Vec<R>,
    /// The loss's gradient of the embeddings: what [`Classifier::head_backward`] writes and
    /// [`Classifier::embed_backward`] reads.
    pub dembeddings: Vec<R>,
    /// The output of [`Classifier::head`], `[batch, classes]`.
    pub logits: Vec<R>,
    /// The loss's gradient of the logits: what an objective writes and [`Classifier::head_backward`] reads.
    pub dlogits: Vec<R>,
    /// The loss's gradient of [`Activations::tokens`], besides what comes through the embeddings; none if empty.
    pub dtokens: Vec<R>,
}

impl<R> Activations<R> {
    /// The attention weights of each block after [`Classifier::embed`], `[batch · heads, queries, tokens]`, rows of tokens padded
    /// to a multiple of 8. The queries of the last block are the tokens that are pooled, of others all.
    pub fn attention(&self) -> impl Iterator<Item = &[R]> {
        self.encoder.attention()
    }

    /// The tokens that are pooled after [`Classifier::embed`], `[batch · tokens, dim]`.
    pub fn tokens(&self) -> &[R] {
        self.encoder.output()
    }
}

/// Images: what one pass works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, R> {
    /// `[batch, C, H, W]`, normalised.
    pub pixels: &'a [R],
    /// The places of the patches that the encoder sees `[batch, visible]`.
    pub visible: &'a [u32],
    /// The factors of stochastic depth `[depth, 2, batch]`, if any.
    pub drop: Option<&'a [R]>,
    /// Number of images.
    pub batch: usize,
    /// Training: the weight of each image in the statistics of batch norms, 1 / images of the whole batch. Inference, with
    /// the running statistics: none.
    pub batch_weight: Option<f64>,
}

impl<'a, R> Input<'a, R> {
    /// Images `from..to`, without stochastic depth: its factors are drawn for each micro-batch.
    pub fn slice(&self, from: usize, to: usize) -> Input<'a, R> {
        let part = |len: usize| from * len / self.batch..to * len / self.batch;
        Input {
            pixels: &self.pixels[part(self.pixels.len())],
            visible: &self.visible[part(self.visible.len())],
            drop: None,
            batch: to - from,
            batch_weight: self.batch_weight,
        }
    }
}

impl Classifier {
    /// Lays out a classifier.
    pub fn new(vit: &VitConfig, classes: usize, pool: Pooling) -> Result<Classifier> {
        Classifier::with_precision(vit, classes, pool, Precision::F32)
    }

    /// As [`Classifier::new`], with layers that multiply in `precision`.
    pub fn with_precision(
        vit: &VitConfig,
        classes: usize,
        pool: Pooling,
        precision: Precision,
    ) -> Result<Classifier> {
        Classifier::check(vit, classes)?;
        Classifier::find(Layout::new(names::classifier(vit, classes, pool), precision), vit, pool)
    }

    /// Refuses what cannot be laid out.
    pub(super) fn check(vit: &VitConfig, classes: usize) -> Result<()> {
        vit.check()?;
        match classes {
            1..=100_000 => Ok(()),
            _ => Err(Error::Usage(format!("{classes} classes: expected 1 to 100000"))),
        }
    }

    /// The classifier whose tensors are among those of a layout.
    pub(super) fn find(layout: Layout, vit: &VitConfig, pool: Pooling) -> Result<Classifier> {
        if !vit.stem.is_patches() && pool == Pooling::Token {
            return Err(Error::Usage(
                "pool is token: expected mean, convolutions have no class token".into(),
            ));
        }
        Ok(Classifier {
            encoder: Encoder::find(&layout, vit, true)?,
            pool,
            norm: vit
                .stem
                .is_patches()
                .then(|| LayerNorm::find(&layout, names::pool_norm(pool)))
                .transpose()?
                .map(|norm| norm.with_eps(vit.variant.norm_eps)),
            head: Linear::find(&layout, "head")?,
            layout,
        })
    }

    /// The same model with layers that multiply in f32, as devices do, whatever it was trained in.
    pub fn in_f32(&self) -> Result<Classifier> {
        Classifier::new(self.vit(), self.classes(), self.pool)
    }

    /// The encoder's configuration.
    pub fn vit(&self) -> &VitConfig {
        self.encoder.vit()
    }

    /// How tokens become one vector.
    pub fn pool(&self) -> Pooling {
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

    /// The tokens of an image that are pooled, of a class token, if there is one, registers, and the visible patches.
    fn queries<R>(&self, input: Input<'_, R>) -> Range<usize> {
        let first = self.vit().prefix_tokens();
        match self.pool {
            Pooling::Token => 0..self.vit().class_tokens(),
            Pooling::Mean => first..first + input.visible.len() / input.batch,
        }
    }

    fn encoder_input<'a, R: Copy>(&self, input: Input<'a, R>) -> encoder::Input<'a, R> {
        let Input { pixels, visible, drop, batch, batch_weight } = input;
        encoder::Input { pixels, visible, batch, queries: self.queries(input), drop, batch_weight }
    }

    /// Encoder, pooling and norm: computes `acts.embeddings` `[batch, dim]`.
    pub fn embed<R: Float>(&self, params: &[R], input: Input<'_, R>, acts: &mut Activations<R>) {
        let (dim, batch) = (self.vit().dim, input.batch);
        self.encoder.forward(params, &self.encoder_input(input), &mut acts.encoder);
        let pooled_tokens = self.queries(input).len();
        let share = R::ONE / R::of(pooled_tokens as f64);
        resize_buffer(&mut acts.pooled, batch * dim);
        resize_buffer(&mut acts.stats, batch);
        resize_buffer(&mut acts.embeddings, batch * dim);
        let images = acts.encoder.output().chunks_exact(pooled_tokens * dim);
        for (pooled, tokens) in acts.pooled.chunks_exact_mut(dim).zip(images) {
            pooled.fill(R::ZERO);
            R::column_sums(tokens, pooled);
            pooled.iter_mut().for_each(|x| *x = *x * share);
        }
        match &self.norm {
            Some(norm) => norm.forward(params, &acts.pooled, &mut acts.embeddings, &mut acts.stats),
            None => acts.embeddings.copy_from_slice(&acts.pooled),
        }
    }

    /// The linear head, after [`Classifier::embed`]: computes `acts.logits` `[batch, classes]`.
    pub fn head<R: Float>(&self, params: &[R], acts: &mut Activations<R>) {
        let batch = acts.embeddings.len() / self.vit().dim;
        resize_buffer(&mut acts.logits, batch * self.classes());
        self.head.forward(params, &acts.embeddings, &mut acts.logits);
    }

    /// A loss on logits: the forward pass, then `compare`, which gets the logits, writes their gradient and returns the loss.
    pub fn compare<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        compare: impl FnOnce(&[R], &mut [R]) -> f64,
    ) -> f64 {
        self.predict(params, input, acts);
        resize_buffer(&mut acts.dlogits, acts.logits.len());
        compare(&acts.logits, &mut acts.dlogits)
    }

    /// The backward pass of the whole model from `acts.dlogits`. Adds the gradients of all tensors.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) {
        self.head_backward(params, acts, grads);
        self.embed_backward(params, input, acts, grads);
    }

    /// The backward pass of [`Classifier::head`]: from `acts.dlogits` to `acts.dembeddings`, which it overwrites. Adds the
    /// gradients of the head.
    pub fn head_backward<R: Float>(&self, params: &[R], acts: &mut Activations<R>, grads: &mut Grads<'_, R>) {
        self.head.backward_params(&acts.embeddings, &acts.dlogits, grads);
        resize_buffer(&mut acts.dembeddings, acts.embeddings.len());
        self.head.backward_input(params, &acts.dlogits, &mut acts.dembeddings);
    }

    /// The backward pass of [`Classifier::embed`], from `acts.dembeddings`. Adds the gradients of all tensors but the
    /// head's.
    pub fn embed_backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) {
        let (dim, pooled_tokens) = (self.vit().dim, self.queries(input).len());
        resize_buffer(&mut acts.dpooled, acts.pooled.len());
        match &self.norm {
            Some(norm) => {
                acts.dpooled.fill(R::ZERO);
                let (pooled, dpooled) = (&acts.pooled, &mut acts.dpooled);
                norm.backward(params, pooled, &acts.stats, &acts.dembeddings, dpooled, grads);
            }
            None => acts.dpooled.copy_from_slice(&acts.dembeddings),
        }

        let share = R::ONE / R::of(pooled_tokens as f64);
        resize_buffer(&mut acts.dencoded, input.batch * pooled_tokens * dim);
        match acts.dtokens.is_empty() {
            true => acts.dencoded.fill(R::ZERO),
            false => acts.dencoded.copy_from_slice(&acts.dtokens),
        }
        let images = acts.dencoded.chunks_exact_mut(pooled_tokens * dim);
        for (dencoded, dpooled) in images.zip(acts.dpooled.chunks_exact(dim)) {
            dencoded.chunks_exact_mut(dim).for_each(|row| R::axpy(share, dpooled, row));
        }
        let input = self.encoder_input(input);
        self.encoder.backward(params, &input, &mut acts.encoder, &mut acts.dencoded, grads);
    }

    /// The whole forward pass: logits `[batch, classes]` and embeddings `[batch, dim]`.
    pub fn predict<'s, R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &'s mut Activations<R>,
    ) -> (&'s [R], &'s [R]) {
        self.embed(params, input, acts);
        self.head(params, acts);
        (&acts.logits, &acts.embeddings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, dot, values};

    /// Three of the four patches of three images.
    const VISIBLE: [u32; 9] = [2, 0, 3, 1, 3, 0, 0, 2, 1];
    const FACTORS: [f64; 12] = [2.0, 0.0, 1.0, 1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 2.0, 2.0, 0.0];

    /// A model, a point to differentiate at, and images.
    struct Case {
        model: Classifier,
        params: Vec<f64>,
        pixels: Vec<f64>,
    }

    impl Case {
        fn new(pool: Pooling) -> Case {
            Case::of(pool, "")
        }

        fn of(pool: Pooling, variant: &str) -> Case {
            let vit = VitConfig {
                img_size: 4,
                patch_size: 2,
                channels: 3,
                dim: 12,
                depth: 2,
                heads: 3,
                stem: Default::default(),
                variant: variant.parse().unwrap(),
            };
            let model = Classifier::new(&vit, 3, pool).unwrap();
            let noise = values(model.layout().len(), 4);
            let params = model.layout().init::<f64>(3).iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect();
            Case { model, params, pixels: values(3 * 3 * 16, 2) }
        }

        fn input(&self) -> Input<'_, f64> {
            Input {
                pixels: &self.pixels,
                visible: &VISIBLE,
                drop: Some(&FACTORS),
                batch: 3,
                batch_weight: None,
            }
        }

        fn check(&self) -> Check<'_> {
            Check::at(self.model.layout(), self.params.clone())
        }
    }

    const VARIANTS: [&str; 5] = [
        "",
        "registers=2,no-embed-class,layer-scale",
        "qk-norm,norm-eps=1e-3",
        "swiglu,hidden=20,layer-scale",
        "registers=1,no-embed-class,layer-scale,qk-norm,swiglu,hidden=7",
    ];

    #[test]
    fn gradients_of_logits_match_finite_differences() {
        let pull = values(3 * 3, 8);
        for (pool, variant) in VARIANTS.into_iter().flat_map(|v| [(Pooling::Token, v), (Pooling::Mean, v)]) {
            let case = Case::of(pool, variant);
            let (model, input) = (&case.model, case.input());
            let loss = |p: &[f64], acts: &mut Activations<f64>| dot(model.predict(p, input, acts).0, &pull);
            case.check().run(
                |p| loss(p, &mut Activations::default()),
                |p, grads| {
                    let (mut acts, mut grads) = (Activations::default(), Grads::new(grads));
                    loss(p, &mut acts);
                    acts.dlogits = pull.clone();
                    model.head_backward(p, &mut acts, &mut grads);
                    model.embed_backward(p, input, &mut acts, &mut grads);
                },
            );
        }
    }

    #[test]
    fn gradients_of_embeddings_match_finite_differences() {
        let pull = values(3 * 12, 8);
        for pool in [Pooling::Token, Pooling::Mean] {
            let case = Case::new(pool);
            let (model, input) = (&case.model, case.input());
            let loss = |p: &[f64], acts: &mut Activations<f64>| {
                model.embed(p, input, acts);
                dot(&acts.embeddings, &pull)
            };
            case.check().run(
                |p| loss(p, &mut Activations::default()),
                |p, grads| {
                    let mut acts = Activations::default();
                    loss(p, &mut acts);
                    acts.dembeddings = pull.clone();
                    model.embed_backward(p, input, &mut acts, &mut Grads::new(grads));
                },
            );
        }
    }

    #[test]
    fn gradients_are_complete_from_where_the_handle_says() {
        let case = Case::new(Pooling::Mean);
        let (mut values, mut ready) = (vec![0.0; case.params.len()], Vec::new());
        let mut listen = |start: usize, values: &[f64]| ready.push((start, values[start..].to_vec()));
        let mut grads = Grads::with_listener(&mut values, &mut listen);
        let mut acts = Activations::default();
        case.model.predict(&case.params, case.input(), &mut acts);
        acts.dlogits = acts.logits.clone();
        case.model.head_backward(&case.params, &mut acts, &mut grads);
        case.model.embed_backward(&case.params, case.input(), &mut acts, &mut grads);
        assert_eq!(ready.len(), case.model.vit().depth);
        assert!(ready.iter().all(|(start, complete)| values[*start..] == complete[..]));
    }

    #[test]
    fn fast_f32_agrees_with_the_f64_reference() {
        VARIANTS.iter().for_each(|variant| agrees_with_f64(&Case::of(Pooling::Mean, variant)));
    }

    fn agrees_with_f64(case: &Case) {
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let (params, pixels, factors) = (narrow(&case.params), narrow(&case.pixels), narrow(&FACTORS));
        let input =
            Input { pixels: &pixels, visible: &VISIBLE, drop: Some(&factors), batch: 3, batch_weight: None };
        let (mut wide, mut acts) = (Activations::default(), Activations::default());
        let (want, _) = case.model.predict(&case.params, case.input(), &mut wide);
        let (got, _) = case.model.predict(&params, input, &mut acts);
        for (want, got) in want.iter().zip(got) {
            assert!((want - f64::from(*got)).abs() < 1e-5, "{got} instead of {want}");
        }
    }
}
