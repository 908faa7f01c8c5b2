//! What makes tokens of images: a linear layer on each patch, or stages of convolutions.
//!
//! [`Stem`] is the seam between both. The encoder and all that stands on it read `[batch · visible, dim]` embedded patches
//! and hand their gradient back; only this module knows where they come from.

mod convolutions;
mod map;
mod patches;

use convolutions::Convolutions;
use patches::Patches;

use smalti_models::{VitConfig, stem};

use super::grads::Grads;
use crate::error::Result;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;

/// The slots of a stem.
#[derive(Clone, Debug)]
pub(super) enum Stem {
    /// See [`patches`].
    Patches(Patches),
    /// See [`convolutions`].
    Convolutions(Convolutions),
}

/// What a stem works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a, R> {
    /// `[batch, C, H, W]`, normalised.
    pub(super) pixels: &'a [R],
    /// The places of the visible patches `[batch, visible]`. The pixels of others have no influence.
    pub(super) visible: &'a [u32],
    /// Number of images.
    pub(super) batch: usize,
    /// Training: the weight of each image in the statistics of batch norms, 1 / images of the whole batch. Without it, norms
    /// use their running statistics, and there is no backward pass.
    pub(super) batch_weight: Option<f64>,
}

/// What the backward pass needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations<R> {
    patches: Vec<R>,
    convolutions: convolutions::Activations<R>,
    /// The embedded patches `[batch · visible, dim]`, then their gradient.
    pub(super) embedded: Vec<R>,
}

impl Stem {
    /// Finds the stem's tensors.
    pub(super) fn find(layout: &Layout, vit: &VitConfig) -> Result<Stem> {
        Ok(match vit.stem {
            stem::Stem::Patches => Stem::Patches(Patches::find(layout, vit)?),
            stem::Stem::Convolutions => Stem::Convolutions(Convolutions::find(layout, vit)?),
        })
    }

    /// Computes `acts.embedded` `[batch · visible, dim]`, in the order of `input.visible`.
    pub(super) fn forward<R: Float>(&self, params: &[R], input: &Input<'_, R>, acts: &mut Activations<R>) {
        match self {
            Stem::Patches(stem) => {
                resize_buffer(&mut acts.embedded, input.visible.len() * stem.dim());
                stem.forward(params, input, &mut acts.patches, &mut acts.embedded);
            }
            Stem::Convolutions(stem) => {
                resize_buffer(&mut acts.embedded, input.visible.len() * stem.dim());
                stem.forward(params, input, &mut acts.convolutions, &mut acts.embedded);
            }
        }
    }

    /// Adds the gradients of the stem's tensors from `acts.embedded`, the gradient of the embedded patches.
    pub(super) fn backward<R: Float>(
        &self,
        params: &[R],
        input: &Input<'_, R>,
        acts: &mut Activations<R>,
        grads: &mut Grads<'_, R>,
    ) {
        match self {
            Stem::Patches(stem) => stem.backward(&acts.patches, &acts.embedded, grads),
            Stem::Convolutions(stem) => {
                stem.backward(params, input, &mut acts.convolutions, &acts.embedded, grads);
            }
        }
    }
}

#[cfg(test)]
mod tests;
