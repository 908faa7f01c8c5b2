//! Which paths there are, what they take, and what is asked of a session.

use hyper::{Method, StatusCode};

use super::reply::Reply;

/// The paths of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Page,
    Health,
    Metrics,
    Classify,
    Embed,
    Explain,
    Learn,
    Anomaly,
    AnomalyMap,
}

impl Route {
    /// Each with its path and the methods that it takes, as the header `Allow` says them.
    const TABLE: [(Route, &str, &str); 9] = [
        (Route::Page, "/", "GET, HEAD"),
        (Route::Health, "/health", "GET, HEAD"),
        (Route::Metrics, "/metrics", "GET, HEAD"),
        (Route::Classify, "/classify", "POST"),
        (Route::Embed, "/embed", "POST"),
        (Route::Explain, "/explain", "POST"),
        (Route::Learn, "/learn", "GET, HEAD, POST, DELETE"),
        (Route::Anomaly, "/anomaly", "POST"),
        (Route::AnomalyMap, "/anomaly/map", "POST"),
    ];

    pub(super) fn all() -> impl Iterator<Item = Route> {
        Route::TABLE.into_iter().map(|(route, ..)| route)
    }

    pub(super) fn of(path: &str) -> Option<Route> {
        Route::TABLE.iter().find(|(_, known, _)| *known == path).map(|(route, ..)| *route)
    }

    pub(super) fn path(self) -> &'static str {
        Route::TABLE[self as usize].1
    }

    pub(super) fn methods(self) -> &'static str {
        Route::TABLE[self as usize].2
    }

    pub(super) fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|name| name == method.as_str())
    }

    /// Whether it answers without a token: a page that asks for one, and that the server lives.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Route::Page | Route::Health)
    }
}

/// What a session is to do with the image in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// The most probable labels.
    Classify {
        top_k: u32,
    },
    Embed,
    /// The heat map of a class, of the most probable one without a name.
    Explain {
        class: Option<String>,
    },
    /// How unusual it is.
    Anomaly,
    /// Where it is unusual.
    AnomalyMap,
    /// To learn it as one of that class.
    Learn {
        label: String,
    },
    /// To forget the image that was learned last; the body is not looked at.
    Undo,
}

/// Labels where the query does not say how many.
const TOP_K: u32 = 5;

impl Task {
    /// What a request asks for; nothing where it is only to be looked at.
    pub(super) fn of(route: Route, method: &Method, query: Option<&str>) -> Result<Option<Task>, Reply> {
        let mut task = match (route, method) {
            (Route::Classify, _) => Task::Classify { top_k: TOP_K },
            (Route::Embed, _) => Task::Embed,
            (Route::Explain, _) => Task::Explain { class: None },
            (Route::Anomaly, _) => Task::Anomaly,
            (Route::AnomalyMap, _) => Task::AnomalyMap,
            (Route::Learn, &Method::POST) => Task::Learn { label: String::new() },
            (Route::Learn, &Method::DELETE) => Task::Undo,
            (Route::Page | Route::Health | Route::Metrics | Route::Learn, _) => return Ok(None),
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match (&mut task, &*name) {
                (Task::Classify { top_k }, "top_k") => match value.parse() {
                    Ok(wanted @ 1..) => *top_k = wanted,
                    _ => return Err(bad(&format!("top_k `{value}`: expected a number from 1 on"))),
                },
                (Task::Explain { class }, "class") => *class = Some(value.into_owned()),
                (Task::Learn { label }, "label") => *label = value.into_owned(),
                _ => return Err(bad(&format!("`{name}` means nothing to {}", route.path()))),
            }
        }
        match &task {
            Task::Learn { label } if label.is_empty() => Err(bad("expected /learn?label=NAME")),
            _ => Ok(Some(task)),
        }
    }
}

fn bad(problem: &str) -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_found_and_no_other() {
        for (i, (route, path, _)) in Route::TABLE.into_iter().enumerate() {
            assert_eq!((i, route.path(), Route::of(path)), (route as usize, path, Some(route)));
            assert!(route.takes(&Method::GET) == route.takes(&Method::HEAD));
            assert!(!route.takes(&Method::OPTIONS) && !route.takes(&Method::TRACE));
        }
        for path in ["", "//", "/Classify", "/classify/", "/../etc/passwd", "*"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_query_is_understood_or_refused() {
        let task = |route, query| Task::of(route, &Method::POST, Some(query)).ok().flatten();
        let plain = |route, method| Task::of(route, &method, None).ok().flatten();
        assert_eq!(plain(Route::Classify, Method::POST), Some(Task::Classify { top_k: TOP_K }));
        assert_eq!([plain(Route::Learn, Method::GET), plain(Route::Page, Method::HEAD)], [None, None]);
        assert_eq!(plain(Route::Learn, Method::DELETE), Some(Task::Undo));
        assert_eq!(task(Route::Learn, "label=a+mug"), Some(Task::Learn { label: "a mug".into() }));
        for query in ["", "label=", "class=a"] {
            assert!(Task::of(Route::Learn, &Method::POST, Some(query)).is_err(), "{query}");
        }
        assert_eq!(task(Route::Classify, "top_k=2"), Some(Task::Classify { top_k: 2 }));
        let class = Some("à b&c".to_owned());
        assert_eq!(task(Route::Explain, "class=%C3%A0+b%26c"), Some(Task::Explain { class }));
        for query in ["top_k=0", "top_k=-1", "top_k=", "top_k=99999999999", "class=x", "%ff", "a"] {
            assert_eq!(task(Route::Classify, query), None, "{query}");
        }
        assert_eq!(task(Route::Embed, "top_k=1"), None);
    }
}
