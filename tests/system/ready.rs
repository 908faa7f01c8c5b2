//! The classifiers in `models/ready/`: the files are those of the checksums, and they pass their own tests.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use smalti_runtime::{Model, selftest};

fn ready(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/ready").join(name)
}

#[test]
fn ready_classifiers_answer_as_when_they_were_made() {
    for (name, classes) in [("groceries", 43), ("waste", 6)] {
        let sums = fs::read_to_string(ready(&format!("{name}.sha256"))).unwrap();
        // As `sha256sum` writes them.
        let files: Vec<(&str, &str)> = sums.lines().filter_map(|line| line.split_once("  ")).collect();
        assert_eq!(
            files.iter().map(|(_, file)| *file).collect::<Vec<_>>(),
            [format!("{name}.onnx"), format!("{name}-int8.onnx")]
        );
        for (sum, file) in files {
            let bytes = fs::read(ready(file)).unwrap();
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, sum, "{file}");
            let model = Model::from_bytes(&bytes).unwrap();
            assert_eq!(model.fallback_reason(), None, "{file}");
            selftest::judge(&selftest::run(&model).unwrap()).unwrap();
            let record = model.record().unwrap();
            assert_eq!((record.names.len(), &*record.license), (classes, "Apache-2.0"), "{file}");
        }
    }
}
