//! What an image is answered.

use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use smalti_runtime::anomaly::{AnomalyDetector, Finding, overlay};
use smalti_runtime::bank::ClassBank;
use smalti_runtime::explain::{self, Settings};
use smalti_runtime::{Error, Image, Output, Prediction, Session, images};

use super::learned::{Learned, Lessons};
use super::reply::Reply;
use super::route::Task;
use crate::learn::Answerer;
use crate::{anomaly, inputs, run};

/// How answers and messages name the image.
const BODY: &str = "body";

/// What answers an image.
pub(super) struct Answering<'a> {
    session: &'a mut Session,
    learned: &'a Learned,
    /// The class bank as it is when the answer begins.
    bank: Option<Arc<ClassBank>>,
    /// Whether anyone still waits; long work ends when nobody does.
    wanted: &'a dyn Fn() -> bool,
}

impl<'a> Answering<'a> {
    pub(super) fn new(
        session: &'a mut Session,
        learned: &'a Learned,
        wanted: &'a dyn Fn() -> bool,
    ) -> Answering<'a> {
        Answering { session, learned, bank: learned.bank.as_ref().map(Lessons::bank), wanted }
    }

    /// Answers for the image in a body.
    pub(super) fn answer(&mut self, task: &Task, body: &[u8]) -> Reply {
        self.attempt(task, body).unwrap_or_else(|error| refuse(&error))
    }

    fn attempt(&mut self, task: &Task, body: &[u8]) -> Result<Reply, Error> {
        let (start, model) = (Instant::now(), self.session.model().clone());
        let image = || images::decode_for(BODY, body, &model);
        match task {
            Task::Classify { top_k } => {
                let prediction = self.classify(&image()?)?;
                Ok(results(json!({ "predictions": run::as_json(&prediction, *top_k) }), start))
            }
            Task::Embed => {
                let output = self.run(&image()?)?;
                Ok(results(json!({ "embedding": model.embedding_of(&output)? }), start))
            }
            Task::Explain { class } => {
                let class = class.as_deref().map(|label| self.class(label)).transpose()?;
                self.explain(&image()?, class)
            }
            Task::Anomaly => Ok(results(anomaly::as_json(&self.inspect(&image()?)?.1), start)),
            Task::AnomalyMap => {
                let image = image()?;
                let (detector, finding) = self.inspect(&image)?;
                let map = overlay(&model, &image, &finding.map, detector.grid())?;
                Ok(Reply::new("image/png", map.to_png()?))
            }
            Task::Learn { label } => {
                let (output, lessons) = (self.run(&image()?)?, self.lessons()?);
                let taught = lessons.teach(label, &model, &output)?;
                Ok(Reply::json(StatusCode::OK, lessons.as_json(taught)))
            }
            Task::Undo => {
                let lessons = self.lessons()?;
                Ok(match lessons.undo(&model)? {
                    Some(removed) => Reply::json(StatusCode::OK, lessons.as_json(removed)),
                    None => Reply::error(StatusCode::CONFLICT, "nothing was taught since the server started"),
                })
            }
        }
    }

    fn run(&mut self, image: &Image) -> Result<Output, Error> {
        let mut output = Output::default();
        self.session.run_image_into(image.view(), &mut output)?;
        Ok(output)
    }

    /// All labels, learned ones among them.
    fn classify(&mut self, image: &Image) -> Result<Prediction, Error> {
        let mut prediction = self.session.classify(image)?;
        if let Some(bank) = &self.bank {
            Answerer::new(Arc::clone(bank)).rank(self.session.model(), &mut prediction)?;
        }
        Ok(prediction)
    }

    /// The number of a label.
    fn class(&self, label: &str) -> Result<usize, Error> {
        self.bank.as_ref().map_or_else(|| self.session.model().class(label), |bank| bank.class(label))
    }

    /// A picture of what a class's probability depends on.
    fn explain(&mut self, image: &Image, class: Option<usize>) -> Result<Reply, Error> {
        let settings = Settings { class, bank: self.bank.as_deref(), ..Settings::default() };
        let wanted = self.wanted;
        let mut go_on = |_, _| if wanted() { Ok(()) } else { Err(Error::GateFailed("nobody waits".into())) };
        let map = explain::occlusion(self.session, image.view(), &settings, &mut go_on)?;
        Ok(Reply::new("image/png", map.over(image)?.to_png()?))
    }

    /// What the detector finds in an image.
    fn inspect(&mut self, image: &Image) -> Result<(&'a AnomalyDetector, Finding), Error> {
        let detector = self.learned.detector.as_ref().ok_or_else(not_offered)?;
        let output = self.run(image)?;
        let mut finding = detector.finding();
        detector.score_into(self.session.model(), &output, &mut finding)?;
        Ok((detector, finding))
    }

    fn lessons(&self) -> Result<&'a Lessons, Error> {
        self.learned.bank.as_ref().ok_or_else(not_offered)
    }
}

/// Routes that are not offered have been refused before.
fn not_offered() -> Error {
    Error::Usage("this server was started without it".into())
}

/// What is wrong with an image or a request.
fn refuse(error: &Error) -> Reply {
    match error {
        Error::Data { .. } => {
            let summary = inputs::summary(vec![inputs::unusable(BODY, error)], 1);
            Reply::json(StatusCode::UNPROCESSABLE_ENTITY, summary)
        }
        Error::Usage(_) => Reply::error(StatusCode::BAD_REQUEST, &error.to_string()),
        // Of the bank.
        Error::Io { .. } | Error::Refused { .. } => {
            log::error!("{error}");
            Reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
        // Nobody reads it.
        Error::GateFailed(_) => Reply::error(StatusCode::SERVICE_UNAVAILABLE, "given up"),
        other => {
            log::error!("{other}");
            Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "the model failed on this image")
        }
    }
}

/// One image's result as `--json` gives it, with the milliseconds that it took.
fn results(mut fields: Value, start: Instant) -> Reply {
    fields["ms"] = json!(start.elapsed().as_secs_f64() * 1e3);
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Reply::json(StatusCode::OK, inputs::summary(vec![inputs::result(BODY, fields)], 0))
}
