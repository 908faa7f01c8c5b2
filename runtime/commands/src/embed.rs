//! `embed`: images in, the model's embeddings out.

use std::path::PathBuf;

use clap::Args as Flags;
use serde_json::{Value, json};
use smalti_runtime::Error;
use smalti_runtime::files::Staged;

use super::args::{Args, FileArgs, ForeignArgs, share};
use super::{inputs, open, out};

const EXAMPLE: &str = "Example:\n  smalti-run embed model.onnx photos/ -o embeddings.safetensors";

#[derive(Debug, Flags)]
#[command(after_help = EXAMPLE)]
pub(crate) struct EmbedArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// Images: files, folders, `-` for one image on standard input.
    #[arg(required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// Where the embeddings go, as the tensor `embeddings` [images, values] with the images' places in the metadata. With
    /// --json alone they are printed.
    #[arg(long, short, value_name = "FILE.safetensors")]
    pub(crate) output: Option<PathBuf>,
    /// The share of unusable images that is put up with; beyond it the exit code is 5.
    #[arg(long, default_value = "0%", value_parser = share)]
    pub(crate) max_bad: f64,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

pub(super) fn run(command: &EmbedArgs, args: &Args) -> anyhow::Result<u8> {
    if command.output.is_none() && !args.json {
        return Err(
            Error::Usage("nowhere to put embeddings: give -o FILE.safetensors, or --json".into()).into()
        );
    }
    command.output.iter().try_for_each(|place| Staged::probe(place))?;
    let model = open::open(&command.model, &command.file, &command.foreign)?;
    let dim = model.embedding_dim();
    let (mut session, mut output) = (model.session()?, model.output());
    let (mut places, mut values) = (Vec::new(), Vec::<f32>::new());
    let tally = inputs::each(&command.inputs, &model, |file, image| {
        session.run_image_into(image.view(), &mut output)?;
        let embedding = model.embedding_of(&output)?;
        if command.output.is_none() {
            return Ok(json!({ "embedding": embedding }));
        }
        places.push(file.display().to_string());
        values.extend_from_slice(embedding);
        Ok(Value::Null)
    })?;
    if let Some(place) = &command.output {
        Staged::write(place, &safetensors(&places, dim, &values)?)?.commit()?;
        match args.json {
            true => out::json(json!({
                "file": place.display().to_string(), "n": places.len(), "dim": dim, "failed": tally.failed,
            }))?,
            false => {
                out::line(&format!("{}: {} embeddings of {dim} numbers", place.display(), places.len()))?;
            }
        }
    } else {
        out::json(json!({ "dim": dim, "results": tally.results, "failed": tally.failed }))?;
    }
    let model = out::quoted(&command.model);
    out::next(
        args,
        &format!("smalti-run learn add {model} classes.bank NAME IMAGES, for a class from a few images"),
    );
    Ok(tally.judge(command.max_bad))
}

/// A file with one tensor, in the form of `smalti embed`.
fn safetensors(places: &[String], dim: usize, values: &[f32]) -> Result<Vec<u8>, Error> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let metadata = [("smalti".to_owned(), json!({ "places": places }).to_string())];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![places.len(), dim], &bytes);
    view.and_then(|view| safetensors::serialize([("embeddings", view)], Some(metadata.into())))
        .map_err(|error| Error::Internal { step: "write embeddings", problem: error.to_string() })
}
