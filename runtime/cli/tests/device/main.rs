//! `smalti-run` as a device uses it: streams, a service, signatures, models that are replaced.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

mod lasting;
mod service;
mod signed;
mod streams;
mod watched;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
}

fn model() -> PathBuf {
    fixture("models/colours_u8.onnx")
}

fn command(args: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    command.args(args.iter().map(|arg| arg.as_ref()));
    for variable in ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command with that on its standard input.
fn run(input: &[u8], args: &[&dyn AsRef<OsStr>]) -> Output {
    let mut child = command(args).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that fails early does not read.
            let _ = pipe.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

/// Runs a command and wants this exit code; gives both outputs.
fn expect(code: i32, input: &[u8], args: &[&dyn AsRef<OsStr>]) -> (String, String) {
    let output = run(input, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

/// JSON lines.
fn objects(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(objects.iter().all(|object| object["schema_version"] == 1), "{text}");
    objects
}

/// The most probable label of each frame.
fn labels(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object["predictions"][0]["label"].as_str()).collect()
}

/// An image in one colour, as a JPEG file.
fn jpeg(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels: Vec<u8> = colour.repeat(16 * 12);
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.encode(&pixels, 16, 12, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

const RED: [u8; 3] = [220, 30, 30];
const GREEN: [u8; 3] = [30, 200, 40];
const BLUE: [u8; 3] = [30, 40, 220];
