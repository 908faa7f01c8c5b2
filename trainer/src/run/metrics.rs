//! `metrics.jsonl`: one JSON object a line, for each step and each validation.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files;

/// The open file.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Whether the last line could not be written.
    is_failing: bool,
}

impl Metrics {
    /// Opens the file to append to it, without the lines after step `step`: a resumed run computes them again.
    pub fn open(path: &Path, step: u64) -> Result<Metrics> {
        files::write(path, kept(path, step)?.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::file("write", path))?;
        Ok(Metrics { path: path.into(), file, is_failing: false })
    }

    /// Appends one line. What the file system refuses is left out and said once: the training is worth more than its log.
    pub fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(line)
            .map_err(|e| Error::Usage(format!("a metric cannot be written as JSON: {e}")))?;
        text.push('\n');
        let length = self.file.metadata().map(|about| about.len());
        let written = self.file.write_all(text.as_bytes());
        if written.is_err() {
            // Half a line would spoil the next one.
            let _ = length.and_then(|length| self.file.set_len(length));
        }
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        if let Err(cause) = written
            && !was_failing
        {
            let error = Error::file("write", &self.path)(cause);
            log::warn!("{error}; training goes on, and lines are missing until it can be written");
        }
        Ok(())
    }
}

/// The lines up to step `step`.
fn kept(path: &Path, step: u64) -> Result<String> {
    let mut kept = String::new();
    if step == 0 || !path.is_file() {
        return Ok(kept);
    }
    let file = File::open(path).map_err(Error::file("read", path))?;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(Error::file("read", path))?;
        let of = serde_json::from_str::<serde_json::Value>(&line).ok();
        if of.and_then(|line| line["step"].as_u64()).is_some_and(|of| of <= step) {
            kept.push_str(&line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_after_the_step_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        (1..=5).for_each(|step| metrics.write(&json!({"step": step})).unwrap());
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\": 6, torn").unwrap();
        Metrics::open(&path, 3).unwrap().write(&json!({"step": 4, "again": true})).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with("{\"again\":true,\"step\":4}\n"), "{text}");
    }
}
