//! What a device has learned.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use smalti_runtime::anomaly::AnomalyDetector;
use smalti_runtime::bank::ClassBank;
use smalti_runtime::{Model, Output};

use super::judge;
use crate::file;

/// The model that the seeds belong to, and what it says of an image.
static MODEL: LazyLock<(Model, Output)> = LazyLock::new(|| {
    let model = Model::from_bytes(&file("runtime/tests/models/colours_u8.onnx")).expect("a good model");
    let pixels = vec![90; model.input().values()];
    let output = model.session().and_then(|mut session| session.run_pixels(&pixels)).expect("an answer");
    (model, output)
});

/// Bytes of a digest.
const DIGEST: usize = 32;

/// Makes the frame of a file right, its length and digests (`runtime/src/store/mod.rs`), so that what is inside is read.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len().saturating_sub(DIGEST)].to_vec();
    let length = (bytes.len() + DIGEST) as u64;
    if let Some(field) = bytes.get_mut(12..20) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    if let Some(field) = bytes.get_mut(20..20 + DIGEST) {
        field.copy_from_slice(&file("runtime/tests/learned/colours.bank")[20..20 + DIGEST]);
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// A bank of classes, as it is and with a right frame.
pub fn bank(bytes: &[u8]) -> Result<(), String> {
    let (model, output) = &*MODEL;
    for bytes in [bytes.to_vec(), sealed(bytes)] {
        let Ok(bank) = ClassBank::from_bytes(&bytes, model) else { continue };
        let mut answer = bank.answer();
        judge(bank.answer_into(model, output, &mut answer))?;
        if bank.to_bytes() != bytes {
            return Err("the bank is not what it was read from".into());
        }
    }
    Ok(())
}

pub fn banks() -> Vec<Vec<u8>> {
    vec![file("runtime/tests/learned/colours.bank")]
}

/// A detector of what is unusual, as it is and with a right frame.
pub fn anomaly(bytes: &[u8]) -> Result<(), String> {
    let (model, output) = &*MODEL;
    for bytes in [bytes.to_vec(), sealed(bytes)] {
        let Ok(detector) = AnomalyDetector::from_bytes(&bytes, model) else { continue };
        let mut finding = detector.finding();
        judge(detector.score_into(model, output, &mut finding))?;
    }
    Ok(())
}

pub fn detectors() -> Vec<Vec<u8>> {
    vec![file("runtime/tests/learned/good.anomaly")]
}
