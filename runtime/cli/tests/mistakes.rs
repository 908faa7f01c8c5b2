//! Everyday mistakes: each message says what was found and what to do about it, on one line.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A command line, its exit code, what its message has to say was found, and what to do.
type Mistake = (&'static str, i32, &'static [&'static str], &'static str);

const MISTAKES: &[Mistake] = &[
    // Commands and flags.
    ("rnu model.onnx red.png", 2, &["rnu"], "did you mean `run`?"),
    ("train photos", 2, &["`train`"], "`smalti train`"),
    ("quantise model.onnx", 2, &["quantise"], "'quantize'"),
    ("predict model.onnx red.png", 2, &["`predict`"], "`smalti-run run`"),
    ("run model.onnx", 2, &["<INPUTS>"], "smalti-run run --help"),
    ("run model.onnx red.png --top 3", 2, &["--top"], "'--top-k'"),
    ("run model.onnx red.png --top-k 0", 2, &["0", "--top-k"], "1.."),
    ("run model.onnx red.png --top-k 99999999999", 2, &["99999999999"], "1.."),
    ("run model.onnx red.png --max-bad 500%", 2, &["500%", "--max-bad"], "0% to 100%"),
    ("run model.onnx red.png --max-bad few", 2, &["few", "--max-bad"], "0% to 100%"),
    ("bench model.onnx -t 0", 2, &["0", "--threads"], "1..=256"),
    ("bench model.onnx --seconds 0", 2, &["0", "--seconds"], "0.01 to 3600"),
    ("bench model.onnx --seconds long", 2, &["long", "--seconds"], "0.01 to 3600"),
    ("quantize model.onnx -o int8.onnx", 2, &["--calib"], "smalti-run quantize --help"),
    ("quantize model.onnx --calib photos -o out.onnx --method best", 2, &["best"], "percentile"),
    // Paths.
    ("run mdoel.onnx red.png", 6, &["mdoel.onnx"], "did you mean `model.onnx`?"),
    ("run nowhere/model.onnx red.png", 6, &["nowhere/model.onnx"], "check the path"),
    (r"run C:\Users\me\model.onnx red.png", 6, &["Windows path"], "/mnt/c/Users/me/model.onnx"),
    ("run photos red.png", 6, &["photos", "s a directory"], "name a file"),
    ("run model.onnx rde.png", 5, &["rde.png"], "did you mean `red.png`?"),
    ("run model.onnx nothing", 5, &["nothing", "no .jpg"], "name one with images"),
    ("quantize model.onnx --calib nothing -o out.onnx", 5, &["nothing", "no .jpg"], "name one with images"),
    (
        "quantize model.onnx --calib photos -o model.onnx",
        2,
        &["model.onnx", "itself"],
        "write to another file",
    ),
    ("quantize model.onnx --calib photos -o nowhere/out.onnx", 6, &["nowhere"], "check the path"),
    ("embed model.onnx red.png -o photos", 2, &["photos is a folder"], "expected a file"),
    ("explain model.onnx red.png -o heatmap.jpg", 2, &["heatmap.jpg"], ".png"),
    // Files of another kind.
    ("run red.png model.onnx", 3, &["red.png", "an image"], ".onnx"),
    ("run model.onnx model.onnx", 5, &["model.onnx", "an ONNX model"], "name an image"),
    ("run weights.safetensors red.png", 3, &["weights.safetensors", "safetensors"], "smalti import"),
    ("run checkpoint.pth red.png", 3, &["checkpoint.pth", "zip archive"], "torch.onnx.export"),
    ("run old.pt red.png", 3, &["old.pt", "PyTorch"], "torch.onnx.export"),
    ("run model.tflite red.png", 3, &["model.tflite", "TensorFlow Lite"], "to ONNX"),
    ("run keras.h5 red.png", 3, &["keras.h5", "HDF5"], "to ONNX"),
    ("run page.onnx red.png", 3, &["page.onnx", "web page"], "download"),
    ("run lfs.onnx red.png", 3, &["lfs.onnx", "Git LFS pointer"], "git lfs pull"),
    ("inspect lfs.onnx", 3, &["lfs.onnx", "Git LFS pointer"], "git lfs pull"),
    ("run empty.onnx red.png", 3, &["empty.onnx", "empty"], "download it again"),
    ("run cut.onnx red.png", 3, &["cut.onnx", "cut off"], "ONNX model"),
    ("run model.onnx heic.jpg", 5, &["heic.jpg", "HEIC"], "convert it to JPEG or PNG"),
    ("run model.onnx gif.jpg", 5, &["gif.jpg", "GIF"], "convert it to JPEG or PNG"),
    ("run model.onnx document.jpg", 5, &["document.jpg", "PDF"], "convert it to JPEG or PNG"),
    ("run model.onnx empty.jpg", 5, &["empty.jpg", "empty"], "again"),
    ("run model.onnx lfs.jpg", 5, &["lfs.jpg", "Git LFS pointer"], "git lfs pull"),
    ("run model.onnx cut.png", 5, &["cut.png", "truncated"], "ends too early"),
    // What does not belong together.
    ("run foreign.onnx red.png", 2, &["prepare images"], "--mean and --std"),
    ("run model.onnx red.png --labels two.txt", 2, &["2 lines", "3 classes"], "one line for each"),
    ("run model.onnx red.png --output scores", 2, &["`scores`", "`logits`"], "expected one of"),
    ("run model.onnx red.png --bank good.anomaly", 3, &["good.anomaly"], "class bank"),
    ("explain model.onnx red.png --class rde -o x.png", 2, &["`rde`"], "did you mean `red`?"),
    ("learn remove model.onnx classes.bank reed", 2, &["`reed`"], "learned:"),
    ("eval model.onnx flat", 5, &["flat"], "class"),
    ("eval model.onnx strange", 5, &["strange"], "red"),
    ("selftest foreign.onnx", 4, &["no test vectors"], "smalti-run compare"),
    ("verify model.onnx --pubkey nokey", 2, &["nokey"], "minisign"),
    // Streams and servers.
    ("run model.onnx mjpeg:nowhere.mjpeg", 6, &["nowhere.mjpeg"], "check the path"),
    ("run model.onnx raw:640:rgb8:-", 2, &["raw:640:rgb8:-"], "WIDTHxHEIGHT"),
    ("run model.onnx raw:640x480:rgb9:-", 2, &["rgb9"], "rgb8"),
    ("run model.onnx red.png --watch", 2, &["--watch"], "mjpeg:FILE"),
    #[cfg(feature = "serve")]
    ("serve model.onnx --listen 8080", 2, &["8080"], "127.0.0.1:8080"),
    #[cfg(feature = "serve")]
    ("serve model.onnx --listen 0.0.0.0:0", 2, &["0.0.0.0"], "--token"),
];

/// A folder with what people have lying around.
fn world() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name);
    let copy = |from: &str, to: &str| {
        fs::create_dir_all(path(to).parent().unwrap()).unwrap();
        fs::copy(fixture(from), path(to)).unwrap();
    };
    copy("models/colours_u8.onnx", "model.onnx");
    copy("models/torch_vit.onnx", "foreign.onnx");
    copy("learned/colours.bank", "classes.bank");
    copy("learned/good.anomaly", "good.anomaly");
    copy("models/red.png", "red.png");
    for colour in ["red", "green", "blue"] {
        copy(&format!("models/{colour}.png"), &format!("photos/{colour}/1.png"));
    }
    copy("models/red.png", "flat/1.png");
    copy("models/red.png", "strange/purple/1.png");
    fs::create_dir(path("nothing")).unwrap();
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    let (model, image) = (fs::read(path("model.onnx")).unwrap(), fs::read(path("red.png")).unwrap());
    let files: [(&str, &[u8]); 18] = [
        ("weights.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
        ("checkpoint.pth", b"PK\x03\x04\0\0\0\0archive/data.pkl"),
        ("old.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."),
        ("model.tflite", b"\x1c\0\0\0TFL3\x14\0\x20\0"),
        ("keras.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0"),
        ("page.onnx", b"<!DOCTYPE html><html><body>Not found</body></html>"),
        ("page.jpg", b"<html>"),
        ("lfs.onnx", lfs),
        ("lfs.jpg", lfs),
        ("empty.onnx", b""),
        ("empty.jpg", b""),
        ("cut.onnx", &model[..model.len() / 2]),
        ("cut.png", &image[..image.len() / 2]),
        ("heic.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\0"),
        ("gif.jpg", b"GIF89a\x01\0\x01\0"),
        ("document.jpg", b"%PDF-1.7\n"),
        ("two.txt", b"one\ntwo\n"),
        ("nokey", b"no key"),
    ];
    files.iter().for_each(|(name, bytes)| fs::write(path(name), bytes).unwrap());
    root
}

/// What a call says on standard error, with its exit code.
fn call(folder: &Path, line: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
    let output = command.args(line.split(' ')).current_dir(folder).env_remove("RUST_LOG").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{line}: nothing else is printed");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn messages_say_what_was_found_and_what_to_do() {
    let root = world();
    let mut wrong = Vec::new();
    for (line, code, found, advice) in MISTAKES {
        let (ended, said) = call(root.path(), line);
        let last = said.lines().last().unwrap_or_default();
        let is_one = said.matches(": error: ").count() == 1 && last.starts_with("smalti-run: error: ");
        if !is_one || ended != Some(*code) || found.iter().chain([advice]).any(|word| !said.contains(word)) {
            wrong.push(format!("{line}\n  expected {code}, {found:?}, {advice:?}\n  {ended:?}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MISTAKES.len(), wrong.join("\n"));
}

#[cfg(feature = "serve")]
#[test]
fn a_port_in_use_is_told() {
    let (root, taken) = (world(), TcpListener::bind("127.0.0.1:0").unwrap());
    let place = taken.local_addr().unwrap().to_string();
    let (code, said) = call(root.path(), &format!("serve model.onnx --listen {place}"));
    assert!(code == Some(6) && said.contains(&place) && said.contains("another port"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_place_that_cannot_be_written_to_is_told() {
    let root = world();
    // Whoever runs this may write everywhere else.
    let place = PathBuf::from("/dev/null/int8.onnx");
    let (code, said) =
        call(root.path(), &format!("quantize model.onnx --calib photos -o {}", place.display()));
    assert!(code == Some(6) && said.contains("/dev/null") && said.contains("name a folder"), "{said}");
}
