//! Quantizing and comparing: the library over all kinds of exports, and the commands as users meet them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message;
use serde_json::Value;
use smalti_models::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
use smalti_runtime::models::contract::golden_image;
use smalti_runtime::models::preprocess::FitMode;
use smalti_runtime::models::resize::Interpolation;
use smalti_runtime::quantize::{Budget, Method, Quantized, Settings, quantize};
use smalti_runtime::samples::{Sample, Source};
use smalti_runtime::{Error, Model, Preprocess, gate, inspect, selftest};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

/// The float models.
fn float_models() -> Vec<PathBuf> {
    let entries = fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().path());
    let onnx = entries.filter(|path| path.extension().is_some_and(|end| end == "onnx"));
    let mut found: Vec<_> = onnx.filter(|path| !path.ends_with("colours_qdq.onnx")).collect();
    found.sort();
    assert!(found.len() >= 10);
    found
}

/// A model with preprocessing, its own or this.
fn open(path: &Path) -> Model {
    let model = Model::open(path).unwrap();
    if model.preprocess().is_some() {
        return model;
    }
    let (img_size, channels) = (model.input().width, model.input().channels);
    let (mean, std) = (vec![0.5; channels], vec![0.5; channels]);
    let (fit, interpolation) = (FitMode::Squash, Interpolation::Bilinear);
    model.with_preprocess(Preprocess { img_size, channels, fit, interpolation, mean, std }).unwrap()
}

/// Images from memory.
fn patterns(model: &Model, count: u64) -> Vec<Sample> {
    let image = |i| golden_image(i, model.input().width, model.input().channels).unwrap();
    let sample =
        |i: u64| Sample { name: format!("pattern {i}"), source: Source::Memory(image(i)), class: None };
    (0..count).map(sample).collect()
}

fn quantized(path: &Path, settings: &Settings<'_>) -> Result<Quantized, Error> {
    let model = open(path);
    let samples = patterns(&model, 24);
    quantize(&fs::read(path).unwrap(), &model, &samples, &samples, settings)
}

fn anything() -> Settings<'static> {
    Settings { budget: Budget { points: 1.0, flips: 1.0, cosine: -1.0 }, ..Settings::default() }
}

fn graph(bytes: &[u8]) -> GraphProto {
    ModelProto::decode(bytes).unwrap().graph.unwrap()
}

/// The node that computes a value.
fn source<'a>(graph: &'a GraphProto, value: &str) -> Option<&'a NodeProto> {
    graph.node.iter().find(|node| node.output.iter().any(|output| output == value))
}

#[test]
fn every_export_is_quantized_and_stays_close() {
    for path in float_models() {
        for method in [Method::Minmax, Method::Percentile, Method::Mse] {
            let found = quantized(&path, &Settings { method, ..anything() });
            let found = found.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // Patches, one block (qkv, proj, fc1, fc2), and the head or two.
            assert!((6..=7).contains(&found.layers.len()), "{}", path.display());
            assert!(found.comparison.cosine > 0.99, "{} {method:?}: {:?}", path.display(), found.comparison);
            for row in &found.layers {
                assert!(row.sqnr_db > 15.0 && row.scale.is_normal() && row.range.0 <= 0.0, "{row:?}");
            }
        }
    }
}

/// Whether the products of two neighbouring inputs fit into 16 bits, as other engines add them on AVX2.
fn neighbours_fit(weight: &TensorProto, axis: i64) -> bool {
    let (rows, columns) = (weight.dims[0] as usize, weight.dims[1..].iter().product::<i64>() as usize);
    let (inputs, outputs) = if axis == 1 { (rows, columns) } else { (columns, rows) };
    let at = |k: usize, n: usize| {
        let place = if axis == 1 { k * columns + n } else { n * columns + k };
        weight.raw_data[place] as i8
    };
    let fits = |k: usize, n: usize, low: i8, high: i8| {
        let pair = [at(k, n), if k + 1 < inputs { at(k + 1, n) } else { 0 }];
        pair.iter().map(|&w| i32::from(w.clamp(low, high))).sum::<i32>().abs() * 255 < 1 << 15
    };
    (0..inputs).step_by(2).all(|k| (0..outputs).all(|n| fits(k, n, 0, 127) && fits(k, n, -127, 0)))
}

#[test]
fn the_graph_has_onnx_own_form_of_quantization() {
    for path in float_models() {
        let (before, after) = (graph(&fs::read(&path).unwrap()), quantized(&path, &anything()).unwrap());
        let (layers, after) = (after.layers.len(), graph(&after.bytes));
        let with = |op: &str| after.node.iter().filter(|node| node.op_type == op).count();
        let layer = |node: &&NodeProto| matches!(&*node.op_type, "MatMul" | "Gemm" | "Conv");
        let mut inputs = HashSet::new();
        let mut found = 0;
        for node in after.node.iter().filter(layer) {
            let Some(weight) = source(&after, &node.input[1]).filter(|w| w.op_type == "DequantizeLinear")
            else {
                continue;
            };
            found += 1;
            let stored = after.initializer.iter().find(|tensor| tensor.name == weight.input[0]).unwrap();
            let axis = weight.attribute.iter().find(|attribute| attribute.name == "axis").unwrap().i;
            assert!(neighbours_fit(stored, axis), "{}", stored.name);
            let scales = after.initializer.iter().find(|tensor| tensor.name == weight.input[1]).unwrap();
            assert_eq!(scales.dims, [stored.dims[axis as usize]]);
            let dequantize = source(&after, &node.input[0]).unwrap();
            let quantize = source(&after, &dequantize.input[0]).unwrap();
            assert_eq!([&*dequantize.op_type, &*quantize.op_type], ["DequantizeLinear", "QuantizeLinear"]);
            inputs.insert(quantize.input[0].clone());
        }
        assert_eq!((found, with("QuantizeLinear")), (layers, inputs.len()));
        let names: HashSet<_> = after.node.iter().map(|node| &node.name).collect();
        assert_eq!(names.len(), after.node.len(), "names of nodes are unique");
        assert_eq!(after.node.len(), before.node.len() + layers + 2 * inputs.len());
        let ports =
            |graph: &GraphProto| graph.output.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
        assert_eq!(ports(&after), ports(&before));
    }
}

#[test]
fn the_record_is_that_of_the_quantized_model() {
    for name in ["colours_u8.onnx", "colours_f32.onnx"] {
        let path = fixture(name);
        let found = quantized(&path, &anything()).unwrap();
        let inspection = inspect::inspect(&found.bytes).unwrap();
        assert_eq!(inspection.weights_intact(), Some(true));
        let (before, after) = (open(&path).record().unwrap().clone(), inspection.record.unwrap());
        assert_eq!(
            (&after.names, &after.preprocess, &after.training),
            (&before.names, &before.preprocess, &before.training)
        );
        assert_ne!(after.golden, before.golden);
        assert_eq!(after.quantization.unwrap()["method"], "percentile");
        let vectors = selftest::run(&Model::from_bytes(&found.bytes).unwrap()).unwrap();
        selftest::judge(&vectors).unwrap();
        assert!(vectors.iter().all(|vector| vector.difference == 0.0 && vector.allowed >= 0.02));
    }
}

#[test]
fn test_vectors_are_those_of_the_files_own_preprocessing() {
    let path = fixture("colours_f32.onnx");
    let model = open(&path);
    let own = model.preprocess().unwrap().clone();
    let model = model.with_preprocess(Preprocess { mean: vec![0.1; 3], ..own }).unwrap();
    let samples = patterns(&model, 8);
    let found = quantize(&fs::read(&path).unwrap(), &model, &samples, &samples, &anything()).unwrap();
    let vectors = selftest::run(&Model::from_bytes(&found.bytes).unwrap()).unwrap();
    selftest::judge(&vectors).unwrap();
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let bytes =
        |threads| quantized(&fixture("timm_vit.onnx"), &Settings { threads, ..anything() }).unwrap().bytes;
    assert_eq!(bytes(1), bytes(3));
}

#[test]
fn a_constant_activation_keeps_a_positive_scale() {
    // A model whose weights are all zero has zeros, or constants, in front of every layer.
    let mut model = ModelProto::decode(&fs::read(fixture("timm_vit.onnx")).unwrap()[..]).unwrap();
    for weight in &mut model.graph.as_mut().unwrap().initializer {
        if weight.data_type == 1 {
            weight.raw_data.fill(0);
        }
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("zero.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let found = quantized(&path, &anything()).unwrap();
    assert!(
        found.layers.iter().all(|row| row.scale.is_normal() && row.scale > 0.0 && row.sqnr_db.is_finite())
    );
    gate::open(&found.bytes, &gate::Limits::default()).unwrap();
}

#[test]
fn an_activation_that_overflows_is_an_error() {
    let mut model = ModelProto::decode(&fs::read(fixture("torch_vit.onnx")).unwrap()[..]).unwrap();
    for weight in &mut model.graph.as_mut().unwrap().initializer {
        if weight.data_type == 1 {
            weight
                .raw_data
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .for_each(|bytes| *bytes = 3e38f32.to_le_bytes());
        }
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("huge.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let error = quantized(&path, &anything()).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
}

#[test]
fn what_is_quantized_already_or_has_no_layers_is_refused() {
    let error = quantized(&fixture("colours_qdq.onnx"), &anything()).unwrap_err();
    assert!(matches!(&error, Error::Usage(message) if message.contains("already")), "{error}");
    let model = open(&fixture("timm_vit.onnx"));
    let bytes = fs::read(fixture("timm_vit.onnx")).unwrap();
    let error = quantize(&bytes, &model, &[], &patterns(&model, 2), &anything()).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    let error = quantize(&bytes, &model, &patterns(&model, 2), &[], &anything()).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
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
    weights.iter_mut().find(|weight| weight.name == "head.weight").unwrap().raw_data.fill(0);
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
