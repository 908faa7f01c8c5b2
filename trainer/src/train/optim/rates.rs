//! The learning rates of tensors over the peak.

use crate::model::params::Layout;
use smalti_models::names::TensorSpec;

/// What the learning rate of a tensor depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The learning rate of a layer over that of the layer above it (BEiT, arXiv 2106.08254).
    pub layer_decay: f64,
    /// The learning rate of the encoder's blocks over that of the other tensors.
    pub blocks: f64,
}

impl Default for Rates {
    /// All tensors learn alike.
    fn default() -> Rates {
        Rates { layer_decay: 1.0, blocks: 1.0 }
    }
}

impl Rates {
    /// The factor of each tensor: `layer_decay ^ (last layer - its layer)`, times `blocks` in a block.
    pub fn of(self, layout: &Layout) -> impl Fn(&TensorSpec) -> f32 {
        let last = layout.iter().map(|(spec, _)| spec.layer).max().unwrap_or(0);
        move |spec| {
            let blocks = if spec.name.starts_with("blocks.") { self.blocks } else { 1.0 };
            (blocks * self.layer_decay.powi((last - spec.layer) as i32)) as f32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::precision::Precision;
    use smalti_models::{Pooling, Stem, VitConfig, names};

    #[test]
    fn blocks_and_lower_layers_learn_at_rates_of_their_own() {
        let vit = VitConfig {
            img_size: 32,
            patch_size: 16,
            channels: 3,
            dim: 16,
            depth: 2,
            heads: 2,
            stem: Stem::Convolutions,
            variant: Default::default(),
        };
        let layout = Layout::new(names::classifier(&vit, 10, Pooling::Mean), Precision::F32);
        let rates = Rates { layer_decay: 0.5, blocks: 0.25 }.of(&layout);
        let of = |name: &str| {
            let spec = layout.iter().map(|(spec, _)| spec).find(|spec| spec.name == name);
            rates(spec.unwrap_or_else(|| panic!("no {name}")))
        };
        assert_eq!(of("head.weight"), 1.0);
        assert_eq!([of("blocks.1.attn.qkv.weight"), of("blocks.0.mlp.fc1.bias")], [0.125, 0.0625]);
        assert_eq!(of("stages.3.down.conv.weight"), 0.125);
        let alike = Rates::default().of(&layout);
        assert!(layout.iter().all(|(spec, _)| alike(spec) == 1.0));
    }
}
