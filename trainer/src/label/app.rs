//! What each address of the page does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use smalti_trainer::{Error, Result};

use super::http::{Request, Response};
use super::previews::Previews;
use super::session::Session;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// The files of the page: address, type, text.
const FILES: [(&str, &str, &str); 4] = [
    ("/", HTML, include_str!("page/label.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/label.js", "text/javascript; charset=utf-8", include_str!("page/label.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// What the server answers from.
pub(super) struct App {
    session: Mutex<Session>,
    previews: Previews,
}

/// An image and its class, or an image alone.
#[derive(Deserialize)]
struct Choice {
    image: String,
    #[serde(default)]
    class: String,
}

impl App {
    pub(super) fn new(session: Session) -> App {
        App { session: Mutex::new(session), previews: Previews::default() }
    }

    /// The state; while it is held, nothing is being written.
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request of the page.
    pub(super) fn answer(&self, request: &Request) -> Response {
        match (&*request.method, &*request.path) {
            ("GET", "/state") => self.view(),
            ("GET", path) => {
                match (FILES.iter().find(|(known, ..)| *known == path), path.strip_prefix("/image/")) {
                    (Some((_, kind, text)), _) => Response::new(200, kind, text.as_bytes()),
                    (None, Some(id)) => self.image(id),
                    (None, None) => not_found(),
                }
            }
            (_, "/label") => self.act(request, |session, choice| session.label(&choice.image, &choice.class)),
            (_, "/skip") => self.act(request, |session, choice| session.skip(&choice.image)),
            (_, "/undo") => self.change(Session::undo),
            (_, "/back") => self.step(true),
            (_, "/forward") => self.step(false),
            _ => not_found(),
        }
    }

    fn step(&self, back: bool) -> Response {
        self.session().step(back);
        self.view()
    }

    fn view(&self) -> Response {
        match serde_json::to_vec(&self.session().view()) {
            Ok(text) => Response::new(200, JSON, text),
            Err(why) => Response::refusal(500, &why.to_string()),
        }
    }

    fn image(&self, id: &str) -> Response {
        let session = self.session();
        let Some(row) = session.row(id) else { return not_found() };
        let file = session.table().rows()[row].file.clone();
        // Others may be labelled while this one is decoded.
        drop(session);
        match self.previews.get(row, &file) {
            Ok(bytes) => Response { is_lasting: true, ..Response::new(200, "image/jpeg", bytes) },
            Err(why) => Response::refusal(404, &why.to_string()),
        }
    }

    fn act(&self, request: &Request, act: impl FnOnce(&mut Session, &Choice) -> Result<()>) -> Response {
        match serde_json::from_slice::<Choice>(&request.body) {
            Ok(choice) => self.change(|session| act(session, &choice)),
            Err(why) => {
                Response::refusal(400, &format!("expected {{\"image\": ..., \"class\": ...}}: {why}"))
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Session) -> Result<()>) -> Response {
        let done = change(&mut self.session());
        match done {
            Ok(()) => self.view(),
            Err(why @ Error::Usage(_)) => Response::refusal(400, &why.to_string()),
            Err(why) => Response::refusal(500, &why.to_string()),
        }
    }
}

fn not_found() -> Response {
    Response::refusal(404, "there is nothing at this address")
}
