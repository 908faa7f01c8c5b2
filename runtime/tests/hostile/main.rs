//! Damaged and hostile model files: a clean error, or a model that runs; never a panic, never a hang.
//!
//! `crafted` has attacks with a name, each of which must be refused with the right words, `memory` small files that ask
//! for much. `mutants` changes valid models at random; where both backends run one, they must say the same. The short
//! form runs with the other tests; the long one with
//! `cargo test --release -p smalti-runtime --test hostile -- --ignored`.

mod crafted;
mod memory;
mod mutants;

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use smalti_models::onnx::{ModelProto, NodeProto, TensorProto};
use smalti_runtime::gate::Form;
use smalti_runtime::{Error, Model, Output};

/// The longest that one file may take of the processors, other tests included: by the clock it may be more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest by the clock, where nothing runs any more.
const STANDSTILL: Duration = Duration::from_secs(900);

/// A file in `tests`.
fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    std::fs::read(path).unwrap()
}

fn proto(name: &str) -> ModelProto {
    ModelProto::decode(&file(&format!("models/{name}"))[..]).unwrap()
}

/// What a model says to a plain image, or, if it takes floats, to one that is `nudge` away from it.
fn answer(model: &Model, nudge: f32) -> Result<Output, Error> {
    let values = model.input().values();
    let mut session = model.session()?;
    match model.input().form {
        Form::U8Nhwc => session.run_pixels(&vec![100; values]),
        Form::F32Nchw => {
            let floats: Vec<f32> = (0..values).map(|i| 0.5 + nudge * (i % 7) as f32).collect();
            session.run_floats(&floats)
        }
    }
}

/// Loads a file and runs it once; says what is wrong if both backends run it and disagree.
fn load_and_run(bytes: &[u8]) -> Result<Option<String>, Error> {
    let model = Model::from_bytes(bytes)?;
    let ours = answer(&model, 0.0)?;
    if model.fallback_reason().is_some() {
        return Ok(None);
    }
    let engine = match Model::from_bytes_on_tract(bytes).and_then(|model| answer(&model, 0.0)) {
        // It takes less than we do, but it must say so.
        Err(error) if matches!(error.exit_code(), 3 | 5) => return Ok(None),
        engine => engine?,
    };
    let far = distance(&ours.logits, &engine.logits);
    let allowed = 1e-3 + 2.0 * largest_step(bytes);
    if far <= allowed {
        return Ok(None);
    }
    if may_quantize_no_number(bytes) {
        return Ok(None);
    }
    // A huge weight makes an answer hang on the last bits of a sum.
    let near = answer(&model, 1e-6)?;
    let hangs_on_bits = distance(&ours.logits, &near.logits) > allowed / 10.0;
    Ok((!hangs_on_bits).then(|| format!("off by {far}, {allowed} are allowed: {ours:?} for {engine:?}")))
}

/// Whether levels may be asked for of what is no number, such as `0 / 0` or a product of 0 and infinity: ONNX names none, and
/// tract takes such a product for 0. Ours are ONNX Runtime's (`pair_of_no_number` among the operators).
fn may_quantize_no_number(bytes: &[u8]) -> bool {
    let Ok(ModelProto { graph: Some(graph), .. }) = ModelProto::decode(bytes) else { return false };
    let is_constant = |name: &String| graph.initializer.iter().any(|tensor| tensor.name == *name);
    let leaves_numbers = |node: &NodeProto| match &*node.op_type {
        "Reciprocal" => true,
        "Div" => !node.input.get(1).is_some_and(is_constant),
        _ => false,
    };
    graph.node.iter().any(|node| node.op_type == "QuantizeLinear") && graph.node.iter().any(leaves_numbers)
}

/// The largest difference, in relation to the largest value above 1.
fn distance(found: &[f32], wanted: &[f32]) -> f32 {
    let most = wanted.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    if found.len() == wanted.len() { far / most } else { f32::INFINITY }
}

/// The largest step of a quantization: a sum in another order may move a value by one.
fn largest_step(bytes: &[u8]) -> f32 {
    let Some(graph) = ModelProto::decode(bytes).ok().and_then(|model| model.graph) else { return 0.0 };
    let scales = graph.node.iter().filter(|node| node.op_type == "QuantizeLinear").map(|node| &node.input[1]);
    let tensors = scales.filter_map(|name| graph.initializer.iter().find(|tensor| tensor.name == *name));
    tensors.filter_map(scale).fold(0.0, f32::max)
}

fn scale(tensor: &TensorProto) -> Option<f32> {
    let raw = tensor.raw_data.first_chunk().map(|bytes| f32::from_le_bytes(*bytes));
    raw.or(tensor.float_data.first().copied())
}

/// Writes a file into the folder that `SMALTI_HOSTILE_FILES` names, if it names one: `scripts/check-hostile` gives them to
/// the program.
fn keep(name: &str, bytes: &[u8]) {
    let Some(folder) = std::env::var_os("SMALTI_HOSTILE_FILES") else { return };
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    std::fs::write(Path::new(&folder).join(format!("{name}.onnx")), bytes).unwrap();
}

/// Of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs cases in order on a thread of their own; fails with the case's name on a panic, a hang or an internal
/// error, and at the end with the names of all that the backends answer differently; such files are in `target/tmp`.
/// Gives how many files passed the gate.
fn survive(cases: impl Iterator<Item = (String, Vec<u8>)> + Send + 'static) -> usize {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for (name, bytes) in cases {
            let _ = sender.send((name.clone(), None));
            keep(&name, &bytes);
            let result = load_and_run(&bytes);
            if matches!(result, Ok(Some(_)) | Err(Error::Internal { .. })) {
                let file = format!("{}.onnx", name.replace([' ', '/'], "_"));
                let _ = std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(file), bytes);
            }
            let _ = sender.send((name, Some(result)));
        }
    });
    let (mut running, mut passed) = ("before the first case".to_string(), 0);
    let (mut wrong, mut since) = (Vec::new(), (Instant::now(), processor_time()));
    loop {
        match receiver.recv_timeout(Duration::from_secs(1)) {
            Ok((name, None)) => (running, since) = (name, (Instant::now(), processor_time())),
            Ok((name, Some(result))) => match result {
                Err(Error::Internal { problem, .. }) => {
                    wrong.push(format!("{name}: panicked: {problem}"));
                    running = String::new();
                }
                Err(error) => {
                    if matches!(error, Error::Engine { .. }) {
                        println!("{name}: passed the gate, then {error}");
                    }
                    running = String::new();
                }
                Ok(Some(difference)) => {
                    wrong.push(format!("{name}: {difference}"));
                    running = String::new();
                }
                Ok(None) => (running, passed) = (String::new(), passed + 1),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let (taken, waited) = (processor_time() - since.1, since.0.elapsed());
                assert!(
                    taken < PATIENCE && waited < STANDSTILL,
                    "{running}: no answer after {taken:?}, {waited:?}"
                );
            }
            Err(mpsc::RecvTimeoutError::Disconnected) if running.is_empty() => {
                assert!(wrong.is_empty(), "{} files wrong:\n{}", wrong.len(), wrong.join("\n"));
                return passed;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{running}: panicked"),
        }
    }
}
