//! `smalti train`: from a folder of images to model files.

use serde_json::Value;

use crate::support::{Folder, read};

const KEYS: [&str; 11] = [
    "accuracy",
    "balanced_accuracy",
    "validation",
    "chosen",
    "start",
    "cpu_seconds",
    "parameters",
    "model",
    "int8_model",
    "int8_accuracy",
    "labels",
];

/// The smallest model.
const SMALL: [&str; 5] = ["--patch-size=4", "--dim=16", "--depth=1", "--heads=2", "--threads=2"];

fn train(folder: &Folder, args: &[&str]) -> crate::support::Outcome {
    folder.run(&[&["train", "data", "--out=out", "--budget=4s"], &SMALL[..], args].concat())
}

#[test]
fn a_folder_of_images_becomes_a_model() {
    let folder = Folder::with_data();
    let found = train(&folder, &["--json"]).json(&KEYS);
    assert_eq!((found["start"].as_str(), found["labels"].as_u64()), (Some("scratch"), Some(40)));
    assert!(found["accuracy"].as_f64().unwrap() <= 1.0 && found["n"].as_u64() == Some(20), "{found}");
    assert!(folder.path("out/model.onnx").is_file());
    let report: Value = serde_json::from_str(&read(&folder.path("out/report.json"))).unwrap();
    assert_eq!(report["model"], found["model"]);
    // Each stage is a run of its own.
    folder.run(&["eval", "out/finetune", "--data=data"]).ok();
    train(&folder, &[]).fails(2, &["--overwrite"]);
    folder.run(&["train", "data", "--out=out", "--resume", "--json"]).json(&KEYS);
    train(&folder, &["--overwrite", "--json"]).json(&KEYS);
}

#[test]
fn a_teacher_is_learned_from_and_candidates_compete() {
    let folder = Folder::with_data();
    folder.pretrained("teacher");
    let found = train(&folder, &["--teacher=teacher", "--json"]).json(&KEYS);
    assert_eq!(found["start"].as_str(), Some("distilled"));
    let validation = found["validation"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&validation), "{found}");
    assert!(folder.path("out/distil/checkpoints/last.safetensors").is_file());
    assert!(found["cpu_seconds"].as_f64().unwrap() < 60.0, "{found}");
    let other = train(&folder, &["--start=out/distil", "--out=second", "--json"]).json(&KEYS);
    assert_eq!(other["start"].as_str(), Some("given"));
}

#[test]
fn labels_come_from_a_table_and_the_rest_counts_as_unlabelled() {
    let folder = Folder::with_data();
    let mut rows = String::from("path,label\n");
    for class in std::fs::read_dir(folder.path("data/train")).unwrap() {
        let class = class.unwrap().path();
        let name = class.file_name().unwrap().to_string_lossy().into_owned();
        for image in std::fs::read_dir(&class).unwrap().take(2) {
            let image = image.unwrap().file_name().to_string_lossy().into_owned();
            rows += &format!("train/{name}/{image},{name}\n");
        }
    }
    std::fs::create_dir(folder.path("tables")).unwrap();
    std::fs::write(folder.path("tables/draw.csv"), &rows).unwrap();
    let found = train(&folder, &["--labels=tables/draw.csv", "--json"]).json(&KEYS);
    assert_eq!(found["labels"].as_u64(), Some(rows.lines().count() as u64 - 1));
    assert_eq!(found["images"].as_u64(), Some(40));
    std::fs::write(folder.path("tables/draw.csv"), "path,label\nno/such.png,a\n").unwrap();
    train(&folder, &["--labels=tables/draw.csv", "--overwrite"]).fails(5, &["no/such.png"]);
}

#[test]
fn images_of_one_class_are_refused_before_anything_is_learned() {
    let folder = Folder::with_data();
    let classes: Vec<_> = std::fs::read_dir(folder.path("data/train")).unwrap().collect();
    for class in classes.into_iter().skip(1) {
        std::fs::remove_dir_all(class.unwrap().path()).unwrap();
    }
    std::fs::remove_dir_all(folder.path("data/test")).unwrap();
    train(&folder, &[]).fails(5, &["1 class", "two classes"]);
    train(&folder, &["--budget=0"]).fails(2, &["budget"]);
}
