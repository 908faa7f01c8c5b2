//! `smalti bench`, and the time of an epoch for `smalti data`.

use std::time::Duration;

use smalti_models::presets::Preset;
use smalti_trainer::bench::{self, Settings, Stage};
use smalti_trainer::data::Dataset;
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result};

use crate::args::training::{ImageArgs, OptimArgs, SizeArgs};
use crate::args::{BenchArgs, FinetuneArgs, Global, PretrainArgs};
use crate::console::log::next;
use crate::console::out;
use crate::plan::finetune::Init;
use crate::plan::{self, threads};

/// The image size where nothing is said: CIFAR-10's.
const IMG_SIZE: usize = 32;
/// Batches that are drawn.
const BATCHES: usize = 4;

pub(crate) fn run(args: &BenchArgs, global: &Global) -> anyhow::Result<()> {
    let seconds = args.seconds.unwrap_or(5.0);
    if let Some(batch_size) = args.batch_size.filter(|batch_size| !(1..=1 << 16).contains(batch_size)) {
        return Err(Error::Usage(format!("batch-size is {batch_size}: expected 1 to 65536")).into());
    }
    if !(0.0..=3600.0).contains(&seconds) {
        return Err(Error::Usage(format!("seconds is {seconds}: expected 0 to 3600")).into());
    }
    let exec = ExecConfig::new(threads(args.threads)?);
    let (size, channels) = (args.size.img_size.unwrap_or(IMG_SIZE), args.size.channels.unwrap_or(3));
    if !(1..=1024).contains(&size) || !matches!(channels, 1 | 3) {
        return Err(Error::Usage("expected --img-size 1 to 1024 and --channels 1 or 3".into()).into());
    }
    let data = bench::noise(BATCHES * args.batch_size.unwrap_or(128), size, channels)?;
    let stage = stage(args, &data)?;
    let report = bench::run(&Settings::new(stage, &data, exec, Duration::from_secs_f64(seconds)))?;
    if global.json {
        return out::json(serde_json::to_value(&report)?);
    }
    out::text(&format!(
        "{:.1} images/s, {:.1} ms a step, {:.1} Gflop/s ({} of this machine's peak), {} on {} threads, {}{}",
        report.images_per_s,
        report.step_ms,
        report.gflops,
        out::percent(report.of_peak),
        report.precision,
        report.threads,
        report.isa,
        report.peak_rss_mb.map_or(String::new(), |mb| format!(
            ", peak {mb:.0} MB of which buffers {:.0}",
            report.buffers_mb
        )),
    ))?;
    let rows = report
        .shares
        .iter()
        .map(|share| format!("  {:10} {:>7}\n", share.operation, out::percent(share.share)));
    out::text(&rows.collect::<String>())?;
    next(global, "smalti data DIR, for the time of an epoch on your own images");
    Ok(())
}

/// The stage as its command plans it by default.
pub(super) fn stage(args: &BenchArgs, data: &Dataset) -> Result<Stage> {
    let optim = OptimArgs {
        batch_size: args.batch_size,
        optimizer: args.optimizer.clone(),
        precision: args.precision.clone(),
        ..OptimArgs::default()
    };
    if args.task.as_deref() == Some("finetune") {
        // A classifier has no decoder: whatever is said of one plays no part.
        let mut args = FinetuneArgs { size: args.size.clone(), optim, ..FinetuneArgs::default() };
        return plan::finetune::plan(&mut args, &Init::Scratch, data).map(Stage::Finetune);
    }
    let (size, decoder) = (args.size.clone(), args.decoder.clone());
    let mut args = PretrainArgs { size, decoder, optim, ..PretrainArgs::default() };
    plan::pretrain::plan(&mut args, data).map(Stage::Pretrain)
}

/// Seconds that pretraining this preset takes to see every image of `data` once, by a few steps on them.
pub(super) fn epoch_seconds(preset: Preset, data: &Dataset, exec: &ExecConfig) -> Result<f64> {
    let channels = plan::images::shape(data)?.channels;
    let mut args = PretrainArgs {
        size: SizeArgs { model: Some(preset.name().into()), ..SizeArgs::default() },
        // Any will do: finding the data set's own takes a while.
        images: ImageArgs {
            mean: Some(vec![0.5; channels]),
            std: Some(vec![0.25; channels]),
            ..ImageArgs::default()
        },
        ..PretrainArgs::default()
    };
    let stage = Stage::Pretrain(plan::pretrain::plan(&mut args, data)?);
    let watched = Settings {
        warm_up: 1,
        min_steps: 2,
        ..Settings::new(stage, data, exec.clone(), Duration::from_millis(500))
    };
    Ok(data.len() as f64 / bench::run(&watched)?.images_per_s)
}
