//! One linear layer on each patch (arXiv 2010.11929, equation 1).

use smalti_models::VitConfig;

use super::Input;
use crate::error::Result;
use crate::model::ops::linear::Linear;
use crate::model::ops::{Float, resize_buffer};
use crate::model::params::Layout;
use crate::model::patch;

/// The slots of a patch embedding.
#[derive(Clone, Debug)]
pub(in crate::model) struct Patches {
    vit: VitConfig,
    embed: Linear,
}

impl Patches {
    pub(super) fn find(layout: &Layout, vit: &VitConfig) -> Result<Patches> {
        Ok(Patches { vit: vit.clone(), embed: Linear::find(layout, "patch_embed.proj")? })
    }

    /// Width of a token.
    pub(super) fn dim(&self) -> usize {
        self.vit.dim
    }

    /// Computes `embedded` `[batch · visible, dim]`. Leaves the visible patches `[batch · visible, patch_len]` in `patches`.
    pub(super) fn forward<R: Float>(
        &self,
        params: &[R],
        input: &Input<'_, R>,
        patches: &mut Vec<R>,
        embedded: &mut [R],
    ) {
        resize_buffer(patches, input.visible.len() * self.vit.patch_len());
        patch::gather(&self.vit, input.pixels, input.visible, input.batch, patches);
        self.embed.forward(params, patches, embedded);
    }

    /// Adds the gradients of the embedding.
    pub(super) fn backward<R: Float>(&self, patches: &[R], dembedded: &[R], grads: &mut [R]) {
        self.embed.backward_params(patches, dembedded, grads);
    }
}
