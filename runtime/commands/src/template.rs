//! The page to try a model, served or as a file: the same but for who answers.
//!
//! It refers to nothing outside, and a policy lets a browser run its own script and style alone, by their digests.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use smalti_tools::markup::escape;

const TEMPLATE: &str = include_str!("template.html");

/// What differs.
pub(super) struct Parts<'a> {
    /// As text.
    pub(super) title: &'a str,
    /// Markup in the head.
    pub(super) head: &'a str,
    /// Markup in front of the script.
    pub(super) data: &'a str,
    /// The script's function `ask(path, body)`, and what is promised of images, `PROMISE`.
    pub(super) ask: &'a str,
}

impl Parts<'_> {
    /// The page. Nothing of one part is taken for the place of another.
    pub(super) fn html(&self) -> String {
        let title = escape(self.title);
        let parts = [("title", &title[..]), ("head", self.head), ("data", self.data), ("ask", self.ask)];
        let mut html = String::with_capacity(TEMPLATE.len() + self.data.len() + self.ask.len());
        let mut rest = TEMPLATE;
        for (name, part) in parts {
            let (before, after) = rest.split_once(&format!("{{{{{name}}}}}")).unwrap_or((rest, ""));
            html += before;
            html += part;
            rest = after;
        }
        html + rest
    }
}

/// The sources `script-src` and `style-src` of the policy for a page: its own.
pub(super) fn own(html: &str) -> [String; 2] {
    ["script", "style"].map(|tag| {
        let digest = Sha256::digest(element(html, tag));
        format!("{tag}-src 'sha256-{}'", BASE64_STANDARD.encode(digest))
    })
}

/// What stands between the tags of the first element of that name.
pub(super) fn element<'a>(html: &'a str, tag: &str) -> &'a str {
    let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let inside = html.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    inside.map_or("", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_place() {
        let parts = Parts { title: "<&", head: "HEAD", data: "DATA {{ask}}", ask: "ASK" };
        let html = parts.html();
        assert!(html.contains("<title>&lt;&amp;</title>") && html.ends_with("</html>\n"), "{html}");
        let at = |part: &str| html.find(part).unwrap();
        assert!(at("HEAD") < at("</head>") && at("DATA") < at("<script>") && at("<script>") < at("ASK"));
        assert_eq!((html.matches("{{").count(), html.matches("{{ask}}").count()), (1, 1));
    }

    #[test]
    fn the_page_refers_to_nothing_outside() {
        let html = Parts { title: "", head: "", data: "", ask: "" }.html();
        for tag in ["script", "style"] {
            assert!(!element(&html, tag).trim().is_empty());
            assert_eq!(html.matches(&format!("<{tag}")).count(), 1, "one {tag} is allowed by its digest");
        }
        for outside in ["http://", "https://", "src=\"//", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        // Refused by the policy.
        assert!(!html.contains("style=\"") && !html.contains(" onclick="));
        let digest = BASE64_STANDARD.encode(Sha256::digest(element(&html, "script")));
        assert_eq!(own(&html)[0], format!("script-src 'sha256-{digest}'"));
    }
}
