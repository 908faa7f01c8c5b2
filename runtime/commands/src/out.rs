//! Results on the standard output: JSON objects with a schema version, or lines of text.

use std::borrow::Cow;
use std::io::{IsTerminal, Write, stderr, stdout};

use serde_json::{Map, Value};
use smalti_runtime::printable;
pub(super) use smalti_tools::suggest::quoted;

use super::args::Args;

/// The version of what `--json` prints.
const SCHEMA_VERSION: u64 = 1;

/// Prints one object, the schema version first.
pub(super) fn json(fields: Value) -> anyhow::Result<()> {
    write(&object(fields))
}

/// One object as text, the schema version first.
pub(super) fn object(fields: Value) -> String {
    let mut object = Map::from_iter([("schema_version".to_owned(), SCHEMA_VERSION.into())]);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    // Only strings can hold what JSON lets through and terminals obey.
    json_escaped(&Value::Object(object).to_string())
}

/// Prints lines of text, in which names from files may stand.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    write(&lines.join("\n"))
}

/// Unlike `println!` it gives an error, not a panic, when nobody reads on.
fn write(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// JSON in which control characters above ASCII are escaped like those below.
fn json_escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        match printable(character.encode_utf8(&mut [0; 4])) {
            Cow::Borrowed(plain) => out.push_str(plain),
            Cow::Owned(_) => out.push_str(&format!("\\u{:04x}", u32::from(character))),
        }
    }
    out
}

/// Reports an error, or a note, on one line of the standard error; names in it come from files.
pub(super) fn error(text: impl std::fmt::Display) {
    note(format!("error: {text}"));
}

/// Says something on one line of the standard error.
pub(super) fn note(text: impl std::fmt::Display) {
    eprintln!("smalti-run: {}", printable(&text.to_string()));
}

/// Whether a person reads what is told.
pub(super) fn is_watched() -> bool {
    stderr().is_terminal()
}

/// Ends a command with what to type after it. Not with `--quiet` or `--json`: programs know what comes next.
pub(super) fn next(args: &Args, command: &str) {
    if !args.quiet && !args.json {
        eprintln!("next: {}", printable(command));
    }
}

/// A count with its thousands set off.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Bytes in a unit that reads well.
pub(super) fn bytes(number: u64) -> String {
    match number {
        0..1024 => format!("{number} B"),
        1024..1_048_576 => format!("{:.1} KiB", number as f64 / 1024.0),
        _ => format!("{:.1} MiB", number as f64 / 1_048_576.0),
    }
}
