//! Damaged and hostile model files: a clean error, or a model that runs; never a panic, never a hang.
//!
//! `crafted` has attacks with a name, each of which must be refused with the right words. `mutants` changes
//! valid models at random. The short form runs with the other tests; the long one with
//! `cargo test --release -p smalti-runtime --test hostile -- --ignored`.

mod crafted;
mod mutants;

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use prost::Message;
use smalti_runtime::gate::Form;
use smalti_runtime::{Error, Model};
use tract_onnx::pb::ModelProto;

/// The longest that one file may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name);
    std::fs::read(path).unwrap()
}

fn proto(name: &str) -> ModelProto {
    ModelProto::decode(&fixture(name)[..]).unwrap()
}

/// Loads a file and runs it once.
fn load_and_run(bytes: &[u8]) -> Result<(), Error> {
    let model = Model::from_bytes(bytes)?;
    let values = model.input().values();
    let mut session = model.session()?;
    match model.input().form {
        Form::U8Nhwc => session.run_pixels(&vec![100; values])?,
        Form::F32Nchw => session.run_floats(&vec![0.5; values])?,
    };
    Ok(())
}

/// Runs cases in order on a thread of their own; fails with the case's name on a panic, a hang or an internal
/// error. Gives how many files passed the gate.
fn survive(cases: impl Iterator<Item = (String, Vec<u8>)> + Send + 'static) -> usize {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for (name, bytes) in cases {
            let _ = sender.send((name.clone(), None));
            let _ = sender.send((name, Some(load_and_run(&bytes))));
        }
    });
    let (mut running, mut passed) = ("before the first case".to_string(), 0);
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok((name, None)) => running = name,
            Ok((name, Some(result))) => match result {
                Err(Error::Internal { problem, .. }) => panic!("{name}: the engine panicked: {problem}"),
                Err(error) => {
                    if matches!(error, Error::Engine { .. }) {
                        println!("{name}: passed the gate, then {error}");
                    }
                    running = String::new();
                }
                Ok(()) => (running, passed) = (String::new(), passed + 1),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{running}: no answer in {PATIENCE:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) if running.is_empty() => return passed,
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{running}: panicked"),
        }
    }
}
