//! Banks of the fixture's model, by embeddings that are made up and by its own.

use std::path::Path;

use super::*;
use crate::store::tests::batter;
use crate::trust::Trust;
use crate::{Session, images};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

fn model() -> Model {
    Model::open(fixture("colours_u8.onnx")).unwrap()
}

/// An answer with that embedding, near an axis, of a model that is not sure.
fn near(axis: usize, nudge: f32) -> Output {
    let mut embedding = vec![0.1 * nudge; 8];
    embedding[axis] = 1.0;
    embedding[(axis + 1) % 8] = 0.2 * nudge;
    Output { logits: vec![0.5, 0.4, 0.3], embedding: Some(embedding), tokens: None }
}

fn best(bank: &ClassBank, model: &Model, output: &Output) -> String {
    let mut answer = bank.answer();
    bank.answer_into(model, output, &mut answer).unwrap();
    assert!((answer.ranked.iter().map(|(_, p)| p).sum::<f32>() - 1.0).abs() < 1e-5);
    bank.labels()[answer.ranked[0].0].clone()
}

/// Two classes, three images each, and negatives elsewhere.
fn taught(model: &Model) -> ClassBank {
    let mut bank = ClassBank::new(model).unwrap();
    let negatives: Vec<Output> = (0..60).map(|i| near(3 + i % 5, (i % 12) as f32 / 6.0 - 1.0)).collect();
    bank.add_negatives(model, &negatives, 0.03).unwrap();
    bank.add("mug", model, &[near(0, 0.1), near(0, -0.1), near(0, 0.2)]).unwrap();
    bank.add("key", model, &[near(1, 0.1), near(1, -0.1), near(1, 0.2)]).unwrap();
    bank
}

#[test]
fn learned_classes_are_recognised_and_old_ones_stay() {
    let model = model();
    let bank = taught(&model);
    assert_eq!(best(&bank, &model, &near(0, 0.05)), "mug");
    assert_eq!(best(&bank, &model, &near(1, 0.05)), "key");
    assert_eq!(best(&bank, &model, &near(4, 0.3)), model.labels()[0]);
    let found = bank.calibration();
    assert!(found.accepted <= 1 && (found.recognised, found.tried) == (6, 6), "{found:?}");
    assert_eq!(bank.labels()[3..], ["mug", "key"]);
    assert!(bank.is_learned("mug") && !bank.is_learned("red"));
}

#[test]
fn without_negatives_the_bank_itself_says_how_alike() {
    let model = model();
    let mut bank = ClassBank::new(&model).unwrap();
    // One image says nothing of how alike is alike enough: it is kept, and no image is taken for its class.
    bank.add("mug", &model, &[near(0, 0.1)]).unwrap();
    assert!(!bank.calibration().is_enough());
    assert_eq!(best(&bank, &model, &near(0, 0.1)), model.labels()[0]);
    let again = ClassBank::from_bytes(&bank.to_bytes(), &model).unwrap();
    assert_eq!((again.classes().next(), again.calibration().is_enough()), (Some(("mug", 1)), false));
    bank.add("mug", &model, &[near(0, 0.1), near(0, -0.1), near(0, 0.3)]).unwrap();
    assert!(bank.calibration().is_enough());
    assert_eq!(best(&bank, &model, &near(0, 0.05)), "mug");
    assert_ne!(best(&bank, &model, &near(5, 0.05)), "mug");
}

#[test]
fn an_old_class_can_be_taught_more() {
    let model = model();
    let mut bank = taught(&model);
    let green = model.labels()[1].clone();
    bank.add(&green, &model, &[near(2, 0.1), near(2, -0.1)]).unwrap();
    assert_eq!((best(&bank, &model, &near(2, 0.0)), bank.labels().len()), (green, 5));
}

#[test]
fn the_same_image_counts_once_and_classes_can_be_forgotten() {
    let model = model();
    let mut bank = taught(&model);
    assert_eq!(bank.add("mug", &model, &[near(0, 0.1), near(0, 0.4)]).unwrap(), 1);
    assert_eq!(bank.classes().collect::<Vec<_>>(), [("mug", 4), ("key", 3)]);
    assert_eq!(bank.remove("mug").unwrap(), 4);
    assert_ne!(best(&bank, &model, &near(0, 0.05)), "mug");
    let error = bank.remove("mug").unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("`key`"), "{error}");
}

#[test]
fn images_are_taken_back_one_by_one() {
    let model = model();
    let mut bank = taught(&model);
    let before = bank.to_bytes();
    bank.add("mug", &model, &[near(0, 0.7)]).unwrap();
    assert_eq!(bank.remove_last("mug").unwrap(), 3);
    assert_eq!(bank.to_bytes(), before);
    assert_eq!([0; 3].map(|_| bank.remove_last("mug").unwrap()), [2, 1, 0]);
    assert!(!bank.is_learned("mug") && !bank.labels().contains(&"mug".to_owned()));
    assert_eq!(bank.remove_last("mug").unwrap_err().exit_code(), 2);
}

#[test]
fn wrong_content_is_refused_and_changes_nothing() {
    let model = model();
    let mut bank = taught(&model);
    let before = bank.to_bytes();
    let code = |result: Result<usize>| result.unwrap_err().exit_code();
    for name in ["", "  ", &"x".repeat(257)] {
        assert_eq!(code(bank.add(name, &model, &[near(0, 0.7)])), 2);
    }
    let with = |embedding: Option<Vec<f32>>| Output { embedding, ..near(0, 0.0) };
    assert_eq!(code(bank.add("x", &model, &[with(None)])), 2);
    assert_eq!(code(bank.add("x", &model, &[with(Some(vec![1.0; 7]))])), 2);
    assert_eq!(code(bank.add("x", &model, &[with(Some(vec![0.0; 8]))])), 5);
    assert_eq!(code(bank.add("x", &model, &[with(Some(vec![f32::NAN; 8]))])), 5);
    assert_eq!(bank.add_negatives(&model, &[], 1.0).unwrap_err().exit_code(), 2);
    assert_eq!(bank.to_bytes(), before);
    let none = ClassBank::new(&Model::open(fixture("timm_vit.onnx")).unwrap()).unwrap_err();
    assert!(none.exit_code() == 2 && none.to_string().contains("embedding"), "{none}");
}

#[test]
fn a_file_holds_all_of_it_and_belongs_to_its_model() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let (bank, place) = (taught(&model), folder.path().join("a.bank"));
    bank.save(&place).unwrap();
    let again = ClassBank::open(&place, &model, &Trust::default()).unwrap();
    assert_eq!((again.to_bytes(), again.calibration()), (bank.to_bytes(), bank.calibration()));
    let other = Model::open(fixture("colours_f32.onnx")).unwrap();
    let error = ClassBank::open(&place, &other, &Trust::default()).unwrap_err();
    let text = error.to_string();
    assert!(error.exit_code() == 3 && text.contains(&model.digest().to_string()), "{text}");
    assert!(text.contains(&other.digest().to_string()) && text.contains("anew"), "{text}");
    // Other pixels make other embeddings, and what the file says anyway does not.
    let mut preprocess = model.preprocess().unwrap().clone();
    assert_eq!(model.clone().with_preprocess(preprocess.clone()).unwrap().digest(), model.digest());
    preprocess.mean[0] += 0.1;
    let overridden = model.clone().with_preprocess(preprocess).unwrap();
    assert_eq!(ClassBank::open(&place, &overridden, &Trust::default()).unwrap_err().exit_code(), 3);
    // As with models, a key asks for a signature.
    let key = crate::trust::PublicKey::named(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signed/test.pub").to_str().unwrap(),
    );
    let trust = Trust { key: Some(key.unwrap()), min_version: None };
    let error = ClassBank::open(&place, &model, &trust).unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("class bank refused: signature"), "{error}");
}

#[test]
fn hostile_files_are_refused() {
    let model = model();
    batter(&taught(&model).to_bytes(), |bytes| {
        let bank = ClassBank::from_bytes(bytes, &model)?;
        // What is let in answers.
        match bank.answer_into(&model, &near(0, 0.1), &mut bank.answer()) {
            Ok(()) | Err(Error::Data { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    });
}

#[test]
fn answers_allocate_nothing_and_memory_is_bounded() {
    let model = model();
    let bytes = taught(&model).to_bytes();
    let mut promised = 0;
    let opened = allocation_counter::measure(|| {
        let bank = ClassBank::from_bytes(&bytes, &model).unwrap();
        let mut answer = bank.answer();
        let output = near(0, 0.1);
        promised = bank.memory_bound();
        let answered = allocation_counter::measure(|| {
            (0..10).for_each(|_| bank.answer_into(&model, &output, &mut answer).unwrap());
        });
        assert_eq!(answered.count_total, 0);
    });
    assert!(opened.bytes_max <= promised as u64, "{} bytes, {promised} promised", opened.bytes_max);
}

#[test]
fn images_of_the_fixture_are_told_apart() {
    let model = model();
    let mut session: Session = model.session().unwrap();
    let mut answer = |name: &str| session.classify(&images::open(fixture(name)).unwrap()).unwrap().output;
    let [red, green, blue] = ["red.png", "green.png", "blue.png"].map(&mut answer);
    let mut bank = ClassBank::new(&model).unwrap();
    bank.add_negatives(&model, &[green.clone(), blue], 0.0).unwrap();
    bank.add("rose", &model, std::slice::from_ref(&red)).unwrap();
    assert_eq!(bank.calibration().accepted, 0);
    assert_ne!(best(&bank, &model, &green), "rose");
    assert_eq!(bank.classes().next(), Some(("rose", 1)));
}
