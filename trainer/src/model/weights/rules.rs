//! Which tensors may be left out or start fresh, and what to do about shapes that differ.

use smalti_models::names::{Role, TensorSpec};

use super::names::{self, Part};

/// What of a model is taken from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// All of it. The file holds these tensors and no others.
    Model,
    /// What fine-tuning starts from: the encoder, and the last norm where model and file pool alike. Positions of another
    /// grid are resampled.
    Encoder,
    /// What embeds images: the encoder and its last norm, whichever way model and file pool.
    Embedding,
    /// A classifier of another program's: the encoder, its last norm and the head. Positions of another grid are resampled.
    Classifier,
}

impl Take {
    /// Whether positions may be of another grid.
    pub(super) fn resamples(self) -> bool {
        matches!(self, Take::Encoder | Take::Classifier)
    }
}

/// Whether a tensor of the model keeps its initial values; `norm` is the file's last norm.
pub(super) fn is_fresh(name: &str, norm: Option<&str>, take: Take) -> bool {
    match part_of(name) {
        Part::Head => !matches!(take, Take::Model | Take::Classifier),
        Part::Norm => take == Take::Encoder && Some(layer(name)) != norm,
        _ => false,
    }
}

/// Whether a tensor of the model is one of a last norm.
pub(super) fn is_norm(spec: &TensorSpec) -> bool {
    part_of(&spec.name) == Part::Norm
}

/// The tensor of the file that becomes the model's `name`.
pub(super) fn source_name(name: &str, norm: Option<&str>, take: Take) -> String {
    match (part_of(name), norm, take) {
        (Part::Norm, Some(norm), Take::Embedding) => name.replacen(layer(name), norm, 1),
        _ => name.to_string(),
    }
}

/// Why a tensor of the file that the model does not take may be left out; none where it must not be. `has_norm`: whether
/// the model has a last norm.
pub(super) fn reason(part: Part, take: Take, has_norm: bool) -> Option<&'static str> {
    match (part, take) {
        (_, Take::Model) | (Part::Encoder, _) => None,
        (Part::Norm, _) if !has_norm => Some("the model has no norm in front of its head"),
        (Part::Norm, Take::Embedding | Take::Classifier) | (Part::Head, Take::Classifier) => None,
        (Part::Norm, Take::Encoder) => Some("the model pools its tokens another way"),
        (Part::Head, _) => Some("the head of other classes"),
        (Part::Decoder, _) => Some("the decoder of an autoencoder"),
        (Part::Pooler, _) => Some("a layer in front of the head"),
        (Part::Buffer, _) => Some("no trained values"),
    }
}

/// What a tensor of ours belongs to.
fn part_of(name: &str) -> Part {
    names::translate(name).map_or(Part::Encoder, |name| name.part)
}

/// `fc_norm.weight` as `fc_norm`.
fn layer(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// Patches along a side in file and model, where a tensor holds positions of another square grid.
pub(super) fn grids(spec: &TensorSpec, shape: &[usize]) -> Option<[usize; 2]> {
    let (&[1, tokens, dim], &[_, want, of_model]) = (shape, &spec.shape[..]) else { return None };
    if spec.name != "pos_embed" || dim != of_model {
        return None;
    }
    let class_tokens = usize::from(spec.role == Role::Positions);
    let side = |tokens: usize| {
        let patches = tokens.checked_sub(class_tokens).filter(|patches| *patches > 0)?;
        (patches.isqrt().pow(2) == patches).then(|| patches.isqrt())
    };
    Some([side(tokens)?, side(want)?])
}

/// What to do about a shape that differs.
pub(super) fn advice(spec: &TensorSpec, shape: &[usize]) -> String {
    let (&[_, channels, height, width], &[_, of_model, patch, _]) = (shape, &spec.shape[..]) else {
        return String::new();
    };
    match () {
        _ if height == width && height != patch => format!(": give --patch-size {height}"),
        _ if channels != of_model => format!(": give --channels {channels}"),
        _ => String::new(),
    }
}
