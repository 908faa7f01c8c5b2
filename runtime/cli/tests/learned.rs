//! `embed`, `learn` and `anomaly` as users meet them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

/// Runs and wants this exit code; gives both outputs.
fn expect(code: i32, args: &[&dyn AsRef<OsStr>]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    let output = command.args(args.iter().map(|arg| arg.as_ref())).env_remove("RUST_LOG").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

fn json(args: &[&dyn AsRef<OsStr>]) -> Value {
    let (out, _) = expect(0, args);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["schema_version"], 1);
    value
}

/// A plain image of about that colour, with a square of another one in a corner.
fn paint(path: &Path, colour: [u8; 3], nudge: u8, fault: Option<[u8; 3]>) {
    let image = image::RgbImage::from_fn(24, 24, |x, y| match fault {
        Some(fault) if x >= 12 && y >= 12 => image::Rgb(fault),
        _ => image::Rgb(colour.map(|value| value.saturating_add(nudge + (x + 2 * y) as u8 % 5))),
    });
    image.save(path).unwrap();
}

/// A folder of `count` such images.
fn paint_folder(folder: &Path, colour: [u8; 3], count: u8) {
    fs::create_dir_all(folder).unwrap();
    (0..count).for_each(|i| paint(&folder.join(format!("{i}.png")), colour, 3 * i, None));
}

#[test]
fn embeddings_go_to_a_file_or_are_printed() {
    let (model, folder) = (fixture("colours_u8.onnx"), tempfile::tempdir().unwrap());
    let place = folder.path().join("e.safetensors");
    let images = [fixture("red.png"), fixture("blue.png")];
    let printed = json(&[&"embed", &model, &images[0], &images[1], &"--json"]);
    assert_eq!((printed["dim"].as_u64(), printed["failed"].as_u64()), (Some(8), Some(0)));
    let (out, _) = expect(0, &[&"embed", &model, &images[0], &images[1], &"-o", &place]);
    assert!(out.contains("2 embeddings of 8 numbers"), "{out}");
    let bytes = fs::read(&place).unwrap();
    let (header, data) = bytes[8..].split_at(u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize);
    let header: Value = serde_json::from_slice(header).unwrap();
    assert_eq!(header["embeddings"]["shape"], serde_json::json!([2, 8]));
    assert!(header["__metadata__"]["smalti"].as_str().unwrap().contains("blue.png"));
    for (i, value) in data.chunks_exact(4).enumerate() {
        let wanted = printed["results"][i / 8]["embedding"][i % 8].as_f64().unwrap();
        assert_eq!(f32::from_le_bytes(value.try_into().unwrap()), wanted as f32);
    }
    let (_, err) = expect(2, &[&"embed", &model, &images[0]]);
    assert!(err.contains("-o FILE.safetensors"), "{err}");
    expect(5, &[&"embed", &model, &folder.path().join("none.png"), &"--json"]);
    expect(2, &[&"embed", &fixture("timm_vit.onnx"), &images[0], &"--json"]);
}

#[test]
fn a_class_is_learned_answered_tested_and_forgotten() {
    let (model, folder) = (fixture("colours_u8.onnx"), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let bank = at("colours.bank");
    for (name, colour) in [("red", [200, 20, 20]), ("green", [20, 200, 20]), ("blue", [20, 20, 200])] {
        paint_folder(&at("data").join(name), colour, 12);
    }
    paint_folder(&at("data/white"), [180, 180, 180], 12);
    let mut negatives: Vec<PathBuf> = ["red", "green", "blue"].map(|name| at("data").join(name)).into();
    let some: Vec<PathBuf> = (0..5).map(|i| at("data/white").join(format!("{}.png", 2 * i))).collect();
    let mut args: Vec<&dyn AsRef<OsStr>> = vec![&"learn", &"add", &model, &bank, &"white"];
    some.iter().for_each(|path| args.push(path));
    // One image says nothing of how alike is alike enough.
    let one = json(&[&"learn", &"add", &model, &at("one.bank"), &"white", &some[0], &"--json"]);
    assert_eq!((&one["added"], &one["recognises"]), (&1.into(), &false.into()));
    let (_, err) = expect(0, &[&"learn", &"add", &model, &at("one.bank"), &"white", &some[0]]);
    assert!(err.contains("second image"), "{err}");
    for negative in &mut negatives {
        args.extend([&"--negatives" as &dyn AsRef<OsStr>, negative]);
    }
    args.push(&"--false-accepts=3%");
    let (out, _) = expect(0, &args);
    assert!(out.contains("5 images of `white` added") && out.contains("of 36 negatives"), "{out}");
    let listed = json(&[&"learn", &"list", &model, &bank, &"--json"]);
    assert_eq!(listed["classes"], serde_json::json!([{ "name": "white", "images": 5 }]));
    assert!(listed["accepted"].as_u64() <= Some(1) && listed["negatives"] == 36, "{listed}");

    let unseen = at("data/white/11.png");
    let answer = json(&[&"run", &model, &unseen, &at("data/red/7.png"), &"--bank", &bank, &"--json"]);
    assert_eq!(answer["results"][0]["predictions"][0]["label"], "white");
    assert_eq!(answer["results"][0]["predictions"][0]["index"], 3);
    assert_eq!(answer["results"][1]["predictions"][0]["label"], "red");
    let tested = json(&[&"learn", &"test", &model, &bank, &at("data"), &"--json"]);
    assert!(tested["new_accuracy"].as_f64() >= Some(0.9) && tested["new_n"] == 12, "{tested}");
    let lost =
        tested["old_accuracy_without_bank"].as_f64().unwrap() - tested["old_accuracy"].as_f64().unwrap();
    assert!(lost <= 0.03, "{tested}");
    let (out, _) = expect(0, &[&"learn", &"test", &model, &bank, &at("data")]);
    assert!(out.contains("old classes") && out.contains("white") && out.contains("learned"), "{out}");

    // The same images count once.
    let (out, err) = expect(0, &[&"learn", &"add", &model, &bank, &"white", &some[0]]);
    assert!(out.contains("0 images of `white` added") && err.contains("already"), "{out}{err}");
    let (_, err) = expect(2, &[&"learn", &"remove", &model, &bank, &"black"]);
    assert!(err.contains("`white`"), "{err}");
    expect(0, &[&"learn", &"remove", &model, &bank, &"white"]);
    let (out, _) = expect(0, &[&"learn", &"list", &model, &bank]);
    assert!(out.contains("no classes"), "{out}");
}

#[test]
fn files_of_another_model_or_damaged_are_refused_and_stay_as_they_are() {
    let (model, folder) = (fixture("colours_u8.onnx"), tempfile::tempdir().unwrap());
    let bank = folder.path().join("colours.bank");
    let [red, green] = [fixture("red.png"), fixture("green.png")];
    expect(0, &[&"learn", &"add", &model, &bank, &"rose", &red, &green]);
    let whole = fs::read(&bank).unwrap();
    let other = fixture("colours_f32.onnx");
    let (_, err) = expect(3, &[&"learn", &"list", &other, &bank]);
    assert!(
        err.contains("class bank refused: ") && err.contains("colours.bank: model: found SHA-256"),
        "{err}"
    );
    expect(3, &[&"learn", &"add", &other, &bank, &"rose", &red]);
    expect(3, &[&"run", &other, &red, &"--bank", &bank]);
    assert_eq!(fs::read(&bank).unwrap(), whole);
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/signed/test.pub");
    expect(3, &[&"learn", &"list", &model, &bank, &"--pubkey", &key]);
    fs::write(&bank, &whole[..whole.len() - 1]).unwrap();
    expect(3, &[&"learn", &"list", &model, &bank]);
    expect(6, &[&"learn", &"list", &model, &folder.path().join("none.bank")]);
    expect(
        5,
        &[&"learn", &"add", &model, &folder.path().join("new.bank"), &"x", &folder.path().join("none.png")],
    );
    assert!(!folder.path().join("new.bank").exists());
}

#[test]
fn a_fault_is_found_and_drawn() {
    let (model, folder) = (fixture("colours_u8.onnx"), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let detector = at("good.anomaly");
    paint_folder(&at("good"), [90, 80, 70], 20);
    let fitted =
        json(&[&"anomaly", &"fit", &model, &detector, &at("good"), &"--false-alarms", &"10%", &"--json"]);
    assert_eq!((fitted["images"].as_u64(), fitted["grid"].as_array().map(Vec::len)), (Some(20), Some(2)));
    paint(&at("bad.png"), [90, 80, 70], 4, Some([0, 250, 60]));
    let scored =
        json(&[&"anomaly", &"score", &model, &detector, &at("bad.png"), &at("good/9.png"), &"--json"]);
    let score = |i: usize| scored["results"][i]["score"].as_f64().unwrap();
    assert!(score(0) > 1.0 && scored["results"][0]["unusual"] == true && score(1) < score(0), "{scored}");
    let (out, _) =
        expect(0, &[&"anomaly", &"score", &model, &detector, &at("bad.png"), &"-o", &at("map.png")]);
    assert!(out.contains("unusual"), "{out}");
    let map = image::open(at("map.png")).unwrap().into_rgb8();
    // The fault has no red of its own, and the whole image is far above the threshold.
    let fault = map.get_pixel(450, 450).0;
    assert!(map.dimensions() == (480, 480) && fault[0] > 180 && fault[0] > fault[2], "{fault:?}");
}
