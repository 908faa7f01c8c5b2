//! `page` as users meet it; what browsers make of the page, `scripts/check-page` says.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Runs `page` and wants this exit code; gives both outputs.
fn page(code: i32, model: &str, output: &Path, more: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    command.arg("page").arg(repository(model)).arg("-o").arg(output).args(more).env_remove("RUST_LOG");
    let done = command.output().unwrap();
    let [out, err] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(done.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

/// A file that the page holds.
fn held(html: &str, id: &str) -> Vec<u8> {
    let (_, rest) = html.split_once(&format!(" id=\"{id}\">\n")).unwrap();
    let packed = BASE64_STANDARD.decode(rest.split_once('\n').unwrap().0).unwrap();
    let mut file = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut file).unwrap();
    file
}

#[test]
fn a_page_is_the_model_and_the_runtime_and_refers_to_nothing_outside() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("demo.html");
    let model = "models/ready/groceries-int8.onnx";
    let (out, _) = page(0, model, &place, &[]);
    assert!(out.contains("demo.html") && out.contains("open it in a browser"), "{out}");
    let html = fs::read_to_string(&place).unwrap();
    assert!(html.len() <= 3_000_000, "{} bytes", html.len());
    assert_eq!(held(&html, "model"), fs::read(repository(model)).unwrap());
    assert!(held(&html, "module").starts_with(b"\0asm"));
    for outside in ["http://", "https://", "src=\"", "href=\"/", "@import", "{{"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let (out, _) = page(0, model, &place, &["--json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["bytes"], html.len());
    assert_eq!((found["labels"].as_u64(), found["schema_version"].as_u64()), (Some(43), Some(1)));
    assert_eq!(fs::read_to_string(&place).unwrap(), html, "the same page from the same model");
}

#[test]
fn models_that_a_page_cannot_run_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("demo.html");
    for (model, code, wanted) in [
        ("runtime/tests/models/timm_vit.onnx", 3, "smalti export"),
        ("runtime/tests/models/red.png", 3, "refused"),
        ("runtime/tests/models/none.onnx", 6, "none.onnx"),
    ] {
        let (_, err) = page(code, model, &place, &[]);
        assert!(err.contains(wanted), "{err}");
        assert!(!place.exists());
    }
    let (_, err) =
        page(6, "runtime/tests/models/colours_u8.onnx", &folder.path().join("none/demo.html"), &[]);
    assert!(err.contains("none/demo.html"), "{err}");
    // Checked as for all commands that open models.
    let (_, err) = page(6, "runtime/tests/models/colours_u8.onnx", &place, &["--pubkey", "none.pub"]);
    assert!(err.contains("key") && !place.exists(), "{err}");
    let (_, err) = page(3, "runtime/tests/models/colours_u8.onnx", &place, &["--min-version", "9.0.0"]);
    assert!(err.contains("version") && !place.exists(), "{err}");
}
