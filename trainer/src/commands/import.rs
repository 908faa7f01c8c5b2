//! `smalti import`: weights of other programs as a run.

use serde_json::json;
use smalti_models::Pooling;
use smalti_trainer::model::weights::Weights;
use smalti_trainer::run::{Create, IMPORT, RunDir};
use smalti_trainer::stages::finetune::Finetuned;
use smalti_trainer::stages::import;

use crate::args::config::to_toml;
use crate::args::{Global, ImportArgs};
use crate::console::log::next;
use crate::console::out;
use crate::plan::import::{file, plan};
use crate::plan::required;

pub(crate) fn run(args: &ImportArgs, global: &Global) -> anyhow::Result<()> {
    let source = required(&args.source, "FILE", "a safetensors file of timm or Hugging Face, or its folder")?;
    let out = required(&args.out, "--out", "a folder for the run")?;
    let create = Create { overwrite: args.overwrite == Some(true), inputs: &[("FILE", source.clone())] };
    create.check(&out, IMPORT)?;
    let path = file(&source)?;
    let weights = Weights::open(&path)?;
    let settings = plan(args, &path, &weights)?;
    let (model, loaded) = import::read(&weights, &settings)?;
    ::log::info!("{}: {loaded}", path.display());
    let dir = RunDir::create(&out, IMPORT, &create)?;
    import::write(&model, &path, &to_toml(args)?, &dir)?;

    let (vit, classes) = (&settings.encoder, settings.labels.len());
    let parameters = parameters(&model);
    let pool = match settings.pool {
        Pooling::Token => "token",
        Pooling::Mean => "mean",
    };
    if global.json {
        return out::json(json!({
            "run": dir.path(), "img_size": vit.img_size, "patch_size": vit.patch_size, "dim": vit.dim,
            "depth": vit.depth, "heads": vit.heads, "variant": vit.variant, "pool": pool, "classes": classes,
            "parameters": parameters, "preprocess": settings.preprocess,
        }));
    }
    let variant = if vit.variant.is_plain() { String::new() } else { format!(" ({})", vit.variant) };
    let head = match classes {
        0 => "no head".to_owned(),
        _ => format!("a head for {classes} classes"),
    };
    let place = dir.path().display();
    out::text(&format!(
        "{place}: vision transformer for {0}x{0}x{1} images, patch {2}, width {3}, depth {4}, {5} heads{variant}, {6:.1} M \
         parameters, pool {pool}, {head}",
        vit.img_size,
        vit.channels,
        vit.patch_size,
        vit.dim,
        vit.depth,
        vit.heads,
        parameters as f64 / 1e6
    ))?;
    next(global, &format!("smalti eval {} --data DIR --probe knn", out::quoted(dir.path())));
    Ok(())
}

/// Parameters of the run, without a head that means nothing.
fn parameters(model: &Finetuned) -> usize {
    model.tensors().map(|(spec, _)| spec.len()).sum()
}
