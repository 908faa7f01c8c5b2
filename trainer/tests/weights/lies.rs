//! Each way in which a file can be another network's, or damaged, or contradict itself.

use safetensors::Dtype;
use smalti_models::{Pooling, VitConfig};
use smalti_trainer::model::Classifier;
use smalti_trainer::model::weights::{Beside, Take, Tensor, Tensors, Weights, file, save_model};

use crate::support::{VIT, hugging_face, load, mae, read, refused, tensor, timm};

/// The file with one more tensor.
fn with(name: &str, shape: &[usize]) -> Tensors {
    let mut tensors = timm(&VIT);
    tensors.insert(name.into(), tensor(name, shape));
    tensors
}

/// The file without some of its tensors.
fn without(names: &[&str]) -> Tensors {
    let mut tensors = timm(&VIT);
    names.iter().for_each(|name| assert!(tensors.remove(*name).is_some(), "{name}"));
    tensors
}

/// The file with a prefix in front of all names.
fn behind(prefix: &str, tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
}

#[test]
fn parts_of_other_networks_are_named() {
    for (name, kind) in [
        ("blocks.0.gamma_1", "LayerScale"),
        ("blocks.1.attn.norm.weight", "norms within attention"),
        ("blocks.0.mlp.norm.weight", "norm within the MLP"),
        ("blocks.0.mlp.w12.weight", "SwiGLU"),
        ("blocks.0.attn.relative_position_bias_table", "relative positions"),
        ("norm_pre.weight", "norm before the blocks"),
        ("rope.freqs", "rotary positions"),
        ("blocks.0.attn.proj.lora_A", ""),
        ("fc.weight", ""),
    ] {
        refused(&with(name, &[8]), &[&format!("`{name}`"), kind]);
    }
}

/// What one block alone has, all must have, in shapes that fit.
#[test]
fn parts_of_a_variant_are_complete_or_refused() {
    let variant = "layer-scale,qk-norm".parse().unwrap();
    let whole = timm(&VitConfig { variant, ..VIT });
    assert_eq!(read(&whole).unwrap().sizes().unwrap().with_heads(2), VitConfig { variant, ..VIT });
    for (name, missing) in [
        ("blocks.0.ls1.gamma", "`blocks.0.ls2.gamma`"),
        ("blocks.1.ls2.gamma", "`blocks.0.ls1.gamma`"),
        ("blocks.1.attn.q_norm.weight", "`blocks.0.attn.q_norm.weight`"),
    ] {
        let shape = whole[name].shape.clone();
        refused(&with(name, &shape), &["lacks tensor", missing]);
        let mut without = whole.clone();
        without.remove(name).unwrap();
        refused(&without, &["lacks tensor", &format!("`{name}`")]);
        let mut wrong = whole.clone();
        wrong.insert(name.into(), tensor(name, &[7]));
        refused(&wrong, &[&format!("`{name}` is [7]")]);
    }
    let mut gate = timm(&VIT);
    gate.remove("blocks.0.mlp.fc1.weight").unwrap();
    gate.insert("blocks.0.mlp.fc1_g.weight".into(), tensor("g", &[32, 8]));
    refused(&gate, &["`blocks.0.mlp.fc1.bias` is [32], expected [64]"]);
    let mut placed = with("reg_token", &[1, 2, 8]);
    assert_eq!(read(&placed).unwrap().sizes().unwrap().variant.registers, 2);
    placed.insert("pos_embed".into(), tensor("p", &[1, 6, 8]));
    refused(&placed, &["`pos_embed` is [1, 6, 8]"]);
    refused(&with("reg_token", &[2, 8]), &["`reg_token` is [2, 8]"]);
    let mut both = with("reg_token", &[1, 2, 8]);
    both.insert("dist_token".into(), tensor("d", &[1, 1, 8]));
    both.insert("pos_embed".into(), tensor("p", &[1, 4, 8]));
    refused(&both, &["does not have: `dist_token`"]);
}

#[test]
fn a_file_of_something_else_holds_nothing_of_ours() {
    let names = [
        "conv1.weight",
        "layer1.0.bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer1.0.conv2.weight",
        "layer1.1.conv1.weight",
    ];
    let resnet: Tensors = names.iter().map(|name| (name.to_string(), tensor(name, &[3]))).collect();
    refused(&resnet, &["no vision transformer", "`conv1.weight`", "and 1 more"]);
    refused(&Tensors::new(), &["no vision transformer", "no tensors"]);
    let head = Tensors::from([("head.weight".into(), tensor("head.weight", &[3, 8]))]);
    refused(&head, &["no vision transformer", "`head.weight`"]);
}

#[test]
fn two_encoders_in_one_file_are_refused() {
    let one = timm(&VIT);
    let mut twice = one.clone();
    twice.extend(behind("module.", &one));
    refused(&twice, &["two networks", "`blocks.0.attn.proj.bias`", "`module.blocks.0.attn.proj.bias`"]);
    let mut teacher = one.clone();
    teacher.extend(behind("teacher.", &one));
    refused(&teacher, &["`teacher.blocks.0.attn.proj.bias`"]);
    let mut both = one.clone();
    both.extend(hugging_face(&one, ""));
    refused(&both, &["two networks", "`embeddings.cls_token`"]);
    let mut split = without(&["cls_token"]);
    split.extend(Tensors::from([("model.cls_token".into(), tensor("cls_token", &[1, 1, 8]))]));
    refused(&split, &["`model.cls_token`"]);
}

#[test]
fn one_tensor_under_two_names_is_refused() {
    refused(&with("model.head.weight", &[3, 8]), &["`head.weight` and `model.head.weight` are the same"]);
    refused(&with("classifier.bias", &[3]), &["`classifier.bias` and `head.bias` are the same"]);
    let mut face = hugging_face(&timm(&VIT), "vit.");
    let name = "vit.encoder.layer.1.attention.k_proj.weight";
    face.insert(name.into(), tensor(name, &[8, 8]));
    refused(&face, &[name, "`vit.encoder.layer.1.attention.attention.key.weight`"]);
}

#[test]
fn missing_tensors_are_named() {
    refused(&without(&["blocks.1.mlp.fc2.bias"]), &["lacks tensor `blocks.1.mlp.fc2.bias`"]);
    refused(&without(&["cls_token"]), &["lacks tensor `cls_token`"]);
    refused(&without(&["pos_embed"]), &["lacks tensor `pos_embed`"]);
    refused(&without(&["patch_embed.proj.weight"]), &["lacks tensor `patch_embed.proj.weight`"]);
    refused(&without(&["norm.bias"]), &["lacks tensor `norm.bias`"]);
    refused(&without(&["norm.weight", "norm.bias"]), &["lacks tensor `norm.weight`", "fc_norm"]);
    let mut gap = timm(&VitConfig { depth: 3, ..VIT });
    gap.retain(|name, _| !name.starts_with("blocks.1."));
    refused(&gap, &["lacks tensor `blocks.1.norm1.weight`", "and 9 more"]);
    let names: Vec<String> = timm(&VIT).into_keys().filter(|name| name.starts_with("blocks.")).collect();
    refused(
        &without(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        &["lacks tensor `blocks.0.norm1.weight`"],
    );
}

#[test]
fn missing_tensors_have_the_file_s_names() {
    let mut face = hugging_face(&timm(&VIT), "vit.");
    face.remove("vit.encoder.layer.0.attention.attention.key.bias").unwrap();
    let key = "`vit.encoder.layer.0.attention.attention.key.bias` (in timm `blocks.0.attn.qkv.bias`)";
    refused(&face, &["lacks tensor", key]);
    let mut wrapped = behind("module.", &timm(&VIT));
    wrapped.remove("module.blocks.0.norm1.bias").unwrap();
    refused(&wrapped, &["`module.blocks.0.norm1.bias`"]);
}

#[test]
fn a_renamed_tensor_is_named() {
    let mut tensors = without(&["blocks.0.mlp.fc1.weight"]);
    tensors.insert("blocks.0.mlp.fc_1.weight".into(), tensor("x", &[32, 8]));
    refused(&tensors, &["`blocks.0.mlp.fc_1.weight`"]);
}

#[test]
fn shapes_that_differ_are_both_named() {
    let reshaped = |name: &str, shape: &[usize]| {
        let mut tensors = timm(&VIT);
        tensors.insert(name.into(), tensor(name, shape));
        tensors
    };
    for (name, shape, want) in [
        ("blocks.0.norm1.weight", &[9][..], "[8]"),
        ("blocks.0.norm1.weight", &[8, 1], "[8]"),
        ("blocks.0.norm1.weight", &[], "[8]"),
        ("blocks.1.mlp.fc1.weight", &[8, 32], "[32, 8]"),
        ("cls_token", &[1, 8], "[1, 1, 8]"),
        ("cls_token", &[1, 1, 0], "[1, 1, 8]"),
        ("pos_embed", &[1, 5, 7], "[1, 5, 8]"),
        ("pos_embed", &[5, 8], "[1, 1 + n², dim]"),
        ("pos_embed", &[1, 7, 8], "[1, 1 + n², dim]"),
        ("pos_embed", &[1, 0, 8], "[1, 1 + n², dim]"),
        ("patch_embed.proj.weight", &[8, 48], "[dim, channels, p, p]"),
        ("patch_embed.proj.weight", &[8, 3, 4, 2], "not square"),
    ] {
        refused(&reshaped(name, shape), &[&format!("{shape:?}"), want]);
    }
    // The other tensors contradict the one that says the width.
    refused(&reshaped("patch_embed.proj.weight", &[16, 3, 4, 4]), &["[1, 1, 8], expected [1, 1, 16]"]);
    for (shape, said) in [
        (&[0, 3, 4, 4][..], "dim is 0"),
        (&[8, 2, 4, 4], "channels is 2"),
        (&[8, 3, 0, 0], "img-size is 0"),
        (&[6, 3, 4, 4], "multiple of 4"),
    ] {
        refused(&reshaped("patch_embed.proj.weight", shape), &["no model that Smalti supports", said]);
    }
    let mut face = hugging_face(&timm(&VIT), "");
    let name = "encoder.layer.0.attention.attention.query.weight";
    face.insert(name.into(), tensor(name, &[24, 8]));
    refused(&face, &[name, "[24, 8]", "[8, 8]"]);
}

#[test]
fn a_deep_or_numberless_block_is_refused() {
    refused(&with("blocks.64.norm1.weight", &[8]), &["block 64"]);
    refused(&with(&format!("blocks.{}.norm1.weight", usize::MAX), &[8]), &["at most 64"]);
    for name in
        ["blocks.01.norm1.weight", "blocks.x.norm1.weight", "blocks..norm1.weight", "blocks.+1.norm1.weight"]
    {
        refused(&with(name, &[8]), &[name]);
    }
}

#[test]
fn integers_are_no_weights() {
    let integers = |name: &str| {
        let mut tensors = timm(&VIT);
        tensors.insert(name.into(), Tensor { shape: vec![8], dtype: Dtype::I64, values: Vec::new() });
        tensors
    };
    refused(&integers("blocks.0.norm1.weight"), &["`blocks.0.norm1.weight` is I64", "F32, F16 or BF16"]);
    refused(&integers("blocks.0.attn.relative_position_index"), &["relative positions"]);
    refused(&integers("num_batches_tracked"), &["`num_batches_tracked`"]);
    let error = load(&integers("head.bias"), &VIT, Pooling::Token, Take::Model).unwrap_err();
    assert!(error.to_string().contains("`head.bias` is I64"), "{error}");
    let (loaded, _) = load(&integers("position_ids"), &VIT, Pooling::Token, Take::Encoder).unwrap();
    assert!(loaded.left_out.iter().any(|left| left.name == "position_ids"), "{loaded:?}");
}

#[test]
fn a_shape_with_other_than_its_values_is_refused() {
    let mut tensors = timm(&VIT);
    tensors.insert("head.bias".into(), Tensor::new(&[3], vec![0.0; 2]));
    refused(&tensors, &["`head.bias` is [3], but has 2 values"]);
}

#[test]
fn two_last_norms_are_one_too_many() {
    refused(&with("fc_norm.weight", &[8]), &["two last norms, `fc_norm.weight`, `norm.bias`, `norm.weight`"]);
}

#[test]
fn the_norm_of_another_pooling_starts_fresh() {
    let values = |pool, take, name: &str| {
        let (loaded, params) = load(&timm(&VIT), &VIT, pool, take).unwrap();
        let model = Classifier::new(&VIT, 4, pool).unwrap();
        (loaded, model.layout().slot(name).unwrap().of(&params).to_vec())
    };
    let norm = timm(&VIT)["norm.weight"].values.clone();
    let (loaded, found) = values(Pooling::Mean, Take::Encoder, "fc_norm.weight");
    assert_eq!((found, loaded.fresh.len()), (vec![9.0; 8], 4));
    assert!(loaded.left_out.iter().any(|left| left.name == "norm.weight" && left.reason.contains("pools")));
    let (loaded, found) = values(Pooling::Token, Take::Encoder, "norm.weight");
    assert_eq!((found, loaded.fresh), (norm.clone(), vec!["head.weight".to_string(), "head.bias".into()]));
    // Embeddings have the norm that the encoder was trained with.
    let (loaded, found) = values(Pooling::Mean, Take::Embedding, "fc_norm.weight");
    assert_eq!((found, loaded.fresh.len()), (norm, 2));
}

#[test]
fn a_model_read_back_has_its_tensors_and_no_others() {
    let model = Classifier::new(&VIT, 3, Pooling::Token).unwrap();
    let read_back = |tensors: &Tensors| {
        let mut params = vec![0.0; model.layout().len()];
        read(tensors)?.load(model.layout(), &mut params, Take::Model).map(|loaded| (loaded, params))
    };
    let (loaded, params) = read_back(&timm(&VIT)).unwrap();
    assert!(loaded.left_out.is_empty() && loaded.fresh.is_empty());
    for (spec, slot) in model.layout().iter() {
        assert_eq!(slot.of(&params), timm(&VIT)[&spec.name].values, "{}", spec.name);
    }
    for (tensors, said) in [
        (without(&["head.bias"]), "lacks tensor `head.bias`"),
        (with("mask_token", &[1, 1, 8]), "`mask_token`"),
        (with("fc_norm.bias", &[8]), "`fc_norm.bias`"),
        (timm(&VitConfig { img_size: 16, ..VIT }), "`pos_embed` is [1, 17, 8], expected [1, 5, 8]"),
        (timm(&VitConfig { depth: 3, ..VIT }), "does not have: `blocks.2."),
    ] {
        let error = read_back(&tensors).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn sizes_come_from_shapes_and_own_files_state_the_heads() {
    let sizes = read(&timm(&VIT)).unwrap().sizes().unwrap();
    assert_eq!(sizes.with_heads(2), VIT);
    assert_eq!(read(&hugging_face(&timm(&VIT), "vit.")).unwrap().sizes().unwrap(), sizes);
    assert_eq!(read(&behind("model.backbone.", &mae(&VIT))).unwrap().sizes().unwrap(), sizes);
    assert!(read(&timm(&VIT)).unwrap().stated().unwrap().is_none());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let model = Classifier::new(&VIT, 3, Pooling::Mean).unwrap();
    let preprocess = serde_json::json!({"img-size": 8, "channels": 3, "fit": "crop", "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]});
    let save = |encoder: &VitConfig| {
        let details = serde_json::json!({"encoder": encoder, "preprocess": preprocess});
        save_model(&path, model.layout(), &model.layout().init::<f32>(1), &details).unwrap();
        Weights::open(&path).unwrap().stated()
    };
    assert_eq!(save(&VIT).unwrap().unwrap().0, VIT);
    assert!(save(&VitConfig { depth: 3, ..VIT }).unwrap_err().to_string().contains("its metadata states"));
    assert_eq!(save(&VitConfig { heads: 3, ..VIT }).unwrap_err().exit_code(), 5);
    assert_eq!(file::load(&path).unwrap().0.len(), model.layout().iter().count());
}

#[test]
fn a_configuration_beside_a_file_states_the_heads() {
    let folder = tempfile::tempdir().unwrap();
    let beside = |text: &str| {
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        Beside::network(folder.path()).map(|beside| beside.heads)
    };
    assert_eq!(beside(r#"{"num_attention_heads": 3, "hidden_act": "gelu"}"#).unwrap(), Some(3));
    assert_eq!(beside(r#"{"architecture": "vit", "model_args": {"num_heads": 4}}"#).unwrap(), Some(4));
    for other in ["", "[]", "{", r#"{"num_attention_heads": -1}"#, r#"{"hidden_act": "relu"}"#] {
        assert_eq!(beside(other).unwrap(), None, "{other}");
    }
    let error = beside(r#"{"num_attention_heads": 3, "hidden_act": "quick_gelu"}"#).unwrap_err();
    assert!(error.exit_code() == 5 && error.to_string().contains("quick_gelu"), "{error}");
}

#[test]
fn positions_follow_the_images_and_patches_do_not() {
    let larger = VitConfig { img_size: 16, ..VIT };
    let (loaded, params) = load(&timm(&VIT), &larger, Pooling::Token, Take::Encoder).unwrap();
    assert_eq!(loaded.resampled, Some([2, 4]));
    assert!(loaded.to_string().contains("positions resampled from 2x2 to 4x4 patches"), "{loaded}");
    let slot = Classifier::new(&larger, 4, Pooling::Token).unwrap().layout().slot("pos_embed").unwrap();
    assert_eq!(slot.of(&params)[..8], timm(&VIT)["pos_embed"].values[..8]);
    let error = |vit: &VitConfig, take| load(&timm(&VIT), vit, Pooling::Token, take).unwrap_err().to_string();
    let patches = error(&VitConfig { patch_size: 2, ..VIT }, Take::Encoder);
    assert!(patches.contains("[8, 3, 4, 4], expected [8, 3, 2, 2]: give --patch-size 4"), "{patches}");
    assert!(error(&VitConfig { channels: 1, ..VIT }, Take::Encoder).contains("give --channels 3"));
    assert!(error(&larger, Take::Embedding).contains("`pos_embed` is [1, 5, 8], expected [1, 17, 8]"));
}
