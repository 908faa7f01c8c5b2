//! Vision transformer (arXiv 2010.11929) and masked autoencoder (arXiv 2111.06377) configurations.
//!
//! A configuration that [`VitConfig::check`] or [`MaeConfig::check`] accepted can be built, trained and
//! exported; its derived counts cannot overflow.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stem::{self, Stage, Stem};
use crate::variant::Variant;

/// Layer norm's epsilon, but for a [`Variant`]'s (arXiv 2111.06377's code).
pub const LAYER_NORM_EPS: f32 = 1e-6;
/// Width of the MLP over the width of the model, but for a [`Variant`]'s.
pub const MLP_RATIO: usize = 4;

/// How the classifier makes one vector out of all tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The class token after the last norm (timm's `global_pool='token'`).
    Token,
    /// The mean over patch tokens, then a norm named `fc_norm` (timm's `global_pool='avg'`).
    #[default]
    Mean,
}

/// An encoder: images of `img_size` x `img_size`, a stem that makes tokens of them, `depth` blocks of width `dim`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the square image in pixels.
    pub img_size: usize,
    /// Side of the square of pixels that becomes one token; divides `img_size`. [`stem::STRIDE`] with convolutions.
    pub patch_size: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Width of a token.
    pub dim: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    /// Attention heads a block; divides `dim`.
    pub heads: usize,
    /// What makes tokens of an image.
    #[serde(default, skip_serializing_if = "Stem::is_patches")]
    pub stem: Stem,
    /// What it has besides a plain vision transformer.
    #[serde(default, skip_serializing_if = "Variant::is_plain")]
    pub variant: Variant,
}

/// What a decoder's tokens are, and what they see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecoderKind {
    /// All patches, each sees all (arXiv 2111.06377).
    #[default]
    Full,
    /// Hidden patches, which see what was encoded and not each other (CrossMAE, arXiv 2401.14391).
    Cross,
}

impl DecoderKind {
    fn is_full(&self) -> bool {
        *self == DecoderKind::Full
    }
}

/// The light decoder of a masked autoencoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DecoderConfig {
    /// What its tokens are.
    #[serde(default, skip_serializing_if = "DecoderKind::is_full")]
    pub kind: DecoderKind,
    /// Width of a decoder token.
    pub dim: usize,
    /// Number of decoder blocks.
    pub depth: usize,
    /// Attention heads a block; divides `dim`.
    pub heads: usize,
}

/// A masked autoencoder: an encoder on the visible patches, a decoder on all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MaeConfig {
    /// The encoder that is kept after pretraining.
    pub encoder: VitConfig,
    /// The decoder that is thrown away.
    pub decoder: DecoderConfig,
}

/// A field between two bounds, else an error that names all three.
fn within(field: &'static str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Config { field, found: value.to_string(), expected: format!("expected {low} to {high}") })
}

/// The checks that encoder and decoder share.
fn check_blocks(names: [&'static str; 3], dim: usize, depth: usize, heads: usize) -> Result<()> {
    within(names[0], dim, 4, 4096)?;
    within(names[1], depth, 1, 64)?;
    within(names[2], heads, 1, 64)?;
    if !dim.is_multiple_of(4) {
        let expected = "expected a multiple of 4 (sine-cosine positions)".into();
        return Err(Error::Config { field: names[0], found: dim.to_string(), expected });
    }
    if !dim.is_multiple_of(heads) {
        let expected = format!("expected a divisor of the width {dim}");
        return Err(Error::Config { field: names[2], found: heads.to_string(), expected });
    }
    Ok(())
}

impl VitConfig {
    /// Refuses what no model can have: zero or huge sizes, a patch or head count that divides nothing.
    pub fn check(&self) -> Result<()> {
        within("img-size", self.img_size, 1, 1024)?;
        within("patch-size", self.patch_size, 1, self.img_size)?;
        if !self.img_size.is_multiple_of(self.patch_size) {
            let expected = format!("expected a divisor of the image size {}", self.img_size);
            return Err(Error::Config { field: "patch-size", found: self.patch_size.to_string(), expected });
        }
        if self.channels != 1 && self.channels != 3 {
            let expected = "expected 1 (grey) or 3 (RGB)".into();
            return Err(Error::Config { field: "channels", found: self.channels.to_string(), expected });
        }
        if self.patches() > 4096 {
            let expected = format!("{} patches an image, at most 4096 are supported", self.patches());
            return Err(Error::Config { field: "patch-size", found: self.patch_size.to_string(), expected });
        }
        check_blocks(["dim", "depth", "heads"], self.dim, self.depth, self.heads)?;
        self.variant.check()?;
        match self.stem {
            Stem::Patches => Ok(()),
            Stem::Convolutions => self.check_convolutions(),
        }
    }

    /// What the stages of a convolutional stem ask for.
    fn check_convolutions(&self) -> Result<()> {
        let refuse = |field, found: usize, expected: String| {
            Err(Error::Config { field, found: found.to_string(), expected })
        };
        if self.patch_size != stem::STRIDE {
            let expected = format!("expected {}, the stride of the convolutions", stem::STRIDE);
            return refuse("patch-size", self.patch_size, expected);
        }
        if !self.dim.is_multiple_of(stem::WIDTH_UNIT) {
            let expected = format!("expected a multiple of {} (widths of the stages)", stem::WIDTH_UNIT);
            return refuse("dim", self.dim, expected);
        }
        self.check_plain("behind convolutions")
    }

    /// Refuses variants where there is nothing but the plain encoder.
    fn check_plain(&self, place: &str) -> Result<()> {
        if self.variant.is_plain() {
            return Ok(());
        }
        let expected = format!("expected none {place}");
        Err(Error::Config { field: "variant", found: self.variant.to_string(), expected })
    }

    /// The stages of a convolutional stem; none of a stem of patches.
    pub fn stages(&self) -> Vec<Stage> {
        match self.stem {
            Stem::Patches => Vec::new(),
            Stem::Convolutions => stem::stages(self.img_size, self.channels, self.dim).to_vec(),
        }
    }

    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.img_size / self.patch_size
    }

    /// Patches an image.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Class tokens an image: one in front of patches, none behind convolutions.
    pub fn class_tokens(&self) -> usize {
        usize::from(self.stem.is_patches())
    }

    /// Tokens in front of the patches: the class token, if there is one, and the registers.
    pub fn prefix_tokens(&self) -> usize {
        self.class_tokens() + self.variant.registers
    }

    /// Tokens an image: the patches and those in front.
    pub fn tokens(&self) -> usize {
        self.patches() + self.prefix_tokens()
    }

    /// Rows of the position table: one for each patch, behind that of the class token if it has one.
    pub fn positions(&self) -> usize {
        self.patches() + if self.variant.no_embed_class { 0 } else { self.class_tokens() }
    }

    /// Values a patch: `patch_size² · channels`.
    pub fn patch_len(&self) -> usize {
        self.patch_size * self.patch_size * self.channels
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Multiply-adds of the encoder on one image of which `patches` patches are seen. Convolutions run over the whole image.
    pub fn multiply_adds(&self, patches: usize) -> u64 {
        let embed = match self.stem {
            Stem::Patches => (patches * self.patch_len() * self.dim) as u64,
            Stem::Convolutions => stem::multiply_adds(&self.stages()),
        };
        let block = block_multiply_adds(patches + self.prefix_tokens(), self.dim, &self.variant);
        embed + block * self.depth as u64
    }
}

/// Multiply-adds of one block on `tokens` tokens of width `dim`: four projections, two MLP layers, attention.
fn block_multiply_adds(tokens: usize, dim: usize, variant: &Variant) -> u64 {
    let mlp = (variant.fused(dim) + variant.hidden(dim)) as u64;
    let (tokens, dim) = (tokens as u64, dim as u64);
    tokens * dim * (4 * dim + mlp) + 2 * tokens * tokens * dim
}

impl MaeConfig {
    /// Refuses what no model can have; see [`VitConfig::check`].
    pub fn check(&self) -> Result<()> {
        self.encoder.check()?;
        self.encoder.check_plain("in pretraining")?;
        let DecoderConfig { dim, depth, heads, .. } = self.decoder;
        check_blocks(["dec-dim", "dec-depth", "dec-heads"], dim, depth, heads)
    }

    /// Visible patches an image at a mask ratio: `floor(patches · (1 - ratio))`, at least one and not all.
    pub fn visible(&self, mask_ratio: f64) -> usize {
        let patches = self.encoder.patches();
        let keep = (patches as f64 * (1.0 - mask_ratio)) as usize;
        keep.clamp(1, patches.saturating_sub(1).max(1))
    }

    /// Multiply-adds of one forward pass on one image of which `visible` patches are seen and all others predicted.
    /// Nobody reads what the full decoder's last block would make of tokens that were seen, so it stops at their keys and
    /// values; queries, keys and values that the mask tokens of all images share in the first are not counted.
    pub fn multiply_adds(&self, visible: usize) -> u64 {
        let (enc, dec) = (&self.encoder, &self.decoder);
        let (seen, hidden) = (visible + enc.class_tokens(), enc.patches() - visible);
        let decoder = match dec.kind {
            DecoderKind::Full => {
                let unread = seen * dec.dim * (dec.dim * (1 + 2 * MLP_RATIO) + 2 * enc.tokens());
                let shared = hidden * dec.dim * 3 * dec.dim;
                (seen * enc.dim * dec.dim) as u64
                    + block_multiply_adds(enc.tokens(), dec.dim, &Variant::PLAIN) * dec.depth as u64
                    - (unread + shared) as u64
            }
            DecoderKind::Cross => {
                let asking = hidden * dec.dim * (dec.dim * (2 + 2 * MLP_RATIO) + 2 * seen);
                let shared = hidden * dec.dim * dec.dim;
                ((asking + seen * enc.dim * 2 * dec.dim) * dec.depth - shared) as u64
            }
        };
        enc.multiply_adds(visible) + decoder + (hidden * dec.dim * enc.patch_len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> VitConfig {
        VitConfig {
            img_size: 32,
            patch_size: 4,
            channels: 3,
            dim: 192,
            depth: 12,
            heads: 3,
            stem: Stem::Patches,
            variant: Variant::PLAIN,
        }
    }

    #[test]
    fn derived_counts_are_those_of_the_paper() {
        let config = tiny();
        config.check().unwrap();
        assert_eq!((config.grid(), config.patches(), config.tokens(), config.patch_len()), (8, 64, 65, 48));
        let millions = config.multiply_adds(64) as f64 / 1e6;
        assert!((360.0..370.0).contains(&millions), "{millions}");
    }

    #[test]
    fn impossible_sizes_are_named() {
        let bad = |change: fn(&mut VitConfig), field: &str| {
            let mut config = tiny();
            change(&mut config);
            let message = config.check().unwrap_err().to_string();
            assert!(message.starts_with(field), "{message}");
        };
        bad(|c| c.img_size = 0, "img-size");
        bad(|c| c.patch_size = 5, "patch-size");
        bad(|c| c.patch_size = 0, "patch-size");
        bad(|c| c.channels = 2, "channels");
        bad(|c| c.heads = 5, "heads");
        bad(|c| c.dim = 190, "dim");
        bad(|c| c.depth = 1000, "depth");
        bad(|c| (c.img_size, c.patch_size) = (1024, 1), "patch-size");
        bad(|c| c.stem = Stem::Convolutions, "patch-size");
        bad(|c| (c.stem, c.patch_size, c.dim, c.heads) = (Stem::Convolutions, 16, 136, 2), "dim");
        bad(|c| c.variant.registers = 1, "variant");
        bad(|c| (c.stem, c.patch_size, c.variant.qk_norm) = (Stem::Convolutions, 16, true), "variant");
    }

    #[test]
    fn a_variant_changes_tokens_and_work_and_is_no_part_of_a_plain_configuration() {
        let mut config = tiny();
        assert!(!serde_json::to_string(&config).unwrap().contains("variant"));
        let plain = config.multiply_adds(64);
        config.variant = "registers=4,no-embed-class,swiglu,hidden=512".parse().unwrap();
        config.check().unwrap();
        assert_eq!((config.tokens(), config.positions(), config.prefix_tokens()), (69, 64, 5));
        // 3 · 512 instead of 2 · 768, on four tokens more.
        let more = 12 * (4 * 192 * 12 * 192 + 2 * (69 * 69 - 65 * 65) * 192);
        assert_eq!(config.multiply_adds(64), plain + more);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<VitConfig>(&text).unwrap(), config);
    }

    #[test]
    fn a_mask_leaves_something_to_see_and_something_to_guess() {
        let mae = MaeConfig {
            encoder: tiny(),
            decoder: DecoderConfig { kind: Default::default(), dim: 64, depth: 1, heads: 2 },
        };
        mae.check().unwrap();
        assert_eq!(mae.visible(0.75), 16);
        assert_eq!(mae.visible(0.0), 63);
        assert_eq!(mae.visible(1.0), 1);
    }
}
