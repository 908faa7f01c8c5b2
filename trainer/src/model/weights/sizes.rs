//! An encoder's sizes, read off the shapes of its tensors.

use smalti_models::variant::Mlp;
use smalti_models::{Pooling, Preprocess, Variant, VitConfig, names};

use super::names::{Part, block, pieces};
use super::{Source, Take, Weights};
use crate::error::Result;

/// The deepest encoder, as in [`VitConfig::check`].
const MAX_DEPTH: usize = 64;
/// Width of a head in the vision transformers of timm and Hugging Face.
const HEAD_DIM: usize = 64;
/// Widths whose heads are not [`HEAD_DIM`] wide (ViT-H, arXiv 2010.11929; ViT-g, arXiv 2106.04560), with their heads.
const OTHER_HEADS: [(usize, usize); 2] = [(1280, 16), (1408, 16)];

/// The sizes of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Side of the square image in pixels.
    pub img_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// The number of heads, where norms of theirs show it: it leaves no other trace in the shapes.
    pub heads: Option<usize>,
    /// What it has besides a plain vision transformer. No shape shows the epsilon of its norms.
    pub variant: Variant,
}

impl Sizes {
    /// The configuration with this number of heads.
    pub fn with_heads(&self, heads: usize) -> VitConfig {
        let Sizes { img_size, patch_size, channels, dim, depth, variant, .. } = *self;
        VitConfig { img_size, patch_size, channels, dim, depth, heads, stem: Default::default(), variant }
    }

    /// The number of heads that shapes show, or that vision transformers of this width usually have; none for a width that
    /// none has.
    pub fn usual_heads(&self) -> Option<usize> {
        let known = OTHER_HEADS.iter().find(|(dim, _)| *dim == self.dim).map(|(_, heads)| *heads);
        let usual = || self.dim.is_multiple_of(HEAD_DIM).then_some(self.dim / HEAD_DIM);
        self.heads.or(known).or_else(usual)
    }
}

impl Weights {
    /// The encoder's sizes. The whole file fits them: [`Take::Encoder`] would load it into a model of these sizes.
    ///
    /// # Errors
    /// Tensors that are missing or whose shapes contradict each other; sizes that no model of ours can have.
    pub fn sizes(&self) -> Result<Sizes> {
        let (embed, weight) = self.shape("patch_embed.proj.weight")?;
        let &[dim, channels, height, width] = weight else {
            return Err(
                self.unusable(format!("tensor `{embed}` is {weight:?}, expected [dim, channels, p, p]"))
            );
        };
        let (positions, table) = self.shape("pos_embed")?;
        let registers = match self.entries.contains_key("reg_token") {
            true => self.registers()?,
            false => 0,
        };
        let rows = match *table {
            [1, rows, _] => rows,
            _ => 0,
        };
        let square =
            |patches: usize| (patches > 0 && patches.isqrt().pow(2) == patches).then(|| patches.isqrt());
        let with_class = rows.checked_sub(1).filter(|_| registers == 0).and_then(square);
        let Some(grid) = with_class.or_else(|| square(rows)) else {
            let expected = "[1, 1 + n², dim]: the class token and a square of patches";
            return Err(self.unusable(format!("tensor `{positions}` is {table:?}, expected {expected}")));
        };
        if height != width {
            let problem = format!("tensor `{embed}` is {weight:?}: its patches are not square");
            return Err(self.unusable(problem));
        }
        let depth =
            self.entries.keys().filter_map(|name| block(name)).max().map_or(1, |last| last.saturating_add(1));
        let has = |part: &str| self.entries.keys().any(|name| name.contains(part) && block(name).is_some());
        let variant = Variant {
            registers,
            no_embed_class: with_class.is_none(),
            layer_scale: has(".ls1.") || has(".ls2."),
            qk_norm: has(".attn.q_norm.") || has(".attn.k_norm."),
            ..self.feed_forward(dim)
        };
        let is_norm = |name: &&String| {
            let ends = [".attn.q_norm.weight", ".attn.k_norm.weight"];
            block(name).is_some() && ends.iter().any(|end| name.ends_with(end))
        };
        let norm = self.entries.keys().find(is_norm).and_then(|name| self.shape(name).ok());
        let heads = norm
            .and_then(|(_, shape)| shape.first())
            .and_then(|&width| dim.checked_div(width))
            .filter(|heads| *heads > 0);
        let img_size = grid.saturating_mul(height);
        let sizes = Sizes { img_size, patch_size: height, channels, dim, depth, heads, variant };
        if depth > MAX_DEPTH {
            let problem = format!("has block {}: at most {MAX_DEPTH} blocks are supported", depth - 1);
            return Err(self.unusable(problem));
        }
        // Without norms of heads any number of them will do: no other shape depends on it.
        let vit = sizes.with_heads(heads.unwrap_or(1));
        vit.check().map_err(|why| self.unusable(format!("is no model that Smalti supports: {why}")))?;
        self.check(&names::classifier(&vit, 1, self.pool()), Take::Encoder)?;
        Ok(sizes)
    }

    /// The number of register tokens.
    fn registers(&self) -> Result<usize> {
        match self.shape("reg_token")? {
            (_, &[1, count, _]) => Ok(count),
            (name, shape) => {
                Err(self.unusable(format!("tensor `{name}` is {shape:?}, expected [1, registers, dim]")))
            }
        }
    }

    /// How the file's network pools tokens, as its last norm shows.
    pub fn pool(&self) -> Pooling {
        if self.entries.contains_key("fc_norm.weight") { Pooling::Mean } else { Pooling::Token }
    }

    /// Classes of the file's head, where it has one that multiplies embeddings of this width and nothing else.
    pub fn classes(&self, dim: usize) -> Option<usize> {
        let heads = self.entries.iter().filter(|(_, entry)| matches!(entry.part, Part::Head | Part::Pooler));
        let names: Vec<&str> = heads.map(|(name, _)| name.as_str()).collect();
        match (&names[..], self.shape("head.weight").ok()?.1, self.shape("head.bias").ok()?.1) {
            (["head.bias", "head.weight"], &[classes, width], &[biases]) if classes == biases => {
                (width == dim && classes > 0).then_some(classes)
            }
            _ => None,
        }
    }

    /// The feed-forward of the first block, as far as shapes show it; a plain one where they contradict each other.
    fn feed_forward(&self, dim: usize) -> Variant {
        let rows = |name: &str| {
            let entry = self.entries.get(name)?;
            let first = entry.source.names().first().and_then(|name| self.tensors.get(*name))?;
            let apart = if matches!(entry.source, Source::Pieces(_)) { pieces(name) } else { 1 };
            first.shape.first()?.checked_mul(apart)
        };
        let (Some(fused), Ok((_, &[_, hidden]))) =
            (rows("blocks.0.mlp.fc1.weight"), self.shape("blocks.0.mlp.fc2.weight"))
        else {
            return Variant::PLAIN;
        };
        let mlp = if hidden.checked_mul(2) == Some(fused) { Mlp::SwiGlu } else { Mlp::Gelu };
        if mlp == Mlp::Gelu && fused != hidden {
            return Variant::PLAIN;
        }
        Variant { mlp, ..Variant::PLAIN.with_hidden(hidden, dim) }
    }

    /// A tensor's name in the file, and its shape.
    fn shape(&self, timm: &str) -> Result<(&str, &[usize])> {
        let found = self.entries.get(timm).and_then(|entry| match &entry.source {
            Source::Whole(name) => Some((name.as_str(), &self.tensors.get(name)?.shape[..])),
            Source::Pieces(_) => None,
        });
        found.ok_or_else(|| {
            self.unusable(format!(
                "lacks tensor {}: expected the encoder of a vision transformer",
                self.missing_name(timm, None)
            ))
        })
    }

    /// The encoder and the preprocessing that our own files state in their metadata.
    ///
    /// # Errors
    /// A statement that contradicts the tensors.
    pub fn stated(&self) -> Result<Option<(VitConfig, Preprocess)>> {
        let details = self.details();
        let encoder = [&details["encoder"], &details["model"]["encoder"]]
            .into_iter()
            .find_map(|stated| serde_json::from_value::<VitConfig>(stated.clone()).ok());
        let preprocess = serde_json::from_value::<Preprocess>(details["preprocess"].clone()).ok();
        let (Some(encoder), Some(preprocess)) = (encoder, preprocess) else { return Ok(None) };
        if !encoder.stem.is_patches() {
            // Its tensors say all of it or do not fit.
            encoder
                .check()
                .and_then(|()| preprocess.check())
                .map_err(|why| self.unusable(why.to_string()))?;
            self.check(&names::classifier(&encoder, 1, Pooling::Mean), Take::Encoder)?;
            return Ok(Some((encoder, preprocess)));
        }
        let mut found = self.sizes()?.with_heads(encoder.heads);
        found.variant.norm_eps = encoder.variant.norm_eps;
        if found != encoder {
            let problem = format!("its metadata states {encoder:?}, its tensors are of {found:?}");
            return Err(self.unusable(problem));
        }
        encoder.check().and_then(|()| preprocess.check()).map_err(|why| self.unusable(why.to_string()))?;
        Ok(Some((encoder, preprocess)))
    }
}
