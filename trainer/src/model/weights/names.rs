//! Names of tensors: timm's are ours, Hugging Face's are translated to them.
//!
//! timm's names are those of its `VisionTransformer` (ViT, DeiT, DINOv2) and of the masked autoencoder's reference code
//! (arXiv 2111.06377). Hugging Face's are those of `ViTModel`, `DeiTModel`, `Dinov2Model`, `Dinov2WithRegistersModel`, the
//! classifiers around them and `ViTMAEForPreTraining`, as `save_pretrained` writes them and as version 5 of transformers
//! holds them in memory. Convolutional stems are ours alone.

/// Prefixes that a wrapper puts in front of all names of a network.
const WRAPPERS: [&str; 9] = [
    "module.",
    "model.",
    "backbone.",
    "encoder.",
    "_orig_mod.",
    "vit.",
    "deit.",
    "dinov2.",
    "dinov2_with_registers.",
];

/// timm's layers of a block, after `blocks.N.`, without `weight` or `bias`.
const BLOCK: [&str; 8] =
    ["norm1", "attn.qkv", "attn.q_norm", "attn.k_norm", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"];
/// LayerScale's tensors of a block: timm's name and Hugging Face's.
const SCALES: [(&str, &str); 2] =
    [("ls1.gamma", "layer_scale1.lambda1"), ("ls2.gamma", "layer_scale2.lambda1")];
/// Layers that timm's `SwiGLU` has apart and its `SwiGLUPacked` joined, as we have them: the joined one, and the piece of it.
const APART: [(&str, &str, usize); 2] = [("mlp.fc1_g", "mlp.fc1", 0), ("mlp.fc1_x", "mlp.fc1", 1)];

/// The layers of a stage, after `stages.N.`.
const STAGE: [&str; 3] = ["down", "conv1", "conv2"];
/// The tensors of such a layer.
const CONV_NORM: [&str; 5] = ["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"];

/// timm's name and Hugging Face's, outside the blocks. The first spelling is the one that files have.
const OUTER: [(&str, &str); 9] = [
    ("cls_token", "embeddings.cls_token"),
    ("reg_token", "embeddings.register_tokens"),
    ("dist_token", "embeddings.distillation_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
    ("patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"),
    ("norm.weight", "layernorm.weight"),
    ("norm.bias", "layernorm.bias"),
    ("mask_token", "embeddings.mask_token"),
];

/// What Hugging Face has in front of a block's number.
const LAYERS: [&str; 2] = ["encoder.layer.", "layers."];

/// timm's name and Hugging Face's inside a block, without `weight` or `bias`; with the piece of `qkv` that it is.
const INNER: [(&str, Option<usize>, &str); 18] = [
    ("norm1", None, "layernorm_before"),
    ("attn.qkv", Some(0), "attention.attention.query"),
    ("attn.qkv", Some(1), "attention.attention.key"),
    ("attn.qkv", Some(2), "attention.attention.value"),
    ("attn.proj", None, "attention.output.dense"),
    ("norm2", None, "layernorm_after"),
    ("mlp.fc1", None, "intermediate.dense"),
    ("mlp.fc2", None, "output.dense"),
    // In memory since transformers 5.
    ("attn.qkv", Some(0), "attention.q_proj"),
    ("attn.qkv", Some(1), "attention.k_proj"),
    ("attn.qkv", Some(2), "attention.v_proj"),
    ("attn.proj", None, "attention.o_proj"),
    ("mlp.fc1", None, "mlp.fc1"),
    ("mlp.fc2", None, "mlp.fc2"),
    // DINOv2's.
    ("norm1", None, "norm1"),
    ("norm2", None, "norm2"),
    ("mlp.fc1", None, "mlp.weights_in"),
    ("mlp.fc2", None, "mlp.weights_out"),
];

/// The program whose names a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Timm,
    HuggingFace,
}

/// What a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Embedding, positions, blocks.
    Encoder,
    /// The layer norm after the blocks.
    Norm,
    /// The classifier's head.
    Head,
    /// An autoencoder's decoder and mask token.
    Decoder,
    /// Hugging Face's pooler, and timm's `pre_logits` before 2023: a layer between class token and head.
    Pooler,
    /// A buffer without trained values.
    Buffer,
}

/// A name that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// What wrappers put in front.
    pub(super) prefix: &'a str,
    pub(super) dialect: Dialect,
    pub(super) part: Part,
    /// timm's name.
    pub(super) timm: String,
    /// Which piece it is of a tensor that we have joined: query, key or value (0, 1, 2); gate or value of SwiGLU (0, 1).
    pub(super) piece: Option<usize>,
}

/// Number of pieces of a tensor of timm's that files may have in pieces.
pub(super) fn pieces(timm: &str) -> usize {
    if timm.contains(".attn.qkv.") { 3 } else { 2 }
}

/// Understands a file's name for a tensor; none for names of other networks.
pub(super) fn translate(name: &str) -> Option<Name<'_>> {
    let mut bare = name;
    loop {
        if let Some((dialect, part, timm, piece)) = timm(bare).or_else(|| hugging_face(bare)) {
            let prefix = &name[..name.len() - bare.len()];
            return Some(Name { prefix, dialect, part, timm, piece });
        }
        bare = WRAPPERS.iter().find_map(|wrapper| bare.strip_prefix(wrapper))?;
    }
}

type Understood = (Dialect, Part, String, Option<usize>);

fn timm(name: &str) -> Option<Understood> {
    if let Some((number, inner)) = name.strip_prefix("blocks.").and_then(numbered)
        && let Some((apart, kind)) = split_kind(inner)
        && let Some((_, joined, piece)) = APART.iter().find(|(theirs, ..)| *theirs == apart)
    {
        return Some((
            Dialect::Timm,
            Part::Encoder,
            format!("blocks.{number}.{joined}.{kind}"),
            Some(*piece),
        ));
    }
    let encoder = OUTER[..6].iter().any(|(timm, _)| *timm == name) || block(name).is_some() || is_stage(name);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let part = match name {
        _ if encoder => Part::Encoder,
        "norm.weight" | "norm.bias" | "fc_norm.weight" | "fc_norm.bias" => Part::Norm,
        _ if starts(&["head.", "head_dist."]) => Part::Head,
        "mask_token" => Part::Decoder,
        _ if starts(&["decoder_"]) => Part::Decoder,
        "pre_logits.fc.weight" | "pre_logits.fc.bias" => Part::Pooler,
        _ => return None,
    };
    Some((Dialect::Timm, part, name.into(), None))
}

fn hugging_face(name: &str) -> Option<Understood> {
    let understood = |part, timm: &str, piece| Some((Dialect::HuggingFace, part, timm.to_string(), piece));
    if let Some((place, (timm, _))) = OUTER.iter().enumerate().find(|(_, (_, theirs))| *theirs == name) {
        let part = match place {
            0..6 => Part::Encoder,
            6..8 => Part::Norm,
            _ => Part::Decoder,
        };
        return understood(part, timm, None);
    }
    match name {
        "pooler.dense.weight" | "pooler.dense.bias" => return understood(Part::Pooler, name, None),
        "embeddings.position_ids" | "position_ids" => return understood(Part::Buffer, name, None),
        _ if name.starts_with("decoder.") => return understood(Part::Decoder, name, None),
        _ if ["cls_classifier.", "distillation_classifier."].iter().any(|head| name.starts_with(head)) => {
            return understood(Part::Head, name, None);
        }
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("classifier.") {
        return understood(Part::Head, &format!("head.{rest}"), None);
    }
    let rest = LAYERS.iter().find_map(|layers| name.strip_prefix(layers))?;
    let (number, inner) = numbered(rest)?;
    if let Some((timm, _)) = SCALES.iter().find(|(_, theirs)| *theirs == inner) {
        return understood(Part::Encoder, &format!("blocks.{number}.{timm}"), None);
    }
    let (inner, kind) = split_kind(inner)?;
    let (timm, piece, _) = INNER.iter().find(|(_, _, theirs)| *theirs == inner)?;
    understood(Part::Encoder, &format!("blocks.{number}.{timm}.{kind}"), *piece)
}

/// The block that a tensor of timm's belongs to.
pub(super) fn block(timm: &str) -> Option<usize> {
    let (number, inner) = numbered(timm.strip_prefix("blocks.")?)?;
    let is_scale = SCALES.iter().any(|(ours, _)| *ours == inner);
    (is_scale || BLOCK.contains(&split_kind(inner)?.0)).then_some(number)
}

/// Whether a tensor belongs to a stage of a convolutional stem.
pub(super) fn is_stage(name: &str) -> bool {
    let layer = || numbered(name.strip_prefix("stages.")?)?.1.split_once('.');
    layer().is_some_and(|(layer, tensor)| STAGE.contains(&layer) && CONV_NORM.contains(&tensor))
}

/// `7.rest` as 7 and `rest`; none for `07.rest`, which would be a second name for the same block.
fn numbered(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let number: usize = digits.parse().ok()?;
    (number.to_string() == digits).then_some((number, rest))
}

/// `attn.proj.weight` as `attn.proj` and `weight`.
fn split_kind(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))
}

/// The name that a file of Hugging Face's has for a tensor of timm's, or for one piece of it.
pub(super) fn to_hugging_face(timm: &str, piece: Option<usize>) -> Option<String> {
    if let Some((_, theirs)) = OUTER.iter().find(|(ours, _)| *ours == timm) {
        return Some((*theirs).into());
    }
    if let Some(rest) = timm.strip_prefix("head.") {
        return Some(format!("classifier.{rest}"));
    }
    let (number, inner) = numbered(timm.strip_prefix("blocks.")?)?;
    if let Some((_, theirs)) = SCALES.iter().find(|(ours, _)| *ours == inner) {
        return Some(format!("{}{number}.{theirs}", LAYERS[0]));
    }
    let (inner, kind) = split_kind(inner)?;
    let piece = if inner == "attn.qkv" { piece.or(Some(0)) } else { None };
    let (_, _, theirs) = INNER.iter().find(|(ours, part, _)| (*ours, *part) == (inner, piece))?;
    Some(format!("{}{number}.{theirs}.{kind}", LAYERS[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::presets::Preset;
    use smalti_models::{Pooling, names};

    fn timm_of(name: &str) -> Option<(String, String, Option<usize>)> {
        translate(name).map(|found| (found.prefix.into(), found.timm, found.piece))
    }

    #[test]
    fn our_own_names_stay() {
        let mae = names::mae(&Preset::Nano.mae(8, 2, 3));
        let [token, mean] = [Pooling::Token, Pooling::Mean]
            .map(|pool| names::classifier(&Preset::Nano.encoder(8, 2, 3), 3, pool));
        let hybrid = names::classifier(&Preset::HybridNano.encoder(32, 16, 3), 3, Pooling::Mean);
        let variant = "registers=2,no-embed-class,layer-scale,qk-norm,swiglu".parse().unwrap();
        let vit = smalti_models::VitConfig { variant, ..Preset::Nano.encoder(8, 2, 3) };
        let variant = names::classifier(&vit, 3, Pooling::Token);
        for spec in mae.iter().chain(&token).chain(&mean).chain(&hybrid).chain(&variant) {
            assert_eq!(timm_of(&spec.name), Some((String::new(), spec.name.clone(), None)));
        }
    }

    #[test]
    fn names_go_to_hugging_face_and_back() {
        let variant = "registers=2,no-embed-class,layer-scale".parse().unwrap();
        let vit = smalti_models::VitConfig { variant, ..Preset::Nano.encoder(8, 2, 3) };
        for spec in &names::classifier(&vit, 3, Pooling::Token) {
            let joined = spec.name.contains(".qkv.");
            let pieces = if joined { vec![Some(0), Some(1), Some(2)] } else { vec![None] };
            for piece in pieces {
                let theirs = to_hugging_face(&spec.name, piece).unwrap();
                let found = translate(&theirs).unwrap();
                assert_eq!((&found.timm, found.piece), (&spec.name, piece), "{theirs}");
                assert_eq!(found.dialect, Dialect::HuggingFace);
            }
        }
    }

    #[test]
    fn pieces_have_their_places() {
        for (name, timm, piece) in [
            ("blocks.3.mlp.fc1_g.weight", "blocks.3.mlp.fc1.weight", Some(0)),
            ("blocks.3.mlp.fc1_x.bias", "blocks.3.mlp.fc1.bias", Some(1)),
            ("encoder.layer.0.mlp.weights_in.bias", "blocks.0.mlp.fc1.bias", None),
            ("encoder.layer.0.mlp.weights_out.weight", "blocks.0.mlp.fc2.weight", None),
        ] {
            assert_eq!(timm_of(name), Some((String::new(), timm.to_string(), piece)));
        }
        assert_eq!((pieces("blocks.0.attn.qkv.bias"), pieces("blocks.0.mlp.fc1.bias")), (3, 2));
    }

    #[test]
    fn wrappers_come_off() {
        let found = |name: &str| timm_of(name).map(|(prefix, timm, _)| [prefix, timm]);
        let want = |prefix: &str, timm: &str| Some([prefix.to_string(), timm.to_string()]);
        for (prefix, name, timm) in [
            ("module.", "cls_token", "cls_token"),
            ("model.encoder.", "blocks.3.norm1.bias", "blocks.3.norm1.bias"),
            ("vit.", "encoder.layer.3.layernorm_before.bias", "blocks.3.norm1.bias"),
            ("encoder.", "encoder.layer.3.output.dense.weight", "blocks.3.mlp.fc2.weight"),
            ("module.vit.", "layers.0.mlp.fc1.weight", "blocks.0.mlp.fc1.weight"),
            ("dinov2.", "encoder.layer.1.norm2.weight", "blocks.1.norm2.weight"),
            ("_orig_mod.", "decoder_pred.bias", "decoder_pred.bias"),
        ] {
            assert_eq!(found(&format!("{prefix}{name}")), want(prefix, timm));
        }
    }

    #[test]
    fn names_of_other_networks_are_not_understood() {
        for name in [
            "",
            "x",
            "module.",
            "blocks.0.ls1.weight",
            "blocks.0.gamma_1",
            "blocks.0.mlp.fc1_y.weight",
            "stages.0.0.conv_dw.weight",
            "stages.00.down.conv.weight",
            "stages.0.down.conv.bias",
            "blocks.00.norm1.weight",
            "blocks.+1.norm1.weight",
            "blocks.-1.norm1.weight",
            "blocks.99999999999999999999.norm1.weight",
            "blocks.0.norm1.scale",
            "blocks.0.norm1",
            "blocks.0.attn.v_norm.weight",
            "blocks.0.mlp.norm.weight",
            "blocks.0.mlp.w12.weight",
            "teacher.cls_token",
            "CLS_TOKEN",
            "encoder.layer.0.layer_scale1.lambda2",
            "encoder.layer.0.lambda_1",
            "encoder.layer.0.attention.attention.query.gain",
            "encoder.layer.0.mlp.gate_proj.weight",
            "layer.0.norm1.weight",
            "register_tokens",
        ] {
            assert_eq!(translate(name), None, "{name}");
        }
    }
}
