//! `smalti import`: weights of timm and Hugging Face as runs, and what works on them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use smalti_trainer::model::weights::{Tensors, file, save};

use crate::support::{Folder, Outcome, read};

/// A file that timm or Hugging Face saved (`tests/golden/make_weights.py`): 8 pixels, patch 4, width 12, 3 heads.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/weights").join(name)
}

/// A folder as Hugging Face has it, for images of 16 pixels.
fn hugging_face(folder: &Folder, name: &str, weights: &str) {
    let place = folder.path(name);
    std::fs::create_dir(&place).unwrap();
    std::fs::copy(golden(weights), place.join("model.safetensors")).unwrap();
    let config = json!({
        "model_type": "dinov2", "num_attention_heads": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
        "id2label": {"0": "cat", "1": "dog", "2": "hen"}
    });
    let preprocessor = json!({
        "size": {"shortest_edge": 20}, "do_center_crop": true, "crop_size": {"height": 16, "width": 16},
        "resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]
    });
    std::fs::write(place.join("config.json"), config.to_string()).unwrap();
    std::fs::write(place.join("preprocessor_config.json"), preprocessor.to_string()).unwrap();
}

fn import(folder: &Folder, source: &str, args: &[&str]) -> Outcome {
    folder.run(&[&["import", source, "-o", "run", "--overwrite", "-v"], args].concat())
}

fn written(folder: &Folder, name: &str) -> Value {
    serde_json::from_str(&read(&folder.path("run/checkpoints").join(name))).unwrap()
}

fn tensors(folder: &Folder, run: &str) -> Tensors {
    file::load(&folder.path(run).join("checkpoints/last.safetensors")).unwrap().0
}

#[test]
fn everything_works_on_an_encoder_without_a_head() {
    let folder = Folder::with_data();
    hugging_face(&folder, "dino", "face_registers.safetensors");
    let done = import(&folder, "dino", &["--json"]);
    assert!(done.err.contains("positions resampled from 2x2 to 4x4 patches"), "{}", done.err);
    let found = done.json(&["run", "parameters", "preprocess"]);
    assert_eq!(
        (&found["pool"], &found["classes"], &found["img_size"]),
        (&json!("token"), &json!(0), &json!(16))
    );
    assert_eq!(found["variant"], "registers=3,no-embed-class,layer-scale");
    assert_eq!(written(&folder, "preprocessor_config.json")["size"]["shortest_edge"], 20);
    assert!(tensors(&folder, "run").keys().all(|name| !name.starts_with("head")));

    for probe in ["knn", "linear"] {
        folder.run(&["eval", "run", "--data=data", "--probe", probe, "--json"]).json(&["accuracy"]);
    }
    folder.run(&["eval", "run", "--data=data"]).fails(5, &["without a head", "--probe"]);
    folder.run(&["embed", "run", "--data=data", "-o", "e.safetensors"]).ok();

    // Exported, it gives embeddings: those of `smalti embed`.
    let found = folder.run(&["export", "run", "-o", "m.onnx", "--json"]).json(&["selftest"]);
    assert_eq!(found["classes"], 0);
    let model = smalti_runtime::Model::open(folder.path("m.onnx")).unwrap();
    assert_eq!((model.output_name(), model.record().unwrap().task.as_str()), ("embedding", "embed"));
    let (tensors, about) = file::load(&folder.path("e.safetensors")).unwrap();
    let place = folder.path(about["places"][0].as_str().unwrap());
    let image = smalti_models::image::open(&place, &Default::default()).unwrap();
    let mut answer = model.output();
    model.session().unwrap().run_image_into(image.view(), &mut answer).unwrap();
    let want = &tensors["embeddings"].values[..12];
    let off = answer.logits.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-4, "{off}");

    // Fine-tuned, it pools as it was trained, and all of its tensors move.
    let finetune = ["finetune", "--data=data", "--init=run", "--out=fine", "--epochs=3", "-t2", "--lr=0.01"];
    folder.run(&finetune).ok();
    assert_eq!(folder.settings("fine")["pool"].as_str(), Some("token"));
    assert_eq!(folder.settings("fine")["variant"].as_str(), Some("registers=3,no-embed-class,layer-scale"));
    let (before, after) = (self::tensors(&folder, "run"), self::tensors(&folder, "fine"));
    for (name, tensor) in before {
        assert_ne!(after[&name].values, tensor.values, "{name}");
    }
    folder.run(&["export", "fine", "-o", "f.onnx"]).ok();
    folder.run(&[&finetune[..], &["--overwrite", "--img-size=24"]].concat()).ok();
    let text = read(&folder.path("fine/checkpoints/preprocessor_config.json"));
    let preprocess: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(preprocess["size"]["shortest_edge"], 30, "the crop keeps its share");
}

#[test]
fn a_head_comes_with_its_classes() {
    let folder = Folder::with_data();
    hugging_face(&folder, "vit", "face_classifier.safetensors");
    import(&folder, "vit", &[]).ok();
    assert_eq!(read(&folder.path("run/checkpoints/labels.txt")), "cat\ndog\nhen\n");
    folder.run(&["export", "run", "-o", "m.onnx"]).ok();
    let model = smalti_runtime::Model::open(folder.path("m.onnx")).unwrap();
    assert_eq!(model.labels(), ["cat", "dog", "hen"]);
    // A head that takes something else than the embedding is left out.
    hugging_face(&folder, "deit", "timm_distilled.safetensors");
    let done = import(&folder, "deit", &[]).ok();
    assert!(done.err.contains("left out (the head of other classes): `head.bias`"), "{}", done.err);
    assert!(!folder.path("run/checkpoints/labels.txt").exists());
}

#[test]
fn every_variant_is_exported_for_the_runtime_s_kernels() {
    let folder = Folder::empty();
    for name in [
        "timm_registers",
        "timm_no_embed_class",
        "timm_qk_norm",
        "timm_swiglu",
        "timm_swiglu_packed",
        "timm_mean",
        "face_dinov2",
        "face_swiglu",
    ] {
        let source = golden(&format!("{name}.safetensors"));
        let source = source.to_str().unwrap();
        let args: &[&str] = if name.contains("qk") || name.contains("packed") { &[] } else { &["--heads=3"] };
        let done = import(&folder, source, args).ok();
        assert!(done.err.contains("ImageNet's mean and std are assumed"), "{}", done.err);
        // The trainer's runtime has no tract: what it runs, its kernels run.
        for form in ["u8-nhwc", "f32-nchw"] {
            folder.run(&["export", "run", "-o", "m.onnx", "--input", form]).ok();
        }
    }
}

#[test]
fn what_cannot_be_imported_is_named() {
    let folder = Folder::with_data();
    let with = |name: &str, shape: &[usize]| {
        let (mut tensors, details) = file::load(&golden("timm_registers.safetensors")).unwrap();
        tensors.insert(name.into(), file::Tensor::new(shape, vec![1.0; shape.iter().product()]));
        let all = tensors.iter().map(|(name, tensor)| (name.as_str(), &tensor.shape[..], &tensor.values[..]));
        save(&folder.path("w.safetensors"), all, &details).unwrap();
    };
    with("blocks.0.mlp.norm.weight", &[12]);
    import(&folder, "w.safetensors", &["--heads=3"])
        .fails(5, &["`blocks.0.mlp.norm.weight`", "norm within the MLP"]);
    with("blocks.1.ls1.gamma", &[12]);
    import(&folder, "w.safetensors", &["--heads=3"]).fails(5, &["lacks tensor `blocks.1.norm1.weight`"]);
    with("head.bias", &[3]);
    import(&folder, "w.safetensors", &[]).fails(2, &["--heads", "width 12"]);
    import(&folder, "w.safetensors", &["--heads=5"]).fails(2, &["heads is 5"]);
    import(&folder, "w.safetensors", &["--heads=3", "--img-size=10"])
        .fails(2, &["img-size is 10", "patch size 4"]);
    import(&folder, "w.safetensors", &["--heads=3", "--mean=0,0,0"]).fails(2, &["--mean and --std"]);
    let moments = ["--heads=3", "--mean=0.5,0.5,0.5", "--std=0,1,1"];
    import(&folder, "w.safetensors", &moments).fails(2, &["std"]);
    import(&folder, "data", &[]).fails(5, &["holds no model.safetensors"]);
    folder.run(&["import", "nowhere", "-o", "run"]).fails(6, &["nowhere"]);
    folder.run(&["import", "w.safetensors"]).fails(2, &["--out is missing"]);
    assert!(!folder.path("run").exists(), "nothing was begun");

    let config = |text: Value| std::fs::write(folder.path("config.json"), text.to_string()).unwrap();
    config(json!({"num_attention_heads": 3, "hidden_act": "quick_gelu"}));
    import(&folder, "w.safetensors", &[]).fails(5, &["config.json", "quick_gelu"]);
    config(json!({"architecture": "x", "global_pool": "avg", "model_args": {"num_heads": 3}}));
    import(&folder, "w.safetensors", &[]).fails(5, &["global_pool `avg`", "`fc_norm`"]);
    config(json!({"num_attention_heads": 3}));
    std::fs::write(folder.path("preprocessor_config.json"), r#"{"size": 8, "resample": 1}"#).unwrap();
    import(&folder, "w.safetensors", &[]).fails(5, &["preprocessor_config.json", "`resample`"]);
}

#[test]
fn an_import_owns_its_folder() {
    let folder = Folder::empty();
    let source = golden("timm_token.safetensors");
    let source = source.to_str().unwrap();
    let import = |args: &[&str]| folder.run(&[&["import", source, "--heads=3"], args].concat());
    import(&["-o", "run"]).ok();
    import(&["-o", "run"]).fails(2, &["smalti import", "--overwrite"]);
    import(&["-o", "run", "--overwrite"]).ok();
    folder
        .run(&["finetune", "--data=x", "--init=scratch", "--out=run", "--resume"])
        .fails(2, &["smalti import"]);
    std::fs::create_dir(folder.path("mine")).unwrap();
    std::fs::write(folder.path("mine/config.toml"), "mine").unwrap();
    import(&["-o", "mine", "--overwrite"]).fails(2, &["not written by smalti"]);
    // What is read is never removed.
    let own = "run/checkpoints/last.safetensors";
    let args = ["import", own, "--heads=3", "-o", "run", "--overwrite"];
    folder.run(&args).fails(2, &["run/checkpoints", "--overwrite"]);
    assert!(folder.path(own).is_file());
}

#[test]
fn weights_teach_without_being_imported() {
    let folder = Folder::with_data();
    hugging_face(&folder, "dino", "face_registers.safetensors");
    import(&folder, "dino", &["--img-size=12"]).ok();
    let distil =
        |args: &[&str]| folder.tiny("distil", &[&["--data=data", "--crops=1", "--epochs=2"], args].concat());
    distil(&["--teacher=run", "--out=a"]).ok();
    distil(&["--teacher=dino", "--teacher-img-size=12", "--out=b"]).ok();
    distil(&["--teacher=dino/model.safetensors", "--teacher-img-size=12", "--out=c"]).ok();
    let learned = |run: &str| tensors(&folder, run).into_iter().map(|(name, tensor)| (name, tensor.values));
    assert!(learned("a").eq(learned("b")) && learned("a").eq(learned("c")));

    distil(&["--teacher=run", "--teacher-img-size=12", "--out=d"]).fails(2, &["--teacher-img-size"]);
    distil(&["--teacher=dino", "--teacher-img-size=10", "--out=d"])
        .fails(2, &["multiple of the patch size 4"]);
    // What a run learned without labels, as the one file that `--init` and `--start` take.
    folder.run(&["export", "a", "-o", "start.safetensors"]).ok();
    distil(&["--teacher=start.safetensors", "--out=e"]).ok();
    let moments = ["--teacher=start.safetensors", "--teacher-mean=0,0,0", "--teacher-std=1,1,1", "--out=f"];
    distil(&moments).fails(2, &["states its own"]);
}
