//! `explain` as users meet it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

/// Runs `explain` with that on its standard input and wants this exit code; gives both outputs.
fn explain(code: i32, input: &[u8], args: &[&dyn AsRef<OsStr>]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    command.arg("explain").args(args.iter().map(|arg| arg.as_ref())).env_remove("RUST_LOG");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that fails early does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

/// A grey image with a red square in its lower right quarter.
fn spot() -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(64, 48, |x, y| {
        image::Rgb(if (40..60).contains(&x) && (28..46).contains(&y) { [230, 20, 20] } else { [128; 3] })
    });
    let mut png = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn a_heat_map_is_drawn_over_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let (photo, map) = (folder.path().join("photo.png"), folder.path().join("map.png"));
    fs::write(&photo, spot()).unwrap();
    for model in ["colours_u8.onnx", "colours_f32.onnx"] {
        let (out, _) = explain(0, &[], &[&fixture(model), &photo, &"-o", &map, &"--json"]);
        let found: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&found["schema_version"], &found["label"], &found["index"], &found["runs"]),
            (&1.into(), &"red".into(), &0.into(), &65.into())
        );
        let place = |name: &str| found["peak"][name].as_f64().unwrap();
        let inside =
            (40.0..60.0).contains(&(64.0 * place("x"))) && (28.0..46.0).contains(&(48.0 * place("y")));
        assert!(inside && place("fall") > 0.05, "{out}");
        let drawing = image::open(&map).unwrap().into_rgb8();
        assert_eq!(drawing.dimensions(), (480, 360));
        let red = |x: f64, y: f64| drawing.get_pixel((480.0 * x) as u32, (360.0 * y) as u32).0[0];
        assert!(red(place("x"), place("y")) > red(0.2, 0.2) + 40);
    }
    let (out, _) =
        explain(0, &spot(), &[&fixture("colours_u8.onnx"), &"-", &"-o", &map, &"--class", &"blue"]);
    assert!(out.starts_with("-: blue ") && out.contains("the heat map is in "), "{out}");
}

#[test]
fn models_that_tract_runs_are_explained_too() {
    if cfg!(not(feature = "tract")) {
        return;
    }
    let (folder, more) =
        (tempfile::tempdir().unwrap(), ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--json"]);
    let map = folder.path().join("map.png");
    let arguments: [&dyn AsRef<OsStr>; 9] = [
        &fixture("deit_distilled.onnx"),
        &fixture("red.png"),
        &"-o",
        &map,
        &more[0],
        &more[1],
        &more[2],
        &more[3],
        &more[4],
    ];
    let (out, _) = explain(0, &[], &arguments);
    assert!(out.contains("\"runs\":") && map.is_file(), "{out}");
}

#[test]
fn a_learned_class_has_a_heat_map_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("spot.png"), spot()).unwrap();
    let (model, spot) = (fixture("colours_u8.onnx"), at("spot.png"));
    let [green, blue] = ["green.png", "blue.png"].map(fixture);
    let mut add = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    add.args(["learn", "add"]).args([&model, &at("a.bank")]).arg("spot").arg(&spot);
    add.arg("--negatives").arg(green).arg("--negatives").arg(blue);
    assert!(add.output().unwrap().status.success());
    let map = at("map.png");
    let (out, _) = explain(0, &[], &[&model, &spot, &"--bank", &at("a.bank"), &"-o", &map, &"--class=spot"]);
    assert!(out.contains(": spot ") && map.is_file(), "{out}");
    let (_, err) = explain(2, &[], &[&model, &spot, &"--bank", &at("a.bank"), &"-o", &map, &"--class=mauve"]);
    assert!(err.contains("`spot`"), "{err}");
}

#[test]
fn mistakes_are_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (map, red, model) = (folder.path().join("map.png"), fixture("red.png"), fixture("colours_u8.onnx"));
    let nowhere = folder.path().join("none/map.png");
    for (code, args, words) in [
        (2, [&model as &dyn AsRef<OsStr>, &red, &"-o", &map, &"--class=mauve"], "none of the labels (`red`"),
        (2, [&model, &red, &"-o", &map, &"--grid=65"], "1..=64"),
        (2, [&model, &red, &"-o", &folder.path(), &"--json"], "ending in .png"),
        (5, [&model, &model, &"-o", &map, &"--json"], "the file is an ONNX model"),
        (6, [&model, &red, &"-o", &nowhere, &"--json"], "none/map.png"),
        (2, [&fixture("timm_vit.onnx"), &red, &"-o", &map, &"--json"], "does not say how to prepare images"),
    ] {
        let (_, err) = explain(code, &[], &args);
        assert!(err.contains(words), "{err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
