//! The model files of a run, and what they say of themselves.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use smalti_runtime::Model;

use super::source::{Kind, Source};
use crate::autotrain::report::Report as Trained;

/// A model file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ModelFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) is_int8: bool,
    /// On held-out images.
    pub(super) accuracy: Option<f64>,
    /// Fraction of images of which it says the same as the float model.
    pub(super) agreement: Option<f64>,
}

/// What a model file says of itself, in words.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Card {
    /// Pairs of what and how.
    pub(super) lines: Vec<(String, String)>,
}

/// The model files that lie in a run.
pub(super) fn files(source: &Source, trained: Option<&Trained>) -> Vec<ModelFile> {
    let here = |name: &str| source.path.join(name);
    let (float, int8) = match trained {
        Some(report) => {
            let int8 = report.int8_model.as_deref().and_then(|path| source.file(path));
            (source.file(&report.model), int8)
        }
        None => (Some(here("model.onnx")), Some(here("model-int8.onnx"))),
    };
    let file = |path: Option<PathBuf>, is_int8: bool| {
        let path = path?;
        let bytes = std::fs::metadata(&path).ok()?.len();
        let (accuracy, agreement) = match (trained, is_int8) {
            (Some(report), true) => (report.int8_accuracy, report.int8_agreement),
            (Some(report), false) => (report.accuracy, None),
            (None, _) => (None, None),
        };
        Some(ModelFile { path, bytes, is_int8, accuracy, agreement })
    };
    [file(float, false), file(int8, true)].into_iter().flatten().collect()
}

impl Card {
    /// The record in a model file.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn read(path: &Path) -> Result<Card, String> {
        let model = Model::open(path).map_err(|why| why.to_string())?;
        let record =
            model.record().ok_or_else(|| format!("{} holds no record of smalti's", path.display()))?;
        let input = &record.preprocess;
        let numbers =
            |values: &[f32]| values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(", ");
        let mut lines = vec![
            ("Description", record.description.clone()),
            ("Task", record.task.clone()),
            ("Classes", record.names.join(", ")),
            ("Licence of the weights", record.license.clone()),
            ("Version", record.version.clone()),
            ("Input", format!("{0} × {0} pixels, {1} channels", input.img_size, input.channels)),
            ("Mean and standard deviation", format!("{}; {}", numbers(&input.mean), numbers(&input.std))),
            ("Test vectors", format!("{} in the file, for `smalti-run selftest`", record.golden.len())),
            ("SHA-256 of the weights", record.weights_sha256.clone()),
        ];
        if let Some(encoder) = record.training.get("encoder").filter(|encoder| encoder.is_object()) {
            lines.insert(5, ("Encoder", values(encoder)));
        }
        Ok(Card { lines: lines.into_iter().map(|(what, how)| (what.to_owned(), how)).collect() })
    }
}

/// The plain values of a JSON object, each with its key.
fn values(object: &Value) -> String {
    let pairs = object.as_object().into_iter().flatten();
    let plain = pairs.filter(|(_, value)| !value.is_object() && !value.is_array() && !value.is_null());
    plain
        .map(|(key, value)| {
            format!("{key} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// What `smalti train` said at its end.
pub(super) fn trained(source: &Source) -> Option<Trained> {
    (source.kind == Kind::Train).then(|| serde_json::from_value(source.json("report.json")?).ok()).flatten()
}
