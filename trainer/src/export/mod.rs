//! A classifier, or an encoder alone, as an ONNX file that is complete: graph, weights, labels, preprocessing, golden
//! vectors.
//!
//! [`vit`] has the graph, built by [`builder`], [`convolutions`] that of a convolutional stem; [`fold`] puts the
//! normalisation into the patch embedding. What
//! the file says about itself is a [`ModelRecord`]. The same model and details give the same bytes.

use std::path::Path;

use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smalti_models::contract::{CLASSIFY, EMBED, Golden, OPSET, golden_image, weights_digest};
use smalti_models::onnx::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use smalti_models::{ModelRecord, Preprocess};

use crate::error::{Error, Result};
use crate::files;
use crate::model::{Classifier, classifier};
use crate::objective::mask::Mask;

mod builder;
mod convolutions;
mod fold;
mod vit;

/// ONNX's file format version: the one of opset 17.
const IR_VERSION: i64 = 8;
/// Golden images a file.
const PATTERNS: u64 = 3;
/// The largest protobuf message that readers take.
const MAX_BYTES: usize = i32::MAX as usize;

/// What the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputForm {
    /// `u8-nhwc`: bytes `[1, H, W, C]`, as a decoder or a camera gives them; the model normalises.
    #[default]
    U8Nhwc,
    /// `f32-nchw`: floats `[1, C, H, W]`, already normalised.
    F32Nchw,
}

impl InputForm {
    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            InputForm::U8Nhwc => "u8-nhwc",
            InputForm::F32Nchw => "f32-nchw",
        }
    }
}

impl std::fmt::Display for InputForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for InputForm {
    type Err = Error;

    fn from_str(text: &str) -> Result<InputForm> {
        let found = [InputForm::U8Nhwc, InputForm::F32Nchw].into_iter().find(|form| form.name() == text);
        found.ok_or_else(|| Error::Usage(format!("input {text:?}: expected u8-nhwc or f32-nchw")))
    }
}

/// What the model ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// Logits, besides the embedding.
    Classes,
    /// The embedding alone.
    Embedding,
}

/// What the file says besides the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// The labels, in the order of the logits; none for a model that embeds images and has no head.
    pub names: Vec<String>,
    /// What happens to an image before the model sees it.
    pub preprocess: Preprocess,
    /// One line for people.
    pub description: String,
    /// The licence of the weights.
    pub license: String,
    /// The version of the model.
    pub version: String,
    /// How the model was trained.
    pub training: Value,
}

/// The bytes of the ONNX file of a classifier with these parameters.
pub fn export(model: &Classifier, params: &[f32], details: &Details, form: InputForm) -> Result<Vec<u8>> {
    check(model, params, details)?;
    // Test vectors are what a device computes.
    let model = &model.in_f32()?;
    let head = if details.names.is_empty() { Head::Embedding } else { Head::Classes };
    let graph = vit::graph(model, params, &details.preprocess, form, head)?;
    let (names, task) = match head {
        Head::Classes => (details.names.clone(), CLASSIFY),
        // One for each number of the output that answers; no class is called so.
        Head::Embedding => ((0..model.vit().dim).map(|i| format!("v{i}")).collect(), EMBED),
    };
    let record = ModelRecord {
        names,
        preprocess: details.preprocess.clone(),
        task: task.into(),
        description: details.description.clone(),
        license: details.license.clone(),
        version: details.version.clone(),
        golden: golden(model, params, &details.preprocess, head)?,
        training: details.training.clone(),
        quantization: None,
        weights_sha256: digest(&graph),
    };
    record.check()?;
    let entry = |(key, value)| StringStringEntryProto { key, value };
    let file = ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "smalti".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        metadata_props: record.to_metadata().into_iter().map(entry).collect(),
        ..Default::default()
    };
    let bytes = file.encoded_len();
    if bytes > MAX_BYTES {
        return Err(Error::Usage(format!("the model takes {bytes} bytes, an ONNX file has at most 2 GiB")));
    }
    Ok(file.encode_to_vec())
}

/// Writes the ONNX file of a classifier: whole, or not at all.
pub fn write(
    path: &Path,
    model: &Classifier,
    params: &[f32],
    details: &Details,
    form: InputForm,
) -> Result<()> {
    files::write(path, &export(model, params, details, form)?)
}

/// Refuses parameters and details that are not of this model.
fn check(model: &Classifier, params: &[f32], details: &Details) -> Result<()> {
    let refuse = |problem: String| Err(Error::Usage(problem));
    let (vit, preprocess) = (model.vit(), &details.preprocess);
    preprocess.check()?;
    if params.len() != model.layout().len() {
        return refuse(format!("{} parameters for a model that has {}", params.len(), model.layout().len()));
    }
    if !details.names.is_empty() && details.names.len() != model.classes() {
        return refuse(format!("{} labels for {} classes", details.names.len(), model.classes()));
    }
    let (found, wanted) = ((preprocess.img_size, preprocess.channels), (vit.img_size, vit.channels));
    if found != wanted {
        return refuse(format!(
            "preprocessing to {} pixels and {} channels, the model takes {} and {}",
            found.0, found.1, wanted.0, wanted.1
        ));
    }
    for (spec, slot) in model.layout().iter() {
        if !slot.of(params).iter().all(|value| value.is_finite()) {
            let problem = "has values that are not finite; export an earlier checkpoint";
            return Err(Error::Diverged(format!("tensor `{}` {problem}", spec.name)));
        }
    }
    Ok(())
}

/// What the model gives for the first golden images.
fn golden(model: &Classifier, params: &[f32], preprocess: &Preprocess, head: Head) -> Result<Vec<Golden>> {
    let vit = model.vit();
    let (visible, mut acts) = (Mask::none(1, vit.patches()).visible, classifier::Activations::default());
    let mut pixels = vec![0.0; vit.channels * vit.img_size * vit.img_size];
    let mut vector = |pattern| {
        let image = golden_image(pattern, vit.img_size, vit.channels)?;
        preprocess.normalise(image.data(), &mut pixels)?;
        let input = classifier::Input {
            pixels: &pixels,
            visible: &visible,
            drop: None,
            batch: 1,
            batch_weight: None,
        };
        let (logits, embedding) = model.predict(params, input, &mut acts);
        let answer = if head == Head::Classes { logits } else { embedding };
        Ok(Golden::new(pattern, &image, answer.to_vec()))
    };
    (0..PATTERNS).map(&mut vector).collect()
}

/// The digest of all initializers as they stand in the file.
fn digest(graph: &GraphProto) -> String {
    weights_digest(graph.initializer.iter().map(|tensor| (tensor.name.as_str(), &tensor.raw_data[..])))
}

#[cfg(test)]
mod tests;
