//! `quantize` and `compare` as users meet them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message;
use serde_json::Value;
use smalti_models::onnx::ModelProto;
use smalti_tools::quantize::Method;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

fn smalti_run(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    command.args(args.iter().map(|arg| arg.as_ref())).env_remove("RUST_LOG").output().unwrap()
}

/// Runs and wants this exit code; gives both outputs.
fn expect(code: i32, args: &[&dyn AsRef<std::ffi::OsStr>]) -> (String, String) {
    let output = smalti_run(args);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

fn json(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Value {
    let value: Value = serde_json::from_str(&expect(0, args).0).unwrap();
    assert_eq!(value["schema_version"], 1);
    value
}

/// Class folders of reddish, greenish and bluish bitmaps.
fn colours() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (channel, name) in ["red", "green", "blue"].iter().enumerate() {
        fs::create_dir(root.path().join(name)).unwrap();
        for i in 0..8u8 {
            let mut pixel = [60 + 9 * i; 3];
            pixel[channel] += 70 + 5 * i;
            fs::write(root.path().join(name).join(format!("{i}.bmp")), bitmap(8, pixel)).unwrap();
        }
    }
    root
}

/// A BMP file of one colour, with some texture.
fn bitmap(side: u32, [red, green, blue]: [u8; 3]) -> Vec<u8> {
    let size = 3 * side * side;
    let mut file = b"BM".to_vec();
    for number in [54 + size, 0, 54, 40, side, side, 1 | 24 << 16, 0, size, 2835, 2835, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    let shade = |i: u32| (i * 7 % 11) as u8;
    file.extend((0..side * side).flat_map(|i| [blue, green, red].map(|value| value + shade(i))));
    file
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn quantize_writes_a_model_and_a_page() {
    let (data, root) = (colours(), tempfile::tempdir().unwrap());
    for name in ["colours_u8.onnx", "colours_f32.onnx"] {
        let (out, page) = (root.path().join("int8.onnx"), root.path().join("page.html"));
        let value = json(&[
            &"quantize",
            &fixture(name),
            &"--calib",
            &data.path(),
            &"-o",
            &out,
            &"--report",
            &page,
            &"--json",
            &"--seconds",
            &"0.02",
            &"--quiet",
        ]);
        assert_eq!((&value["float_accuracy"], &value["int8_accuracy"]), (&1.0.into(), &1.0.into()));
        assert_eq!(value["method"], serde_json::to_value(Method::default()).unwrap());
        assert_eq!((&value["agreement"], &value["kept_float"]), (&1.0.into(), &serde_json::json!([])));
        assert_eq!((&value["layers"].as_array().unwrap().len(), &value["samples"]), (&6, &24.into()));
        for key in ["size_bytes", "p50_ms"] {
            assert!(
                value[key]["before"].as_f64().unwrap() > 0.0 && value[key]["after"].as_f64().unwrap() > 0.0
            );
        }
        expect(0, &[&"selftest", &out]);
        let (text, _) = expect(0, &[&"run", &out, &fixture("red.png")]);
        assert!(text.contains("red.png: red "), "{text}");
        let html = fs::read_to_string(&page).unwrap();
        assert!(html.starts_with("<!DOCTYPE html>") && html.contains("blocks.0.mlp.fc2"), "{html}");
        assert!(!html.contains("http") && !html.contains("<script") && !html.contains("NaN"), "{html}");
        assert_eq!(files(root.path()), 2, "nothing temporary is left");
        let value = json(&[&"compare", &fixture(name), &out, &"--data", &data.path(), &"--json"]);
        assert_eq!((&value["agreement"], &value["flips"], &value["n"]), (&1.0.into(), &0.into(), &24.into()));
    }
}

#[test]
fn images_without_labels_give_agreement() {
    let (data, root) = (colours(), tempfile::tempdir().unwrap());
    let out = root.path().join("int8.onnx");
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 12] = [
        &"quantize",
        &fixture("timm_vit.onnx"),
        &"--calib",
        &data.path().join("red"),
        &"-o",
        &out,
        &"--mean=0.5,0.5,0.5",
        &"--std=0.5,0.5,0.5",
        &"--seconds=0.02",
        &"--samples=5",
        &"--threads=2",
        &"--budget=50%",
    ];
    let (text, err) = expect(0, &arguments);
    assert!(text.contains("agreement") && !text.contains("accuracy"), "{text}");
    assert!(err.contains("calibrating (5 images)"), "{err}");
    let value = json(&[&arguments[..], &[&"--json"]].concat());
    assert_eq!(
        (&value["float_accuracy"], &value["int8_accuracy"], &value["n"]),
        (&Value::Null, &Value::Null, &8.into())
    );
}

#[test]
fn beyond_the_budget_nothing_is_written() {
    let root = tempfile::tempdir().unwrap();
    // Calibrated on black alone, the int8 model has no levels for the colours.
    let (black, between) = (root.path().join("black"), root.path().join("between"));
    fs::create_dir(&black).unwrap();
    fs::create_dir(&between).unwrap();
    fs::write(black.join("1.bmp"), bitmap(8, [0; 3])).unwrap();
    for i in 0..100u8 {
        fs::write(between.join(format!("{i}.bmp")), bitmap(8, [60 + i, 160 - i, 60 + i / 2])).unwrap();
    }
    let out_folder = root.path().join("out");
    fs::create_dir(&out_folder).unwrap();
    let (out, page) = (out_folder.join("int8.onnx"), out_folder.join("page.html"));
    fs::write(&out, b"earlier").unwrap();
    let (text, err) = expect(
        4,
        &[
            &"quantize",
            &fixture("colours_u8.onnx"),
            &"--calib",
            &black,
            &"--data",
            &between,
            &"-o",
            &out,
            &"--report",
            &page,
            &"--budget",
            &"0%",
            &"--tries=1",
            &"--quiet",
        ],
    );
    assert_eq!((text.as_str(), err.lines().count()), ("", 1), "{err}");
    assert!(
        err.contains("at least 0.98 is needed, with 0 of 6 layers kept float; nothing is written"),
        "{err}"
    );
    assert_eq!((fs::read(&out).unwrap(), files(&out_folder)), (b"earlier".to_vec(), 1));
}

#[test]
fn bad_input_has_its_exit_codes() {
    let (data, root) = (colours(), tempfile::tempdir().unwrap());
    let (model, out) = (root.path().join("model.onnx"), root.path().join("int8.onnx"));
    fs::copy(fixture("colours_u8.onnx"), &model).unwrap();
    let calib: &dyn AsRef<std::ffi::OsStr> = &data.path();
    expect(2, &[&"quantize", &model, &"--calib", calib]);
    let (_, err) = expect(2, &[&"quantize", &model, &"--calib", calib, &"-o", &model]);
    assert!(err.contains("the model itself"), "{err}");
    expect(2, &[&"quantize", &model, &"--calib", calib, &"-o", &out, &"--report", &out]);
    expect(2, &[&"quantize", &model, &"--calib", calib, &"-o", &root.path()]);
    expect(2, &[&"quantize", &model, &"--calib", calib, &"-o", &out, &"--method", &"best"]);
    expect(2, &[&"quantize", &fixture("timm_vit.onnx"), &"--calib", calib, &"-o", &out]);
    expect(3, &[&"quantize", &fixture("red.png"), &"--calib", calib, &"-o", &out]);
    expect(6, &[&"quantize", &model, &"--calib", &fixture("none"), &"-o", &out]);
    expect(6, &[&"quantize", &root.path().join("none.onnx"), &"--calib", calib, &"-o", &out]);
    expect(6, &[&"quantize", &model, &"--calib", calib, &"-o", &root.path().join("none/int8.onnx")]);
    for i in 0..4 {
        fs::write(data.path().join(format!("red/bad{i}.png")), b"").unwrap();
    }
    let (_, err) = expect(5, &[&"quantize", &model, &"--calib", calib, &"-o", &out]);
    assert!(err.contains("bad0.png"), "{err}");
    assert_eq!(files(root.path()), 1, "only the model");
}

#[test]
fn compare_names_flips_and_fails_below_the_agreement() {
    let (data, root) = (colours(), tempfile::tempdir().unwrap());
    let other = root.path().join("other.onnx");
    let mut model = ModelProto::decode(&fs::read(fixture("colours_f32.onnx")).unwrap()[..]).unwrap();
    let weights = &mut model.graph.as_mut().unwrap().initializer;
    let weight = weights.iter_mut().find(|weight| weight.name == "head.weight").unwrap();
    weight.edit_raw(|raw| raw.fill(0));
    fs::write(&other, model.encode_to_vec()).unwrap();
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 5] =
        [&"compare", &fixture("colours_f32.onnx"), &other, &"--data", &data.path()];
    let (text, err) = expect(4, &arguments);
    assert!(
        text.contains("agreement  33.33 % (8 of 24") && text.contains("accuracy   100.00 % and 33.33 %"),
        "{text}"
    );
    assert!(text.contains("flip") && err.contains("--min-agreement asks for 99.00 %"), "{text}{err}");
    expect(0, &[&arguments[..], &[&"--min-agreement", &"30%"]].concat());
    let (_, err) = expect(4, &[&arguments[..], &[&"--min-agreement", &"30%", &"--budget", &"0.5%"]].concat());
    assert!(err.contains("--budget allows 0.50 points"), "{err}");
    expect(
        2,
        &[
            &"compare",
            &fixture("colours_f32.onnx"),
            &fixture("timm_vit.onnx"),
            &"--data",
            &data.path(),
            &"--mean=0.5,0.5,0.5",
            &"--std=0.5,0.5,0.5",
        ],
    );
}
