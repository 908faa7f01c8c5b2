//! What goes back to a client.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::out;

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    kind: &'static str,
    body: Bytes,
    more: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Reply {
    pub(super) fn new(kind: &'static str, body: impl Into<Bytes>) -> Reply {
        Reply { status: StatusCode::OK, kind, body: body.into(), more: None }
    }

    /// An object, as `--json` prints it.
    pub(super) fn json(status: StatusCode, fields: Value) -> Reply {
        Reply { status, ..Reply::new("application/json", out::object(fields)) }
    }

    /// What is wrong with a request.
    pub(super) fn error(status: StatusCode, problem: &str) -> Reply {
        Reply::json(status, json!({ "error": problem }))
    }

    /// The same with one more header.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Reply {
        Reply { more: Some(Box::new((name, value))), ..self }
    }

    /// The answer with what every browser is told: to believe the type that is said, to keep nothing, to let no other site
    /// use it, and what the page may do (`policy`).
    pub(super) fn into_response(self, policy: &HeaderValue) -> Response<Full<Bytes>> {
        let fixed = HeaderValue::from_static;
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().extend([
            (header::CONTENT_TYPE, fixed(self.kind)),
            (header::CONTENT_SECURITY_POLICY, policy.clone()),
            (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
            (header::X_FRAME_OPTIONS, fixed("DENY")),
            (header::REFERRER_POLICY, fixed("no-referrer")),
            (header::CACHE_CONTROL, fixed("no-store")),
            (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
            (HeaderName::from_static("cross-origin-opener-policy"), fixed("same-origin")),
        ]);
        response.headers_mut().extend(self.more.map(|more| *more));
        response
    }
}
