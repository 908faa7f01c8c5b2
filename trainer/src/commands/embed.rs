//! `smalti embed`: one embedding an image, in a safetensors file.

use serde_json::json;
use smalti_trainer::data::{Dataset, Split};
use smalti_trainer::evaluate::Predictions;
use smalti_trainer::evaluate::probe;
use smalti_trainer::model::weights;

use crate::args::{EmbedArgs, Global};
use crate::console::log::next;
use crate::console::out;
use crate::plan::{self, required, split};

pub(crate) fn run(args: &EmbedArgs, global: &Global) -> anyhow::Result<()> {
    let path =
        required(&args.run, "RUN", "what `smalti pretrain`, `smalti finetune` or `smalti import` wrote")?;
    let data = required(&args.data, "--data", "a data set")?;
    let output = required(&args.output, "--output", "a file name ending in .safetensors")?;
    let exec = super::machine(&args.machine)?;
    let part = args.split.as_deref().map_or(Ok(Split::All), split)?;
    let images = Dataset::open(&data, part)?;
    let model = plan::teacher::embedder(&path)?;
    let found = probe::embed(&model, &images, &exec)?;
    let shape = [found.ids.len(), found.dim];
    let tensors = [("embeddings", &shape[..], &found.embeddings[..])];
    weights::save(&output, tensors, &about(&found, &images))?;
    match global.json {
        true => out::json(json!({"file": output, "n": shape[0], "dim": shape[1]}))?,
        false => {
            out::text(&format!("{}: {} embeddings of {} numbers", output.display(), shape[0], shape[1]))?
        }
    }
    let (path, data) = (out::quoted(&path), out::quoted(&data));
    next(global, &format!("smalti eval {path} --data {data} --probe knn, if images have labels"));
    Ok(())
}

/// What the rows are, in the file's metadata: where each image lies, and its class where it has one.
fn about(found: &Predictions, data: &Dataset) -> serde_json::Value {
    let places: Vec<String> = found.ids.iter().map(|&id| data.place(id as usize)).collect();
    json!({"places": places, "labels": found.labels, "classes": data.classes()})
}
