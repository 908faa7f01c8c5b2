//! Two backends held against each other and against ONNX Runtime: one row an operator form, as ggml's
//! `test-backend-ops` does it. `make.py` has the table, and writes a small graph and ONNX Runtime's answers for each row;
//! here our own kernels and tract run the same graphs. `bits` holds every instruction set to the same bits. `random` has
//! both backends run graphs that are drawn by a seed: `draw` has the tools, `maps` the convolutions. In a build without
//! tract our own kernels run alone, and graphs for tract are refused.

mod bits;
#[cfg(feature = "tract")]
mod draw;
#[cfg(feature = "tract")]
mod maps;
#[cfg(feature = "tract")]
mod random;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use smalti_runtime::gate::Form;
use smalti_runtime::{Error, Model};

/// One form.
#[derive(Deserialize)]
struct Row {
    /// Whether our own kernels run the graph. If not, tract does. Not checked if not said.
    kernels: Option<bool>,
    /// Whether tract takes it. It may or may not if not said.
    engine: Option<bool>,
    /// Patterns and what ONNX Runtime answers to them.
    answers: Vec<(u64, Vec<f32>)>,
}

fn folder() -> PathBuf {
    match std::env::var_os("SMALTI_OPERATORS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operators"),
    }
}

/// Pixels by SplitMix64, as `make.py` makes them.
fn pixels(pattern: u64, count: usize) -> Vec<u8> {
    let pixel = |i: u64| {
        let z = i.wrapping_add(pattern << 32).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % 256) as u8
    };
    (0..count as u64).map(pixel).collect()
}

/// What a model answers to patterns.
fn answers(model: &Model, patterns: &[u64]) -> Result<Vec<Vec<f32>>, Error> {
    let (mut session, input) = (model.session()?, model.input());
    let answer = |&pattern: &u64| {
        let pixels = pixels(pattern, input.values());
        let output = match input.form {
            Form::U8Nhwc => session.run_pixels(&pixels),
            Form::F32Nchw => {
                let floats: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 128.0 - 1.0).collect();
                session.run_floats(&floats)
            }
        };
        output.map(|output| output.logits)
    };
    patterns.iter().map(answer).collect()
}

/// The largest difference, in relation to the largest value above 1.
fn distance(found: &[f32], wanted: &[f32]) -> f32 {
    if found.len() != wanted.len() {
        return f32::INFINITY;
    }
    let most = wanted.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
    far.fold(0.0, |far: f32, x| if x.is_nan() { f32::INFINITY } else { far.max(x) }) / most
}

/// How far an answer may be off: `make.py` has chosen patterns whose answers do not hang on rounding.
const TOLERANCE: f32 = 1e-4;

#[test]
fn both_backends_give_the_answers_of_onnx_runtime() {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let rows: BTreeMap<String, Row> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for (name, row) in &rows {
        let bytes = std::fs::read(folder().join("graphs").join(format!("{name}.onnx"))).unwrap();
        let patterns: Vec<u64> = row.answers.iter().map(|(pattern, _)| *pattern).collect();
        let mut check = |backend: &str, model: Result<Model, Error>| {
            let found = model.and_then(|model| {
                let ours = model.fallback_reason().is_none();
                if backend == "ours" && row.kernels.is_some_and(|kernels| ours != kernels) {
                    wrong
                        .push(format!("{name}: runs on our kernels: {ours} ({:?})", model.fallback_reason()));
                }
                answers(&model, &patterns)
            });
            let is_refused = row.kernels == Some(false) && row.engine == Some(false);
            match found {
                Ok(_) if is_refused => wrong.push(format!("{name}, {backend}: runs, expected a refusal")),
                Err(error) if is_refused && error.exit_code() == 3 => {}
                Err(error)
                    if !cfg!(feature = "tract") && row.kernels == Some(false) && error.exit_code() == 3 => {}
                Err(error) if error.exit_code() == 3 && backend == "tract" && row.engine != Some(true) => {}
                Err(error) if error.exit_code() == 3 && row.kernels.is_none() => {}
                Err(error) => wrong.push(format!("{name}, {backend}: {error}")),
                Ok(found) => {
                    for (found, (pattern, wanted)) in found.iter().zip(&row.answers) {
                        let far = distance(found, wanted);
                        if far > TOLERANCE {
                            wrong.push(format!(
                                "{name}, {backend}, pattern {pattern}: off by {far}: {found:?} for {wanted:?}"
                            ));
                            break;
                        }
                    }
                }
            }
        };
        check("ours", Model::from_bytes(&bytes));
        if cfg!(feature = "tract") {
            check("tract", Model::from_bytes_on_tract(&bytes));
        }
    }
    assert!(rows.len() > 200 || std::env::var_os("SMALTI_OPERATORS").is_some());
    assert!(wrong.is_empty(), "{} wrong of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
