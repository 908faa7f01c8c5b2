//! What fine-tuning can start from: runs, their files alone, files of timm and Hugging Face.

use std::path::{Path, PathBuf};

use serde_json::Value;
use smalti_trainer::model::weights::{file, save};

use crate::support::{Folder, Outcome, read};

/// A file that timm or Hugging Face saved (`tests/golden/make_weights.py`): 8 pixels, patch 4, width 12, 3 heads.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/weights").join(name)
}

fn finetune(folder: &Folder, init: &str, args: &[&str]) -> Outcome {
    let usual = ["finetune", "--data=data", "--epochs=1", "--threads=2", "--out=x", "--overwrite", "-v"];
    folder.run(&[&usual[..], &[&*format!("--init={init}")], args].concat())
}

/// The encoder that the fine-tuned run has.
fn encoder(folder: &Folder) -> Value {
    let text = read(&folder.path("x/checkpoints/config.json"));
    serde_json::from_str::<Value>(&text).unwrap()["encoder"].clone()
}

#[test]
fn larger_images_than_in_pretraining() {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    let done = finetune(&folder, "pre", &["--img-size=32"]).ok();
    assert!(done.err.contains("positions resampled from 4x4 to 8x8 patches"), "{}", done.err);
    assert_eq!((&encoder(&folder)["img-size"], &encoder(&folder)["patch-size"]), (&32.into(), &4.into()));
    let preprocess = |run: &str| -> Value {
        let text = read(&folder.path(run).join("checkpoints/preprocessor_config.json"));
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(preprocess("x")["image_mean"], preprocess("pre")["image_mean"]);
    assert_ne!(preprocess("x")["size"], preprocess("pre")["size"]);
    folder.run(&["eval", "x", "--data=data"]).ok();
    folder.run(&["export", "x"]).ok();
    finetune(&folder, "pre", &["--img-size=30"])
        .fails(2, &["patch-size is 4", "divisor of the image size 30"]);
}

#[test]
fn a_file_of_ours_says_what_it_is() {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    std::fs::copy(folder.path("pre/checkpoints/last.safetensors"), folder.path("bare.safetensors")).unwrap();
    let done = finetune(&folder, "bare.safetensors", &[]).ok();
    assert!(done.err.contains("left out (the decoder of an autoencoder)"), "{}", done.err);
    assert_eq!((&encoder(&folder)["dim"], &encoder(&folder)["heads"]), (&16.into(), &2.into()));
    // A fine-tuned file says so too.
    std::fs::copy(folder.path("x/checkpoints/last.safetensors"), folder.path("bare.safetensors")).unwrap();
    let done = finetune(&folder, "bare.safetensors", &[]).ok();
    assert!(done.err.contains("left out (the head of other classes)"), "{}", done.err);
    finetune(&folder, "bare.safetensors", &["--heads=4"]).fails(2, &["heads is 4", "--init has 2"]);
}

#[test]
fn files_of_timm_and_hugging_face_need_no_size_flags_but_heads() {
    let folder = Folder::with_data();
    for name in ["timm_token.safetensors", "face_classifier.safetensors", "face_mae.safetensors"] {
        std::fs::copy(golden(name), folder.path(name)).unwrap();
        finetune(&folder, name, &[]).fails(2, &["--heads", "width 12"]);
        let done = finetune(&folder, name, &["--heads=3", "--img-size=16"]).ok();
        assert!(done.err.contains("positions resampled from 2x2 to 4x4 patches"), "{}", done.err);
        let found = encoder(&folder);
        assert_eq!(
            (&found["dim"], &found["depth"], &found["patch-size"]),
            (&12.into(), &2.into(), &4.into())
        );
    }
    for (flag, said) in [
        ("--patch-size=8", "--patch-size is 8"),
        ("--depth=3", "--depth is 3"),
        ("--dim=16", "--dim is 16"),
        ("--channels=1", "--channels is 1"),
        ("--model=tiny", "--model tiny"),
    ] {
        finetune(&folder, "timm_token.safetensors", &["--heads=3", flag]).fails(5, &[said, "leave"]);
    }
    std::fs::write(folder.path("config.json"), r#"{"num_attention_heads": 3, "hidden_act": "gelu"}"#)
        .unwrap();
    finetune(&folder, "face_classifier.safetensors", &[]).ok();
    assert_eq!((&encoder(&folder)["heads"], &encoder(&folder)["img-size"]), (&3.into(), &8.into()));
}

/// Writes the tensors of a file with one more.
fn write_with(from: &Path, name: &str, to: &Path) {
    let (mut tensors, details) = file::load(from).unwrap();
    tensors.insert(name.into(), file::Tensor::new(&[12], vec![1.0; 12]));
    let all = tensors.iter().map(|(name, tensor)| (name.as_str(), &tensor.shape[..], &tensor.values[..]));
    save(to, all, &details).unwrap();
}

#[test]
fn a_run_whose_weights_changed_is_refused_before_training() {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    let weights = folder.path("pre/checkpoints/last.safetensors");
    for name in ["blocks.1.norm1.weight", "reg_token"] {
        let before = std::fs::read(&weights).unwrap();
        write_with(&weights, name, &weights);
        let finetune = ["finetune", "--data=data", "--init=pre", "--out=x", "--epochs=1"];
        folder.run(&finetune).fails(5, &[name]);
        assert!(!folder.path("x").exists());
        folder.run(&["eval", "pre", "--data=data", "--probe=knn"]).fails(5, &[name]);
        std::fs::write(&weights, before).unwrap();
    }
}

#[test]
fn a_file_of_another_network_is_refused_before_training() {
    let folder = Folder::with_data();
    write_with(&golden("timm_token.safetensors"), "blocks.0.gamma_1", &folder.path("w.safetensors"));
    finetune(&folder, "w.safetensors", &["--heads=3"]).fails(5, &["`blocks.0.gamma_1`", "LayerScale"]);
    assert!(!folder.path("x").exists());
    std::fs::write(folder.path("w.safetensors"), b"PK\x03\x04 a zip archive").unwrap();
    finetune(&folder, "w.safetensors", &[]).fails(5, &["PyTorch", "save_file"]);
}
