//! What an image is answered.

use std::time::Instant;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use smalti_runtime::explain::{self, Settings};
use smalti_runtime::{Error, Session, images};

use super::reply::Reply;
use super::route::Task;
use crate::{inputs, run};

/// How answers and messages name the image.
const BODY: &str = "body";

/// Answers for the image in a body. `wanted` tells whether anyone still waits; long work ends when nobody does.
pub(super) fn answer(session: &mut Session, task: &Task, body: &[u8], wanted: &dyn Fn() -> bool) -> Reply {
    attempt(session, task, body, wanted).unwrap_or_else(|error| refuse(&error))
}

fn attempt(
    session: &mut Session,
    task: &Task,
    body: &[u8],
    wanted: &dyn Fn() -> bool,
) -> Result<Reply, Error> {
    let start = Instant::now();
    let settings = match task {
        Task::Explain { class: Some(label) } => {
            Settings { class: Some(session.model().class(label)?), ..Settings::default() }
        }
        _ => Settings::default(),
    };
    let image = images::decode_for(BODY, body, session.model())?;
    match task {
        Task::Classify { top_k } => {
            let prediction = session.classify(&image)?;
            Ok(results([("predictions", run::as_json(&prediction, *top_k))], start))
        }
        Task::Embed => {
            let embedding = session.classify(&image)?.output.embedding;
            let embedding = embedding.ok_or_else(|| Error::Usage("the model gives no embedding".into()))?;
            Ok(results([("embedding", json!(embedding))], start))
        }
        Task::Explain { .. } => {
            let mut go_on =
                |_, _| if wanted() { Ok(()) } else { Err(Error::GateFailed("nobody waits".into())) };
            let map = explain::occlusion(session, image.view(), &settings, &mut go_on)?;
            Ok(Reply::new("image/png", map.over(&image)?.to_png()?))
        }
    }
}

/// What is wrong with an image or a request.
fn refuse(error: &Error) -> Reply {
    match error {
        Error::Data { .. } => {
            let summary = inputs::summary(vec![inputs::unusable(BODY, error)], 1);
            Reply::json(StatusCode::UNPROCESSABLE_ENTITY, summary)
        }
        Error::Usage(_) => Reply::error(StatusCode::BAD_REQUEST, &error.to_string()),
        // Nobody reads it.
        Error::GateFailed(_) => Reply::error(StatusCode::SERVICE_UNAVAILABLE, "given up"),
        other => {
            log::error!("{other}");
            Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "the model failed on this image")
        }
    }
}

/// One image's result as `run --json` gives it, with the milliseconds that it took.
fn results<const N: usize>(fields: [(&str, Value); N], start: Instant) -> Reply {
    let ms = ("ms", json!(start.elapsed().as_secs_f64() * 1e3));
    let fields: Map<_, _> = fields.into_iter().chain([ms]).map(|(key, value)| (key.into(), value)).collect();
    Reply::json(StatusCode::OK, inputs::summary(vec![inputs::result(BODY, fields)], 0))
}
