//! `smalti data`: looks a data set over, and measures how long an epoch of pretraining takes with each model here.

use std::fmt::Write;
use std::time::Duration;

use smalti_models::presets::Preset;
use smalti_trainer::Error;
use smalti_trainer::bench::{self, Settings, Task};
use smalti_trainer::data::{Dataset, Split, Splits, audit};
use smalti_trainer::model::precision::Precision;

use crate::args::{DataArgs, Global};
use crate::console::log::tell;
use crate::console::out;
use crate::plan::{images, required, size};

/// Images a step when the time is taken: few, so that the largest model does not take long.
const BATCH: usize = 16;
/// How long each model is measured.
const MEASURED: Duration = Duration::from_millis(500);

pub(super) fn run(args: &DataArgs, global: &Global) -> anyhow::Result<()> {
    let path = required(&args.data, "DIR", "a data set")?;
    let threads = super::machine(&args.machine)?.threads;
    let data = Splits::read(&path)?;
    let report = audit::look(&data, args.most.unwrap_or(audit::MOST))?;
    let is_usable = report.usable() > 0;
    let times = if args.timing == Some(false) || !is_usable {
        Vec::new()
    } else {
        tell(global, "measuring how long an epoch takes here");
        // What follows must not cost the report.
        epoch_seconds(&data, threads).unwrap_or_else(|why| {
            log::warn!("the time of an epoch is not known: {why}");
            Vec::new()
        })
    };
    if global.json {
        let mut report = serde_json::to_value(&report)?;
        report["epoch_seconds"] = times.iter().map(|(preset, time)| (preset.name(), *time)).collect();
        out::json(report)?;
    } else {
        let mut text = report.to_string();
        for (preset, time) in times {
            let (name, time) = (preset.name(), out::seconds(time));
            _ = writeln!(text, "an epoch of pretraining {name} on {threads} threads: about {time}");
        }
        out::text(&text)?;
    }
    if is_usable {
        return Ok(());
    }
    let problem = format!("none of {} images looked at can be used", report.unusable.count);
    Err(Error::data(path.display().to_string(), problem).into())
}

/// Seconds that each model takes to see every image of the train split once; none for images that no patch divides.
fn epoch_seconds(data: &Splits, threads: usize) -> anyhow::Result<Vec<(Preset, f64)>> {
    let split = if data.has(Split::Train) { Split::Train } else { Split::All };
    let data: Dataset = data.dataset(split)?;
    let shape = images::shape(&data)?;
    let Ok(patch_size) = size::patch_size(shape.img_size) else { return Ok(Vec::new()) };
    let time = |preset: Preset| {
        let task = Task::Pretrain(preset.mae(shape.img_size, patch_size, shape.channels));
        let report = bench::run(&Settings {
            task,
            batch_size: BATCH,
            threads,
            time: MEASURED,
            precision: Precision::fastest(),
        })?;
        Ok((preset, data.len() as f64 / report.images_per_s))
    };
    Preset::ALL.into_iter().map(time).collect()
}
