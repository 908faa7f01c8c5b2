//! Names of tensors: timm's are ours, Hugging Face's are translated to them.
//!
//! timm's names are those of its `VisionTransformer` (ViT, DeiT) and of the masked autoencoder's reference code
//! (arXiv 2111.06377). Hugging Face's are those of `ViTModel`, `ViTForImageClassification` and `ViTMAEForPreTraining`, as
//! `save_pretrained` writes them and as version 5 of transformers holds them in memory. Convolutional stems are ours alone.

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

/// timm's tensors of a block, after `blocks.N.`, without `weight` or `bias`.
const BLOCK: [&str; 6] = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"];

/// The layers of a stage, after `stages.N.`.
const STAGE: [&str; 3] = ["down", "conv1", "conv2"];
/// The tensors of such a layer.
const CONV_NORM: [&str; 5] = ["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"];

/// timm's name and Hugging Face's, outside the blocks. The first spelling is the one that files have.
const OUTER: [(&str, &str); 7] = [
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
    ("patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"),
    ("norm.weight", "layernorm.weight"),
    ("norm.bias", "layernorm.bias"),
    ("mask_token", "embeddings.mask_token"),
];

/// What Hugging Face has in front of a block's number.
const LAYERS: [&str; 2] = ["encoder.layer.", "layers."];

/// timm's name and Hugging Face's inside a block, without `weight` or `bias`; with the third of `qkv` that it is.
const INNER: [(&str, Option<usize>, &str); 16] = [
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
    /// Query, key or value (0, 1, 2), where timm has the three joined.
    pub(super) third: Option<usize>,
}

/// Understands a file's name for a tensor; none for names of other networks.
pub(super) fn translate(name: &str) -> Option<Name<'_>> {
    let mut bare = name;
    loop {
        if let Some((dialect, part, timm, third)) = timm(bare).or_else(|| hugging_face(bare)) {
            let prefix = &name[..name.len() - bare.len()];
            return Some(Name { prefix, dialect, part, timm, third });
        }
        bare = WRAPPERS.iter().find_map(|wrapper| bare.strip_prefix(wrapper))?;
    }
}

type Understood = (Dialect, Part, String, Option<usize>);

fn timm(name: &str) -> Option<Understood> {
    let encoder = OUTER[..4].iter().any(|(timm, _)| *timm == name) || block(name).is_some() || is_stage(name);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let part = match name {
        _ if encoder => Part::Encoder,
        "norm.weight" | "norm.bias" | "fc_norm.weight" | "fc_norm.bias" => Part::Norm,
        _ if starts(&["head."]) => Part::Head,
        "mask_token" => Part::Decoder,
        _ if starts(&["decoder_"]) => Part::Decoder,
        "pre_logits.fc.weight" | "pre_logits.fc.bias" => Part::Pooler,
        _ => return None,
    };
    Some((Dialect::Timm, part, name.into(), None))
}

fn hugging_face(name: &str) -> Option<Understood> {
    let understood = |part, timm: &str, third| Some((Dialect::HuggingFace, part, timm.to_string(), third));
    if let Some((place, (timm, _))) = OUTER.iter().enumerate().find(|(_, (_, theirs))| *theirs == name) {
        let part = match place {
            0..4 => Part::Encoder,
            4..6 => Part::Norm,
            _ => Part::Decoder,
        };
        return understood(part, timm, None);
    }
    match name {
        "pooler.dense.weight" | "pooler.dense.bias" => return understood(Part::Pooler, name, None),
        "embeddings.position_ids" | "position_ids" => return understood(Part::Buffer, name, None),
        _ if name.starts_with("decoder.") => return understood(Part::Decoder, name, None),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("classifier.") {
        return understood(Part::Head, &format!("head.{rest}"), None);
    }
    let rest = LAYERS.iter().find_map(|layers| name.strip_prefix(layers))?;
    let (number, inner) = numbered(rest)?;
    let (inner, kind) = split_kind(inner)?;
    let (timm, third, _) = INNER.iter().find(|(_, _, theirs)| *theirs == inner)?;
    understood(Part::Encoder, &format!("blocks.{number}.{timm}.{kind}"), *third)
}

/// The block that a tensor of timm's belongs to.
pub(super) fn block(timm: &str) -> Option<usize> {
    let (number, inner) = numbered(timm.strip_prefix("blocks.")?)?;
    BLOCK.contains(&split_kind(inner)?.0).then_some(number)
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

/// The name that a file of Hugging Face's has for a tensor of timm's, or for one third of it.
pub(super) fn to_hugging_face(timm: &str, third: Option<usize>) -> Option<String> {
    if let Some((_, theirs)) = OUTER.iter().find(|(ours, _)| *ours == timm) {
        return Some((*theirs).into());
    }
    if let Some(rest) = timm.strip_prefix("head.") {
        return Some(format!("classifier.{rest}"));
    }
    let (number, inner) = numbered(timm.strip_prefix("blocks.")?)?;
    let (inner, kind) = split_kind(inner)?;
    let third = if inner == "attn.qkv" { third.or(Some(0)) } else { None };
    let (_, _, theirs) = INNER.iter().find(|(ours, part, _)| (*ours, *part) == (inner, third))?;
    Some(format!("{}{number}.{theirs}.{kind}", LAYERS[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::presets::Preset;
    use smalti_models::{Pool, names};

    fn timm_of(name: &str) -> Option<(String, String, Option<usize>)> {
        translate(name).map(|found| (found.prefix.into(), found.timm, found.third))
    }

    #[test]
    fn our_own_names_stay() {
        let mae = names::mae(&Preset::Nano.mae(8, 2, 3));
        let [token, mean] =
            [Pool::Token, Pool::Mean].map(|pool| names::classifier(&Preset::Nano.encoder(8, 2, 3), 3, pool));
        let hybrid = names::classifier(&Preset::HybridNano.encoder(32, 16, 3), 3, Pool::Mean);
        for spec in mae.iter().chain(&token).chain(&mean).chain(&hybrid) {
            assert_eq!(timm_of(&spec.name), Some((String::new(), spec.name.clone(), None)));
        }
    }

    #[test]
    fn names_go_to_hugging_face_and_back() {
        let specs = names::classifier(&Preset::Nano.encoder(8, 2, 3), 3, Pool::Token);
        for spec in &specs {
            let joined = spec.name.contains(".qkv.");
            let thirds = if joined { vec![Some(0), Some(1), Some(2)] } else { vec![None] };
            for third in thirds {
                let theirs = to_hugging_face(&spec.name, third).unwrap();
                let found = translate(&theirs).unwrap();
                assert_eq!((&found.timm, found.third), (&spec.name, third), "{theirs}");
                assert_eq!(found.dialect, Dialect::HuggingFace);
            }
        }
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
            "blocks.0.ls1.gamma",
            "stages.0.0.conv_dw.weight",
            "stages.00.down.conv.weight",
            "stages.0.down.conv.bias",
            "blocks.00.norm1.weight",
            "blocks.+1.norm1.weight",
            "blocks.-1.norm1.weight",
            "blocks.99999999999999999999.norm1.weight",
            "blocks.0.norm1.scale",
            "blocks.0.norm1",
            "blocks.0.attn.q_norm.weight",
            "blocks.0.mlp.w12.weight",
            "teacher.cls_token",
            "CLS_TOKEN",
            "encoder.layer.0.layer_scale1.lambda1",
            "encoder.layer.0.attention.attention.query.gain",
            "encoder.layer.0.mlp.weights_in.weight",
            "embeddings.register_tokens",
            "layer.0.norm1.weight",
            "reg_token",
            "dist_token",
            "head_dist.weight",
        ] {
            assert_eq!(translate(name), None, "{name}");
        }
    }
}
