//! `smalti distil`: a student that learns a teacher's embeddings.

use std::path::PathBuf;

use crate::support::{Folder, Outcome};

/// A model file of the runtime's tests.
fn model(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../runtime/tests/models").join(name).display().to_string()
}

/// A pretrained run `teacher`, and a student of it.
fn distil(folder: &Folder, args: &[&str]) -> Outcome {
    folder.tiny(
        "distil",
        &[&["--data=data", "--teacher=teacher", "--out=student", "--crops=2", "--epochs=3"], args].concat(),
    )
}

#[test]
fn a_student_is_a_run_that_other_commands_use() {
    let folder = Folder::with_data();
    folder.pretrained("teacher");
    let found = distil(&folder, &["--json"]).json(&["run", "steps", "loss", "images"]);
    assert_eq!((found["steps"].as_u64(), found["images"].as_u64()), (Some(15), Some(40)));
    assert!(found["loss"].as_f64().unwrap() > 0.0);
    let files =
        ["config.toml", "metrics.jsonl", "teacher/pass-000.safetensors", "teacher/pass-001.safetensors"];
    assert!(files.iter().all(|name| folder.path("student").join(name).is_file()));
    let metrics = crate::support::read(&folder.path("student/metrics.jsonl"));
    assert_eq!(
        metrics.matches("knn_accuracy").count(),
        3,
        "the labels that there are tell whether it learns"
    );
    let tensors = String::from_utf8_lossy(&folder.tensors("student")).into_owned();
    assert!(
        tensors.contains("blocks.0.attn.qkv.weight") && !tensors.contains("head.weight"),
        "no projection"
    );

    folder.run(&["embed", "student", "--data=data", "-o", "e.safetensors"]).ok();
    folder.run(&["eval", "student", "--data=data", "--probe=linear", "--json"]).json(&["accuracy"]);
    folder.run(&["eval", "student", "--data=data"]).fails(5, &["without a head", "finetune --init"]);
    folder.run(&["export", "student", "-o", "e.onnx", "--json"]).json(&["selftest"]);
    let args =
        ["--data=data", "--init=student", "--out=fine", "--head=probe", "--ema=0.9", "--interpolate=0.5"];
    folder.run(&[&["finetune", "--steps=6", "--batch-size=8"], &args[..]].concat()).ok();
    folder.run(&["export", "fine"]).ok();
    // A student may teach.
    let hybrid =
        ["--model=hybrid-nano", "--depth=2", "--dim=128", "--heads=4", "--patch-size=16", "--img-size=32"];
    distil(&folder, &[&["--teacher=student", "--out=second"], &hybrid[..]].concat()).ok();
    folder.run(&["export", "second", "-o", "second.onnx"]).ok();
}

#[test]
fn threads_change_no_bit_and_a_finished_run_is_left_alone() {
    let folder = Folder::with_data();
    folder.pretrained("teacher");
    distil(&folder, &["--threads=1"]).ok();
    distil(&folder, &["--threads=2", "--loader-threads=2", "--out=other"]).ok();
    assert_eq!(folder.tensors("student"), folder.tensors("other"));
    let before = folder.tensors("student");
    folder.run(&["distil", "--resume", "--out=student"]).ok();
    assert_eq!(before, folder.tensors("student"));
}

#[test]
fn what_the_teacher_said_is_kept_and_bound_to_it() {
    let folder = Folder::with_data();
    folder.pretrained("teacher");
    distil(&folder, &[]).ok();
    let first = folder.path("student/teacher/pass-000.safetensors");
    let (before, whole) = (std::fs::metadata(&first).unwrap().modified().unwrap(), folder.tensors("student"));
    // As after an interruption: the state is gone, and one pass.
    std::fs::remove_file(folder.path("student/checkpoints/last.state")).unwrap();
    std::fs::remove_file(folder.path("student/teacher/pass-001.safetensors")).unwrap();
    folder.run(&["distil", "--resume", "--out=student"]).ok();
    assert_eq!(before, std::fs::metadata(&first).unwrap().modified().unwrap());
    assert_eq!(whole, folder.tensors("student"));

    std::fs::remove_file(folder.path("student/checkpoints/last.state")).unwrap();
    folder.tiny("pretrain", &["--data=data", "--dec-dim=8", "--out=teacher", "--overwrite", "--seed=5"]).ok();
    folder.run(&["distil", "--resume", "--out=student"]).fails(5, &["pass-000", "another teacher"]);
}

#[test]
fn an_onnx_file_may_teach() {
    let folder = Folder::with_data();
    for name in ["colours_f32.onnx", "colours_u8.onnx", "timm_vit.onnx"] {
        let teacher = format!("--teacher={}", model(name));
        let found = distil(&folder, &[&teacher, "--overwrite", "--json"]).json(&["loss"]);
        assert!(found["loss"].as_f64().unwrap().is_finite(), "{name}");
    }
    let picture = format!("--teacher={}", model("red.png"));
    distil(&folder, &[&picture, "--overwrite"]).fails(3, &["red.png"]);
    distil(&folder, &["--teacher=nothing.onnx", "--overwrite"]).fails(6, &["nothing.onnx"]);
    let teacher = format!("--teacher={}", model("colours_f32.onnx"));
    distil(&folder, &[&teacher, "--teacher-output=x", "--overwrite"]).fails(2, &["output `x`"]);
    distil(&folder, &[&teacher, "--channels=1", "--overwrite"]).fails(2, &["channels"]);
    distil(&folder, &[&teacher, "--crops=0", "--overwrite"]).fails(2, &["crops"]);
}

/// A teacher that averages a vector for each of 2 x 2 places.
fn teacher_with_places(folder: &Folder) -> String {
    let hybrid =
        ["--model=hybrid-nano", "--depth=1", "--dim=32", "--heads=2", "--patch-size=16", "--img-size=32"];
    folder.pretrained("teacher");
    distil(folder, &[&["--out=places"], &hybrid[..]].concat()).ok();
    folder.run(&["export", "places", "-o", "places.onnx"]).ok();
    format!("--teacher={}", folder.path("places.onnx").display())
}

#[test]
fn a_student_learns_places_where_the_teacher_has_them() {
    let folder = Folder::with_data();
    let teacher = teacher_with_places(&folder);
    let files = ["whitening", "tokens-000", "tokens-001"];
    let file = |run: &str, name: &str| folder.path(run).join(format!("teacher/{name}.safetensors"));
    distil(&folder, &[&teacher, "--threads=1"]).ok();
    assert!(files.iter().all(|name| file("student", name).is_file()));
    assert_eq!(folder.settings("student")["token-targets"].as_bool(), Some(true));
    let whole = folder.tensors("student");
    assert!(!String::from_utf8_lossy(&whole).contains("head."), "no projection");

    distil(&folder, &[&teacher, "--threads=2", "--loader-threads=2", "--out=other"]).ok();
    assert_eq!(whole, folder.tensors("other"), "threads change no bit");
    distil(&folder, &[&teacher, "--no-token-targets", "--out=without"]).ok();
    assert!(files.iter().all(|name| !file("without", name).exists()));
    assert_ne!(whole, folder.tensors("without"));

    // As after an interruption: the state is gone, and what was said last.
    std::fs::remove_file(folder.path("student/checkpoints/last.state")).unwrap();
    std::fs::remove_file(file("student", "tokens-001")).unwrap();
    folder.run(&["distil", "--resume", "--out=student"]).ok();
    assert_eq!(whole, folder.tensors("student"));
    std::fs::copy(file("student", "tokens-000"), file("student", "tokens-001")).unwrap();
    std::fs::remove_file(folder.path("student/checkpoints/last.state")).unwrap();
    folder.run(&["distil", "--resume", "--out=student"]).fails(5, &["tokens-001", "other crops"]);
}

#[test]
fn places_are_asked_for_where_there_are_some() {
    let folder = Folder::with_data();
    let teacher = teacher_with_places(&folder);
    distil(&folder, &[&teacher, "--token-targets", "--cutmix=1"]).fails(2, &["--no-token-targets"]);
    distil(&folder, &[&teacher, "--cutmix=1", "--overwrite"]).ok();
    assert_eq!(folder.settings("student")["token-targets"].as_bool(), Some(false));
    let teacher = format!("--teacher={}", model("colours_f32.onnx"));
    distil(&folder, &[&teacher, "--token-targets", "--overwrite"]).fails(2, &["square grid"]);
}

#[test]
fn a_budget_is_kept() {
    let folder = Folder::with_data();
    folder.pretrained("teacher");
    let args = ["--data=data", "--teacher=teacher", "--out=student", "--budget=3s", "--dim=16", "--depth=1"];
    let found =
        folder.run(&[&["distil", "--heads=2", "--batch-size=8", "-t1", "--json"], &args[..]].concat());
    let found = found.json(&["steps", "seconds"]);
    assert!(found["steps"].as_u64().unwrap() > 5 && found["seconds"].as_f64().unwrap() < 30.0, "{found}");
    let steps = folder.settings("student")["steps"].as_integer().unwrap();
    assert_eq!(found["steps"].as_i64(), Some(steps), "a repetition needs no clock");
    folder.tiny("distil", &[&args[..], &["--budget=soon", "--overwrite"]].concat()).fails(2, &["--epochs"]);
}
