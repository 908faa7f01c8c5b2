//! Files of weights that are made up, and the models that read them.

use std::path::{Path, PathBuf};

use smalti_models::{Pooling, Stem, Variant, VitConfig, names};
use smalti_trainer::Result;
use smalti_trainer::model::Classifier;
use smalti_trainer::model::weights::{Loaded, Take, Tensor, Tensors, Weights};

/// The encoder of all files here that are not made by PyTorch.
pub const VIT: VitConfig = VitConfig {
    img_size: 8,
    patch_size: 4,
    channels: 3,
    dim: 8,
    depth: 2,
    heads: 2,
    stem: Stem::Patches,
    variant: Variant::PLAIN,
};

/// A file of the golden folder.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/weights").join(name)
}

/// Values that tell tensors and places apart.
pub fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let seed = name.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let value = |i: usize| ((seed.wrapping_add(i as u32) % 1009) as f32 - 500.0) / 500.0;
    Tensor::new(shape, (0..shape.iter().product()).map(value).collect())
}

/// A classifier's tensors as timm saves them, with three classes.
pub fn timm(vit: &VitConfig) -> Tensors {
    let specs = names::classifier(vit, 3, Pooling::Token);
    specs.iter().map(|spec| (spec.name.clone(), tensor(&spec.name, &spec.shape))).collect()
}

/// A masked autoencoder's tensors, with a decoder of one block.
pub fn mae(vit: &VitConfig) -> Tensors {
    let decoder = smalti_models::DecoderConfig { kind: Default::default(), dim: 8, depth: 1, heads: 2 };
    let specs = names::mae(&smalti_models::MaeConfig { encoder: vit.clone(), decoder });
    specs.iter().map(|spec| (spec.name.clone(), tensor(&spec.name, &spec.shape))).collect()
}

/// The same tensors as Hugging Face saves them, behind a prefix.
pub fn hugging_face(timm: &Tensors, prefix: &str) -> Tensors {
    let mut tensors = Tensors::new();
    for (name, found) in timm {
        if let Some((layer, rest)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
            let layer = format!("{prefix}encoder.layer.{layer}");
            if let Some(kind) = rest.strip_prefix("attn.qkv.") {
                let mut shape = found.shape.clone();
                shape[0] /= 3;
                let thirds = found.values.chunks_exact(found.values.len() / 3);
                for (part, values) in ["query", "key", "value"].iter().zip(thirds) {
                    let name = format!("{layer}.attention.attention.{part}.{kind}");
                    tensors.insert(name, Tensor::new(&shape, values.to_vec()));
                }
                continue;
            }
            let rest = rest
                .replace("norm1", "layernorm_before")
                .replace("norm2", "layernorm_after")
                .replace("attn.proj", "attention.output.dense")
                .replace("mlp.fc1", "intermediate.dense")
                .replace("mlp.fc2", "output.dense");
            tensors.insert(format!("{layer}.{rest}"), found.clone());
        } else if let Some(rest) = name.strip_prefix("head.") {
            tensors.insert(format!("classifier.{rest}"), found.clone());
        } else {
            let outer = name
                .replace("cls_token", "embeddings.cls_token")
                .replace("pos_embed", "embeddings.position_embeddings")
                .replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
                .replace("norm.", "layernorm.");
            tensors.insert(format!("{prefix}{outer}"), found.clone());
        }
    }
    tensors
}

/// Reads tensors as if from a file.
pub fn read(tensors: &Tensors) -> Result<Weights> {
    Weights::new(Path::new("w.safetensors"), tensors.clone(), serde_json::Value::Null)
}

/// Classes of the model that tensors are loaded into: the file's three for a whole model, else four.
pub fn classes(take: Take) -> usize {
    if take == Take::Model { 3 } else { 4 }
}

/// Loads tensors into a classifier whose parameters were all 9.
pub fn load(tensors: &Tensors, vit: &VitConfig, pool: Pooling, take: Take) -> Result<(Loaded, Vec<f32>)> {
    let model = Classifier::new(vit, classes(take), pool)?;
    let mut params = vec![9.0; model.layout().len()];
    let loaded = read(tensors)?.load(model.layout(), &mut params, take)?;
    Ok((loaded, params))
}

/// The error of a file that cannot be fine-tuned from: exit code 5, all of `said` in the message.
pub fn refused(tensors: &Tensors, said: &[&str]) {
    let error = read(tensors).and_then(|weights| weights.sizes()).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("w.safetensors: ") && !text.contains('\n'), "{text}");
    said.iter().for_each(|said| assert!(text.contains(said), "`{said}` is not in: {text}"));
    assert!(load(tensors, &VIT, Pooling::Token, Take::Encoder).is_err());
}
