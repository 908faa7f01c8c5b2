//! `smalti doctor`: what this machine offers to training and to models.

use std::time::Duration;

use serde_json::{Value, json};
use smalti_models::presets::Preset;
use smalti_runtime::doctor;
use smalti_trainer::bench::{self, Settings};
use smalti_trainer::data::Dataset;
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result};

use super::bench::stage;
use crate::args::training::SizeArgs;
use crate::args::{BenchArgs, DoctorArgs, Global};
use crate::console::log::next;
use crate::console::out;
use crate::plan;

/// The side of images where nothing is said: that of photos in training.
const IMG_SIZE: usize = 96;
/// Images a step, few enough for a short measurement.
const BATCH: usize = 16;
/// How long each measurement takes, after a step to warm up.
const TIME: Duration = Duration::from_millis(300);

/// Images that a model learns from in a second.
struct Speed {
    preset: Preset,
    pretrain: f64,
    finetune: f64,
    precision: String,
}

pub(crate) fn run(args: &DoctorArgs, global: &Global) -> anyhow::Result<()> {
    let img_size = args.img_size.unwrap_or(IMG_SIZE);
    if !(16..=1024).contains(&img_size) {
        return Err(Error::Usage(format!("img-size is {img_size}: expected 16 to 1024 pixels")).into());
    }
    let threads = plan::threads(args.threads)?;
    let mut machine = doctor::look();
    if threads > machine.cores {
        let cores = machine.cores;
        machine
            .findings
            .push(format!("{threads} threads share {cores} cores and wait for each other: give -t {cores}"));
    }
    let presets = if args.timing == Some(false) { Vec::new() } else { presets(img_size) };
    if global.json {
        let speeds = speeds(&presets, img_size, threads, |_| Ok(()))?;
        let Value::Object(mut fields) = serde_json::to_value(&machine)? else { return Ok(()) };
        let models = speeds.iter().map(|speed| {
            json!({
                "model": speed.preset.name(), "img_size": img_size, "precision": speed.precision,
                "pretrain_images_per_s": speed.pretrain, "finetune_images_per_s": speed.finetune,
            })
        });
        fields.insert("threads".into(), threads.into());
        fields.insert("models".into(), models.collect());
        return out::json(fields.into());
    }
    out::text(&format!("version    smalti {}\n{machine}\nthreads    {threads}", machine.version))?;
    if !presets.is_empty() {
        let (what, pre, fine) = ("images/s", "pretraining", "fine-tuning");
        out::text(&format!("\n{what:12} {pre:>12} {fine:>12}  of {img_size}x{img_size} pixels"))?;
    }
    speeds(&presets, img_size, threads, |speed| {
        let Speed { preset, pretrain, finetune, precision } = speed;
        out::text(&format!("{:12} {pretrain:>12.0} {finetune:>12.0}  {precision}", preset.name()))
    })?;
    next(global, "smalti data DIR, to look your images over");
    Ok(())
}

/// The models for images of this size.
fn presets(img_size: usize) -> Vec<Preset> {
    let fits = |preset: &Preset| preset.patch_size().is_none_or(|patch| img_size.is_multiple_of(patch));
    Preset::ALL.into_iter().filter(fits).collect()
}

/// The speed of every model on drawn images; each is told as soon as it is known.
fn speeds(
    presets: &[Preset],
    img_size: usize,
    threads: usize,
    tell: impl Fn(&Speed) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Speed>> {
    let data = bench::noise(2 * BATCH, img_size, 3)?;
    let exec = ExecConfig::new(threads);
    let measure = |preset: &Preset| {
        let speed = speed(*preset, img_size, &data, &exec)?;
        tell(&speed)?;
        Ok(speed)
    };
    presets.iter().map(measure).collect()
}

fn speed(preset: Preset, img_size: usize, data: &Dataset, exec: &ExecConfig) -> Result<Speed> {
    let measure = |task: &str| {
        let args = BenchArgs {
            task: Some(task.into()),
            size: SizeArgs {
                model: Some(preset.name().into()),
                img_size: Some(img_size),
                ..SizeArgs::default()
            },
            batch_size: Some(BATCH),
            ..BenchArgs::default()
        };
        let settings = Settings {
            warm_up: 1,
            min_steps: 2,
            ..Settings::new(stage(&args, data)?, data, exec.clone(), TIME)
        };
        bench::run(&settings)
    };
    let (pretrain, finetune) = (measure("pretrain")?, measure("finetune")?);
    Ok(Speed {
        preset,
        pretrain: pretrain.images_per_s,
        finetune: finetune.images_per_s,
        precision: finetune.precision.to_string(),
    })
}
