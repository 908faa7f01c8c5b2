//! Pages for people: HTML that is complete in one file, light or dark as the reader's system is, and well-formed XML, too.

use std::fmt::Write;

/// Text for HTML and SVG. Control characters, which XML has no place for, are replaced.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// What all pages share: colours (variables), text, tables.
const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2226; --soft: #59646e; --line: #d8dde2; --panel: #f5f6f8;
  --accent: #0b63a5; --warm: #b4540a }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e4e7ea; --soft: #a0abb5; --line: #333b43;
  --panel: #1e2327; --accent: #6fb5ee; --warm: #eda35c } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 56rem; margin: 2.5rem auto; padding: 0 1.25rem;
  background: var(--paper); color: var(--ink) }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem } h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
p { margin: .5rem 0; max-width: 44rem } a { color: var(--accent) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem }
td, th { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { font-weight: 600 } thead th { color: var(--soft); font-weight: 500 }
td:first-child, th:first-child { text-align: left } .wide { overflow-x: auto }
code, pre { font: .875rem/1.5 ui-monospace, monospace } code { overflow-wrap: anywhere }
.note { color: var(--soft); font-size: .875rem }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: currentColor }
@media (max-width: 32rem) { body { margin-top: 1.25rem; padding: 0 1rem } td, th { padding-right: .5rem; font-size: .8125rem } }
";

/// A page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page<'a> {
    /// Its title, as text.
    pub title: &'a str,
    /// CSS besides what all pages share.
    pub style: &'a str,
    /// Seconds after which a browser reads it again, if it is to.
    pub reload: Option<u32>,
    /// What stands in the body, as markup.
    pub body: &'a str,
}

impl Page<'_> {
    /// The page's markup.
    pub fn html(&self) -> String {
        let reload = self.reload.map_or(String::new(), |seconds| {
            format!("<meta http-equiv=\"refresh\" content=\"{seconds}\" />\n")
        });
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n{reload}\
             <title>{}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
            escape(self.title),
            self.style,
            self.body
        )
    }
}

/// A row of a [`table`].
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// As markup; the first heads the row.
    pub cells: Vec<String>,
    /// The row's class in the page's style, if it has one.
    pub class: &'static str,
}

impl Row {
    /// A row of texts.
    pub fn of_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Row {
        Row { cells: texts.into_iter().map(|text| escape(text.as_ref())).collect(), class: "" }
    }
}

/// The start of what scrolls sideways where it is wider than the page, by keys as well; `</div>` ends it.
pub const WIDE: &str = "<div class=\"wide\" tabindex=\"0\">";

/// Text as it stands, such as a command.
pub fn verbatim(text: &str) -> String {
    format!("<pre tabindex=\"0\">{}</pre>\n", escape(text))
}

/// A table that scrolls sideways where it is wider than the page: heads of the columns, as text, and rows.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Row>) -> String {
    let mut html = format!("{WIDE}<table>\n<thead><tr>");
    head.iter().for_each(|head| _ = write!(html, "<th scope=\"col\">{}</th>", escape(head)));
    html += "</tr></thead>\n<tbody>\n";
    for Row { cells, class } in rows {
        html += &if class.is_empty() { "<tr>".to_owned() } else { format!("<tr class=\"{class}\">") };
        for (i, cell) in cells.iter().enumerate() {
            _ = if i == 0 {
                write!(html, "<th scope=\"row\">{cell}</th>")
            } else {
                write!(html, "<td>{cell}</td>")
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(escape("<a href=\"x\">&\u{1}é"), "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}é");
        let page = Page {
            title: "<script>",
            body: &table(&["<b>"], [Row::of_texts(["<i>", "&"])]),
            ..Page::default()
        };
        let html = page.html();
        assert!(["<script", "<b>", "<i>"].iter().all(|tag| !html.contains(tag)), "{html}");
        assert!(
            !html.contains("refresh") && Page { reload: Some(5), ..page }.html().contains("content=\"5\"")
        );
    }
}
