//! What a foreign graph gives and takes: probabilities, several outputs, images that are not square, and names that
//! stand in files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message;
use serde_json::Value;
use smalti_models::onnx::attribute_proto::AttributeType;
use smalti_models::onnx::tensor_shape_proto::{Dimension, dimension};
use smalti_models::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use smalti_runtime::models::preprocess::FitMode;
use smalti_runtime::models::resize::Interpolation;
use smalti_runtime::{Error, Model, OpenOptions, Preprocess};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

fn form(name: &str) -> PathBuf {
    tests().join("operators/graphs").join(format!("{name}.onnx"))
}

/// A model file with preprocessing for it.
fn open(path: &Path, output: Option<&str>) -> Result<Model, Error> {
    let options = OpenOptions { output: output.map(str::to_owned), ..OpenOptions::default() };
    let model = Model::open_with(path, &options)?;
    let img_size = model.input().width.max(model.input().height);
    let (mean, std) = (vec![0.5; 3], vec![0.5; 3]);
    let (fit, interpolation) = (FitMode::Squash, Interpolation::Bilinear);
    model.with_preprocess(Preprocess { img_size, channels: 3, fit, resize: None, interpolation, mean, std })
}

fn red() -> PathBuf {
    tests().join("models/red.png")
}

/// The classes' probabilities for an image, in order of the classes, and what the graph gave.
fn probabilities(model: &Model) -> (Vec<f32>, Vec<f32>) {
    let image = smalti_runtime::images::open(red()).unwrap();
    let found = model.session().unwrap().classify(&image).unwrap();
    let mut ranked = found.ranked;
    assert!(ranked.is_sorted_by(|a, b| a.probability >= b.probability));
    ranked.sort_by_key(|ranked| ranked.index);
    (ranked.into_iter().map(|ranked| ranked.probability).collect(), found.output.logits)
}

const FOREIGN: [&str; 6] = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--resize", "squash"];

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

#[test]
fn a_softmax_at_the_end_is_the_answer() {
    for name in ["softmax_at_the_end_last", "softmax_at_the_end_first", "pair_of_a_softmax_at_the_end"] {
        let model = open(&form(name), None).unwrap();
        let (probabilities, given) = probabilities(&model);
        assert!(model.gives_probabilities(), "{name}");
        assert_eq!(probabilities, given, "{name}");
        assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 0.02, "{name}: {probabilities:?}");
    }
    // Softmax elsewhere says nothing of the end.
    for name in ["softmax_within", "softmax_of_quantized", "attention_plain"] {
        let model = open(&form(name), None).unwrap();
        let (probabilities, given) = probabilities(&model);
        assert!(!model.gives_probabilities() && probabilities != given, "{name}");
        assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{name}");
    }
}

fn named(name: &str) -> AttributeProto {
    AttributeProto { name: name.into(), ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { r#type: AttributeType::Ints as i32, ints: ints.to_vec(), ..named(name) }
}

/// A graph whose only input is an image of bytes, `[1, 8, 8, 3]`.
struct Pixels {
    graph: GraphProto,
}

impl Pixels {
    fn new() -> Pixels {
        let dim = |dim| Dimension { value: Some(dimension::Value::DimValue(dim)), ..Default::default() };
        let shape = TensorShapeProto { dim: [1, 8, 8, 3].map(dim).to_vec() };
        let tensor = type_proto::Tensor { elem_type: 2, shape: Some(shape) };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        let input = ValueInfoProto { name: "image".into(), r#type: Some(r#type), ..Default::default() };
        Pixels { graph: GraphProto { input: vec![input], ..Default::default() } }
    }

    fn node(&mut self, op: &str, input: &[&str], output: &str, attribute: &[AttributeProto]) {
        self.graph.node.push(NodeProto {
            op_type: op.into(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.into()],
            attribute: attribute.to_vec(),
            ..Default::default()
        });
    }

    fn floats(&mut self, name: &str, dims: &[i64], value: impl Fn(usize) -> f32) {
        let count = dims.iter().product::<i64>() as usize;
        let raw_data = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.graph.initializer.push(TensorProto { name, dims, data_type: 1, raw_data, ..Default::default() });
    }

    /// A layer of all pixels with so many outputs, `[1, outputs]`: one window of a convolution.
    fn layer(mut self, outputs: usize, output: &str, weight: impl Fn(usize) -> f32) -> Pixels {
        self.floats("layer", &[outputs as i64, 3, 8, 8], weight);
        let to = AttributeProto { r#type: AttributeType::Int as i32, i: 1, ..named("to") };
        self.node("Cast", &["image"], "floats", &[to]);
        self.node("Transpose", &["floats"], "channels", &[ints("perm", &[0, 3, 1, 2])]);
        self.node("Conv", &["channels", "layer"], "window", &[ints("strides", &[8, 8])]);
        self.node("Flatten", &["window"], output, &[]);
        self
    }

    fn outputs(mut self, names: &[&str]) -> Vec<u8> {
        let port = |name: &&str| ValueInfoProto { name: (*name).into(), ..Default::default() };
        self.graph.output = names.iter().map(port).collect();
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
        ModelProto { ir_version: 9, opset_import, graph: Some(self.graph), ..Default::default() }
            .encode_to_vec()
    }
}

/// A graph with two outputs for classes: two scores, and three.
fn two_outputs() -> Vec<u8> {
    let mut pixels = Pixels::new().layer(2, "features", |i| (i % 7) as f32 * 1e-4);
    pixels.floats("b", &[2, 3], |i| i as f32 - 2.0);
    pixels.node("MatMul", &["features", "b"], "scores", &[]);
    pixels.outputs(&["features", "scores"])
}

#[test]
fn an_output_is_chosen_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("two.onnx");
    fs::write(&path, two_outputs()).unwrap();
    for (output, classes) in [(None, 2), (Some("features"), 2), (Some("scores"), 3)] {
        let model = open(&path, output).unwrap();
        assert_eq!((model.labels().len(), model.output_name()), (classes, output.unwrap_or("features")));
        assert_eq!(probabilities(&model).1.len(), classes);
    }
    let error = open(&path, Some("logits")).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("`features` [1, 2], `scores` [1, 3]"), "{error}");

    let run = |output: &str| -> Value {
        let (path, image) = (path.clone(), red());
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"run", &path, &image, &"--json", &"-k", &"9"];
        args.extend(FOREIGN.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
        args.extend([&"--output" as &dyn AsRef<std::ffi::OsStr>, &output]);
        serde_json::from_str(&expect(0, &args).0).unwrap()
    };
    assert_eq!(run("scores")["results"][0]["predictions"].as_array().unwrap().len(), 3);
    assert_eq!(run("features")["results"][0]["predictions"].as_array().unwrap().len(), 2);
    let (text, _) = expect(0, &[&"inspect", &path]);
    assert!(text.contains("features [1, 2], scores [1, 3]") && text.contains("--output"), "{text}");
    let value: Value = serde_json::from_str(&expect(0, &[&"inspect", &path, &"--json"]).0).unwrap();
    assert_eq!((&value["output"], &value["gives_probabilities"]), (&"features".into(), &false.into()));
}

#[test]
fn an_input_need_not_be_square() {
    let path = form("conv_of_a_wide_image");
    let model = open(&path, None).unwrap();
    assert_eq!(model.input().size(), [16, 8]);
    assert_eq!(model.fallback_reason(), None);
    assert_eq!(probabilities(&model).0.len(), 5);
    let run = |words: &[&'static str]| {
        let image = red();
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"run", &path, &image];
        args.extend(words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
        smalti_run(&args)
    };
    assert!(run(&FOREIGN).status.success());
    let refused = run(&FOREIGN[..4]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("16 x 8") && said.contains("--resize squash"), "{said}");
}

#[test]
fn what_cannot_run_is_refused_by_inspect_too() {
    let path = form("slice_by_steps_of_a_function");
    let (_, inspected) = expect(3, &[&"inspect", &path]);
    let image = red();
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"run", &path, &image];
    args.extend(FOREIGN.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
    assert_eq!(expect(3, &args).1, inspected);
    assert_eq!(inspected.lines().count(), 1);
}

#[test]
fn an_answer_that_is_not_finite_is_a_bad_image_and_no_end() {
    // White overflows, black does not.
    let pixels = Pixels::new().layer(2, "logits", |i| if i < 192 { 3e38 } else { -3e38 });
    let root = tempfile::tempdir().unwrap();
    let (model, stream) = (root.path().join("model.onnx"), root.path().join("frames"));
    fs::write(&model, pixels.outputs(&["logits"])).unwrap();
    let frames: Vec<u8> = [0u8, 255, 0, 0].iter().flat_map(|&pixel| [pixel; 192]).collect();
    fs::write(&stream, frames).unwrap();
    let place = format!("raw:8x8:rgb8:{}", stream.display());
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> =
        vec![&"run", &model, &place, &"--json", &"--every-frame"];
    args.extend(FOREIGN.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
    let (out, err) = expect(5, &args);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered = lines.iter().map(|line| line.get("predictions").is_some()).collect::<Vec<_>>();
    assert_eq!(answered, [true, false, true, true], "{out}");
    assert!(lines[1]["error"].as_str().unwrap().contains("not finite") && lines[3]["bad"] == 1, "{out}");
    assert!(err.contains("3 frames answered") && err.contains("1 bad"), "{err}");
    args.extend([&"--max-bad" as &dyn AsRef<std::ffi::OsStr>, &"50%"]);
    expect(0, &args);
}

#[test]
fn names_in_files_do_nothing_to_the_terminal() {
    let root = tempfile::tempdir().unwrap();
    let evil = "\x1b[2Jred\u{9b}31m\u{202e}\r\n";
    let mut model = ModelProto::decode(&two_outputs()[..]).unwrap();
    let names = format!("{{0: '{evil}', 1: 'b'}}");
    model.metadata_props.push(StringStringEntryProto { key: "names".into(), value: names });
    model.producer_name = evil.into();
    let path = root.path().join("two.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let image = root.path().join("a\x1b[31m.png");
    fs::copy(red(), &image).unwrap();
    let missing = root.path().join("b\x1b[31m.png");
    let is_harmless = |text: &str| !text.contains(['\x1b', '\u{9b}', '\u{202e}', '\r']);
    for json in [false, true] {
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"run", &path, &image, &missing];
        args.extend(FOREIGN.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
        args.extend(json.then_some(&"--json" as &dyn AsRef<std::ffi::OsStr>));
        let (out, err) = expect(5, &args);
        assert!(is_harmless(&out) && is_harmless(&err), "{out:?}{err:?}");
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"inspect", &path];
        args.extend(json.then_some(&"--json" as &dyn AsRef<std::ffi::OsStr>));
        let (out, err) = expect(0, &args);
        assert!(is_harmless(&out) && is_harmless(&err), "{out:?}{err:?}");
    }
    // In JSON they are what they were, once read.
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"run", &path, &image, &"--json", &"-k", &"2"];
    args.extend(FOREIGN.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
    let value: Value = serde_json::from_str(&expect(0, &args).0).unwrap();
    assert_eq!(value["results"][0]["input"].as_str().unwrap(), image.to_str().unwrap());
    // A refusal names nodes.
    model.graph.as_mut().unwrap().node[0].op_type = evil.into();
    fs::write(&path, model.encode_to_vec()).unwrap();
    let (_, err) = expect(3, &[&"inspect", &path]);
    assert!(is_harmless(&err) && err.contains("u{1b}") && err.lines().count() == 1, "{err:?}");
}

#[test]
fn words_after_two_dashes_are_files() {
    let root = tempfile::tempdir().unwrap();
    fs::copy(red(), root.path().join("--my_pic.png")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    command.arg("run").arg(tests().join("models/colours_u8.onnx")).args([
        "--top_k",
        "2",
        "--",
        "--my_pic.png",
    ]);
    let output = command.current_dir(root.path()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && out.starts_with("--my_pic.png: red "), "{out}");
}

#[cfg(target_os = "linux")]
#[test]
fn fewer_threads_than_asked_for_do() {
    // Each thread's stack takes so much of the address space that the system soon has none for another.
    let root = tempfile::tempdir().unwrap();
    for class in ["red", "green", "blue"] {
        fs::create_dir(root.path().join(class)).unwrap();
        for i in 0..60 {
            let file = root.path().join(class).join(format!("{i}.png"));
            fs::copy(tests().join("models").join(format!("{class}.png")), file).unwrap();
        }
    }
    let mut command = Command::new("sh");
    command.env("RUST_MIN_STACK", (256 << 20).to_string());
    command.args(["-c", "ulimit -v 4000000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_smalti-run"), "eval"]);
    command.arg(tests().join("models/colours_u8.onnx")).arg(root.path()).args(["-t", "1024", "--json"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["n"], &value["accuracy"]), (&180.into(), &1.0.into()));
}

#[test]
#[cfg(not(feature = "webp"))]
fn a_program_that_reads_no_webp_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("photo.webp");
    fs::write(&photo, b"RIFF\x12\0\0\0WEBPVP8L\x05\0\0\0\x2f\0\0\0\0\0").unwrap();
    let (_, err) = expect(5, &[&"run", &tests().join("models/colours_u8.onnx"), &photo]);
    assert!(err.contains("a WebP file, which this build does not read: save it as JPEG or PNG"), "{err}");
}
