//! Text that comes from files, made fit for a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The most characters of a piece of text from a file that a message keeps.
const LONGEST: usize = 400;

/// Whether a character could move the cursor, change colours, or turn the order of letters around.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text on one line of a terminal: control characters are written out (`\u{1b}`), so that no name in a file can do more
/// than be read.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match is_unprintable(character) {
            true => drop(write!(out, "{}", character.escape_unicode())),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// The text on one line, cut to a readable length.
pub(crate) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = printable(&line).into_owned();
    if let Some((cut, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(cut);
        line.push_str(" ...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(printable("a\x1b[31mb\r\n\u{202e}c\u{9b}"), "a\\u{1b}[31mb\\u{d}\\u{a}\\u{202e}c\\u{9b}");
        assert!(matches!(printable("Käse, 猫 %"), Cow::Borrowed("Käse, 猫 %")));
    }

    #[test]
    fn long_words_are_cut_to_one_line() {
        assert_eq!(one_line("a\n  b"), "a b");
        assert!(one_line(&"é".repeat(2 * LONGEST)).chars().count() <= LONGEST + 4);
    }
}
