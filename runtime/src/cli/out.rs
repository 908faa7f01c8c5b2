//! Results on the standard output: JSON objects with a schema version, or lines of text.

use std::io::{Write, stdout};

use serde_json::{Map, Value};

/// The version of what `--json` prints.
const SCHEMA_VERSION: u64 = 1;

/// Prints one object, the schema version first.
pub(super) fn json(fields: Value) -> anyhow::Result<()> {
    let mut object = Map::from_iter([("schema_version".to_owned(), SCHEMA_VERSION.into())]);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    line(&Value::Object(object).to_string())
}

/// Prints one line. Unlike `println!` it gives an error, not a panic, when nobody reads on.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
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
