//! The page, and what a browser lets it do.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

/// All of it: it refers to nothing outside.
const HTML: &str = include_str!("page.html");

/// The page.
pub(super) struct Page {
    /// The content security policy: the page's own script and style, by their digests, images that it makes itself, and
    /// requests to this server.
    pub(super) policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Page {
        let digest = |tag| {
            let digest = Sha256::digest(element(HTML, tag));
            format!("'sha256-{}'", BASE64_STANDARD.encode(digest))
        };
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src blob: data:; media-src blob:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            digest("script"),
            digest("style")
        );
        // Nothing that a header could not hold.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Page { policy }
    }

    pub(super) fn html(&self) -> &'static str {
        HTML
    }
}

/// What stands between the tags of the first element of that name.
fn element<'a>(html: &'a str, tag: &str) -> &'a str {
    let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let inside = html.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    inside.map_or("", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refers_to_nothing_outside() {
        for tag in ["script", "style"] {
            assert!(!element(HTML, tag).trim().is_empty());
            assert_eq!(HTML.matches(&format!("<{tag}")).count(), 1, "one {tag} is allowed by its digest");
        }
        for outside in ["http://", "https://", "src=\"//", "@import", "url("] {
            assert!(!HTML.contains(outside), "{outside}");
        }
        // Refused by the policy.
        assert!(!HTML.contains("style=\"") && !HTML.contains(" onclick="));
    }

    #[test]
    fn the_policy_allows_the_script_by_its_digest() {
        let policy = Page::new().policy;
        let digest = BASE64_STANDARD.encode(Sha256::digest(element(HTML, "script")));
        let policy = policy.to_str().unwrap();
        assert!(
            policy.contains(&format!("script-src 'sha256-{digest}';")) && !policy.contains("unsafe"),
            "{policy}"
        );
    }
}
