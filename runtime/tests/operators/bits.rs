//! The same bits on every instruction set of this machine: graphs of the table, whole models and drawn graphs, each
//! instruction set in a process of its own, as it is chosen once.

use std::path::Path;
use std::process::Command;

use smalti_kernels::Isa;
use smalti_runtime::Model;

use super::{answers, folder};

/// Set where a process is to say its answers. What it says stands between the marks.
const ASKED: &str = "SMALTI_ANSWER_BITS";
const MARKS: [&str; 2] = ["<bits>\n", "</bits>\n"];

/// All files, by name.
fn files() -> Vec<(String, Vec<u8>)> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let mut files = Vec::new();
    for folder in [folder().join("graphs"), models] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "onnx") {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[cfg(feature = "tract")]
fn drawn() -> impl Iterator<Item = (String, Vec<u8>)> {
    use prost::Message;
    (0..300).map(|seed| (format!("drawn {seed}"), super::random::graph(seed).encode_to_vec()))
}

#[cfg(not(feature = "tract"))]
fn drawn() -> impl Iterator<Item = (String, Vec<u8>)> {
    std::iter::empty()
}

/// A line for each file that our own kernels run: its name and the bits of its answers.
fn bits() -> String {
    let mut said = String::new();
    for (name, bytes) in files().into_iter().chain(drawn()) {
        let Ok(model) = Model::from_bytes(&bytes) else { continue };
        if model.fallback_reason().is_some() {
            continue;
        }
        let bits = match answers(&model, &[1, 2]) {
            Ok(answers) => answers.concat().iter().map(|x| format!(" {:08x}", x.to_bits())).collect(),
            Err(error) => format!(" {error}"),
        };
        said += &format!("{name}:{bits}\n");
    }
    said
}

/// What a process that runs on an instruction set answers.
fn bits_on(isa: Isa, test: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ASKED, "1").env("SMALTI_FORCE_ISA", isa.name());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {said}", isa.name());
    let (_, said) = said.split_once(MARKS[0]).unwrap();
    said.split_once(MARKS[1]).unwrap().0.to_owned()
}

#[test]
fn answers_have_the_same_bits_on_every_instruction_set() {
    if std::env::var_os(ASKED).is_some() {
        println!("{}{}{}", MARKS[0], bits(), MARKS[1]);
        return;
    }
    let test = "bits::answers_have_the_same_bits_on_every_instruction_set";
    let plain = bits_on(Isa::SCALAR, test);
    assert!(plain.lines().count() > 150, "{plain}");
    for isa in Isa::available() {
        let found = bits_on(isa, test);
        let pairs = || plain.lines().zip(found.lines());
        let different: Vec<_> = pairs().filter(|(plain, found)| plain != found).collect();
        assert!(
            different.is_empty() && plain.len() == found.len(),
            "{} on {}: {different:#?}",
            different.len(),
            isa.name()
        );
    }
}
