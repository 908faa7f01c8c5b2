//! Records go in and out unchanged; each lie that a file can tell is refused by its key.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::preprocess::FitMode;
use crate::resize::Interpolation;

fn record() -> ModelRecord {
    let preprocess = Preprocess {
        img_size: 32,
        channels: 3,
        fit: FitMode::Crop,
        resize: None,
        interpolation: Interpolation::Bicubic,
        mean: vec![0.4914, 0.4822, 0.4465],
        std: vec![0.2470, 0.2435, 0.2616],
    };
    let image = golden_image(1, 32, 3).unwrap();
    ModelRecord {
        names: vec!["cat".into(), "it's a \"dog\"".into()],
        preprocess,
        task: "classify".into(),
        description: "two animals".into(),
        license: "MIT".into(),
        version: "1".into(),
        golden: vec![Golden::new(1, &image, vec![0.1, -2.5e-7])],
        training: json!({ "epochs": 3, "seed": 1 }),
        quantization: None,
        weights_sha256: weights_digest([("a", &b"bytes"[..])]),
    }
}

fn read(pairs: &[(String, String)]) -> Result<Option<ModelRecord>> {
    ModelRecord::from_metadata(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

#[test]
fn a_record_goes_in_and_out() {
    let mut record = record();
    record.check().unwrap();
    let pairs = record.to_metadata();
    assert!(pairs.contains(&("imgsz".into(), "[32, 32]".into())));
    assert_eq!(read(&pairs).unwrap().unwrap(), record);
    record.quantization = Some(json!({ "method": "mse" }));
    let mut pairs = record.to_metadata();
    pairs.reverse();
    pairs.push(("somebody else's".into(), "value".into()));
    assert_eq!(read(&pairs).unwrap().unwrap(), record);
}

#[test]
fn keys_are_those_of_the_contract() {
    let mut record = record();
    record.quantization = Some(json!(null));
    let keys: Vec<_> = record.to_metadata().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, KEYS);
}

#[test]
fn foreign_models_have_no_record() {
    assert_eq!(read(&[]).unwrap(), None);
    let foreign = [("names", "{0: 'tench'}"), ("imgsz", "[224, 224]"), ("task", "classify"), ("stride", "1")];
    assert_eq!(ModelRecord::from_metadata(foreign).unwrap(), None);
}

#[test]
fn every_lie_is_named_by_its_key() {
    let digest = record().weights_sha256;
    let golden = |logits: &str, digest: &str| {
        format!(r#"[{{"pattern": 1, "sha256": "{digest}", "logits": {logits}}}]"#)
    };
    let lies = [
        ("names", "{0: 'cat', 2: 'dog'}".to_owned(), "expected 0, 1, 2"),
        ("names", "{0: 'cat'}".to_owned(), "2 logits for 1 names"),
        ("imgsz", "[32, 33]".to_owned(), "does not agree"),
        ("imgsz", "32".to_owned(), "does not agree"),
        ("imgsz", "[32, 32".to_owned(), "no JSON"),
        ("task", "x".repeat(MAX_TEXT + 1), "at most"),
        ("description", "x".repeat(MAX_TEXT + 1), "at most"),
        ("license", "x".repeat(MAX_TEXT + 1), "at most"),
        ("version", "x".repeat(MAX_TEXT + 1), "at most"),
        ("preprocessor_config", "{}".to_owned(), "resample"),
        ("preprocessor_config", "[".repeat(100_000), "no JSON"),
        ("golden", "{}".to_owned(), "invalid type"),
        ("golden", golden("[1, 2, 3]", &digest), "3 logits for 2 names"),
        ("golden", golden("[1, null]", &digest), "invalid type"),
        ("golden", golden("[1, 1e99]", &digest), "not finite"),
        ("golden", golden("[1, 2]", "abc"), "SHA-256"),
        ("golden", json!(vec![&record().golden[0]; 65]).to_string(), "65 test vectors"),
        ("training", "epochs=3".to_owned(), "no JSON"),
        ("training", " ".repeat(MAX_VALUE + 1), "at most"),
        ("quantization", "{".to_owned(), "no JSON"),
        ("sha256.weights", digest.to_uppercase(), "SHA-256"),
        ("sha256.weights", digest[1..].to_owned(), "SHA-256"),
    ];
    for (key, lie, problem) in lies {
        let mut pairs = record().to_metadata();
        pairs.retain(|(name, _)| name != key);
        pairs.push((key.into(), lie));
        let error = read(&pairs).unwrap_err().to_string();
        assert!(error.starts_with("model metadata `") && error.contains(problem), "{key}: {error}");
        assert!(error.len() < 300 && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_record_is_whole_and_given_once() {
    for (key, required) in
        KEYS.map(|key| (key, !["description", "license", "version", "training"].contains(&key)))
    {
        let mut pairs = record().to_metadata();
        pairs.retain(|(name, _)| name != key);
        if required && key != "quantization" {
            let error = read(&pairs).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")) && error.contains("missing"), "{error}");
        } else {
            assert!(read(&pairs).is_ok(), "{key}");
        }
        let mut pairs = record().to_metadata();
        pairs.push((key.into(), "x".into()));
        pairs.push((key.into(), "x".into()));
        assert!(read(&pairs).unwrap_err().to_string().contains("given twice"), "{key}");
    }
}

#[test]
fn check_finds_what_reading_would_refuse() {
    let bad = |change: fn(&mut ModelRecord), key: &str| {
        let mut record = record();
        change(&mut record);
        let error = record.check().unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
        assert!(read(&record.to_metadata()).is_err());
    };
    bad(|r| r.names.clear(), "names");
    bad(|r| r.names[0].clear(), "names");
    bad(|r| r.names[1] = "x".repeat(2000), "names");
    bad(|r| r.preprocess.std[0] = 0.0, "preprocessor_config");
    bad(|r| r.golden[0].logits[0] = f32::NAN, "golden");
    bad(|r| r.weights_sha256.push('0'), "sha256.weights");
}

#[test]
fn the_digest_separates_names_and_bytes() {
    let digest = |tensors: &[(&str, &[u8])]| weights_digest(tensors.iter().copied());
    // printf 'w\0\3\0\0\0\0\0\0\0abc' | sha256sum
    assert_eq!(digest(&[("w", b"abc")]), "ffe63df2266ccbc3988073129c04e93cbb37d42c0411f10b76831d0bb2748f66");
    let all = [
        digest(&[]),
        digest(&[("w", b"abc")]),
        digest(&[("w", b"ab"), ("c", b"")]),
        digest(&[("wa", b"bc")]),
        digest(&[("c", b""), ("w", b"ab")]),
    ];
    for i in 0..all.len() {
        assert!(!all[..i].contains(&all[i]));
    }
}

proptest! {
    #[test]
    fn any_record_goes_in_and_out(
        names in prop::collection::vec("\\PC{1,30}", 1..12),
        texts in prop::array::uniform4("\\PC{0,30}"),
        patterns in prop::collection::vec(any::<u64>(), 0..4),
        logit in prop::num::f32::NORMAL | prop::num::f32::ZERO,
        note in "\\PC{0,30}",
    ) {
        let [task, description, license, version] = texts;
        let mut record = ModelRecord { names, task, description, license, version, ..record() };
        let image = golden_image(0, 4, 3).unwrap();
        let logits = vec![logit; record.names.len()];
        record.golden = patterns.iter().map(|&pattern| Golden::new(pattern, &image, logits.clone())).collect();
        record.training = json!({ "note": note });
        prop_assert_eq!(read(&record.to_metadata()).unwrap().unwrap(), record);
    }

    #[test]
    fn no_metadata_panics(
        key in prop::sample::select(&KEYS[..]),
        value in "[\\[\\]{}\"': ,0-9a-z]{0,40}",
    ) {
        let mut pairs = record().to_metadata();
        pairs.retain(|(name, _)| name != key);
        pairs.push((key.into(), value));
        let _ = read(&pairs);
    }
}
