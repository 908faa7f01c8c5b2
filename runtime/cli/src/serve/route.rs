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
}

impl Route {
    const ALL: [Route; 6] =
        [Route::Page, Route::Health, Route::Metrics, Route::Classify, Route::Embed, Route::Explain];

    pub(super) fn path(self) -> &'static str {
        match self {
            Route::Page => "/",
            Route::Health => "/health",
            Route::Metrics => "/metrics",
            Route::Classify => "/classify",
            Route::Embed => "/embed",
            Route::Explain => "/explain",
        }
    }

    pub(super) fn of(path: &str) -> Option<Route> {
        Route::ALL.into_iter().find(|route| route.path() == path)
    }

    /// The methods that it takes, as the header `Allow` says it.
    pub(super) fn methods(self) -> &'static str {
        if self.takes_an_image() { "POST" } else { "GET, HEAD" }
    }

    pub(super) fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|name| name == method.as_str())
    }

    /// Whether it answers for an image in the body.
    pub(super) fn takes_an_image(self) -> bool {
        matches!(self, Route::Classify | Route::Embed | Route::Explain)
    }

    /// Whether it answers without a token: a page that asks for one, and that the server lives.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Route::Page | Route::Health)
    }
}

/// What a session is to do with an image.
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
}

/// Labels where the query does not say how many.
const TOP_K: u32 = 5;

impl Task {
    /// What a route and its query ask for.
    pub(super) fn of(route: Route, query: Option<&str>) -> Result<Task, Reply> {
        let mut task = match route {
            Route::Embed => Task::Embed,
            Route::Explain => Task::Explain { class: None },
            _ => Task::Classify { top_k: TOP_K },
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match (&mut task, &*name) {
                (Task::Classify { top_k }, "top_k") => match value.parse() {
                    Ok(wanted @ 1..) => *top_k = wanted,
                    _ => return Err(bad(&format!("top_k `{value}`: expected a number from 1 on"))),
                },
                (Task::Explain { class }, "class") => *class = Some(value.into_owned()),
                _ => return Err(bad(&format!("`{name}` means nothing to {}", route.path()))),
            }
        }
        Ok(task)
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
        for route in Route::ALL {
            assert_eq!(Route::of(route.path()), Some(route));
            assert_ne!(route.takes(&Method::GET), route.takes(&Method::POST));
            assert!(!route.takes(&Method::OPTIONS) && !route.takes(&Method::TRACE));
        }
        for path in ["", "//", "/Classify", "/classify/", "/../etc/passwd", "*"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_query_is_understood_or_refused() {
        let task = |route, query| Task::of(route, Some(query)).ok();
        assert_eq!(Task::of(Route::Classify, None).ok(), Some(Task::Classify { top_k: TOP_K }));
        assert_eq!(task(Route::Classify, "top_k=2"), Some(Task::Classify { top_k: 2 }));
        let class = Some("à b&c".to_owned());
        assert_eq!(task(Route::Explain, "class=%C3%A0+b%26c"), Some(Task::Explain { class }));
        for query in ["top_k=0", "top_k=-1", "top_k=", "top_k=99999999999", "class=x", "%ff", "a"] {
            assert_eq!(task(Route::Classify, query), None, "{query}");
        }
        assert_eq!(task(Route::Embed, "top_k=1"), None);
    }
}
