//! The ordered list of tensors of a model: name, shape, initialisation, weight decay.
//!
//! Parameters in memory, checkpoints and ONNX initialisers all follow from this list. Encoder and classifier
//! carry timm's names, the decoder those of the masked autoencoder's reference code (arXiv 2111.06377), blocks of the cross
//! decoder those of CrossMAE's (arXiv 2401.14391): `decoder_blocks.I.cross_attn.{q,kv,proj}`, where the full decoder has
//! `decoder_blocks.I.attn.{qkv,proj}` behind `decoder_embed`. A convolution of a stem is `stages.I.{down,conv1,conv2}`, with
//! `conv.weight` and `bn.{weight,bias,running_mean,running_var}` as in timm's `ConvNormAct`.

use crate::stem::{Stage, Stem};
use crate::variant::Variant;
use crate::vit::{DecoderKind, MLP_RATIO, MaeConfig, Pooling, VitConfig};

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
    /// The weight of a residual branch's last layer, where the branch starts at zero.
    ZeroWeight,
    /// The scale of a residual branch's last norm, where the branch starts at zero.
    ZeroScale,
    /// A position table that is always trained: zeros.
    ZeroPositions,
    /// LayerScale's factors at the end of a residual branch: 1e-5.
    BranchScale,
    /// A batch norm's running mean: zeros. No gradient moves it, but a moving average over batches.
    RunningMean,
    /// A batch norm's running variance: ones, else as [`Role::RunningMean`].
    RunningVar,
}

impl Role {
    /// Whether the tensor is a statistic of batches, which no optimizer moves.
    pub fn is_statistic(self) -> bool {
        matches!(self, Role::RunningMean | Role::RunningVar)
    }
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
    /// Depth for layer-wise learning-rate decay: 0 the embedding or stage `i` of a stem, then the blocks, last the rest.
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
        matches!(self.role, Role::Weight | Role::HeadWeight | Role::ZeroWeight)
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

    /// A linear layer whose weight starts as `role` says.
    fn branch_end(&mut self, name: &str, inputs: usize, outputs: usize, role: Role, layer: usize) {
        self.add(format!("{name}.weight"), &[outputs, inputs], role, layer);
        self.add(format!("{name}.bias"), &[outputs], Role::Bias, layer);
    }

    /// A block of width `dim`, both of whose branches end with a weight of the role `end`.
    fn block(&mut self, name: &str, [dim, heads]: [usize; 2], variant: &Variant, end: Role, layer: usize) {
        self.norm(&format!("{name}.norm1"), dim, layer);
        self.linear(&format!("{name}.attn.qkv"), dim, 3 * dim, layer);
        if variant.qk_norm {
            self.norm(&format!("{name}.attn.q_norm"), dim / heads, layer);
            self.norm(&format!("{name}.attn.k_norm"), dim / heads, layer);
        }
        self.branch_end(&format!("{name}.attn.proj"), dim, dim, end, layer);
        if variant.layer_scale {
            self.add(format!("{name}.ls1.gamma"), &[dim], Role::BranchScale, layer);
        }
        self.norm(&format!("{name}.norm2"), dim, layer);
        self.linear(&format!("{name}.mlp.fc1"), dim, variant.fused(dim), layer);
        self.branch_end(&format!("{name}.mlp.fc2"), variant.hidden(dim), dim, end, layer);
        if variant.layer_scale {
            self.add(format!("{name}.ls2.gamma"), &[dim], Role::BranchScale, layer);
        }
    }

    /// A 3x3 convolution without a bias, then a batch norm.
    fn conv_norm(&mut self, name: &str, inputs: usize, outputs: usize, scale: Role, layer: usize) {
        self.add(format!("{name}.conv.weight"), &[outputs, inputs, 3, 3], Role::Weight, layer);
        for (part, role) in [
            ("weight", scale),
            ("bias", Role::Bias),
            ("running_mean", Role::RunningMean),
            ("running_var", Role::RunningVar),
        ] {
            self.add(format!("{name}.bn.{part}"), &[outputs], role, layer);
        }
    }

    fn stage(&mut self, i: usize, stage: &Stage) {
        let (name, width) = (format!("stages.{i}"), stage.width);
        self.conv_norm(&format!("{name}.down"), stage.inputs, width, Role::Scale, i);
        if stage.residual {
            self.conv_norm(&format!("{name}.conv1"), width, width, Role::Scale, i);
            self.conv_norm(&format!("{name}.conv2"), width, width, Role::ZeroScale, i);
        }
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
        let positions = [1, vit.positions(), vit.dim];
        let end = match vit.stem {
            Stem::Patches => {
                let side = vit.patch_size;
                self.add("cls_token", &[1, 1, vit.dim], Role::Token, 0);
                if vit.variant.registers > 0 {
                    self.add("reg_token", &[1, vit.variant.registers, vit.dim], Role::Token, 0);
                }
                let role = if vit.variant.no_embed_class { Role::ZeroPositions } else { Role::Positions };
                self.add("pos_embed", &positions, role, 0);
                self.add("patch_embed.proj.weight", &[vit.dim, vit.channels, side, side], Role::Weight, 0);
                self.add("patch_embed.proj.bias", &[vit.dim], Role::Bias, 0);
                Role::Weight
            }
            Stem::Convolutions => {
                let stages = vit.stages();
                stages.iter().enumerate().for_each(|(i, stage)| self.stage(i, stage));
                self.add("pos_embed", &positions, Role::ZeroPositions, stages.len() - 1);
                Role::ZeroWeight
            }
        };
        for i in 0..vit.depth {
            let name = format!("blocks.{i}");
            self.block(&name, [vit.dim, vit.heads], &vit.variant, end, first_block(vit) + i);
        }
    }
}

/// The layer of the first block.
fn first_block(vit: &VitConfig) -> usize {
    vit.stages().len().max(1)
}

/// The tensors of a classifier, in order; timm's `VisionTransformer` with the same `global_pool` has exactly these. Behind
/// convolutions there is no norm in front of the head.
pub fn classifier(vit: &VitConfig, classes: usize, pool: Pooling) -> Vec<TensorSpec> {
    let mut list = List(Vec::new());
    let last = first_block(vit) + vit.depth;
    list.encoder(vit);
    if vit.stem.is_patches() {
        list.norm(pool_norm(pool), vit.dim, last);
    }
    list.add("head.weight", &[classes, vit.dim], Role::HeadWeight, last);
    list.add("head.bias", &[classes], Role::Bias, last);
    list.0
}

/// The tensors of a distillation's student, in order: a classifier's, whose head projects the mean of its tokens to a teacher's
/// embedding, and a projection of each token to `token_values` values, if there are any.
pub fn student(vit: &VitConfig, classes: usize, token_values: usize) -> Vec<TensorSpec> {
    let mut list = List(classifier(vit, classes, Pooling::Mean));
    let last = first_block(vit) + vit.depth;
    if token_values > 0 {
        list.add("head.tokens.weight", &[token_values, vit.dim], Role::HeadWeight, last);
        list.add("head.tokens.bias", &[token_values], Role::Bias, last);
    }
    list.0
}

/// The name of the norm in front of the head.
pub fn pool_norm(pool: Pooling) -> &'static str {
    match pool {
        Pooling::Token => "norm",
        Pooling::Mean => "fc_norm",
    }
}

/// The tensors of a masked autoencoder, in order.
pub fn mae(config: &MaeConfig) -> Vec<TensorSpec> {
    let (vit, dec) = (&config.encoder, &config.decoder);
    let mut list = List(Vec::new());
    let last = first_block(vit) + vit.depth;
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
            DecoderKind::Full => {
                list.block(&name, [dec.dim, dec.heads], &Variant::PLAIN, Role::Weight, last);
            }
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
        let count: usize = classifier(&vit, 1000, Pooling::Token).iter().map(TensorSpec::len).sum();
        assert_eq!(count, 5_717_416);
    }

    #[test]
    fn a_stem_of_convolutions_has_timms_names() {
        let vit = Preset::HybridNano.encoder(96, 16, 3);
        let specs = classifier(&vit, 10, Pooling::Mean);
        let trained =
            specs.iter().filter(|spec| !spec.role.is_statistic()).map(TensorSpec::len).sum::<usize>();
        // The same network in PyTorch.
        assert_eq!(trained, 1_069_474);
        let find = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap();
        assert_eq!(find("stages.1.down.conv.weight").shape, [48, 24, 3, 3]);
        assert_eq!(find("stages.3.conv2.bn.weight").role, Role::ZeroScale);
        assert_eq!(find("blocks.1.mlp.fc2.weight").role, Role::ZeroWeight);
        assert_eq!((find("stages.0.down.bn.running_var").layer, find("blocks.0.norm1.weight").layer), (0, 4));
        assert!(specs.iter().all(|spec| spec.name != "cls_token" && !spec.name.contains("norm.")));
    }

    #[test]
    fn variants_have_timms_names_and_counts() {
        // timm: vit_small_patch14_dinov2 and vit_small_patch14_reg4_dinov2 with num_classes=10, img_size=518.
        let plain = VitConfig {
            img_size: 518,
            patch_size: 14,
            channels: 3,
            dim: 384,
            depth: 12,
            heads: 6,
            stem: Stem::Patches,
            variant: "layer-scale".parse().unwrap(),
        };
        let count = |vit: &VitConfig| -> usize {
            classifier(vit, 10, Pooling::Token).iter().map(TensorSpec::len).sum()
        };
        assert_eq!(count(&plain), 22_056_192 + 3_850);
        let variant = "registers=4,no-embed-class,layer-scale".parse().unwrap();
        let registers = VitConfig { variant, ..plain.clone() };
        assert_eq!(count(&registers), count(&plain) + 3 * 384);
        let variant = "qk-norm,swiglu,hidden=1024".parse().unwrap();
        let specs = classifier(&VitConfig { variant, ..plain }, 10, Pooling::Token);
        let find = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap();
        assert_eq!(find("blocks.3.attn.q_norm.weight").shape, [64]);
        assert_eq!(find("blocks.3.mlp.fc1.weight").shape, [2048, 384]);
        assert_eq!(find("blocks.3.mlp.fc2.weight").shape, [384, 1024]);
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
        let variant = "registers=2,no-embed-class,layer-scale,qk-norm".parse().unwrap();
        let vit = VitConfig { variant, ..Preset::Nano.encoder(32, 4, 3) };
        for spec in classifier(&vit, 10, Pooling::Mean) {
            let matrix = spec.name.ends_with("weight") && spec.shape.len() > 1;
            assert_eq!(spec.decays(), matrix, "{}", spec.name);
        }
    }
}
