//! `smalti reconstruct`.

use serde_json::json;
use smalti_trainer::data::{Split, Splits};
use smalti_trainer::evaluate::reconstruct::Shown;
use smalti_trainer::stages::pretrain;
use smalti_trainer::{Error, files};

use crate::args::{Global, ReconstructArgs};
use crate::console::log::next;
use crate::console::out;
use crate::plan::defaults::MASK_RATIO;
use crate::plan::{required, split};

/// Maximum number of rows of the sheet.
const MAX_ROWS: usize = 256;

pub(crate) fn run(args: &ReconstructArgs, global: &Global) -> anyhow::Result<()> {
    let path = required(&args.run, "RUN", "what `smalti pretrain` wrote")?;
    let data = required(&args.data, "--data", "a data set")?;
    let output = required(&args.output, "--output", "a file name ending in .png")?;
    let mask_ratio = args.mask_ratio.unwrap_or(MASK_RATIO);
    let count = args.count.unwrap_or(8);
    if !(mask_ratio > 0.0 && mask_ratio < 1.0) {
        return Err(Error::Usage(format!("mask-ratio is {mask_ratio}: expected between 0 and 1")).into());
    }
    if !(1..=MAX_ROWS).contains(&count) {
        return Err(Error::Usage(format!("count is {count}: expected 1 to {MAX_ROWS}")).into());
    }
    let run = pretrain::load(&path)?;
    let data = Splits::open(&data)?;
    let split = match args.split.as_deref() {
        Some(name) => split(name)?,
        None if data.has(Split::Test) => Split::Test,
        None => Split::All,
    };
    let shown = Shown {
        model: &run.model,
        params: &run.params,
        preprocess: &run.preprocess,
        norm_pix_loss: run.norm_pix_loss,
        mask_ratio,
        seed: args.seed.unwrap_or(0),
    };
    files::write(&output, &shown.png(&data.dataset(split)?, count)?)?;
    match global.json {
        true => out::json(json!({"file": output}))?,
        false => out::text(&format!("{}: original, masked, reconstructed", output.display()))?,
    }
    next(
        global,
        &format!("smalti finetune --data DIR --init {} --out RUN, on labelled images", out::quoted(&path)),
    );
    Ok(())
}
