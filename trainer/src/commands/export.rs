//! `smalti export`.

use std::path::{Path, PathBuf};

use serde_json::json;
use smalti_runtime::{Model, selftest};
use smalti_trainer::evaluate::probe;
use smalti_trainer::export::{self, Details, InputForm};
use smalti_trainer::model::weights::file;
use smalti_trainer::run::{ModelFiles, RunDir};
use smalti_trainer::stages::finetune::{self, Finetuned};
use smalti_trainer::{Error, Result, files};

use crate::args::{ExportArgs, Global};
use crate::console::log::next;
use crate::console::out;
use crate::plan::required;

pub(crate) fn run(args: &ExportArgs, global: &Global) -> anyhow::Result<()> {
    let path = required(&args.run, "RUN", "what `smalti finetune`, `distil` or `import` wrote")?;
    let form: InputForm = args.input.as_deref().unwrap_or("u8-nhwc").parse()?;
    let run = RunDir::open(&path)?;
    // What was imported or distilled may have no head: the model then gives embeddings.
    let ModelFiles { config, labels, .. } = run.load_model_files()?;
    let embeds = config.pool.is_some() && labels.is_empty();
    let embeds = embeds || args.output.as_deref().is_some_and(is_weights);
    let model = if embeds { probe::load(&path)? } else { finetune::load(&path)? };
    let file = run.best_or_last();
    let vit = model.model.vit();
    let answer = match model.labels.len() {
        0 => "embeddings".to_owned(),
        classes => format!("{classes} classes"),
    };
    let described = format!(
        "Vision transformer for {0}x{0}x{1} images, patch {2}, width {3}, depth {4}, {answer}",
        vit.img_size, vit.channels, vit.patch_size, vit.dim, vit.depth,
    );
    let description = args.description.clone().unwrap_or(described);
    let license = args.license.clone().unwrap_or_else(|| "unspecified".into());
    if let Some(output) = args.output.as_deref().filter(|path| is_weights(path)) {
        return weights(output, &model, [&description, &license], global);
    }
    let details = Details {
        names: model.labels.clone(),
        preprocess: model.preprocess.clone(),
        description,
        license,
        version: args.model_version.clone().unwrap_or_else(|| "1".into()),
        training: file::load(&file)?.1,
    };
    let bytes = export::export(&model.model, &model.params, &details, form)?;
    // The device must compute what the trainer does, and this is the last moment to notice that it does not.
    let tested = selftest::run(&Model::from_bytes(&bytes)?)?;
    selftest::judge(&tested)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => own_file(&run, "model.onnx")?,
    };
    files::write(&output, &bytes)?;
    if global.json {
        return out::json(json!({
            "file": output, "bytes": bytes.len(), "input": form.name(), "classes": details.names.len(),
            "selftest": tested,
        }));
    }
    out::text(&format!(
        "{}: {:.0} kB, {answer}, input {form} {}x{}x{}, checked in the runtime",
        output.display(),
        bytes.len() as f64 / 1e3,
        vit.img_size,
        vit.img_size,
        vit.channels
    ))?;
    let output = out::quoted(&output);
    next(
        global,
        &format!(
            "smalti-run run {output} IMAGES; in 8 bits: smalti-run quantize {output} --calib DIR -o int8.onnx"
        ),
    );
    Ok(())
}

/// Whether the name asks for weights alone, to start other runs from.
fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}

/// Writes the encoder's weights in f16, with all that `--init` and `--start` need to know of it.
fn weights(
    output: &Path,
    encoder: &Finetuned,
    [description, license]: [&str; 2],
    global: &Global,
) -> anyhow::Result<()> {
    let Finetuned { model, params, preprocess, .. } = encoder;
    let tensors = model.layout().without_head();
    let tensors = tensors.map(|(spec, slot)| (spec.name.as_str(), &spec.shape[..], slot.of(params)));
    let details = json!({
        "encoder": model.vit(), "pool": model.pool(), "preprocess": preprocess,
        "description": description, "license": license,
    });
    file::save_half(output, tensors, &details)?;
    let bytes = std::fs::metadata(output)?.len();
    if global.json {
        return out::json(json!({ "file": output, "bytes": bytes }));
    }
    out::text(&format!("{}: {:.0} kB, the encoder's weights in f16", output.display(), bytes as f64 / 1e3))?;
    next(global, &format!("smalti train DIR --start {}", out::quoted(output)));
    Ok(())
}

/// A file of the run, unless someone else wrote one of this name there.
fn own_file(run: &RunDir, name: &str) -> Result<PathBuf> {
    let path = run.path().join(name);
    if path.exists() && !run.owns(name)? {
        return Err(Error::Usage(format!(
            "{} is there and was not written by smalti: name another file with --output",
            path.display()
        )));
    }
    run.own(name)
}
