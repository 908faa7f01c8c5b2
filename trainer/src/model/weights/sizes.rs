//! An encoder's sizes, read off the shapes of its tensors.

use std::path::Path;

use serde_json::Value;
use smalti_models::{Pool, Preprocess, VitConfig, names};

use super::file::unusable;
use super::names::block;
use super::{Source, Take, Weights};
use crate::error::Result;
use crate::files;

/// The largest `config.json` that is read, in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;
/// The deepest encoder, as in [`VitConfig::check`].
const MAX_DEPTH: usize = 64;
/// Width of a head in the vision transformers of timm and Hugging Face.
const HEAD_DIM: usize = 64;
/// Widths whose heads are not [`HEAD_DIM`] wide (ViT-H, arXiv 2010.11929; ViT-g, arXiv 2106.04560), with their heads.
const OTHER_HEADS: [(usize, usize); 2] = [(1280, 16), (1408, 16)];

/// The sizes of an encoder. The number of heads leaves no trace in the shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl Sizes {
    /// The configuration with this number of heads.
    pub fn with_heads(&self, heads: usize) -> VitConfig {
        let Sizes { img_size, patch_size, channels, dim, depth } = *self;
        VitConfig { img_size, patch_size, channels, dim, depth, heads, stem: Default::default() }
    }

    /// The number of heads that vision transformers of this width usually have; none for a width that none has.
    pub fn usual_heads(&self) -> Option<usize> {
        let known = OTHER_HEADS.iter().find(|(dim, _)| *dim == self.dim).map(|(_, heads)| *heads);
        known.or_else(|| self.dim.is_multiple_of(HEAD_DIM).then_some(self.dim / HEAD_DIM))
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
        let patches = match *table {
            [1, tokens, _] => tokens.saturating_sub(1),
            _ => 0,
        };
        let grid = patches.isqrt();
        if grid == 0 || grid * grid != patches {
            let expected = "[1, 1 + n², dim]: the class token and a square of patches";
            return Err(self.unusable(format!("tensor `{positions}` is {table:?}, expected {expected}")));
        }
        if height != width {
            let problem = format!("tensor `{embed}` is {weight:?}: its patches are not square");
            return Err(self.unusable(problem));
        }
        let depth =
            self.entries.keys().filter_map(|name| block(name)).max().map_or(1, |last| last.saturating_add(1));
        let img_size = grid.saturating_mul(height);
        let sizes = Sizes { img_size, patch_size: height, channels, dim, depth };
        if depth > MAX_DEPTH {
            let problem = format!("has block {}: at most {MAX_DEPTH} blocks are supported", depth - 1);
            return Err(self.unusable(problem));
        }
        // Any number of heads will do: no shape depends on it.
        let vit = sizes.with_heads(1);
        vit.check().map_err(|why| self.unusable(format!("is no model that Smalti supports: {why}")))?;
        let mean = self.entries.contains_key("fc_norm.weight");
        let pool = if mean { Pool::Mean } else { Pool::Token };
        self.check(&names::classifier(&vit, 1, pool), Take::Encoder)?;
        Ok(sizes)
    }

    /// A tensor's name in the file, and its shape.
    fn shape(&self, timm: &str) -> Result<(&str, &[usize])> {
        let found = self.entries.get(timm).and_then(|entry| match &entry.source {
            Source::Whole(name) => Some((name.as_str(), &self.tensors.get(name)?.shape[..])),
            Source::Thirds(_) => None,
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
            self.check(&names::classifier(&encoder, 1, Pool::Mean), Take::Encoder)?;
            return Ok(Some((encoder, preprocess)));
        }
        let sizes = self.sizes()?;
        let found = sizes.with_heads(encoder.heads);
        if found != encoder {
            let problem = format!("its metadata states {encoder:?}, its tensors are of {found:?}");
            return Err(self.unusable(problem));
        }
        encoder.check().and_then(|()| preprocess.check()).map_err(|why| self.unusable(why.to_string()))?;
        Ok(Some((encoder, preprocess)))
    }
}

/// The number of heads that a `config.json` of Hugging Face or timm states, if it does.
///
/// # Errors
/// A configuration of another network: an activation that is not the exact GELU.
pub fn heads_beside(folder: &Path) -> Result<Option<usize>> {
    let path = folder.join("config.json");
    // Other programs write files of this name too.
    let config: Value = serde_json::from_slice(&files::read(&path, CONFIG_LIMIT)?).unwrap_or_default();
    let stated = [&config["num_attention_heads"], &config["model_args"]["num_heads"]];
    let heads = stated.into_iter().find_map(|heads| usize::try_from(heads.as_u64()?).ok());
    match config["hidden_act"].as_str().filter(|activation| *activation != "gelu") {
        Some(activation) if heads.is_some() => {
            let expected = "expected `gelu`, the only activation that Smalti computes";
            Err(unusable(&path, format!("hidden_act is `{activation}`: {expected}")))
        }
        _ => Ok(heads),
    }
}
