//! Folders of images as people keep them: splits, unlabelled images, files that are no images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

/// A folder with these files: one called `red-1.png` is red.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let colour = ["red", "green", "blue"].into_iter().find(|colour| name.starts_with(colour));
        match colour {
            Some(colour) => _ = fs::copy(fixture(&format!("{colour}.png")), &path).unwrap(),
            None => fs::write(&path, b"x").unwrap(),
        }
    }
    root
}

fn smalti_run(args: &[&str], root: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    command.args(args).current_dir(root).env_remove("RUST_LOG").output().unwrap()
}

/// Runs and wants this exit code; gives both outputs.
fn expect(code: i32, args: &[&str], root: &Path) -> (String, String) {
    let output = smalti_run(args, root);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

fn json(args: &[&str], root: &Path) -> (Value, String) {
    let (out, err) = expect(0, &[args, &["--json"]].concat(), root);
    (serde_json::from_str(&out).unwrap(), err)
}

fn model() -> String {
    fixture("colours_u8.onnx").display().to_string()
}

#[test]
fn the_held_out_split_is_evaluated() {
    let eval = |files: &[&str]| {
        let root = folder(files);
        let (found, err) = json(&["eval", &model(), "."], root.path());
        (found["n"].as_u64().unwrap(), found["accuracy"].as_f64().unwrap(), found["split"].clone(), err)
    };
    for [train, held_out, split] in [
        ["train", "test", "test"],
        ["train", "valid", "val"],
        ["Training", "Validation", "val"],
        ["train_set", "test_set", "test"],
        ["seg_train", "seg_test", "test"],
    ] {
        // The images to learn from are in the wrong folders.
        let files = [
            format!("{train}/red/green-1.png"),
            format!("{train}/green/blue-1.png"),
            format!("{train}/blue/red-1.png"),
            format!("{held_out}/red/red-1.png"),
            format!("{held_out}/green/green-1.png"),
        ];
        let (n, accuracy, of, _) = eval(&files.each_ref().map(String::as_str));
        assert_eq!((n, accuracy, of), (2, 1.0, split.into()), "{train}");
    }
    let inside =
        ["red/train/green-1.png", "red/test/red-1.png", "green/train/red-1.png", "green/test/green-1.png"];
    let (n, accuracy, of, err) = eval(&inside);
    assert_eq!((n, accuracy, of), (2, 1.0, "test".into()));
    assert!(err.contains("inside the class folders"), "{err}");
    // Without splits everything counts.
    assert_eq!(eval(&["red/red-1.png", "green/green-1.png"]).2, Value::Null);

    let root = folder(&["train/red/red-1.png", "valid/red/red-2.png"]);
    let (out, _) = expect(0, &["eval", &model(), "."], root.path());
    assert!(out.contains("1 of 1 val images"), "{out}");
}

#[test]
fn images_without_labels_are_not_measured_on() {
    let root = folder(&[
        "train/red/red-1.png",
        "train/blue/red-1.png",
        "test/unknown/red-1.png",
        "test/red/red-2.png",
    ]);
    let (found, err) = json(&["eval", &model(), "."], root.path());
    assert_eq!((&found["n"], &found["accuracy"]), (&1.into(), &1.0.into()));
    assert!(err.contains("test/unknown is no class"), "{err}");
    let root = folder(&["train/red/red-1.png", "test/red-1.png"]);
    let (_, err) = expect(5, &["eval", &model(), "."], root.path());
    assert!(err.contains("test split") && err.contains("label"), "{err}");
    let root = folder(&["red/train/red-1.png", "red/test/red-1.png", "blue/blue-1.png"]);
    let (_, err) = expect(5, &["eval", &model(), "."], root.path());
    assert!(err.contains("`red`") && err.contains("`test`") && err.contains("`blue`"), "{err}");
}

#[test]
fn what_is_left_out_is_said_once() {
    let root = folder(&[
        "a/red-1.png",
        "a/x.heic",
        "b/y.HEIC",
        "b/scan.tif",
        "@eaDir/red-1.png",
        "run/smalti-files.txt",
        "run/red-1.png",
    ]);
    let (found, err) = json(&["run", &model(), "."], root.path());
    assert_eq!(found["results"].as_array().unwrap().len(), 1);
    assert!(err.contains("2 HEIC files and 1 TIFF file are left out"), "{err}");
    assert_eq!((err.matches("HEIC").count(), err.matches("smalti-files.txt").count()), (1, 1), "{err}");
    let (_, err) = expect(5, &["run", &model(), "b"], root.path());
    assert!(err.contains("no .jpg") && err.contains("1 HEIC file"), "{err}");
    let (_, err) = expect(0, &["run", &model(), ".", "--quiet"], root.path());
    assert_eq!(err, "");
}

#[test]
fn a_file_of_another_format_is_named_by_its_content() {
    let root = folder(&[]);
    for (start, what) in [
        (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"GIF89a\x01\0\x01\0", "GIF"),
        (b"%PDF-1.4\n", "PDF"),
        (b"<!DOCTYPE html>\n<html>", "HTML"),
    ] {
        fs::write(root.path().join("x.jpg"), [start, &[7; 500]].concat()).unwrap();
        let (_, err) = expect(5, &["run", &model(), "x.jpg"], root.path());
        assert!(err.contains("x.jpg") && err.contains(what) && err.lines().count() == 1, "{err}");
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_circles_in_a_folder_end() {
    let root = folder(&["a/red-1.png", "b/blue-1.png"]);
    let at = |name: &str| root.path().join(name);
    assert!(Command::new("mkfifo").arg(at("a/x.jpg")).status().unwrap().success());
    std::os::unix::fs::symlink(at("a"), at("a/again")).unwrap();
    std::os::unix::fs::symlink(at("nowhere.png"), at("b/broken.png")).unwrap();
    let (out, err) = expect(5, &["run", &model(), "."], root.path());
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(err.contains("broken.png") && err.contains("a pipe, socket or device: ./a/x.jpg"), "{err}");
}

#[cfg(feature = "quantize")]
#[test]
fn calibration_and_measuring_have_splits_of_their_own() {
    let root = folder(&[
        "Train/red/red-1.png",
        "Train/green/green-1.png",
        "Train/blue/blue-1.png",
        "dev/red/red-2.png",
        "dev/blue/blue-2.png",
    ]);
    let (found, _) = json(
        &["quantize", &model(), "--calib", ".", "-o", "int8.onnx", "--seconds", "0.01", "--budget", "100%"],
        root.path(),
    );
    assert_eq!((&found["samples"], &found["n"]), (&3.into(), &2.into()));
    let (found, _) = json(&["compare", &model(), &model(), "--data", "."], root.path());
    assert_eq!((&found["n"], &found["a_accuracy"]), (&2.into(), &1.0.into()));
}
