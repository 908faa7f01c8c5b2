//! What a page is answered, here without a browser; in one, `scripts/check-page` asks.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use smalti_runtime::{Model, images};
use smalti_wasm::Answers;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

fn write(answers: &mut Answers, file: &[u8]) {
    answers.room(file.len()).unwrap().copy_from_slice(file);
}

fn said(answers: &Answers) -> &str {
    std::str::from_utf8(answers.answer()).unwrap()
}

/// Answers of a model that is open.
fn open(name: &str) -> Answers {
    let mut answers = Answers::default();
    write(&mut answers, &fs::read(fixture(name)).unwrap());
    assert!(answers.open(), "{}", said(&answers));
    answers
}

#[test]
fn a_model_says_what_it_is_and_answers_as_the_library_does() {
    for name in ["colours_u8.onnx", "colours_f32.onnx"] {
        let mut answers = open(name);
        let about: Value = serde_json::from_str(said(&answers)).unwrap();
        let model = Model::open(fixture(name)).unwrap();
        assert_eq!(about["labels"], Value::from(model.labels()));
        assert_eq!(about["width"], Value::from(model.input().width));
        let image = fixture("red.png");
        let wanted = model.session().unwrap().classify(&images::open_for(&image, &model).unwrap()).unwrap();
        for top_k in [1, 2, 9] {
            write(&mut answers, &fs::read(&image).unwrap());
            assert!(answers.classify(top_k));
            let found: Vec<Value> = serde_json::from_str(said(&answers)).unwrap();
            assert_eq!(found.len(), top_k.min(3));
            for (found, wanted) in found.iter().zip(&wanted.ranked) {
                assert_eq!(
                    (found["label"].as_str().unwrap(), found["index"].as_u64().unwrap() as usize),
                    (&wanted.label[..], wanted.index)
                );
                assert_eq!(found["probability"].as_f64().unwrap() as f32, wanted.probability);
            }
        }
    }
}

#[test]
fn a_map_is_a_drawing_over_the_image() {
    let mut answers = open("colours_u8.onnx");
    write(&mut answers, &fs::read(fixture("red.png")).unwrap());
    assert!(answers.explain(Some(0)), "{}", said(&answers));
    let red = answers.answer().to_vec();
    write(&mut answers, &fs::read(fixture("red.png")).unwrap());
    assert!(answers.explain(None) && answers.answer() == red, "the most probable class");
    let drawing = image::load_from_memory(answers.answer()).unwrap();
    assert!(drawing.width() >= 480 || drawing.height() >= 480);
}

#[test]
fn what_is_wrong_is_said_and_the_next_image_is_answered() {
    let mut answers = Answers::default();
    write(&mut answers, b"no model");
    assert!(!answers.open() && said(&answers).contains("refused"), "{}", said(&answers));
    let image = fs::read(fixture("red.png")).unwrap();
    write(&mut answers, &image);
    assert!(!answers.classify(1) && said(&answers) == "no model is open");

    let mut answers = open("colours_u8.onnx");
    for (file, wanted) in [(&b""[..], "empty"), (b"text", "no image format"), (&image[..image.len() / 2], "")]
    {
        write(&mut answers, file);
        assert!(!answers.classify(1) && said(&answers).contains(wanted), "{}", said(&answers));
    }
    write(&mut answers, &image);
    assert!(!answers.explain(Some(9)) && said(&answers).contains("class 9"), "{}", said(&answers));
    assert!(answers.room(usize::MAX).is_none());
    write(&mut answers, &image);
    assert!(answers.classify(1) && said(&answers).contains("red"));
    // The file is gone with its answer.
    assert!(!answers.classify(1) && said(&answers).contains("empty"));
}

#[test]
fn the_entries_speak_of_the_same_answers() {
    let file = fs::read(fixture("colours_u8.onnx")).unwrap();
    assert!(smalti_wasm::room(usize::MAX).is_null() && !smalti_wasm::room(file.len()).is_null());
    // Zeros, as only a page can write there.
    assert!(!smalti_wasm::open() && smalti_wasm::answer_len() > 0 && !smalti_wasm::answer().is_null());
    assert!(!smalti_wasm::classify(1) && !smalti_wasm::explain(0));
    assert_eq!(smalti_wasm::answer_len(), "no model is open".len());
}
