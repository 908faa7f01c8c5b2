//! The binary as users meet it: output, messages, exit codes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use prost::Message;
use serde_json::Value;
use smalti_models::onnx::ModelProto;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

fn smalti_run(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    command(args).output().unwrap()
}

fn command(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    command.args(args.iter().map(|arg| arg.as_ref())).env_remove("RUST_LOG");
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs and wants this exit code; gives both outputs.
fn expect(code: i32, args: &[&dyn AsRef<std::ffi::OsStr>]) -> (String, String) {
    let output = smalti_run(args);
    let (out, err) = (text(&output.stdout).to_owned(), text(&output.stderr).to_owned());
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

/// The one JSON object that a successful command prints.
fn json(code: i32, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Value {
    let (out, _) = expect(code, args);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["schema_version"], 1);
    value
}

/// A folder of class folders with the three colours in it.
fn colour_folders() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in ["red", "green", "blue"] {
        let folder = root.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::copy(fixture(&format!("{name}.png")), folder.join("1.png")).unwrap();
    }
    root
}

#[test]
fn images_get_their_labels() {
    for model in ["colours_u8.onnx", "colours_f32.onnx"] {
        let (out, err) = expect(0, &[&"run", &fixture(model), &fixture("red.png"), &fixture("blue.png")]);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 2, "{out}");
        assert!(lines[0].contains("red.png: red ") && lines[1].contains("blue.png: blue "), "{out}");
        assert_eq!(err, "");
    }
}

#[test]
fn folders_are_walked_and_json_has_every_image() {
    let root = colour_folders();
    let value = json(0, &[&"run", &fixture("colours_u8.onnx"), &root.path(), &"--top-k", &"2", &"--json"]);
    let results = value["results"].as_array().unwrap();
    let best: Vec<_> = results.iter().map(|r| r["predictions"][0]["label"].as_str().unwrap()).collect();
    assert_eq!(best, ["blue", "green", "red"]);
    assert!(results.iter().all(|r| r["predictions"].as_array().unwrap().len() == 2));
    assert_eq!(value["failed"], 0);
}

#[test]
fn one_image_comes_on_standard_input() {
    let mut child = command(&[&"run", &fixture("colours_u8.onnx"), &"-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(fixture("green.png")).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stdout).starts_with("-: green "), "{output:?}");
}

#[test]
fn a_bad_image_is_named_and_the_others_answered() {
    let root = tempfile::tempdir().unwrap();
    let (bad, missing) = (root.path().join("bad.jpg"), root.path().join("missing.png"));
    fs::write(&bad, b"no image").unwrap();
    let (out, err) = expect(5, &[&"run", &fixture("colours_u8.onnx"), &bad, &missing, &fixture("red.png")]);
    assert!(out.contains("red.png: red"), "{out}");
    let lines = |name: &str| err.lines().filter(|line| line.contains(name)).count();
    assert_eq!((lines("bad.jpg"), lines("missing.png")), (1, 1), "{err}");
    let value = json(5, &[&"run", &fixture("colours_u8.onnx"), &bad, &fixture("red.png"), &"--json"]);
    assert!(value["results"][0]["error"].as_str().unwrap().contains("bad.jpg"));
    assert_eq!((&value["failed"], value["results"].as_array().unwrap().len()), (&1.into(), 2));
}

#[test]
fn wrong_usage_is_2() {
    expect(2, &[&"run"]);
    expect(2, &[&"no-such-command"]);
    expect(2, &[&"run", &fixture("colours_u8.onnx"), &fixture("red.png"), &"--top-k", &"0"]);
    expect(2, &[&"bench", &fixture("colours_u8.onnx"), &"-t", &"0"]);
    // A foreign model does not say how to prepare images.
    let (_, err) = expect(2, &[&"run", &fixture("torch_vit.onnx"), &fixture("red.png")]);
    assert!(err.contains("mean"), "{err}");
    expect(2, &[&"run", &fixture("torch_vit.onnx"), &fixture("red.png"), &"--mean", &"0.5,0.5,0.5"]);
}

#[test]
fn a_refused_model_is_3_on_one_line() {
    let root = tempfile::tempdir().unwrap();
    let cut = root.path().join("cut.onnx");
    let bytes = fs::read(fixture("colours_u8.onnx")).unwrap();
    for part in [&bytes[..bytes.len() / 2], &b"no model"[..], &[]] {
        fs::write(&cut, part).unwrap();
        let (out, err) = expect(3, &[&"run", &cut, &fixture("red.png")]);
        assert_eq!((out.as_str(), err.lines().count()), ("", 1), "{err}");
        assert!(err.starts_with("smalti-run: error: model refused: "), "{err}");
    }
    expect(3, &[&"inspect", &cut]);
}

#[test]
fn a_failed_check_is_4() {
    // A foreign model has no test vectors.
    let (_, err) = expect(4, &[&"selftest", &fixture("torch_vit.onnx")]);
    assert!(err.contains("test vectors"), "{err}");
    // A weight changed behind the record's back.
    let root = tempfile::tempdir().unwrap();
    let edited = root.path().join("edited.onnx");
    let mut model = ModelProto::decode(&fs::read(fixture("colours_u8.onnx")).unwrap()[..]).unwrap();
    let weights = &mut model.graph.as_mut().unwrap().initializer;
    let weight = weights.iter_mut().find(|weight| weight.name == "head.weight").unwrap();
    weight.edit_raw(|raw| raw.fill(0));
    fs::write(&edited, model.encode_to_vec()).unwrap();
    let (_, err) = expect(4, &[&"selftest", &edited]);
    assert!(err.contains("selftest: 2 of 2"), "{err}");
    let (out, err) = expect(4, &[&"inspect", &edited]);
    assert!(out.contains("NOT those") && err.contains("SHA-256"), "{out}{err}");
}

#[test]
fn a_file_that_cannot_be_read_is_6() {
    let (_, err) = expect(6, &[&"run", &"no-such-file.onnx", &fixture("red.png")]);
    assert!(err.contains("no-such-file.onnx"), "{err}");
}

#[test]
fn eval_counts_and_lists() {
    let root = colour_folders();
    fs::copy(fixture("red.png"), root.path().join("blue/really-red.png")).unwrap();
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 6] =
        [&"eval", &fixture("colours_u8.onnx"), &root.path(), &"--json", &"--threads", &"2"];
    let value = json(0, &arguments);
    assert_eq!((&value["n"], &value["accuracy"]), (&4.into(), &0.75.into()));
    assert_eq!(value["confusion"], serde_json::json!([[1, 0, 0], [0, 1, 0], [1, 0, 1]]));
    assert_eq!(value["classes"][2]["accuracy"], 0.5);
    let (out, _) = expect(0, &arguments[..3]);
    assert!(out.starts_with("accuracy 75.00 % (3 of 4"), "{out}");

    fs::write(root.path().join("red/bad.png"), b"").unwrap();
    let (_, err) = expect(5, &arguments);
    assert!(err.contains("bad.png") && err.contains("--max-bad"), "{err}");
    let value = json(0, &[&"eval", &fixture("colours_u8.onnx"), &root.path(), &"--json", &"--max_bad=50%"]);
    assert_eq!((&value["n"], value["bad"].as_array().unwrap().len()), (&4.into(), 1));
    expect(5, &[&"eval", &fixture("colours_u8.onnx"), &fixture("")]);
}

#[test]
fn foreign_models_take_preprocessing_and_labels() {
    let root = tempfile::tempdir().unwrap();
    let labels = root.path().join("labels.txt");
    fs::write(&labels, "a\nb\nc\nd\ne\n").unwrap();
    let (out, _) = expect(
        0,
        &[
            &"run",
            &fixture("timm_vit.onnx"),
            &fixture("red.png"),
            &"--mean",
            &"0.5,0.5,0.5",
            &"--std",
            &"0.5,0.5,0.5",
            &"--resize",
            &"squash",
            &"--interpolation",
            &"bilinear",
            &"--labels",
            &labels,
            &"-k",
            &"5",
        ],
    );
    assert!(["a ", "b ", "c ", "d ", "e "].iter().all(|label| out.contains(&format!(" {label}"))), "{out}");
    fs::write(&labels, "a\nb\n").unwrap();
    expect(2, &[&"run", &fixture("colours_u8.onnx"), &fixture("red.png"), &"--labels", &labels]);
}

#[test]
fn inspect_selftest_bench_and_doctor_answer_in_json() {
    let value = json(0, &[&"inspect", &fixture("colours_u8.onnx"), &"--json"]);
    assert_eq!((&value["weights_intact"], &value["input"]["form"]), (&true.into(), &"u8-nhwc".into()));
    assert_eq!(value["record"]["names"], serde_json::json!(["red", "green", "blue"]));
    assert_eq!(value["operators"]["LayerNormalization"], 3);
    // Patches 4·48·8, one block 5·8·8·12 + 2·5·5·8, head 8·3.
    assert_eq!(value["multiply_adds"], 1536 + 3840 + 400 + 24);
    let value = json(0, &[&"inspect", &fixture("timm_vit_dynamo.onnx"), &"--json"]);
    assert_eq!((&value["weights_intact"], &value["record"]), (&Value::Null, &Value::Null));
    assert_eq!((&value["kernels_share"], &value["fallback_reason"]), (&1.0.into(), &Value::Null));

    let value = json(0, &[&"selftest", &fixture("colours_f32.onnx"), &"--json"]);
    assert_eq!((&value["passed"], value["vectors"].as_array().unwrap().len()), (&true.into(), 2));

    let value = json(0, &[&"bench", &fixture("colours_u8.onnx"), &"--json", &"--seconds", &"0.05"]);
    for key in ["p50_ms", "p95_ms", "p99_ms", "load_ms", "peak_rss_mb"] {
        assert!(value[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!((&value["threads"], &value["backend"]), (&1.into(), &"smalti".into()));
    assert!(value["isa"].is_string());
    let kinds: Vec<&str> =
        value["steps"].as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert!(["linear f32", "attention", "layer norm"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    let two = [
        &"bench" as &dyn AsRef<_>,
        &fixture("colours_u8.onnx"),
        &"--json",
        &"--seconds",
        &"0.02",
        &"-t",
        &"2",
    ];
    assert_eq!(json(0, &two)["threads"], 2);
    assert!(json(0, &[&"doctor", &"--json"])["cores"].as_u64().unwrap() >= 1);
}

#[test]
fn results_do_not_depend_on_the_instruction_set() {
    let foreign = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--top-k", "3", "--json"];
    for model in ["colours_u8.onnx", "colours_qdq.onnx"] {
        let said = |isa: &str| {
            let images = ["red.png", "green.png", "blue.png"].map(fixture);
            let mut command = command(&[&"run", &fixture(model)]);
            command.args(images).args(foreign).env("SMALTI_FORCE_ISA", isa);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout).to_owned()
        };
        let plain = said("scalar");
        assert!(plain.contains("probability"), "{plain}");
        let available = smalti_kernels::Isa::available().into_iter().map(smalti_kernels::Isa::name);
        for isa in available.chain([""]) {
            assert_eq!(said(isa), plain, "{model} on {isa}");
        }
    }
}

#[test]
fn an_unknown_instruction_set_is_a_usage_error() {
    for arguments in [&["doctor"][..], &["inspect", "none.onnx"], &["bench", "none.onnx"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
        let output = command.args(arguments).env("SMALTI_FORCE_ISA", "abacus").output().unwrap();
        let err = text(&output.stderr);
        assert_eq!((output.status.code(), err.lines().count()), (Some(2), 1), "{err}");
        assert!(err.contains("abacus") && err.contains("scalar"), "{err}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let red = fixture("red.png");
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"run"];
    let model = fixture("colours_u8.onnx");
    arguments.push(&model);
    (0..300).for_each(|_| arguments.push(&red));
    let mut child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn commands_end_with_what_to_type_next() {
    let (root, folders) = (tempfile::tempdir().unwrap(), colour_folders());
    let (model, photos) =
        (fixture("colours_u8.onnx").display().to_string(), folders.path().display().to_string());
    let red = fixture("red.png").display().to_string();
    for (line, next) in [
        ("inspect MODEL", "smalti-run selftest MODEL"),
        ("selftest MODEL", "smalti-run run MODEL IMAGES"),
        ("eval MODEL PHOTOS", "smalti-run explain MODEL IMAGE"),
        ("compare MODEL MODEL --data PHOTOS", "smalti-run run MODEL IMAGES"),
        ("bench MODEL --seconds 0.01", "smalti-run run MODEL IMAGES"),
        ("embed MODEL RED -o e.safetensors", "smalti-run learn add MODEL"),
        ("learn add MODEL c.bank mug PHOTOS", "smalti-run run MODEL IMAGES --bank c.bank"),
        ("learn list MODEL c.bank", "smalti-run run MODEL IMAGES --bank c.bank"),
        ("learn test MODEL c.bank PHOTOS", "smalti-run run MODEL IMAGES --bank c.bank"),
        ("doctor", "smalti-run bench MODEL"),
        #[cfg(feature = "explain")]
        ("explain MODEL RED -o map.png", "open map.png"),
        #[cfg(feature = "quantize")]
        (
            "quantize MODEL --calib PHOTOS -o int8.onnx --seconds 0.01 --budget 100%",
            "smalti-run run int8.onnx IMAGES",
        ),
    ] {
        let told = |more: &[&str]| {
            let word = |word: &str| match word {
                "MODEL" => model.clone(),
                "PHOTOS" => photos.clone(),
                "RED" => red.clone(),
                _ => word.to_owned(),
            };
            let mut command = command(&[]);
            let output =
                command.args(line.split(' ').map(word)).args(more).current_dir(root.path()).output().unwrap();
            assert!(output.status.success(), "{line}: {}", text(&output.stderr));
            (text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
        };
        let (out, err) = told(&[]);
        let next = if line == "doctor" { next.to_owned() } else { next.replace("MODEL", &model) };
        let last = err.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("next: {next}")), "{line}: {err}");
        assert!(!out.contains("next: "), "{line}: {out}");
        let (_, err) = told(&["--quiet"]);
        assert_eq!(err, "", "{line}");
        let (out, err) = told(&["--json"]);
        assert!(!err.contains("next: "), "{line}: {err}");
        serde_json::from_str::<Value>(&out).unwrap_or_else(|error| panic!("{line}: {error}: {out}"));
    }
}

#[cfg(feature = "shell")]
#[test]
fn completions_and_manual_pages_come_from_the_arguments() {
    let (out, _) = expect(0, &[&"completions", &"bash"]);
    assert!(out.contains("selftest"));
    let (out, _) = expect(0, &[&"man"]);
    assert!(out.contains("smalti"));
    let root = tempfile::tempdir().unwrap();
    expect(0, &[&"man", &root.path()]);
    assert!(root.path().join("smalti-run-bench.1").exists());
}
