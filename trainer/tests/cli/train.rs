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
    // What the teacher said of these very images is kept there, and counts where some have no label.
    let few = train(&folder, &["--start=out/distil", "--out=third", "--labels=20"]).ok();
    assert!(few.err.contains("the teacher, logistic head"), "{}", few.err);
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

#[test]
fn a_start_is_in_the_program_and_images_without_labels_are_learned_from() {
    let folder = Folder::with_data();
    let args = [
        "train",
        "data",
        "--budget=6s",
        "--start=photos-nano",
        "--img-size=64",
        "--labels=20",
        "-t2",
        "--json",
    ];
    let words = ["--license=CC0-1.0", "--description=For tests"];
    let found = folder.run(&[&args[..], &["--out=out"], &words[..]].concat()).json(&KEYS);
    for model in ["out/model.onnx", "out/model-int8.onnx"] {
        let model = smalti_runtime::Model::open(folder.path(model)).unwrap();
        let record = model.record().unwrap();
        assert_eq!((&*record.license, &*record.description), ("CC0-1.0", "For tests"));
    }
    assert_eq!((found["start"].as_str(), found["labels"].as_u64()), (Some("photos-nano"), Some(20)));
    let choice: Value = serde_json::from_str(&read(&folder.path("out/choice.json"))).unwrap();
    let self_trains = !choice["self_training"].is_null();
    assert_eq!(self_trains, found["chosen"].as_str().unwrap().starts_with("self-trained"), "{found}");
    assert_eq!(self_trains, folder.path("out/self-train/checkpoints/last.safetensors").is_file());
    let soft_labels = "soft-labels.safetensors";
    assert_eq!(self_trains, folder.path("out").join(soft_labels).is_file());
    assert_eq!(self_trains, read(&folder.path("out/smalti-files.txt")).contains(soft_labels));
    // Continued, it comes to the same.
    let again = folder.run(&["train", "data", "--out=out", "--resume", "--json"]).json(&KEYS);
    for key in ["accuracy", "chosen", "validation", "int8_accuracy"] {
        assert_eq!(again[key], found[key], "{key}");
    }
    let spent = |report: &Value| report["cpu_seconds"].as_f64().unwrap();
    assert!(spent(&again) > spent(&found), "the time of both counts: {again}");
    folder.run(&["train", "data", "--start=no-such", "--out=other"]).fails(6, &["no-such"]);
    folder.run(&["train", "data", "--start=photos-nano", "--dim=64", "--out=third"]).fails(2, &["dim is 64"]);
}

/// Photos of stripes along `x · across + y · down`, moved and in shades of their own.
fn stripes(folder: &Folder, class: &str, across: u32, down: u32) {
    std::fs::create_dir_all(folder.path(&format!("stripes/{class}"))).unwrap();
    for i in 0..12 {
        let image = image::RgbImage::from_fn(80, 80, |x, y| {
            let bright = (x * across + y * down + 3 * i) / 6 % 2 == 1;
            image::Rgb(if bright {
                [200 + i as u8, 180, 90 + 9 * i as u8]
            } else {
                [40, 30 + 5 * i as u8, 60]
            })
        });
        image.save(folder.path(&format!("stripes/{class}/{i}.png"))).unwrap();
    }
}

#[test]
fn what_a_mirror_changes_is_not_mirrored() {
    let folder = Folder::empty();
    let says = |args: &[&str]| {
        let all =
            ["train", "stripes", "--budget=6s", "--start=photos-nano", "-t2", "--overwrite", "--out=out"];
        folder.run(&[&all[..], args].concat()).ok().err.contains("nothing is mirrored")
    };
    stripes(&folder, "rising", 1, 1);
    stripes(&folder, "falling", 1, 11);
    assert!(says(&[]));
    assert!(!says(&["--flip"]), "the user has said so");
    for class in ["rising", "falling"] {
        std::fs::remove_dir_all(folder.path(&format!("stripes/{class}"))).unwrap();
    }
    stripes(&folder, "level", 0, 1);
    stripes(&folder, "upright", 1, 0);
    assert!(!says(&[]));
}

#[test]
fn some_images_are_kept_back_where_there_is_no_split_to_measure_on() {
    let folder = Folder::with_data();
    std::fs::remove_dir_all(folder.path("data/test")).unwrap();
    let found = train(&folder, &["--labels=20", "--json"]).json(&KEYS);
    assert_eq!((found["split"].as_str(), found["labels"].as_u64()), (Some("held-out"), Some(20)));
    let (kept, held) = (found["images"].as_u64().unwrap(), found["n"].as_u64().unwrap());
    assert_eq!((kept + held, held), (40, 10));
    // Where all labels count, none is wasted.
    let found = train(&folder, &["--json", "--overwrite"]).json(&KEYS);
    assert_eq!((found["n"].as_u64(), found["images"].as_u64()), (Some(0), Some(40)));
}

#[test]
fn a_part_of_many_images_is_learned_from() {
    let folder = Folder::with_data();
    let found = train(&folder, &["--labels=10", "--most-images=12", "--json"]).json(&KEYS);
    assert_eq!((found["labels"].as_u64(), found["images"].as_u64()), (Some(10), Some(12)));
}

#[test]
fn weights_are_exported_to_start_from() {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    folder.run(&["export", "pre", "-o", "start.safetensors", "--license=MIT"]).ok();
    let found = train(&folder, &["--start=start.safetensors", "--json"]).json(&KEYS);
    assert_eq!(found["start"].as_str(), Some("given"));
    let whole = std::fs::metadata(folder.path("pre/checkpoints/last.safetensors")).unwrap().len();
    assert!(std::fs::metadata(folder.path("start.safetensors")).unwrap().len() < whole * 2 / 3);
}
