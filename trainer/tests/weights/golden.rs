//! Files of timm and Hugging Face, against what these programs compute from them (`tests/golden/make_weights.py`).

use std::collections::BTreeMap;

use smalti_models::{Pooling, VitConfig};
use smalti_trainer::model::weights::positions::Filter;
use smalti_trainer::model::weights::{Take, Tensor, Tensors, Weights, file};
use smalti_trainer::model::{Classifier, classifier};
use smalti_trainer::objective::mask::Mask;

use crate::support::{golden, refused};

/// How far f32 may be from values computed in f64.
const TOLERANCE: f32 = 1e-5;

fn expected() -> Tensors {
    file::load(&golden("expected.safetensors")).unwrap().0
}

fn check(what: &str, found: &[f32], want: &[f32]) {
    assert_eq!(found.len(), want.len(), "{what}");
    let off = found.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= TOLERANCE, "{what} is off by {off:.1e}");
}

/// The embeddings of the golden images by a file's encoder, on images of `img_size`.
fn embeddings(name: &str, pool: Pooling, img_size: usize, pixels: &Tensor) -> Vec<f32> {
    let weights = Weights::open(&golden(&format!("{name}.safetensors"))).unwrap();
    let vit = VitConfig { img_size, ..weights.sizes().unwrap().with_heads(3) };
    let model = Classifier::new(&vit, 3, pool).unwrap();
    let mut params = model.layout().init::<f32>(1);
    let take = if img_size == 8 { Take::Embedding } else { Take::Encoder };
    let loaded = weights.load(model.layout(), &mut params, take).unwrap();
    assert_eq!(loaded.resampled, (img_size == 12).then_some([2, 3]));
    let batch = pixels.shape[0];
    let visible = Mask::none(batch, vit.patches()).visible;
    let input = classifier::Input {
        pixels: &pixels.values,
        visible: &visible,
        drop: None,
        batch,
        batch_weight: None,
    };
    let mut acts = classifier::Activations::default();
    model.predict(&params, input, &mut acts).1.to_vec()
}

#[test]
fn files_of_timm_and_hugging_face_compute_what_they_compute_there() {
    let expected = expected();
    for (name, pool) in [
        ("timm_token", Pooling::Token),
        ("timm_mean", Pooling::Mean),
        ("face_classifier", Pooling::Token),
        ("face_model", Pooling::Token),
        ("face_mae", Pooling::Token),
    ] {
        let want = &expected[&format!("embedding.{name}")].values;
        check(name, &embeddings(name, pool, 8, &expected["pixels"]), want);
    }
    let want = &expected["embedding.face_classifier"].values;
    check("face_memory", &embeddings("face_memory", Pooling::Token, 8, &expected["pixels"]), want);
}

#[test]
fn larger_images_are_embedded_as_timm_does_after_resampling() {
    let expected = expected();
    for (name, pool) in
        [("timm_token", Pooling::Token), ("timm_mean", Pooling::Mean), ("face_classifier", Pooling::Token)]
    {
        let want = &expected[&format!("larger.{name}")].values;
        check(name, &embeddings(name, pool, 12, &expected["larger"]), want);
    }
}

/// Files of networks with more than a plain vision transformer, and what they have.
const VARIANTS: [(&str, &str); 11] = [
    ("timm_registers", "registers=2,no-embed-class,layer-scale"),
    ("timm_placed_registers", "registers=2,no-embed-class,layer-scale"),
    ("timm_no_embed_class", "no-embed-class"),
    ("timm_qk_norm", "qk-norm,hidden=24"),
    ("timm_swiglu", "layer-scale,swiglu,hidden=36"),
    ("timm_swiglu_packed", "qk-norm,swiglu,hidden=24"),
    ("timm_distilled", "registers=1,no-embed-class"),
    ("face_dinov2", "layer-scale"),
    ("face_swiglu", "layer-scale,swiglu,hidden=32"),
    ("face_registers", "registers=3,no-embed-class,layer-scale"),
    ("face_deit", "registers=1,no-embed-class"),
];

#[test]
fn variants_compute_what_they_compute_in_timm_and_hugging_face() {
    let expected = expected();
    let mut larger = 0;
    for (name, variant) in VARIANTS {
        let weights = Weights::open(&golden(&format!("{name}.safetensors"))).unwrap();
        let sizes = weights.sizes().unwrap();
        assert_eq!(sizes.variant.to_string(), variant, "{name}");
        assert_eq!(sizes.heads, variant.contains("qk-norm").then_some(3), "{name}");
        let want = &expected[&format!("embedding.{name}")].values;
        check(name, &embeddings(name, weights.pool(), 8, &expected["pixels"]), want);
        if let Some(want) = expected.get(&format!("larger.{name}")) {
            check(name, &embeddings(name, weights.pool(), 12, &expected["larger"]), &want.values);
            larger += 1;
        }
    }
    assert_eq!(larger, 9);
}

#[test]
fn positions_are_resampled_as_in_timm() {
    let expected = expected();
    let mut cases = 0;
    for (name, want) in &expected {
        let Some((from, to)) = name.strip_prefix("positions.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let found = Filter::Antialiased.resample(
            &expected[&format!("positions.{from}")].values,
            want.shape[2],
            from.parse().unwrap(),
            to.parse().unwrap(),
        );
        check(name, &found, &want.values);
        cases += 1;
    }
    assert_eq!(cases, 10);
}

#[test]
fn heads_decoders_and_poolers_are_left_out_and_said() {
    for (name, left, fresh) in [
        ("timm_token", "head.weight", "`head.weight`"),
        ("face_classifier", "classifier.weight", "`head.weight`"),
        ("face_model", "pooler.dense.weight", "`head.weight`"),
        ("face_mae", "decoder.decoder_pred.weight", "`head.weight`"),
    ] {
        let weights = Weights::open(&golden(&format!("{name}.safetensors"))).unwrap();
        let model = Classifier::new(&weights.sizes().unwrap().with_heads(3), 3, Pooling::Token).unwrap();
        let mut params = model.layout().init::<f32>(1);
        let loaded = weights.load(model.layout(), &mut params, Take::Encoder).unwrap();
        assert!(loaded.left_out.iter().any(|out| out.name == left), "{loaded:?}");
        assert_eq!(loaded.fresh, ["head.weight", "head.bias"]);
        let line = loaded.to_string();
        assert!(line.contains(fresh) && !line.contains('\n'), "{line}");
    }
}

/// A tensor that the refusal of each network names.
const NAMED: [(&str, &str); 10] = [
    ("timm-pre-norm", "norm_pre.bias"),
    ("timm-mlp-norm", "blocks.0.mlp.norm.bias"),
    ("timm-attention-norm", "blocks.0.attn.norm.bias"),
    ("timm-attention-pooling", "attn_pool.kv.bias"),
    ("timm-no-class-token", "cls_token"),
    ("timm-no-qkv-bias", "blocks.0.attn.qkv.bias"),
    ("timm-relative", "blocks.0.attn.rel_pos.mlp.fc1.bias"),
    ("timm-beit", "blocks.0.attn.relative_position_bias_table"),
    ("face-beit", "encoder.layer.0.lambda_1"),
    ("face-ijepa", "embeddings.cls_token"),
];

#[test]
fn other_networks_of_timm_and_hugging_face_are_refused_by_name() {
    let text = std::fs::read(golden("refused.json")).unwrap();
    let networks: BTreeMap<String, BTreeMap<String, Vec<usize>>> = serde_json::from_slice(&text).unwrap();
    assert_eq!(networks.len(), NAMED.len());
    for (network, named) in NAMED {
        let zeros = |shape: &Vec<usize>| Tensor::new(shape, vec![0.0; shape.iter().product()]);
        let tensors = networks[network].iter().map(|(name, shape)| (name.clone(), zeros(shape)));
        refused(&tensors.collect(), &[&format!("`{named}`")]);
    }
}
