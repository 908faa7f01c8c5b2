//! An exported model answers in the runtime as it does in the trainer.

use smalti_models::presets::Preset;
use smalti_models::{Pooling, VitConfig};
use smalti_runtime::{Model, images, selftest};
use smalti_system_tests::cases::largest_difference;
use smalti_system_tests::drawn::Drawn;
use smalti_trainer::data::{Dataset, Loader, LoaderSettings, Split, synthetic};
use smalti_trainer::export::{InputForm, export};

/// The largest difference of a logit or of a value of an embedding.
const TOLERANCE: f64 = 1e-4;

fn check(what: &str, found: &[f32], wanted: &[f32]) {
    let off = largest_difference(found, wanted);
    assert!(off <= TOLERANCE, "{what} is off by {off:.1e}, at most {TOLERANCE:.0e}");
}

/// Exports, loads, and compares logits, embeddings and the file's own test vectors.
fn agrees(vit: &VitConfig, pool: Pooling, form: InputForm, count: u64) {
    let drawn = Drawn::new(vit, 7, pool, 3);
    let bytes = export(&drawn.model, &drawn.params, &drawn.details, form).unwrap();
    let model = Model::from_bytes(&bytes).unwrap();
    assert_eq!(model.labels(), drawn.details.names);
    assert_eq!(model.preprocess(), Some(&drawn.details.preprocess));
    for vector in selftest::run(&model).unwrap() {
        let (pattern, off) = (vector.pattern, vector.difference);
        assert!(f64::from(off) <= TOLERANCE && vector.same_class, "pattern {pattern} is off by {off:.1e}");
    }
    let images = drawn.images(count);
    let said = drawn.predict(&images);
    let mut session = model.session().unwrap();
    let wanted = said.logits.chunks_exact(7).zip(said.embeddings.chunks_exact(vit.dim));
    for (image, (logits, embedding)) in images.iter().zip(wanted) {
        let found = session.run_pixels(image.data()).unwrap();
        check("logits", &found.logits, logits);
        check("embedding", &found.embedding.unwrap(), embedding);
        if form == InputForm::F32Nchw {
            let floats = drawn.normalised(std::slice::from_ref(image));
            check("logits of floats", &session.run_floats(&floats).unwrap().logits, logits);
        }
    }
}

#[test]
fn small_models_agree_in_both_forms() {
    for (channels, pool) in [(1, Pooling::Token), (1, Pooling::Mean), (3, Pooling::Token), (3, Pooling::Mean)]
    {
        let vit = VitConfig {
            img_size: 20,
            patch_size: 5,
            channels,
            dim: 24,
            depth: 2,
            heads: 3,
            stem: Default::default(),
            variant: Default::default(),
        };
        agrees(&vit, pool, InputForm::U8Nhwc, 5);
        agrees(&vit, pool, InputForm::F32Nchw, 5);
    }
}

#[test]
fn nano_agrees() {
    agrees(&Preset::Nano.encoder(32, 4, 3), Pooling::Mean, InputForm::U8Nhwc, 20);
    agrees(&Preset::Nano.encoder(32, 4, 3), Pooling::Token, InputForm::F32Nchw, 5);
    agrees(&Preset::Nano.encoder(28, 4, 1), Pooling::Token, InputForm::U8Nhwc, 5);
    agrees(&Preset::Nano.encoder(28, 4, 1), Pooling::Mean, InputForm::F32Nchw, 5);
}

#[test]
fn a_hybrid_agrees() {
    agrees(&Preset::HybridNano.encoder(64, 16, 3), Pooling::Mean, InputForm::U8Nhwc, 5);
    agrees(&Preset::HybridNano.encoder(64, 16, 1), Pooling::Mean, InputForm::F32Nchw, 5);
}

#[test]
fn tiny_agrees() {
    agrees(&Preset::Tiny.encoder(32, 4, 3), Pooling::Mean, InputForm::U8Nhwc, 5);
}

#[test]
fn images_of_any_shape_are_classified_alike() {
    let drawn = Drawn::new(&Preset::Nano.encoder(32, 4, 3), 7, Pooling::Mean, 4);
    let (image, _) = synthetic::draw(1, 2, 50).unwrap();
    let grey = image.clone().into_channels(1).unwrap();
    for form in [InputForm::U8Nhwc, InputForm::F32Nchw] {
        let bytes = export(&drawn.model, &drawn.params, &drawn.details, form).unwrap();
        let mut session = Model::from_bytes(&bytes).unwrap().session().unwrap();
        for image in [&image, &grey] {
            let prepared = drawn.prepare(image).unwrap();
            let found = session.classify(image).unwrap();
            check("logits", &found.output.logits, &drawn.predict(&[prepared]).logits);
            assert!(found.best().unwrap().label.starts_with("class "));
        }
    }
}

#[test]
fn a_large_photo_is_decoded_alike() {
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("1.jpg");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/golden/reduced/444.jpg");
    std::fs::copy(golden, &photo).unwrap();
    let drawn = Drawn::new(&Preset::Nano.encoder(16, 4, 3), 7, Pooling::Mean, 4);
    let preprocess = &drawn.details.preprocess;
    let bytes = export(&drawn.model, &drawn.params, &drawn.details, InputForm::U8Nhwc).unwrap();
    let image = images::open_for(&photo, &Model::from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!([image.width(), image.height()], [47, 37]);
    let data = Dataset::open(folder.path(), Split::All).unwrap();
    let loader = Loader::new(data, LoaderSettings::new(1, preprocess.clone())).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    assert_eq!(batch.pixels(), drawn.normalised(&[drawn.prepare(&image).unwrap()]));
}
