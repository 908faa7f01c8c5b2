//! What an exported ONNX file says about itself: its `metadata_props`.
//!
//! Labels, preprocessing, test vectors and digests travel inside the model file, so that a device needs nothing
//! else. The keys `names imgsz task description license version` are those of Ultralytics' exports; readers of
//! those files find our labels. Whatever a file claims is checked when it is read.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::preprocess::Preprocess;

mod golden;
mod labels;

pub use golden::{Golden, golden_image};
pub use labels::{names_from_text, names_to_text};

/// Name of the model's input.
pub const INPUT: &str = "image";
/// Name of the output with one score a class.
pub const LOGITS: &str = "logits";
/// Name of the output with the vector in front of the head.
pub const EMBEDDING: &str = "embedding";
/// The task of a model that classifies.
pub const CLASSIFY: &str = "classify";
/// The task of a model that embeds images: its only output is [`EMBEDDING`], and its labels number the values of that.
pub const EMBED: &str = "embed";
/// Version of the ONNX operator set.
pub const OPSET: i64 = 17;

/// The longest value of a key.
const MAX_VALUE: usize = 16 << 20;
/// The longest free text.
const MAX_TEXT: usize = 64 << 10;

/// Everything that a model file says about itself besides its graph.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRecord {
    /// The labels, in the order of the logits.
    pub names: Vec<String>,
    /// What happens to an image before the model sees it.
    pub preprocess: Preprocess,
    /// What the model does: [`CLASSIFY`] or [`EMBED`].
    pub task: String,
    /// One line for people.
    pub description: String,
    /// The licence of the weights.
    pub license: String,
    /// The version of the model.
    pub version: String,
    /// Test vectors.
    pub golden: Vec<Golden>,
    /// How the model was trained.
    pub training: Value,
    /// How the model was quantized, if it was.
    pub quantization: Option<Value>,
    /// [`weights_digest`] of the weights.
    pub weights_sha256: String,
}

/// The keys that only our files have; a file without them all is a foreign model.
const OWN_KEYS: [&str; 3] = ["preprocessor_config", "golden", "sha256.weights"];

impl ModelRecord {
    /// Refuses a record that [`ModelRecord::from_metadata`] would refuse.
    pub fn check(&self) -> Result<()> {
        labels::check(&self.names)?;
        self.preprocess
            .check()
            .map_err(|error| Error::Metadata { key: "preprocessor_config", problem: error.to_string() })?;
        for (key, text) in self.texts() {
            if text.len() > MAX_TEXT {
                return Err(too_long(key, text.len(), MAX_TEXT));
            }
        }
        golden::check(&self.golden, self.names.len())?;
        check_digest("sha256.weights", &self.weights_sha256)
    }

    fn texts(&self) -> [(&'static str, &str); 4] {
        [
            ("task", &self.task),
            ("description", &self.description),
            ("license", &self.license),
            ("version", &self.version),
        ]
    }

    /// The keys and values for the model file.
    pub fn to_metadata(&self) -> Vec<(String, String)> {
        let side = self.preprocess.img_size;
        let mut pairs = vec![("names", names_to_text(&self.names)), ("imgsz", format!("[{side}, {side}]"))];
        pairs.extend(self.texts().map(|(key, text)| (key, text.to_owned())));
        pairs.push(("preprocessor_config", self.preprocess.to_json().to_string()));
        // Straight to text: this way floats keep their shortest decimals.
        pairs.push(("golden", serde_json::to_string(&self.golden).unwrap_or_default()));
        pairs.push(("training", self.training.to_string()));
        if let Some(quantization) = &self.quantization {
            pairs.push(("quantization", quantization.to_string()));
        }
        pairs.push(("sha256.weights", self.weights_sha256.clone()));
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The record in a model file's metadata; `None` for a model that is not ours.
    pub fn from_metadata<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<ModelRecord>> {
        let found = Found::new(pairs)?;
        if OWN_KEYS.iter().all(|key| found.get(key).is_none()) {
            return Ok(None);
        }
        let text = |key| found.get(key).unwrap_or_default().to_owned();
        let preprocess = found.json("preprocessor_config")?;
        let preprocess = Preprocess::from_json(&preprocess)
            .map_err(|error| Error::Metadata { key: "preprocessor_config", problem: error.to_string() })?;
        let golden = serde_json::from_value(found.json("golden")?)
            .map_err(|error| Error::Metadata { key: "golden", problem: error.to_string() })?;
        let record = ModelRecord {
            names: names_from_text(found.require("names")?)?,
            task: found.require("task")?.to_owned(),
            description: text("description"),
            license: text("license"),
            version: text("version"),
            golden,
            training: if found.get("training").is_some() { found.json("training")? } else { Value::Null },
            quantization: found.get("quantization").map(|_| found.json("quantization")).transpose()?,
            weights_sha256: found.require("sha256.weights")?.to_owned(),
            preprocess,
        };
        record.check()?;
        record.check_imgsz(&found.json("imgsz")?)?;
        Ok(Some(record))
    }

    /// `imgsz` repeats the preprocessing's size for readers that look only there.
    fn check_imgsz(&self, imgsz: &Value) -> Result<()> {
        let side = self.preprocess.img_size;
        if *imgsz == json!([side, side]) {
            return Ok(());
        }
        let problem = format!("does not agree with the preprocessing, expected [{side}, {side}]");
        Err(Error::Metadata { key: "imgsz", problem })
    }
}

/// The keys that a record may have.
const KEYS: [&str; 11] = [
    "names",
    "imgsz",
    "task",
    "description",
    "license",
    "version",
    "preprocessor_config",
    "golden",
    "training",
    "quantization",
    "sha256.weights",
];

/// The values found, in the order of [`KEYS`].
struct Found<'a>([Option<&'a str>; KEYS.len()]);

impl<'a> Found<'a> {
    fn new(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Found<'a>> {
        let mut found = [None; KEYS.len()];
        for (key, value) in pairs {
            let Some((&key, slot)) = KEYS.iter().zip(&mut found).find(|(known, _)| **known == key) else {
                continue;
            };
            if slot.replace(value).is_some() {
                return Err(Error::Metadata { key, problem: "given twice, expected once".into() });
            }
            if value.len() > MAX_VALUE {
                return Err(too_long(key, value.len(), MAX_VALUE));
            }
        }
        Ok(Found(found))
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        KEYS.iter().zip(self.0).find(|(known, _)| **known == key).and_then(|(_, value)| value)
    }

    fn require(&self, key: &'static str) -> Result<&'a str> {
        let problem = "missing, though the file has other keys of ours; export the model again".to_owned();
        self.get(key).ok_or(Error::Metadata { key, problem })
    }

    fn json(&self, key: &'static str) -> Result<Value> {
        let text = self.require(key)?;
        serde_json::from_str(text)
            .map_err(|error| Error::Metadata { key, problem: format!("is no JSON: {error}") })
    }
}

fn too_long(key: &'static str, found: usize, limit: usize) -> Error {
    Error::Metadata { key, problem: format!("{found} bytes, at most {limit} are read") }
}

/// 64 lower-case hexadecimal digits.
fn check_digest(key: &'static str, digest: &str) -> Result<()> {
    let hex = digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hex {
        return Ok(());
    }
    Err(Error::Metadata { key, problem: "expected a SHA-256 as 64 lower-case hexadecimal digits".into() })
}

/// SHA-256 over all tensors in order: name, a zero byte, length (64 bits, little-endian), bytes.
///
/// `sha256.weights` of a model file is this over `graph.initializer` in the file's order, all of them, each with the
/// bytes of its `raw_data`.
pub fn weights_digest<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in tensors {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
