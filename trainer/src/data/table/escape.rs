//! Paths that a table cannot hold as they are, since it is UTF-8 text whose fields are trimmed: `file:` and
//! percent-encoding (RFC 3986, section 2.1), as in a URI.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// What an encoded path begins with.
const SCHEME: &str = "file:";

/// The field that stands for a relative path: the path itself, with slashes, unless reading would change it.
pub(super) fn field(path: &Path) -> String {
    let parts: Vec<&[u8]> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| part.as_os_str().as_encoded_bytes())
        .collect();
    let bytes = parts.join(&b'/');
    match std::str::from_utf8(&bytes) {
        Ok(text) if is_plain(text) => text.to_owned(),
        _ => SCHEME.to_owned() + &bytes.iter().map(|&byte| encoded(byte)).collect::<String>(),
    }
}

/// Whether a table's reader gives this text back.
fn is_plain(text: &str) -> bool {
    let changes = text.contains('\\') || text.contains(char::is_control) || text.trim() != text;
    !changes && !text.starts_with(['#', '\u{feff}']) && !text.starts_with(SCHEME) && !text.starts_with("sep=")
}

fn encoded(byte: u8) -> String {
    match byte {
        b'/' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

/// The path that an encoded field stands for; none if the field is not encoded.
pub(super) fn path(field: &str) -> Option<PathBuf> {
    let mut rest = field.strip_prefix(SCHEME)?.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|_| first == b'%').filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|hex| std::str::from_utf8(hex).ok());
        match digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None if first == b'%' => return None,
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    os_string(bytes).map(PathBuf::from)
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    use std::os::unix::ffi::OsStringExt;
    Some(OsString::from_vec(bytes))
}

/// Other systems' names are text, or cannot be stored.
#[cfg(not(unix))]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    String::from_utf8(bytes).ok().map(OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_are_fields_as_they_are() {
        for text in ["a.png", "sub/b, c.png", "<script>/\"q\" é;|.png", "../x.png", "50%.png", "a#b.png"] {
            assert_eq!(field(Path::new(text)), text);
            assert_eq!(path(text), None);
        }
        assert_eq!(field(Path::new("./a/./b.png")), "a/b.png");
    }

    #[test]
    fn what_reading_would_change_comes_back() {
        for text in [
            " a.png",
            "a.png ",
            "a\\b.png",
            "#a.png",
            "a\nb.png",
            "file:a.png",
            "sep=;",
            "tab\t.png",
            "\u{a0}x.png",
        ] {
            let field = field(Path::new(text));
            assert!(field.starts_with("file:") && field.trim() == field, "{field}");
            assert_eq!(path(&field).as_deref(), Some(Path::new(text)));
        }
        assert_eq!(field(Path::new("# 1/a b.png")), "file:%23%201/a%20b.png");
        assert_eq!([path("file:%4"), path("file:%zz"), path("file:%+1")], [None, None, None]);
    }

    #[cfg(unix)]
    #[test]
    fn names_need_not_be_text() {
        use std::os::unix::ffi::OsStrExt;
        let name = Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9/1.png"));
        assert_eq!(field(name), "file:caf%E9/1.png");
        assert_eq!(path("file:caf%E9/1.png").as_deref(), Some(name));
    }
}
