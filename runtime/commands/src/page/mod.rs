//! `page`: a model and the runtime in one file for browsers, which works without a server.

use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args as Flags;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use smalti_runtime::files::Staged;
use smalti_runtime::trust::Trust;
use smalti_runtime::{Error, Model, OpenOptions, selftest};

use super::args::{Args, FileArgs};
use super::template::{self, Parts};
use super::{open, out};

/// The runtime as WebAssembly (`scripts/wasm`).
const MODULE: &[u8] = include_bytes!("../../../wasm/smalti.wasm");

#[derive(Debug, Flags)]
pub(crate) struct PageArgs {
    /// The model file (.onnx), as `smalti export` and `smalti-run quantize` write it.
    pub(crate) model: PathBuf,
    /// Where the page goes (.html).
    #[arg(long, short)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

/// What `page --help` ends with.
pub(super) const EXAMPLE: &str = "The page classifies photos and the camera's pictures in the browser that opens it, \
    on a phone or a laptop, and asks no network. An int8 model makes it small and fast (smalti-run quantize).\n\nExample:\n  \
    smalti-run page model.int8.onnx -o demo.html";

pub(super) fn run(command: &PageArgs, args: &Args) -> anyhow::Result<u8> {
    Staged::probe(&command.output)?;
    let options = open::options(&command.file)?;
    let file = options.read(&command.model)?;
    // The signature was checked as the file was read.
    let trust = Trust { key: None, ..options.trust };
    let model = Model::from_bytes_with(&file, &OpenOptions { trust, ..OpenOptions::default() })?;
    check(&model)?;
    let html = page(&model, &file)?;
    Staged::write(&command.output, html.as_bytes())?.commit()?;

    let (output, bytes) = (command.output.display(), html.len());
    if args.json {
        out::json(json!({ "output": output.to_string(), "bytes": bytes, "labels": model.labels().len() }))?;
    } else {
        out::line(&format!(
            "{output}: {}; open it in a browser, or send it: it needs no network",
            out::bytes(bytes as u64)
        ))?;
    }
    Ok(0)
}

/// Refuses a model that a page could not run.
fn check(model: &Model) -> Result<(), Error> {
    let exported = "a model that `smalti export` wrote: a page takes labels and preprocessing from the file";
    if model.record().is_none() {
        return Err(Error::refused("metadata", "no record", exported));
    }
    if model.embeds() {
        let allowed = "a classifier: a page shows labels (`smalti finetune` makes one)";
        return Err(Error::refused("output", "an embedding", allowed));
    }
    if let Some(reason) = model.fallback_reason() {
        return Err(Error::refused("graph", reason, "what our own kernels run: a page has no tract"));
    }
    selftest::judge(&selftest::run(model)?)
}

/// The page's markup.
fn page(model: &Model, file: &[u8]) -> Result<String, Error> {
    let mut data = String::new();
    for (id, bytes) in [("module", MODULE), ("model", file)] {
        data += &format!("<script type=\"application/gzip\" id=\"{id}\">\n");
        BASE64_STANDARD.encode_string(packed(bytes)?, &mut data);
        data += "\n</script>\n";
    }
    let description = model.record().map_or("", |record| &record.description);
    let title = if description.is_empty() { "Smalti: try a model" } else { description };
    let parts = |head| Parts { title, head, data: &data, ask: include_str!("ask.js") }.html();
    let [script, style] = template::own(&parts(""));
    let policy = format!(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; {script} 'wasm-unsafe-eval'; {style}; \
         worker-src blob:; img-src blob: data:; media-src blob:; base-uri 'none'; form-action 'none'\">\n"
    );
    Ok(parts(&policy))
}

fn packed(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    packed.map_err(|problem| Error::Internal { step: "compress the page", problem: problem.to_string() })
}
