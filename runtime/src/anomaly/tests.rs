//! Detectors of the fixture's model, on plain images with and without a fault.

use std::path::Path;

use super::*;
use crate::load::OpenOptions;
use crate::store::tests::batter;
use crate::tokens::TokenSource;
use crate::trust::Trust;

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

fn model() -> Model {
    let options = OpenOptions { tokens: Some(TokenSource::Default), ..OpenOptions::default() };
    Model::open_with(fixture("colours_u8.onnx"), &options).unwrap()
}

/// Answers to 8 x 8 pixels of one colour, a little different each, the lower right quarter painted where there is a fault.
fn answers(model: &Model, count: usize, fault: Option<[u8; 3]>) -> Vec<Output> {
    let mut session = model.session().unwrap();
    let image = |i: usize| -> Vec<u8> {
        let pixel = |place: usize| match fault {
            Some(colour) if place % 8 >= 4 && place / 8 >= 4 => colour,
            _ => [100 + (7 * i + place) as u8 % 9, 90 + (5 * i) as u8 % 7, 80 + (3 * place + i) as u8 % 5],
        };
        (0..64).flat_map(pixel).collect()
    };
    (0..count).map(|i| session.run_pixels(&image(i)).unwrap()).collect()
}

fn detector(model: &Model, measure: Measure) -> AnomalyDetector {
    let settings = Settings { false_alarms: 0.1, remember: 20, measure };
    fit(model, &answers(model, 24, None), &settings).unwrap()
}

#[test]
fn a_fault_is_unusual_and_the_map_says_where() {
    let model = model();
    for measure in [Measure::Both, Measure::Tokens, Measure::Embedding] {
        let detector = detector(&model, measure);
        assert_eq!((detector.grid(), detector.images()), ([2, 2], 24));
        let mut finding = detector.finding();
        detector.score_into(&model, &answers(&model, 1, Some([0, 255, 40]))[0], &mut finding).unwrap();
        assert!(finding.is_unusual(), "{measure:?} {finding:?}");
        let worst = (0..4).max_by(|&a, &b| finding.map[a].total_cmp(&finding.map[b]));
        assert_eq!(worst, Some(3), "{:?}", finding.map);
        let most = finding.map.iter().copied().fold(0.0, f32::max);
        assert!((finding.tokens - most).abs() < 1e-4 * most);
    }
}

#[test]
fn good_images_are_seldom_unusual() {
    let model = model();
    let (detector, mut finding) = (detector(&model, Measure::Both), Finding::default());
    let alarms = answers(&model, 24, None).into_iter().filter(|output| {
        detector.score_into(&model, output, &mut finding).unwrap();
        finding.is_unusual()
    });
    assert!(alarms.count() <= 3);
}

#[test]
fn what_cannot_be_learned_from_is_said() {
    let model = model();
    let good = answers(&model, 24, None);
    let code = |answers: &[Output], settings| fit(&model, answers, &settings).unwrap_err().exit_code();
    assert_eq!(code(&good[..7], Settings::default()), 5);
    assert_eq!(code(&vec![good[0].clone(); 20], Settings::default()), 5);
    assert_eq!(code(&good, Settings { false_alarms: 0.5, ..Settings::default() }), 2);
    assert_eq!(code(&good, Settings { remember: 0, ..Settings::default() }), 2);
    let blind = Model::open(fixture("colours_u8.onnx")).unwrap();
    assert_eq!(fit(&blind, &good, &Settings::default()).unwrap_err().exit_code(), 2);
    let detector = detector(&model, Measure::Both);
    let error = detector.score_into(&blind, &good[0], &mut Finding::default()).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("tokens"), "{error}");
    let other = Model::open(fixture("colours_f32.onnx")).unwrap();
    assert_eq!(detector.score_into(&other, &good[0], &mut Finding::default()).unwrap_err().exit_code(), 2);
}

#[test]
fn a_file_holds_all_of_it_and_belongs_to_its_model() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let place = folder.path().join("good.anomaly");
    let detector = detector(&model, Measure::Tokens);
    detector.save(&place).unwrap();
    let again = AnomalyDetector::open(&place, &model, &Trust::default()).unwrap();
    assert_eq!(again.to_bytes(), detector.to_bytes());
    let (mut one, mut two) = (detector.finding(), again.finding());
    let output = &answers(&model, 1, Some([0, 0, 0]))[0];
    detector.score_into(&model, output, &mut one).unwrap();
    again.score_into(&model, output, &mut two).unwrap();
    assert_eq!((one.score, &one.map), (two.score, &two.map));
    let other = Model::open(fixture("colours_f32.onnx")).unwrap();
    let error = AnomalyDetector::open(&place, &other, &Trust::default()).unwrap_err();
    assert!(
        error.exit_code() == 3 && error.to_string().contains("anomaly detector refused: model"),
        "{error}"
    );
}

#[test]
fn hostile_files_are_refused() {
    let model = model();
    let output = answers(&model, 1, None).remove(0);
    batter(&detector(&model, Measure::Both).to_bytes(), |bytes| {
        let detector = AnomalyDetector::from_bytes(bytes, &model)?;
        // What is let in scores, or says what is missing.
        match detector.score_into(&model, &output, &mut detector.finding()) {
            Ok(()) | Err(Error::Usage(_)) => Ok(()),
            Err(other) => Err(other),
        }
    });
}

#[test]
fn scores_allocate_nothing_and_memory_is_bounded() {
    let model = model();
    let (bytes, output) = (detector(&model, Measure::Both).to_bytes(), answers(&model, 1, None).remove(0));
    let mut promised = 0;
    let opened = allocation_counter::measure(|| {
        let detector = AnomalyDetector::from_bytes(&bytes, &model).unwrap();
        let mut finding = detector.finding();
        promised = detector.memory_bound();
        let scored = allocation_counter::measure(|| {
            (0..10).for_each(|_| detector.score_into(&model, &output, &mut finding).unwrap());
        });
        assert_eq!(scored.count_total, 0);
    });
    assert!(opened.bytes_max <= promised as u64, "{} bytes, {promised} promised", opened.bytes_max);
}
