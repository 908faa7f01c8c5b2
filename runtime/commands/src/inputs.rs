//! The images that a command line names: files, folders, `-` for the standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use smalti_runtime::models::image::Limits;
use smalti_runtime::{Error, Image, Model, images};
use smalti_tools::eval::share;
use smalti_tools::suggest;

use super::out;

/// The exit code when more images than allowed could not be used.
pub(super) const BAD_INPUT: u8 = 5;

/// What came of the images.
#[derive(Default)]
pub(super) struct Tally {
    /// Objects for the images, in order.
    pub(super) results: Vec<Value>,
    pub(super) answered: u64,
    pub(super) failed: u64,
}

impl Tally {
    /// The exit code where that share of unusable images is put up with.
    pub(super) fn judge(&self, max_bad: f64) -> u8 {
        if share(self.failed, self.failed + self.answered) > max_bad { BAD_INPUT } else { 0 }
    }

    /// Notes what came of an image, unless that is null.
    fn take(&mut self, input: &Path, fields: Value) {
        self.answered += 1;
        if let Value::Object(fields) = fields {
            self.results.push(result(&input.display().to_string(), fields));
        }
    }

    /// Reports an image that cannot be used.
    fn refuse(&mut self, input: &Path, error: &Error) {
        let is_gone = input.as_os_str() != "-" && !input.exists();
        let hint = if is_gone { format!("; {}", suggest::missing(input)) } else { String::new() };
        out::error(format!("{error}{hint}"));
        self.failed += 1;
        self.results.push(unusable(&input.display().to_string(), error));
    }
}

/// What `--json` says of an image.
pub(super) fn result(input: &str, fields: Map<String, Value>) -> Value {
    std::iter::once(("input".to_owned(), input.into())).chain(fields).collect()
}

/// What `--json` says of an image that cannot be used.
pub(super) fn unusable(input: &str, error: &Error) -> Value {
    json!({ "input": input, "error": error.to_string() })
}

/// What `--json` says of all images.
pub(super) fn summary(results: Vec<Value>, failed: u64) -> Value {
    json!({ "results": results, "failed": failed })
}

/// Gives every image, as far as the model needs it, to `work`. The object that comes back, if it is one, goes into the
/// results behind the image's name. Images that cannot be used are reported and counted.
///
/// # Errors
/// Of `work`, other than [`Error::Data`].
pub(super) fn each(
    inputs: &[PathBuf],
    model: &Model,
    mut work: impl FnMut(&Path, &Image) -> anyhow::Result<Value>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for input in inputs {
        let files = match input.as_os_str() == "-" {
            true => Ok(vec![input.clone()]),
            false => images::list(input),
        };
        let files = match files {
            Ok(files) => files,
            Err(error) => {
                tally.refuse(input, &error);
                continue;
            }
        };
        for file in files {
            let image = match read(&file, model) {
                Ok(image) => image,
                Err(error @ Error::Data { .. }) => {
                    tally.refuse(&file, &error);
                    continue;
                }
                Err(other) => return Err(other.into()),
            };
            match work(&file, &image) {
                Ok(fields) => tally.take(&file, fields),
                Err(error) => match error.downcast::<Error>()? {
                    Error::Data { problem, .. } => {
                        tally.refuse(&file, &Error::data(file.display().to_string(), problem));
                    }
                    other => return Err(other.into()),
                },
            }
        }
    }
    Ok(tally)
}

/// The image in a file, or on the standard input (`-`).
pub(super) fn read(file: &Path, model: &Model) -> Result<Image, Error> {
    if file.as_os_str() == "-" { standard_input(model) } else { images::open_for(file, model) }
}

/// The image on the standard input.
fn standard_input(model: &Model) -> Result<Image, Error> {
    let (place, limit) = ("standard input", Limits::default().max_bytes);
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| Error::Data { place: place.into(), problem: error.to_string() })?;
    images::decode_for(place, &bytes, model)
}
