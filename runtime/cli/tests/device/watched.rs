//! A model file that is replaced while it runs.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message;
use smalti_models::onnx::ModelProto;

use super::*;

/// A stream that is answered frame by frame, on a model that may be replaced.
struct Running {
    folder: tempfile::TempDir,
    child: Child,
    answers: BufReader<ChildStdout>,
    /// Reads what is said, so that the program never waits for a reader.
    said: JoinHandle<String>,
}

impl Running {
    fn start(model: &[u8], more: &[&dyn AsRef<OsStr>]) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model.onnx");
        fs::write(&place, model).unwrap();
        fs::copy(fixture("signed/colours_u8.onnx.minisig"), folder.path().join("model.onnx.minisig"))
            .unwrap();
        let arguments: [&dyn AsRef<OsStr>; 8] = [
            &"run",
            &place,
            &"raw:4x4:rgb8:-",
            &"--every-frame",
            &"--json",
            &"--watch",
            &"--watch-interval",
            &"0.001",
        ];
        let mut child = command(&[&arguments[..], more].concat()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        let mut running = Running { folder, child, answers, said };
        running.answer(); // The model has been opened.
        running
    }

    /// Replaces the model in one step.
    fn put(&self, model: &[u8]) {
        let new = self.folder.path().join("new");
        fs::write(&new, model).unwrap();
        fs::rename(new, self.folder.path().join("model.onnx")).unwrap();
    }

    /// The answer to one more frame.
    fn answer(&mut self) -> Value {
        self.child.stdin.as_mut().unwrap().write_all(&RED.repeat(16)).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Ends the stream; what was said.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let (status, said) = (self.child.wait().unwrap(), self.said.join().unwrap());
        assert!(status.success(), "{said}");
        said
    }
}

/// The test model with other labels: `aaa` for `red`.
fn relabelled(letter: &str) -> Vec<u8> {
    let mut proto = ModelProto::decode(&fs::read(model()).unwrap()[..]).unwrap();
    let names = proto.metadata_props.iter_mut().find(|entry| entry.key == "names").unwrap();
    for label in ["red", "green", "blue"] {
        names.value = names.value.replace(label, &letter.repeat(label.len()));
    }
    proto.encode_to_vec()
}

fn label(answer: &Value) -> String {
    answer["predictions"][0]["label"].as_str().unwrap().to_owned()
}

/// Swaps while frames are answered without a pause: each answer is one model's, whole.
fn swap(times: usize) {
    let models = ["a", "b", "c"].map(relabelled);
    let mut running = Running::start(&models[0], &[]);
    let known: HashSet<String> = ["a", "b", "c"].map(|letter| letter.repeat(3)).into();
    let probability = running.answer()["predictions"][0]["probability"].clone();
    let (mut seen, mut swaps) = (HashSet::new(), 0);
    for i in 1..=times {
        running.put(&models[i % 3]);
        let mut answer = running.answer();
        let start = Instant::now();
        // Mostly at once, now and then once the new model has taken over, and so in the end.
        while (i % 10 == 0 || i == times) && label(&answer) != ["aaa", "bbb", "ccc"][i % 3] {
            assert!(start.elapsed() < Duration::from_secs(60), "{answer}");
            answer = running.answer();
        }
        assert_eq!(answer["predictions"][0]["probability"], probability);
        assert!(known.contains(&label(&answer)), "{answer}");
        seen.insert(label(&answer));
        swaps = answer["swaps"].as_u64().unwrap();
    }
    assert_eq!(seen, known);
    let said = running.end();
    assert_eq!((said.contains("warning"), said.contains("error")), (false, false), "{said}");
    println!("{times} replacements, {swaps} seen");
    assert!(swaps >= times as u64 / 10, "{swaps} of {times} replacements seen");
}

#[test]
fn two_hundred_swaps_under_a_running_stream() {
    swap(200);
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_swaps_under_a_running_stream() {
    swap(10_000);
}

#[test]
fn a_bad_model_is_told_of_once_and_the_old_one_runs_on() {
    let good = fs::read(model()).unwrap();
    let mut running = Running::start(&good, &[]);
    running.put(&good[..good.len() / 2]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        assert_eq!(label(&running.answer()), "red");
    }
    let said = running.end();
    assert_eq!(said.matches("the old model runs on").count(), 1, "{said}");
}

#[test]
fn an_unsigned_model_is_told_of_once_and_the_old_one_runs_on() {
    let mut running =
        Running::start(&fs::read(model()).unwrap(), &[&"--pubkey", &fixture("signed/test.pub")]);
    running.put(&relabelled("x"));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        assert_eq!(label(&running.answer()), "red");
    }
    let said = running.end();
    assert!(said.matches("the old model runs on").count() == 1 && said.contains("signature"), "{said}");
}
