//! What a network is that Smalti does not compute, as far as its tensors' names say.

use std::path::Path;

use super::file::unusable;
use crate::error::Error;

/// Tensors of one kind that an error names.
const NAMED: usize = 4;
/// What the reader understands.
const EXPECTED: &str = "expected a plain vision transformer (ViT, DeiT, MAE) of timm or Hugging Face";
/// How the names of such a network look.
const NAMES: &str =
    "with tensors such as `blocks.0.attn.qkv.weight` or `encoder.layer.0.attention.attention.query.weight`";

/// Parts of networks, and what their tensors' names hold.
const KINDS: [(&str, &[&str]); 10] = [
    (
        "LayerScale, as in DINOv2 and DeiT III",
        &["ls1.", "ls2.", "layer_scale", "lambda_1", "lambda_2", "gamma_1", "gamma_2"],
    ),
    (
        "normalized queries and keys",
        &["q_norm", "k_norm", "query_norm", "key_norm", "q_layernorm", "k_layernorm"],
    ),
    ("register tokens", &["reg_token", "register_token"]),
    ("SwiGLU", &["mlp.w1", "mlp.w2", "mlp.w3", "weights_in", "weights_out", "fc1_g", "fc1_x", "gate_proj"]),
    ("relative positions", &["relative_position", "rel_pos"]),
    (
        "distillation token",
        &["dist_token", "distillation_token", "head_dist", "distillation_classifier", "cls_classifier"],
    ),
    ("rotary positions", &["rope", "rotary"]),
    ("norm before the blocks", &["norm_pre", "pre_layrnorm", "pre_layernorm"]),
    ("attention pooling", &["attn_pool"]),
    ("biases apart from qkv", &["q_bias", "k_bias", "v_bias"]),
];

/// The kind of a tensor that has none of our names.
fn kind(name: &str) -> Option<&'static str> {
    KINDS.iter().find(|(_, parts)| parts.iter().any(|part| name.contains(part))).map(|(kind, _)| *kind)
}

/// The error for a file that holds an encoder, and tensors that no name of ours translates.
pub(super) fn refuse(path: &Path, unknown: &[&str]) -> Error {
    unusable(
        path,
        format!("has tensors of a network that Smalti does not compute: {}; {EXPECTED}", sorted(unknown)),
    )
}

/// The error for a file without any tensor of an encoder.
pub(super) fn refuse_all(path: &Path, all: &[&str]) -> Error {
    let holds = if all.is_empty() { "no tensors".into() } else { sorted(all) };
    unusable(path, format!("holds no vision transformer, but {holds}; {EXPECTED}, {NAMES}"))
}

/// Names by kind, the first few of each.
fn sorted(names: &[&str]) -> String {
    let of_kind = |wanted: Option<&str>| -> Vec<&str> {
        names.iter().copied().filter(|name| kind(name) == wanted).collect()
    };
    let mut parts: Vec<String> = KINDS
        .iter()
        .map(|(named, _)| (of_kind(Some(named)), named))
        .filter(|(those, _)| !those.is_empty())
        .map(|(those, named)| format!("{} ({named})", listed(&those, NAMED)))
        .collect();
    let rest = of_kind(None);
    if !rest.is_empty() {
        parts.push(listed(&rest, NAMED));
    }
    parts.join(", ")
}

/// The first `count` names, and how many more there are.
pub(super) fn listed(names: &[&str], count: usize) -> String {
    let first: Vec<String> = names.iter().take(count).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(count);
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_named_by_a_tensor_and_a_word() {
        let unknown = [
            "blocks.0.ls1.gamma",
            "blocks.0.ls2.gamma",
            "blocks.0.attn.q_norm.weight",
            "blocks.0.mlp.w12.weight",
            "reg_token",
            "a",
            "b",
            "c",
            "d",
            "e",
        ];
        let text = refuse(Path::new("x"), &unknown).to_string();
        for said in [
            "`blocks.0.ls1.gamma`, `blocks.0.ls2.gamma` (LayerScale, as in DINOv2",
            "`blocks.0.attn.q_norm.weight` (normalized",
            "`blocks.0.mlp.w12.weight` (SwiGLU)",
            "`reg_token` (register tokens)",
            "`a`, `b`, `c`, `d` and 1 more",
        ] {
            assert!(text.contains(said), "`{said}` is not in {text}");
        }
        assert!(refuse_all(Path::new("x"), &["a"]).to_string().contains("no vision transformer, but `a`;"));
        assert!(refuse_all(Path::new("x"), &[]).to_string().contains("no tensors"));
    }
}
