//! Exports models and writes what our side answers, for the Python scripts in `tests/golden`.
//!
//! ```text
//! probe OUT [IMAGES [CHECKPOINT.safetensors]]
//! ```
//! `IMAGES` is any data set that the trainer reads; 100 images spread over it are taken. Without it they
//! are drawn. With a fine-tuned checkpoint its model is exported, without one a few with drawn weights.
//! `OUT/MODEL/` gets `checkpoints/` as a run has them, `u8-nhwc.onnx`, `f32-nchw.onnx`, `probe.safetensors`.

use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use smalti_models::presets::Preset;
use smalti_models::{Image, Pooling};
use smalti_runtime::Model;
use smalti_system_tests::cases::largest_difference;
use smalti_system_tests::drawn::{Drawn, Said};
use smalti_trainer::data::{Dataset, Split};
use smalti_trainer::export::{self, Details, InputForm};
use smalti_trainer::files;
use smalti_trainer::model::Classifier;
use smalti_trainer::model::weights::{self, Take, Weights};
use smalti_trainer::run::{ModelConfig, ModelFiles};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Images a probe.
const COUNT: usize = 100;
/// Classes of a drawn model.
const CLASSES: usize = 10;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (out, images, checkpoint) = match &arguments[..] {
        [out] => (out, None, None),
        [out, images] => (out, Some(images), None),
        [out, images, checkpoint] => (out, Some(images), Some(checkpoint)),
        _ => return Err("usage: probe OUT [IMAGES [CHECKPOINT.safetensors]]".into()),
    };
    let models = match checkpoint {
        Some(path) => vec![("checkpoint", trained(path)?)],
        None => drawn(),
    };
    for (name, model) in models {
        write(&out.join(name), &model, images.map(PathBuf::as_path))?;
    }
    Ok(())
}

/// Models with drawn weights: both pools, colour and grey.
fn drawn() -> Vec<(&'static str, Drawn)> {
    let nano = |size, channels, pool| Drawn::new(&Preset::Nano.encoder(size, 4, channels), CLASSES, pool, 1);
    vec![
        ("mean", nano(32, 3, Pooling::Mean)),
        ("token", nano(32, 3, Pooling::Token)),
        ("mean-grey", nano(28, 1, Pooling::Mean)),
        ("token-grey", nano(28, 1, Pooling::Token)),
    ]
}

/// The model of a fine-tuned checkpoint, with the files beside it.
fn trained(path: &Path) -> Result<Drawn> {
    let ModelFiles { config, preprocess, labels: names } =
        ModelFiles::load(path.parent().unwrap_or(Path::new(".")))?;
    let model =
        Classifier::new(&config.encoder, names.len(), config.pool.ok_or("a checkpoint without head")?)?;
    let weights = Weights::open(path)?;
    let mut params = vec![0.0; model.layout().len()];
    weights.load(model.layout(), &mut params, Take::Model)?;
    let training = weights.details().clone();
    let description = path.display().to_string();
    let (license, version) = (String::new(), "1".to_owned());
    let details = Details { names, preprocess, description, license, version, training };
    Ok(Drawn { model, params, details })
}

/// Images as the model takes them.
fn images(model: &Drawn, from: Option<&Path>) -> Result<Vec<Image>> {
    let Some(path) = from else { return Ok(model.images(COUNT as u64)) };
    let data = Dataset::open(path, Split::All)?;
    let count = COUNT.min(data.len());
    let image = |i: usize| Ok(model.prepare(&data.image(i * data.len() / count)?)?);
    (0..count).map(image).collect()
}

/// One model's folder.
fn write(folder: &Path, model: &Drawn, from: Option<&Path>) -> Result<()> {
    let images = images(model, from)?;
    let said = model.predict(&images);
    let checkpoints = folder.join("checkpoints");
    files::make_folder(&checkpoints)?;
    let vit = model.model.vit().clone();
    let pool = Some(model.model.pool());
    let config =
        ModelConfig { model_type: "vit".into(), encoder: vit, decoder: None, pool, norm_pix_loss: None };
    let (preprocess, labels) = (model.details.preprocess.clone(), model.details.names.clone());
    for (name, bytes) in (ModelFiles { config, preprocess, labels }).to_files()? {
        files::write(&checkpoints.join(name), &bytes)?;
    }
    weights::save_model(
        &checkpoints.join("last.safetensors"),
        model.model.layout(),
        &model.params,
        &json!({}),
    )?;
    write_probe(&folder.join("probe.safetensors"), model, &images, &said)?;
    for form in [InputForm::U8Nhwc, InputForm::F32Nchw] {
        let path = folder.join(format!("{form}.onnx"));
        export::write(&path, &model.model, &model.params, &model.details, form)?;
        let (logits, embeddings) = in_runtime(&path, &images, &said)?;
        println!("{}: {} images, trainer and runtime differ", path.display(), images.len());
        println!("    by {logits:.1e} in logits, by {embeddings:.1e} in embeddings");
    }
    Ok(())
}

/// How far the runtime's logits and embeddings are from the trainer's.
fn in_runtime(path: &Path, images: &[Image], said: &Said) -> Result<(f64, f64)> {
    let mut session = Model::open(path)?.session()?;
    let (mut logits, mut embeddings) = (Vec::new(), Vec::new());
    for image in images {
        let output = session.run_pixels(image.data())?;
        logits.extend(output.logits);
        embeddings.extend(output.embedding.unwrap_or_default());
    }
    Ok((largest_difference(&logits, &said.logits), largest_difference(&embeddings, &said.embeddings)))
}

/// The images in both forms, and what the trainer says about them.
fn write_probe(path: &Path, model: &Drawn, images: &[Image], said: &Said) -> Result<()> {
    let vit = model.model.vit();
    let (n, side, channels) = (images.len(), vit.img_size, vit.channels);
    let bytes_of = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<u8> = images.iter().flat_map(|image| image.data()).copied().collect();
    let tensors = [
        ("pixels", Dtype::F32, vec![n, channels, side, side], bytes_of(&model.normalised(images))),
        ("images", Dtype::U8, vec![n, side, side, channels], bytes),
        ("logits", Dtype::F32, vec![n, model.model.classes()], bytes_of(&said.logits)),
        ("embedding", Dtype::F32, vec![n, vit.dim], bytes_of(&said.embeddings)),
    ];
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view))
        })
        .collect();
    Ok(files::write(path, &safetensors::serialize(views?, None)?)?)
}
