//! Class banks and anomaly detectors from Rust: what they give, what they allocate, how much memory they say they take.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use smalti::anomaly::*;
use smalti::bank::*;
use smalti::codes::*;
use smalti::learned::*;
use smalti::model::*;
use smalti::session::*;
use smalti::status::*;
use smalti_runtime::anomaly::{AnomalyDetector, Finding};
use smalti_runtime::bank::ClassBank;
use smalti_runtime::tokens::TokenSource;
use smalti_runtime::trust::Trust;
use smalti_runtime::{Model, OpenOptions};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
}

fn text(name: &str) -> CString {
    CString::new(path(name).to_str().unwrap()).unwrap()
}

/// Opens a model that shows its tokens.
fn open(name: &str) -> *mut smalti_model {
    // SAFETY: all zeros are a value of the struct.
    let zeros: smalti_options = unsafe { std::mem::zeroed() };
    let options = smalti_options { size: size_of::<smalti_options>(), tokens: c"".as_ptr(), ..zeros };
    let mut model = null_mut();
    // SAFETY: text, options of their size, room for a pointer.
    assert_eq!(unsafe { smalti_open(text(name).as_ptr(), &options, &mut model) }, SMALTI_OK, "{}", message());
    model
}

fn message() -> String {
    // SAFETY: text with a zero at its end.
    unsafe { CStr::from_ptr(smalti_last_error()) }.to_string_lossy().into_owned()
}

fn session(model: *const smalti_model) -> *mut smalti_session {
    let mut session = null_mut();
    // SAFETY: room for a pointer.
    assert_eq!(unsafe { smalti_session_new(model, 1, &mut session) }, SMALTI_OK);
    session
}

fn bank(model: *const smalti_model) -> *mut smalti_bank {
    let mut bank = null_mut();
    // SAFETY: text, null and room for a pointer.
    let code = unsafe { smalti_bank_open(model, text("learned/colours.bank").as_ptr(), null(), &mut bank) };
    assert_eq!(code, SMALTI_OK, "{}", message());
    bank
}

fn anomaly(model: *const smalti_model) -> *mut smalti_anomaly {
    let mut anomaly = null_mut();
    // SAFETY: text, null and room for a pointer.
    let code =
        unsafe { smalti_anomaly_open(model, text("learned/good.anomaly").as_ptr(), null(), &mut anomaly) };
    assert_eq!(code, SMALTI_OK, "{}", message());
    anomaly
}

/// 8 x 8 pixels of one colour, a quarter of another where there is a fault.
fn pixels(colour: [u8; 3], fault: Option<[u8; 3]>) -> Vec<u8> {
    let pixel = |i: usize| fault.filter(|_| i % 8 >= 4 && i / 8 >= 4).unwrap_or(colour);
    (0..64).flat_map(pixel).collect()
}

fn run(session: *mut smalti_session, pixels: &[u8]) {
    // SAFETY: a slice's pointer and length.
    assert_eq!(unsafe { smalti_run_u8(session, pixels.as_ptr(), pixels.len()) }, SMALTI_OK, "{}", message());
}

fn zero_score() -> smalti_score {
    smalti_score { size: size_of::<smalti_score>(), score: 0.0, tokens: 0.0, embedding: 0.0, reserved: 0.0 }
}

#[test]
fn answers_are_the_librarys() {
    let options = OpenOptions { tokens: Some(TokenSource::Default), ..OpenOptions::default() };
    let theirs = Model::open_with(path("models/colours_u8.onnx"), &options).unwrap();
    let their_bank = ClassBank::open(path("learned/colours.bank"), &theirs, &Trust::default()).unwrap();
    let trust = Trust::default();
    let their_detector = AnomalyDetector::open(path("learned/good.anomaly"), &theirs, &trust).unwrap();
    let model = open("models/colours_u8.onnx");
    let (bank, anomaly, session) = (bank(model), anomaly(model), session(model));
    // Banks and detectors do without the handle of the model.
    assert_eq!(smalti_close(model), SMALTI_OK);
    let (mut count, mut rows, mut columns) = (0, 0, 0);
    // SAFETY: room for numbers.
    unsafe {
        assert_eq!(smalti_bank_class_count(bank, &mut count), SMALTI_OK);
        assert_eq!(smalti_anomaly_grid(anomaly, &mut rows, &mut columns), SMALTI_OK);
    }
    assert_eq!((count, rows, columns), (4, 2, 2));
    for (colour, fault, label) in [
        ([200, 200, 200], None, "white"),
        ([210, 20, 20], None, "red"),
        ([90, 80, 70], Some([0, 250, 60]), ""),
        ([120, 110, 100], None, ""),
    ] {
        let pixels = pixels(colour, fault);
        run(session, &pixels);
        let output = theirs.session().unwrap().run_pixels(&pixels).unwrap();
        let (mut answer, mut finding) = (their_bank.answer(), Finding::default());
        their_bank.answer_into(&theirs, &output, &mut answer).unwrap();
        their_detector.score_into(&theirs, &output, &mut finding).unwrap();
        let mut ranked = [smalti_ranked { index: 9, probability: 0.0, label: null() }; 4];
        let (mut score, mut map) = (zero_score(), [0f32; 4]);
        // SAFETY: arrays' pointers and lengths, a struct of its size.
        unsafe {
            assert_eq!(smalti_bank_top_k(bank, session, ranked.as_mut_ptr(), 4), SMALTI_OK, "{}", message());
            let code = smalti_anomaly_score(anomaly, session, &mut score, map.as_mut_ptr(), 4);
            assert_eq!(code, SMALTI_OK, "{}", message());
            assert_eq!(smalti_anomaly_score(anomaly, session, &mut score, null_mut(), 0), SMALTI_OK);
        }
        assert_eq!(ranked.map(|ranked| (ranked.index, ranked.probability)), answer.ranked[..]);
        // SAFETY: a label of an open bank.
        let best = unsafe { CStr::from_ptr(ranked[0].label) }.to_str().unwrap();
        assert!(label.is_empty() || best == label, "{best}");
        assert_eq!(
            (score.score, score.tokens, score.embedding),
            (finding.score, finding.tokens, finding.embedding)
        );
        assert_eq!(map, finding.map[..]);
        assert!(fault.is_none() || score.score > 1.0);
    }
    assert_eq!(smalti_session_free(session), SMALTI_OK);
    assert_eq!((smalti_bank_close(bank), smalti_anomaly_close(anomaly)), (SMALTI_OK, SMALTI_OK));
}

#[test]
fn answers_and_scores_allocate_nothing() {
    let model = open("models/colours_u8.onnx");
    let (bank, anomaly, session) = (bank(model), anomaly(model), session(model));
    let pixels = pixels([90, 80, 70], None);
    let mut ranked = [smalti_ranked { index: 0, probability: 0.0, label: null() }; 4];
    let (mut score, mut map) = (zero_score(), [0f32; 4]);
    // The very first run too.
    let used = allocation_counter::measure(|| {
        for _ in 0..50 {
            run(session, &pixels);
            // SAFETY: arrays' pointers and lengths, a struct of its size.
            unsafe {
                assert_eq!(smalti_bank_top_k(bank, session, ranked.as_mut_ptr(), 4), SMALTI_OK);
                let code = smalti_anomaly_score(anomaly, session, &mut score, map.as_mut_ptr(), 4);
                assert_eq!(code, SMALTI_OK);
            }
        }
    });
    assert_eq!(used.count_total, 0);
    smalti_session_free(session);
    smalti_bank_close(bank);
    smalti_anomaly_close(anomaly);
    smalti_close(model);
}

#[test]
fn runs_that_show_a_map_allocate_nothing() {
    for name in ["../../models/ready/waste.onnx", "../../models/ready/waste-int8.onnx"] {
        let model = open(name);
        let (session, pixels) = (session(model), vec![77; 96 * 96 * 3]);
        let used = allocation_counter::measure(|| (0..2).for_each(|_| run(session, &pixels)));
        assert_eq!(used.count_total, 0, "{name}");
        smalti_session_free(session);
        smalti_close(model);
    }
}

#[test]
fn the_memory_bounds_hold() {
    let files =
        ["learned/colours.bank", "learned/good.anomaly"].map(|name| std::fs::read(path(name)).unwrap());
    let model = open("models/colours_u8.onnx");
    for (i, file) in files.iter().enumerate() {
        let mut bound = 0;
        let used = allocation_counter::measure(|| {
            let (mut bank, mut anomaly) = (null_mut(), null_mut());
            // SAFETY: a slice's pointer and length, null, room for a pointer and a number.
            unsafe {
                if i == 0 {
                    let code = smalti_bank_open_bytes(model, file.as_ptr(), file.len(), null(), &mut bank);
                    assert_eq!(code, SMALTI_OK, "{}", message());
                    assert_eq!(smalti_bank_memory_bound(bank, &mut bound), SMALTI_OK);
                } else {
                    let code =
                        smalti_anomaly_open_bytes(model, file.as_ptr(), file.len(), null(), &mut anomaly);
                    assert_eq!(code, SMALTI_OK, "{}", message());
                    assert_eq!(smalti_anomaly_memory_bound(anomaly, &mut bound), SMALTI_OK);
                }
            }
            smalti_bank_close(bank);
            smalti_anomaly_close(anomaly);
        });
        assert!(used.bytes_max <= bound as u64, "{i}: peak {}, bound {bound}", used.bytes_max);
    }
    smalti_close(model);
}

#[test]
fn signatures_are_asked_for_and_other_models_refused() {
    let (model, other) = (open("models/colours_u8.onnx"), open("models/colours_f32.onnx"));
    let file = text("learned/colours.bank");
    let mut bank = null_mut();
    // SAFETY: text, null and room for a pointer.
    assert_eq!(unsafe { smalti_bank_open(other, file.as_ptr(), null(), &mut bank) }, SMALTI_REFUSED);
    assert!(
        bank.is_null() && message().starts_with("class bank refused: model: found SHA-256"),
        "{}",
        message()
    );
    let key = CString::new(std::fs::read(path("signed/test.pub")).unwrap()).unwrap();
    let size = size_of::<smalti_learned_options>();
    let options = smalti_learned_options { size, pubkey: key.as_ptr(), signature: null() };
    // SAFETY: text, options of their size with a text in them, room for a pointer.
    assert_eq!(unsafe { smalti_bank_open(model, file.as_ptr(), &options, &mut bank) }, SMALTI_REFUSED);
    assert!(message().contains("minisig"), "{}", message());
    // Without tokens there is nothing to score.
    let mut blind = null_mut();
    // SAFETY: text, null and room for a pointer.
    let code = unsafe { smalti_open(text("models/colours_u8.onnx").as_ptr(), null(), &mut blind) };
    assert_eq!(code, SMALTI_OK);
    let (anomaly, session) = (anomaly(blind), session(blind));
    run(session, &pixels([1, 2, 3], None));
    // SAFETY: a struct of its size, null.
    let code = unsafe { smalti_anomaly_score(anomaly, session, &mut zero_score(), null_mut(), 0) };
    assert_eq!((code, message().contains("tokens")), (SMALTI_USAGE, true), "{}", message());
    smalti_session_free(session);
    smalti_anomaly_close(anomaly);
    for model in [model, other, blind] {
        smalti_close(model);
    }
}
