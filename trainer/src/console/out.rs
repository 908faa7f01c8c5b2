//! Results on the standard output: JSON objects with a schema version, or lines of text.

use std::io::{Write, stdout};

use serde_json::{Map, Value};
pub(crate) use smalti_tools::suggest::quoted;

/// The version of what `--json` prints.
const SCHEMA_VERSION: u64 = 1;

/// Prints one object, with the schema version.
pub(crate) fn json(fields: Value) -> anyhow::Result<()> {
    text(&object(fields).to_string())
}

/// The object that [`json`] prints.
pub(crate) fn object(fields: Value) -> Value {
    let mut object = Map::from_iter([("schema_version".to_owned(), SCHEMA_VERSION.into())]);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object)
}

/// Prints text and ends its line. Unlike `println!` it gives an error, not a panic, when nobody reads on.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    Ok(out.flush()?)
}

/// A duration as people say it.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.round().clamp(0.0, 1e9) as u64 } else { 0 };
    match whole {
        0..10 if seconds.is_finite() => format!("{seconds:.1} s"),
        0..100 => format!("{whole} s"),
        100..6000 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A 95 % interval.
pub(crate) fn interval([low, high]: [f64; 2]) -> String {
    format!("95 % interval {:.1} to {}", low * 100.0, percent(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(1.25), "1.2 s");
        assert_eq!(seconds(99.4), "99 s");
        assert_eq!(seconds(125.0), "2 min 05 s");
        assert_eq!(seconds(7300.0), "2 h 01 min");
        assert_eq!(seconds(f64::NAN), "0 s");
    }

    #[test]
    fn every_object_says_its_version() {
        assert_eq!(object(serde_json::json!({"n": 1})), serde_json::json!({"n": 1, "schema_version": 1}));
    }
}
