//! What a network is that Smalti does not compute, as far as its tensors' names say.

use std::path::Path;

use super::file::unusable;
use crate::error::Error;

/// Tensors of one kind that an error names.
const NAMED: usize = 4;
/// What the reader understands.
const EXPECTED: &str = "expected a vision transformer (ViT, DeiT, DINOv2, MAE) of timm or Hugging Face";
/// How the names of such a network look.
const NAMES: &str =
    "with tensors such as `blocks.0.attn.qkv.weight` or `encoder.layer.0.attention.attention.query.weight`";

/// Parts of networks, and what their tensors' names hold.
const KINDS: [(&str, &[&str]); 9] = [
    ("LayerScale under the names of BEiT or CaiT", &["lambda_1", "lambda_2", "gamma_1", "gamma_2"]),
    ("norms within attention", &["query_norm", "key_norm", "q_layernorm", "k_layernorm", "attn.norm"]),
    ("SwiGLU under other names", &["mlp.w1", "mlp.w2", "mlp.w3", "gate_proj", "up_proj", "down_proj"]),
    ("norm within the MLP", &["mlp.norm"]),
    ("relative positions", &["relative_position", "rel_pos"]),
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
            "blocks.0.gamma_1",
            "blocks.0.gamma_2",
            "blocks.0.mlp.w12.weight",
            "rope.freqs",
            "a",
            "b",
            "c",
            "d",
            "e",
        ];
        let text = refuse(Path::new("x"), &unknown).to_string();
        for said in [
            "`blocks.0.gamma_1`, `blocks.0.gamma_2` (LayerScale under",
            "`blocks.0.mlp.w12.weight` (SwiGLU under",
            "`rope.freqs` (rotary positions)",
            "`a`, `b`, `c`, `d` and 1 more",
        ] {
            assert!(text.contains(said), "`{said}` is not in {text}");
        }
        assert!(refuse_all(Path::new("x"), &["a"]).to_string().contains("no vision transformer, but `a`;"));
        assert!(refuse_all(Path::new("x"), &[]).to_string().contains("no tensors"));
    }
}
