//! A model and what it answers.

use serde_json::{Value, json};
use smalti_runtime::explain::{self, Settings};
use smalti_runtime::{Error, Model, OpenOptions, Result, Session, images, selftest};

/// How messages name the image.
const IMAGE: &str = "image";

/// A model, once it is open, the file that comes in and the answer that goes out.
#[derive(Debug, Default)]
pub struct Answers {
    session: Option<Session>,
    file: Vec<u8>,
    answer: Vec<u8>,
}

impl Answers {
    /// Room for a file's bytes; none if there is not so much memory.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        // The one before may go first.
        self.file = Vec::new();
        self.file.try_reserve_exact(len).ok()?;
        self.file.resize(len, 0);
        Some(&mut self.file)
    }

    /// Opens the file as a model, holds it to the test vectors that it brings, and answers what it is.
    pub fn open(&mut self) -> bool {
        let file = std::mem::take(&mut self.file);
        self.session = None;
        let opened = open(&file).map(|(session, about)| {
            self.session = Some(session);
            about.to_string().into_bytes()
        });
        self.say(opened)
    }

    /// Answers the file, an image, with its labels, most probable first.
    pub fn classify(&mut self, top_k: usize) -> bool {
        self.run(|session, file| {
            let image = images::decode_for(IMAGE, file, session.model())?;
            let ranked = session.classify(&image)?.ranked;
            let labels: Value = (ranked.iter().take(top_k))
                .map(|r| json!({ "label": r.label, "index": r.index, "probability": r.probability }))
                .collect();
            Ok(labels.to_string().into_bytes())
        })
    }

    /// Answers the file, an image, with a drawing of what the probability of a class depends on, of the most probable
    /// one if none is given.
    pub fn explain(&mut self, class: Option<usize>) -> bool {
        self.run(|session, file| {
            let image = images::decode_for(IMAGE, file, session.model())?;
            let settings = Settings { class, ..Settings::default() };
            let map = explain::occlusion(session, image.view(), &settings, &mut |_, _| Ok(()))?;
            Ok(map.over(&image)?.to_png()?)
        })
    }

    /// What was answered last, or what was wrong.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    fn run(&mut self, work: impl FnOnce(&mut Session, &[u8]) -> Result<Vec<u8>>) -> bool {
        let file = std::mem::take(&mut self.file);
        let closed = Err(Error::Usage("no model is open".into()));
        let answer = self.session.as_mut().map_or(closed, |session| work(session, &file));
        self.say(answer)
    }

    fn say(&mut self, answer: Result<Vec<u8>>) -> bool {
        let good = answer.is_ok();
        self.answer = answer.unwrap_or_else(|error| error.to_string().into_bytes());
        good
    }
}

fn open(file: &[u8]) -> Result<(Session, Value)> {
    let model = Model::from_bytes_with(file, &OpenOptions::default())?;
    let vectors = selftest::run(&model)?;
    selftest::judge(&vectors)?;
    let record = model.record();
    let about = json!({
        "description": record.map(|record| &record.description),
        "version": record.map(|record| &record.version),
        "labels": model.labels(),
        "width": model.input().width,
        "height": model.input().height,
    });
    Ok((model.session()?, about))
}
