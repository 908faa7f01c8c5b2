//! The model file, its int8 form, and what both say on the device's runtime.

use std::path::PathBuf;

use serde_json::json;
use smalti_models::{Image, Preprocess};
use smalti_runtime::{Model, selftest};
use smalti_tools::quantize::{self, Settings};
use smalti_tools::samples::{Sample, Source};
use smalti_trainer::data::Dataset;
use smalti_trainer::export::{self, Details, InputForm};
use smalti_trainer::stages::finetune::{FinetuneSettings, Finetuned};

use super::Autotrain;
use super::images::Images;
use crate::args::TrainArgs;

/// Images that ranges of activations are found on.
const CALIBRATION: usize = 200;
/// Images that the int8 file is compared on, at most.
const MEASURED: usize = 2000;
/// Bytes of either, at most.
const BYTES: usize = 256 << 20;

/// The files, and how they compare.
pub(super) struct Device {
    pub(super) model: PathBuf,
    pub(super) int8_model: Option<PathBuf>,
    pub(super) int8_accuracy: Option<f64>,
    pub(super) int8_agreement: Option<f64>,
}

/// Exports the classifier, checks it in the runtime, quantizes it.
pub(super) fn export(
    job: &Autotrain<'_>,
    model: &Finetuned,
    settings: &FinetuneSettings,
    args: &TrainArgs,
    images: &Images,
) -> anyhow::Result<Device> {
    job.tell("4 exporting");
    let or = |text: &Option<String>, default: &str| text.clone().unwrap_or_else(|| default.into());
    let details = Details {
        names: model.labels.clone(),
        preprocess: model.preprocess.clone(),
        description: or(&args.description, "Made by smalti train"),
        license: or(&args.license, "unspecified"),
        version: "1".into(),
        training: json!(settings),
    };
    let bytes = export::export(&model.model, &model.params, &details, InputForm::U8Nhwc)?;
    let float = Model::from_bytes(&bytes)?;
    selftest::judge(&selftest::run(&float)?)?;
    let mut device = Device {
        model: job.owner.write("model.onnx", &bytes)?,
        int8_model: None,
        int8_accuracy: None,
        int8_agreement: None,
    };
    let samples = |data: &Dataset, most| samples(data, &model.preprocess, most);
    let calibration = samples(&images.all, CALIBRATION);
    let measuring = match &images.test {
        Some((test, _)) => samples(test, MEASURED),
        None => samples(&images.labelled, MEASURED),
    };
    let settings = Settings { threads: job.exec.threads, ..Settings::default() };
    match quantize::quantize(&bytes, &float, &calibration, &measuring, &settings) {
        Ok(found) => {
            device.int8_model = Some(job.owner.write("model-int8.onnx", &found.bytes)?);
            device.int8_accuracy = images.test.as_ref().and(found.comparison.accuracy_b);
            device.int8_agreement = Some(found.comparison.agreement);
        }
        Err(why) => job.tell(&format!("  no int8 file: {why}")),
    }
    Ok(device)
}

/// Up to so many images, evenly spread, at the size of the model's input; those that cannot be read are left out.
fn samples(data: &Dataset, preprocess: &Preprocess, most: usize) -> Vec<Sample> {
    let count = data.len().min(most);
    let chosen = (0..count).map(|i| i * data.len() / count.max(1));
    let mut bytes = 0;
    let sample = |i: usize| -> Option<Sample> {
        let mut image: Image = data.image_for(i, preprocess.side()).ok()?;
        // A photo may be a thousand times larger than what the model sees of it. What is cut out of more would be cut again.
        if preprocess.resize.is_none() {
            image = preprocess.apply(&image).ok()?;
        }
        bytes += image.data().len();
        let class = data.label(i).map(|label| label as usize);
        (bytes <= BYTES).then(|| Sample { name: data.place(i), source: Source::Memory(image), class })
    };
    chosen.filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_photos_take_no_more_memory_than_the_input() {
        let photo = Image::new(640, 480, 3, vec![7; 640 * 480 * 3]).unwrap();
        let data = Dataset::from_images(vec!["a".into()], vec![(photo, Some(0)); 5]).unwrap();
        let preprocess = Preprocess {
            img_size: 32,
            channels: 3,
            fit: Default::default(),
            resize: None,
            interpolation: Default::default(),
            mean: vec![0.5; 3],
            std: vec![0.5; 3],
        };
        let found = samples(&data, &preprocess, 3);
        let bytes = |sample: &Sample| match &sample.source {
            Source::Memory(image) => image.data().len(),
            Source::File(_) => 0,
        };
        assert_eq!(found.iter().map(bytes).collect::<Vec<_>>(), [32 * 32 * 3; 3]);
    }
}
