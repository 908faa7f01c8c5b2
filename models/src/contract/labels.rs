//! The text of `names`: a dictionary from index to label.
//!
//! Ultralytics writes it as Python's `str(dict)`, `{0: 'cat', 1: "dog's"}`; others as JSON, `{"0": "cat"}`. Both
//! are read, the former is written.

use std::iter::Peekable;
use std::str::Chars;

use crate::error::{Error, Result};

/// Maximum number of labels.
const MAX_LABELS: usize = 100_000;
/// The longest label in bytes.
const MAX_LABEL: usize = 1000;

fn refuse<T>(problem: impl Into<String>) -> Result<T> {
    Err(Error::Metadata { key: "names", problem: problem.into() })
}

/// Refuses no labels, too many, empty or too long ones.
pub(super) fn check(names: &[String]) -> Result<()> {
    if names.is_empty() || names.len() > MAX_LABELS {
        return refuse(format!("{} labels, expected 1 to {MAX_LABELS}", names.len()));
    }
    match names.iter().position(|name| name.is_empty() || name.len() > MAX_LABEL) {
        Some(i) => refuse(format!("label {i} has {} bytes, expected 1 to {MAX_LABEL}", names[i].len())),
        None => Ok(()),
    }
}

/// Labels as Python writes a dictionary.
pub fn names_to_text(names: &[String]) -> String {
    let items: Vec<_> = names.iter().enumerate().map(|(i, name)| format!("{i}: {}", quoted(name))).collect();
    format!("{{{}}}", items.join(", "))
}

/// A label as Python writes a string: in single quotes, unless only those are in it.
fn quoted(name: &str) -> String {
    let quote = if name.contains('\'') && !name.contains('"') { '"' } else { '\'' };
    let mut text = String::from(quote);
    for c in name.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c == quote => text.extend(['\\', c]),
            // All control characters lie below U+00A0.
            c if c.is_control() => text.push_str(&format!("\\x{:02x}", c as u32)),
            c => text.push(c),
        }
    }
    text.push(quote);
    text
}

/// Labels from either kind of text; the indices must be 0, 1, 2, ... in any order.
pub fn names_from_text(text: &str) -> Result<Vec<String>> {
    let mut parser = Parser { chars: text.chars().peekable() };
    let items = parser.dictionary()?;
    let mut names = vec![None; items.len()];
    for (index, name) in items {
        match names.get_mut(index) {
            Some(slot @ None) => *slot = Some(name),
            Some(Some(_)) => return refuse(format!("index {index} is given twice")),
            None => {
                return refuse(format!("index {index} among {} labels, expected 0, 1, 2, ...", names.len()));
            }
        }
    }
    let names: Vec<String> = names.into_iter().flatten().collect();
    check(&names)?;
    Ok(names)
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    /// What comes after blanks.
    fn peek(&mut self) -> Option<char> {
        while self.chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        self.chars.peek().copied()
    }

    /// Takes `wanted` if it comes after blanks.
    fn take(&mut self, wanted: char) -> bool {
        self.peek() == Some(wanted) && self.chars.next().is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if self.take(wanted) {
            return Ok(());
        }
        match self.peek() {
            Some(found) => refuse(format!("found {found:?}, expected {wanted:?}")),
            None => refuse(format!("ends where {wanted:?} is expected")),
        }
    }

    fn dictionary(&mut self) -> Result<Vec<(usize, String)>> {
        let mut items = Vec::new();
        self.expect('{')?;
        while !self.take('}') {
            if items.len() == MAX_LABELS {
                return refuse(format!("more than {MAX_LABELS} labels"));
            }
            let index = self.index()?;
            self.expect(':')?;
            items.push((index, self.string()?));
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        match self.peek() {
            None => Ok(items),
            Some(extra) => refuse(format!("found {extra:?} behind the closing brace")),
        }
    }

    /// `7`, `'7'` or `"7"`.
    fn index(&mut self) -> Result<usize> {
        let digits = if matches!(self.peek(), Some('\'' | '"')) {
            self.string()?
        } else {
            std::iter::from_fn(|| self.chars.next_if(char::is_ascii_digit)).take(20).collect()
        };
        match digits.parse::<usize>() {
            Ok(index) if index < MAX_LABELS => Ok(index),
            _ => refuse(format!("index {digits:?}, expected a number below {MAX_LABELS}")),
        }
    }

    fn string(&mut self) -> Result<String> {
        let quote = if self.take('"') { '"' } else { '\'' };
        if quote == '\'' {
            self.expect('\'')?;
        }
        let mut text = String::new();
        loop {
            match self.chars.next() {
                None => return refuse("ends inside a label"),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(c) => text.push(c),
            }
            if text.len() > MAX_LABEL {
                return refuse(format!("a label longer than {MAX_LABEL} bytes"));
            }
        }
    }

    /// The character behind a backslash.
    fn escape(&mut self) -> Result<char> {
        Ok(match self.chars.next() {
            Some(c @ ('\\' | '\'' | '"' | '/')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('x') => self.code(2)?,
            Some('u') => self.code(4)?,
            Some('U') => self.code(8)?,
            other => return refuse(format!("unknown escape {other:?} in a label")),
        })
    }

    /// A character by its hexadecimal code.
    fn code(&mut self, digits: usize) -> Result<char> {
        let mut code = self.hex(digits)?;
        // JSON writes characters beyond U+FFFF as two halves.
        if (0xd800..0xdc00).contains(&code)
            && self.chars.next() == Some('\\')
            && self.chars.next() == Some('u')
        {
            let low = self.hex(4)?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
        }
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => refuse(format!("U+{code:04X} in a label is no character")),
        }
    }

    fn hex(&mut self, digits: usize) -> Result<u32> {
        let mut code = 0u32;
        for _ in 0..digits {
            match self.chars.next().and_then(|c| c.to_digit(16)) {
                Some(digit) => code = code << 4 | digit,
                None => {
                    return refuse(format!("an escape in a label without its {digits} hexadecimal digits"));
                }
            }
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Vec<String> {
        names_from_text(text).unwrap()
    }

    #[test]
    fn both_kinds_of_text_are_read() {
        assert_eq!(parse("{0: 'cat', 1: 'dog'}"), ["cat", "dog"]);
        assert_eq!(parse(r#"{"0": "cat", "1": "dog"}"#), ["cat", "dog"]);
        assert_eq!(parse(" {1:'dog',\n 0 : \"cat\" , } "), ["cat", "dog"]);
        assert_eq!(parse(r#"{0: "it's", 1: 'a "b"', 2: 'c\\d\ne\x41\u00e9\U0001f600'}"#)[2], "c\\d\neAé😀");
        assert_eq!(parse(r#"{"0": "\ud83d\ude00\/"}"#), ["😀/"]);
    }

    #[test]
    fn the_text_is_pythons() {
        let names =
            ["cat", "it's", "a \"b\"", "both ' and \"", "back\\slash", "line\nbreak\t\r\u{7f}", "é 猫"];
        let names = names.map(str::to_owned);
        // Python: str(dict(enumerate(names))).
        let text = r#"{0: 'cat', 1: "it's", 2: 'a "b"', 3: 'both \' and "', 4: 'back\\slash', 5: 'line\nbreak\t\r\x7f', 6: 'é 猫'}"#;
        assert_eq!(names_to_text(&names), text);
        assert_eq!(parse(text), names);
    }

    #[test]
    fn every_lie_is_refused() {
        for (text, problem) in [
            ("", "ends where '{'"),
            ("['cat']", "expected '{'"),
            ("{}", "0 labels"),
            ("{0: 'cat'", "ends where '}'"),
            ("{0: 'cat'} x", "behind the closing brace"),
            ("{0: 'cat", "ends inside a label"),
            ("{0: cat}", "expected '\\''"),
            ("{0 'cat'}", "expected ':'"),
            ("{0: 'cat' 1: 'dog'}", "expected '}'"),
            ("{0: 'cat', 0: 'dog'}", "given twice"),
            ("{0: 'cat', 2: 'dog'}", "expected 0, 1, 2"),
            ("{1: 'cat'}", "expected 0, 1, 2"),
            ("{-1: 'cat'}", "expected a number"),
            ("{x: 'cat'}", "expected a number"),
            ("{99999999999999999999999: 'cat'}", "expected a number"),
            ("{0: ''}", "0 bytes"),
            (r"{0: '\q'}", "unknown escape"),
            (r"{0: '\", "unknown escape"),
            (r"{0: '\x4'}", "hexadecimal"),
            (r"{0: '\ud83d'}", "no character"),
            (r"{0: '\ud83dA'}", "no character"),
            (r"{0: '\Uffffffff'}", "no character"),
        ] {
            let error = names_from_text(text).unwrap_err().to_string();
            assert!(error.contains("`names`") && error.contains(problem), "{text}: {error}");
        }
        let long = format!("{{0: '{}'}}", "x".repeat(MAX_LABEL + 1));
        assert!(names_from_text(&long).unwrap_err().to_string().contains("longer than"));
        let many: Vec<_> = (0..=MAX_LABELS).map(|i| i.to_string()).collect();
        assert!(names_from_text(&names_to_text(&many)).is_err());
        assert_eq!(parse(&names_to_text(&many[1..])).len(), MAX_LABELS);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in prop::collection::vec("\\PC{1,40}|[\u{0}-\u{ff}]{1,20}", 1..20)) {
            prop_assert_eq!(parse(&names_to_text(&names)), names);
        }

        #[test]
        fn no_text_panics(text in "[{}'\"\\\\:, 0-9a-fuxU]{0,60}") {
            let _ = names_from_text(&text);
        }
    }
}
