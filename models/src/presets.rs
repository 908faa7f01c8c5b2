//! The named model sizes, for any image size that the patch divides.

use serde::{Deserialize, Serialize};

use crate::stem::{STRIDE, Stem};
use crate::variant::Variant;
use crate::vit::{DecoderConfig, MaeConfig, VitConfig};

/// A named model size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Width 128, depth 6, 4 heads: 1.2 M parameters.
    #[default]
    Nano,
    /// Width 160, depth 8, 5 heads: 2.5 M parameters.
    Micro,
    /// Width 192, depth 12, 3 heads, the usual ViT-Tiny: 5.4 M parameters.
    Tiny,
    /// Convolutions of widths 24, 48, 96, 128, then depth 2, 4 heads: 1.1 M parameters.
    HybridNano,
}

impl Preset {
    /// Every preset: those of patches, smallest first, then those with convolutions.
    pub const ALL: [Preset; 4] = [Preset::Nano, Preset::Micro, Preset::Tiny, Preset::HybridNano];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Nano => "nano",
            Preset::Micro => "micro",
            Preset::Tiny => "tiny",
            Preset::HybridNano => "hybrid-nano",
        }
    }

    /// What makes tokens of an image.
    pub fn stem(self) -> Stem {
        match self {
            Preset::Nano | Preset::Micro | Preset::Tiny => Stem::Patches,
            Preset::HybridNano => Stem::Convolutions,
        }
    }

    /// The only patch size that it can have; none where any divisor of the image size will do.
    pub fn patch_size(self) -> Option<usize> {
        (!self.stem().is_patches()).then_some(STRIDE)
    }

    /// The encoder for images of this size.
    pub fn encoder(self, img_size: usize, patch_size: usize, channels: usize) -> VitConfig {
        let (dim, depth, heads) = match self {
            Preset::Nano => (128, 6, 4),
            Preset::Micro => (160, 8, 5),
            Preset::Tiny => (192, 12, 3),
            Preset::HybridNano => (128, 2, 4),
        };
        VitConfig {
            img_size,
            patch_size,
            channels,
            dim,
            depth,
            heads,
            stem: self.stem(),
            variant: Variant::PLAIN,
        }
    }

    /// The masked autoencoder around [`Preset::encoder`], with the light decoder.
    pub fn mae(self, img_size: usize, patch_size: usize, channels: usize) -> MaeConfig {
        let decoder = DecoderConfig { kind: Default::default(), dim: 64, depth: 1, heads: 2 };
        MaeConfig { encoder: self.encoder(img_size, patch_size, channels), decoder }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_model() {
        for preset in Preset::ALL {
            for (size, patch) in [(32, 4), (28, 4), (96, 8), (224, 16)] {
                let fits = preset.patch_size().is_none_or(|only| only == patch);
                assert_eq!(preset.mae(size, patch, 3).check().is_ok(), fits, "{preset:?}, {size}, {patch}");
            }
        }
    }
}
