//! Our own program for a model against the engine, and against itself: threads, repetition.

use std::path::PathBuf;

use smalti_runtime::gate::Form;
use smalti_runtime::{Model, Output, Session};

const MODELS: [&str; 12] = [
    "colours_f32",
    "colours_u8",
    "colours_qdq",
    "deit_distilled",
    "deit_distilled_dynamo",
    "timm_mean_dynamo",
    "timm_tanh",
    "timm_vit",
    "timm_vit_dynamo",
    "torch_encoder",
    "torch_encoder_dynamo",
    "torch_vit",
];

fn bytes(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    std::fs::read(folder.join(format!("{name}.onnx"))).unwrap()
}

/// Runs a model on a pattern.
fn run(session: &mut Session, pattern: usize, output: &mut Output) {
    let input = session.model().input();
    let pixels: Vec<u8> = (0..input.values()).map(|i| ((i * 73 + 19 * pattern) % 256) as u8).collect();
    match input.form {
        Form::U8Nhwc => session.run_pixels_into(&pixels, output).unwrap(),
        Form::F32Nchw => {
            let floats: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 128.0 - 1.0).collect();
            session.run_floats_into(&floats, output).unwrap();
        }
    }
}

fn outputs(mut session: Session) -> Vec<Output> {
    let run = |pattern| {
        let mut output = Output::default();
        run(&mut session, pattern, &mut output);
        output
    };
    (0..8).map(run).collect()
}

#[test]
fn every_export_runs_on_our_kernels_as_on_the_engine() {
    for name in MODELS {
        let bytes = bytes(name);
        let (ours, engine) =
            (Model::from_bytes(&bytes).unwrap(), Model::from_bytes_on_tract(&bytes).unwrap());
        assert_eq!(ours.fallback_reason(), None, "{name}");
        assert!(engine.fallback_reason().is_some(), "{name}");
        // The quantized model's logits are levels: a sum in another order may move one by a step.
        let tolerance = if name.ends_with("qdq") { 0.0328 } else { 1e-4 };
        for (a, b) in outputs(ours.session().unwrap()).iter().zip(&outputs(engine.session().unwrap())) {
            let pairs = || {
                a.logits
                    .iter()
                    .zip(&b.logits)
                    .chain(a.embedding.iter().flatten().zip(b.embedding.iter().flatten()))
            };
            assert_eq!(
                (a.logits.len(), a.embedding.is_some()),
                (b.logits.len(), b.embedding.is_some()),
                "{name}"
            );
            assert!(
                pairs().all(|(a, b)| (a - b).abs() <= tolerance),
                "{name}: {:?} for {:?}",
                a.logits,
                b.logits
            );
        }
    }
}

#[test]
fn threads_and_repetition_do_not_change_a_bit() {
    for name in MODELS {
        let model = Model::from_bytes(&bytes(name)).unwrap();
        let alone = outputs(model.session().unwrap());
        for threads in [1, 2, 3] {
            let session = model.session_with_threads(threads).unwrap();
            assert_eq!(session.threads(), threads);
            assert_eq!(outputs(session), alone, "{name} on {threads} threads");
        }
    }
}

#[test]
fn nothing_is_allocated_after_the_first_run() {
    for (name, threads, runs) in
        [("colours_u8", 1, 10_000), ("colours_u8", 2, 1000), ("colours_qdq", 1, 10_000)]
    {
        let model = Model::from_bytes(&bytes(name)).unwrap();
        let mut session = model.session_with_threads(threads).unwrap();
        let mut output = Output::default();
        run(&mut session, 0, &mut output);
        let values = model.input().values();
        let (pixels, floats) = (vec![100u8; values], vec![0.5f32; values]);
        let info = allocation_counter::measure(|| {
            for _ in 0..runs {
                match model.input().form {
                    Form::U8Nhwc => session.run_pixels_into(&pixels, &mut output).unwrap(),
                    Form::F32Nchw => session.run_floats_into(&floats, &mut output).unwrap(),
                }
            }
        });
        assert_eq!(info.count_total, 0, "{name} on {threads} threads");
    }
}
