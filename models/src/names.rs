//! The ordered list of tensors of a model: name, shape, initialisation, weight decay.
//!
//! Parameters in memory, checkpoints and ONNX initialisers all follow from this list. Encoder and classifier
//! carry timm's names, the decoder those of the masked autoencoder's reference code (arXiv 2111.06377), blocks of the cross
//! decoder those of CrossMAE's (arXiv 2401.14391): `decoder_blocks.I.cross_attn.{q,kv,proj}`, where the full decoder has
//! `decoder_blocks.I.attn.{qkv,proj}` behind `decoder_embed`.

use crate::vit::{DecoderKind, MLP_RATIO, MaeConfig, Pool, VitConfig};

/// How a tensor starts, which also fixes whether weight decay applies to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A linear layer's weight: Xavier-uniform over rows x (all other axes).
    Weight,
    /// A bias: zeros.
    Bias,
    /// A layer norm's scale: ones.
    Scale,
    /// A learned token: N(0, 0.02).
    Token,
    /// A position table: fixed 2-D sine-cosine.
    Positions,
    /// The classifier's weight: N(0, 2e-5), so that fine-tuning starts at even odds.
    HeadWeight,
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// timm's name.
    pub name: String,
    /// Shape, slowest axis first.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
    /// Depth for layer-wise learning-rate decay: 0 the embedding, `i + 1` block `i`, `depth + 1` the rest.
    pub layer: usize,
}

impl TensorSpec {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether weight decay applies: to matrices, not to biases, norms, tokens or positions.
    pub fn decays(&self) -> bool {
        matches!(self.role, Role::Weight | Role::HeadWeight)
    }
}

/// The list under construction.
struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role, layer: usize) {
        self.0.push(TensorSpec { name: name.into(), shape: shape.to_vec(), role, layer });
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize, layer: usize) {
        self.add(format!("{name}.weight"), &[outputs, inputs], Role::Weight, layer);
        self.add(format!("{name}.bias"), &[outputs], Role::Bias, layer);
    }

    fn norm(&mut self, name: &str, dim: usize, layer: usize) {
        self.add(format!("{name}.weight"), &[dim], Role::Scale, layer);
        self.add(format!("{name}.bias"), &[dim], Role::Bias, layer);
    }

    fn block(&mut self, name: &str, dim: usize, layer: usize) {
        self.norm(&format!("{name}.norm1"), dim, layer);
        self.linear(&format!("{name}.attn.qkv"), dim, 3 * dim, layer);
        self.linear(&format!("{name}.attn.proj"), dim, dim, layer);
        self.norm(&format!("{name}.norm2"), dim, layer);
        self.linear(&format!("{name}.mlp.fc1"), dim, MLP_RATIO * dim, layer);
        self.linear(&format!("{name}.mlp.fc2"), MLP_RATIO * dim, dim, layer);
    }

    /// A block of width `dim` that asks tokens of width `keys`. CrossMAE's names.
    fn cross_block(&mut self, name: &str, keys: usize, dim: usize, layer: usize) {
        self.norm(&format!("{name}.norm1"), dim, layer);
        self.linear(&format!("{name}.cross_attn.q"), dim, dim, layer);
        self.linear(&format!("{name}.cross_attn.kv"), keys, 2 * dim, layer);
        self.linear(&format!("{name}.cross_attn.proj"), dim, dim, layer);
        self.norm(&format!("{name}.norm2"), dim, layer);
        self.linear(&format!("{name}.mlp.fc1"), dim, MLP_RATIO * dim, layer);
        self.linear(&format!("{name}.mlp.fc2"), MLP_RATIO * dim, dim, layer);
    }

    /// Everything up to the last block.
    fn encoder(&mut self, vit: &VitConfig) {
        let side = vit.patch_size;
        self.add("cls_token", &[1, 1, vit.dim], Role::Token, 0);
        self.add("pos_embed", &[1, vit.tokens(), vit.dim], Role::Positions, 0);
        self.add("patch_embed.proj.weight", &[vit.dim, vit.channels, side, side], Role::Weight, 0);
        self.add("patch_embed.proj.bias", &[vit.dim], Role::Bias, 0);
        for i in 0..vit.depth {
            self.block(&format!("blocks.{i}"), vit.dim, i + 1);
        }
    }
}

/// The tensors of a classifier, in order; timm's `VisionTransformer` with the same `global_pool` has exactly these.
pub fn classifier(vit: &VitConfig, classes: usize, pool: Pool) -> Vec<TensorSpec> {
    let mut list = List(Vec::new());
    let last = vit.depth + 1;
    list.encoder(vit);
    list.norm(pool_norm(pool), vit.dim, last);
    list.add("head.weight", &[classes, vit.dim], Role::HeadWeight, last);
    list.add("head.bias", &[classes], Role::Bias, last);
    list.0
}

/// The name of the norm in front of the head.
pub fn pool_norm(pool: Pool) -> &'static str {
    match pool {
        Pool::Token => "norm",
        Pool::Mean => "fc_norm",
    }
}

/// The tensors of a masked autoencoder, in order.
pub fn mae(config: &MaeConfig) -> Vec<TensorSpec> {
    let (vit, dec) = (&config.encoder, &config.decoder);
    let mut list = List(Vec::new());
    let last = vit.depth + 1;
    list.encoder(vit);
    list.norm("norm", vit.dim, last);
    if dec.kind == DecoderKind::Full {
        list.linear("decoder_embed", vit.dim, dec.dim, last);
    }
    list.add("mask_token", &[1, 1, dec.dim], Role::Token, last);
    list.add("decoder_pos_embed", &[1, vit.tokens(), dec.dim], Role::Positions, last);
    for i in 0..dec.depth {
        let name = format!("decoder_blocks.{i}");
        match dec.kind {
            DecoderKind::Full => list.block(&name, dec.dim, last),
            DecoderKind::Cross => list.cross_block(&name, vit.dim, dec.dim, last),
        }
    }
    list.norm("decoder_norm", dec.dim, last);
    list.linear("decoder_pred", dec.dim, vit.patch_len(), last);
    list.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::Preset;

    #[test]
    fn parameter_counts_are_timms() {
        // timm: VisionTransformer(img_size=224, patch_size=16, embed_dim=192, depth=12, num_heads=3).
        let vit = Preset::Tiny.encoder(224, 16, 3);
        let count: usize = classifier(&vit, 1000, Pool::Token).iter().map(TensorSpec::len).sum();
        assert_eq!(count, 5_717_416);
    }

    #[test]
    fn names_are_unique_and_ordered() {
        let specs = mae(&Preset::Nano.mae(32, 4, 3));
        let mut names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names[0], "cls_token");
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn decay_spares_biases_norms_tokens_and_positions() {
        for spec in classifier(&Preset::Nano.encoder(32, 4, 3), 10, Pool::Mean) {
            let matrix = spec.name.ends_with("weight") && spec.shape.len() > 1;
            assert_eq!(spec.decays(), matrix, "{}", spec.name);
        }
    }
}
