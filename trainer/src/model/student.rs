//! The student of a distillation: a classifier whose head projects embeddings to a teacher's width, and a projection of each
//! token where the teacher has a vector for each place of the image. Both are dropped after training.

use smalti_models::{Pooling, VitConfig, names};

use super::classifier::{self, Classifier, Input};
use super::grads::Grads;
use crate::error::Result;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;
use crate::model::precision::Precision;

/// The slots of a student.
#[derive(Clone, Debug)]
pub struct Student {
    classifier: Classifier,
    tokens: Option<Linear>,
}

/// What the backward pass needs, and the gradients that a loss writes; reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Activations<R> {
    /// The embeddings' part: a loss writes `dlogits`.
    pub classifier: classifier::Activations<R>,
    /// The projected tokens `[batch · tokens, token values]`.
    pub tokens: Vec<R>,
    /// The loss's gradient of the projected tokens.
    pub dtokens: Vec<R>,
}

impl Student {
    /// Lays out a student of a teacher whose embeddings have `width` values and whose tokens have `token_values`, 0 for none.
    ///
    /// # Errors
    /// As [`Classifier::new`].
    pub fn new(vit: &VitConfig, width: usize, token_values: usize, precision: Precision) -> Result<Student> {
        Classifier::check(vit, width)?;
        let layout = Layout::new(names::student(vit, width, token_values), precision);
        Ok(Student {
            tokens: (token_values > 0).then(|| Linear::find(&layout, "head.tokens")).transpose()?,
            classifier: Classifier::find(layout, vit, Pooling::Mean)?,
        })
    }

    /// The tensors.
    pub fn layout(&self) -> &Layout {
        self.classifier.layout()
    }

    /// Values of a teacher's embedding.
    pub fn width(&self) -> usize {
        self.classifier.classes()
    }

    /// Values of a teacher's token; 0 for none.
    pub fn token_values(&self) -> usize {
        self.tokens.map_or(0, |tokens| tokens.outputs())
    }

    /// The forward pass: computes `acts.classifier.logits` `[batch, width]` and `acts.tokens`, and makes room for their
    /// gradients.
    pub fn forward<R: Float>(&self, params: &[R], input: Input<'_, R>, acts: &mut Activations<R>) {
        let Activations { classifier, tokens, dtokens } = acts;
        self.classifier.predict(params, input, classifier);
        resize_buffer(&mut classifier.dlogits, classifier.logits.len());
        if let Some(projection) = &self.tokens {
            let count = classifier.tokens().len() / projection.inputs();
            resize_buffer(tokens, count * projection.outputs());
            resize_buffer(dtokens, tokens.len());
            projection.forward(params, classifier.tokens(), tokens);
        }
    }

    /// The backward pass from `acts.classifier.dlogits` and `acts.dtokens`. Adds the gradients of all tensors.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        input: Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) {
        let Activations { classifier, dtokens, .. } = acts;
        if let Some(projection) = &self.tokens {
            projection.backward_params(classifier.tokens(), dtokens, grads);
            let mut back = std::mem::take(&mut classifier.dtokens);
            resize_buffer(&mut back, classifier.tokens().len());
            projection.backward_input(params, dtokens, &mut back);
            classifier.dtokens = back;
        }
        self.classifier.backward(params, input, classifier, grads);
    }
}
