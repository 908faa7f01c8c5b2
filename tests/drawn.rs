//! Classifiers with drawn weights, and what the trainer says about images.

use smalti_models::names::Role;
use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_models::{Image, Pooling, Preprocess, VitConfig};
use smalti_trainer::data::synthetic;
use smalti_trainer::export::Details;
use smalti_trainer::model::{Classifier, classifier};
use smalti_trainer::objective::mask::Mask;
use smalti_trainer::rng::Rng;

/// The stream of random numbers of drawn weights; the trainer has no such number.
const STREAM: u64 = 1000;
/// Images that are computed at once.
const BATCH: usize = 8;

/// A classifier with parameters, and what its file says about it.
pub struct Drawn {
    /// The tensors' places.
    pub model: Classifier,
    /// The tensors' values.
    pub params: Vec<f32>,
    /// Labels, preprocessing, texts.
    pub details: Details,
}

/// What the trainer says about some images.
pub struct Said {
    /// `[images, classes]`.
    pub logits: Vec<f32>,
    /// `[images, dim]`.
    pub embeddings: Vec<f32>,
}

impl Drawn {
    /// Weights unlike a fresh model's, so that every tensor shows: no zero bias, no tiny head, no unit norm.
    pub fn new(vit: &VitConfig, classes: usize, pool: Pooling, seed: u64) -> Drawn {
        let model = Classifier::new(vit, classes, pool).expect("a classifier");
        let mut params = model.layout().init::<f32>(seed);
        let mut rng = Rng::new(seed, STREAM, [0]);
        for (spec, slot) in model.layout().iter() {
            let spread = match spec.role {
                Role::Weight | Role::ZeroWeight | Role::RunningVar => 0.0,
                Role::Scale | Role::ZeroScale => 0.2,
                Role::Token | Role::BranchScale => 0.3,
                Role::Bias | Role::Positions | Role::ZeroPositions | Role::RunningMean => 0.1,
                Role::HeadWeight => 1.0 / (vit.dim as f64).sqrt(),
            };
            slot.of_mut(&mut params).iter_mut().for_each(|x| *x += (spread * rng.normal()) as f32);
        }
        let details = Details {
            names: (0..classes).map(|class| format!("class {class}")).collect(),
            preprocess: preprocess(vit),
            description: "drawn weights".into(),
            license: "CC0-1.0".into(),
            version: "1".into(),
            training: serde_json::Value::Null,
        };
        Drawn { model, params, details }
    }

    /// `count` images of the procedural set, prepared for the model.
    pub fn images(&self, count: u64) -> Vec<Image> {
        let size = 3 * self.model.vit().img_size / 2;
        let draw = |i| synthetic::draw(5, i, size).and_then(|(image, _)| self.prepare(&image));
        (0..count).map(|i| draw(i).expect("an image")).collect()
    }

    /// An image as the model takes it.
    pub fn prepare(&self, image: &Image) -> smalti_trainer::Result<Image> {
        Ok(self.details.preprocess.apply(image)?)
    }

    /// Prepared images as floats `[images, C, H, W]`.
    pub fn normalised(&self, images: &[Image]) -> Vec<f32> {
        let preprocess = &self.details.preprocess;
        let each = preprocess.channels * preprocess.img_size * preprocess.img_size;
        let mut floats = vec![0.0; images.len() * each];
        for (image, floats) in images.iter().zip(floats.chunks_exact_mut(each)) {
            preprocess.normalise(image.data(), floats).expect("a prepared image");
        }
        floats
    }

    /// The trainer's own forward pass in f32.
    pub fn predict(&self, images: &[Image]) -> Said {
        let mut said = Said { logits: Vec::new(), embeddings: Vec::new() };
        let (patches, mut acts) = (self.model.vit().patches(), classifier::Activations::default());
        for part in images.chunks(BATCH) {
            let (pixels, visible) = (self.normalised(part), Mask::none(part.len(), patches).visible);
            let input = classifier::Input {
                pixels: &pixels,
                visible: &visible,
                drop: None,
                batch: part.len(),
                batch_weight: None,
            };
            let (logits, embeddings) = self.model.predict(&self.params, input, &mut acts);
            said.logits.extend_from_slice(logits);
            said.embeddings.extend_from_slice(embeddings);
        }
        said
    }
}

/// Preprocessing with another mean and deviation for each channel.
fn preprocess(vit: &VitConfig) -> Preprocess {
    Preprocess {
        img_size: vit.img_size,
        channels: vit.channels,
        fit: FitMode::Crop,
        resize: None,
        interpolation: Interpolation::Bicubic,
        mean: [0.485, 0.456, 0.406][..vit.channels].to_vec(),
        std: [0.229, 0.224, 0.225][..vit.channels].to_vec(),
    }
}
