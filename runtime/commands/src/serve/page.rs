//! The page, and what a browser lets it do.

use hyper::body::Bytes;
use hyper::header::HeaderValue;

use crate::template::{self, Parts};

/// The page.
pub(super) struct Page {
    pub(super) html: Bytes,
    /// The content security policy: the page's own script and style, by their digests, images that it makes itself, and
    /// requests to this server.
    pub(super) policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Page {
        let ask = include_str!("ask.js");
        let html = Parts { title: "Smalti: try a model", head: "", data: "", ask }.html();
        let [script, style] = template::own(&html);
        let policy = format!(
            "default-src 'none'; {script}; {style}; img-src blob: data:; media-src blob:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // Nothing that a header could not hold.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Page { html: html.into(), policy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_this_server_alone() {
        let Page { html, policy } = Page::new();
        let html = std::str::from_utf8(&html).unwrap();
        assert!(html.contains("fetch(path") && !html.contains("http://") && !html.contains("https://"));
        let policy = policy.to_str().unwrap();
        assert!(policy.contains(&template::own(html)[0]) && !policy.contains("unsafe"), "{policy}");
    }
}
