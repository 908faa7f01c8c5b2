//! Signatures and versions, on everything that opens a model.

use std::fs;

use super::*;

/// A folder with the test model, signed.
fn signed() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("model.onnx");
    fs::copy(model(), &place).unwrap();
    fs::copy(fixture("signed/colours_u8.onnx.minisig"), folder.path().join("model.onnx.minisig")).unwrap();
    (folder, place)
}

#[test]
fn verify_says_who_signed() {
    let (_folder, model) = signed();
    let (key, other) = (fixture("signed/test.pub"), fixture("signed/other.pub"));
    let (out, err) = expect(0, &[], &[&"verify", &model, &"--pubkey", &key]);
    assert_eq!(out, "signed by this key: for Smalti's tests\n");
    assert!(err.starts_with("next: smalti-run run ") && err.contains("--pubkey"), "{err}");
    let line = fs::read_to_string(&key).unwrap().lines().nth(1).unwrap().to_owned();
    let (out, _) = expect(0, &[], &[&"verify", &model, &"--pubkey", &line, &"--json"]);
    assert_eq!(objects(&out)[0]["verified"], true);
    let (_, err) = expect(3, &[], &[&"verify", &model, &"--pubkey", &other]);
    assert!(err.contains("another key"), "{err}");
    expect(0, &[], &[&"verify", &model, &"--pubkey", &key, &"--min-version", &"0.0.1"]);
    let (_, err) = expect(3, &[], &[&"verify", &model, &"--pubkey", &key, &"--min-version", &"99"]);
    assert!(err.contains("version") && err.contains("99"), "{err}");
    expect(2, &[], &[&"verify", &model]);
    expect(2, &[], &[&"verify", &model, &"--pubkey", &model.with_extension("onnx.minisig")]);
    expect(2, &[], &[&"verify", &model, &"--pubkey", &key, &"--min-version", &"new"]);
    expect(6, &[], &[&"verify", &model, &"--pubkey", &"/no/such/key"]);
}

#[test]
fn whatever_opens_a_model_asks_for_the_signature() {
    let (folder, model) = signed();
    let key = fixture("signed/test.pub");
    let image = fixture("models/red.png");
    let photos = folder.path().join("photos/red");
    fs::create_dir_all(&photos).unwrap();
    fs::copy(&image, photos.join("1.png")).unwrap();
    let photos = folder.path().join("photos");
    let commands: &[&[&dyn AsRef<OsStr>]] = &[
        &[&"run", &model, &image],
        &[&"run", &model, &"mjpeg:-"],
        &[&"run", &model, &"mjpeg:-", &"--watch"],
        &[&"eval", &model, &photos],
        &[&"bench", &model, &"--seconds", &"0.01"],
        &[&"inspect", &model],
        &[&"selftest", &model],
        &[&"compare", &model, &model, &"--data", &photos],
        #[cfg(feature = "quantize")]
        &[
            &"quantize",
            &model,
            &"--calib",
            &photos,
            &"-o",
            &folder.path().join("out.onnx"),
            &"--seconds",
            &"0.01",
            &"--budget",
            &"100%",
        ],
    ];
    let input = jpeg(RED);
    for &command in commands {
        expect(0, &input, &[command, &[&"--pubkey", &key]].concat());
        let (_, err) = expect(3, &input, &[command, &[&"--min-version", &"99"]].concat());
        assert!(err.contains("version"), "{err}");
    }
    // One byte of the file's last field, which no other check looks at.
    let mut bytes = fs::read(&model).unwrap();
    fs::remove_file(folder.path().join("model.onnx.minisig")).unwrap();
    for &command in commands {
        let (_, err) = expect(3, &input, &[command, &[&"--pubkey", &key]].concat());
        assert!(err.contains("model.onnx.minisig"), "{err}");
    }
    fs::copy(fixture("signed/colours_u8.onnx.minisig"), folder.path().join("model.onnx.minisig")).unwrap();
    let text = b"license";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at] = b'L';
    fs::write(&model, bytes).unwrap();
    for &command in commands {
        let (_, err) = expect(3, &input, &[command, &[&"--pubkey", &key]].concat());
        assert!(err.contains("not for this file"), "{err}");
    }
}
