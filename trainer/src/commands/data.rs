//! `smalti data`: looks a data set over, and measures how long an epoch of pretraining takes with each model here.

use std::fmt::Write;

use smalti_models::presets::Preset;
use smalti_trainer::Error;
use smalti_trainer::data::{Dataset, Split, Splits, audit};
use smalti_trainer::train::ExecConfig;

use crate::args::{DataArgs, Global};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::plan::required;

pub(crate) fn run(args: &DataArgs, global: &Global) -> anyhow::Result<()> {
    let path = required(&args.data, "DIR", "a data set")?;
    let exec = super::machine(&args.machine)?;
    let threads = exec.threads;
    let data = Splits::read(&path)?;
    let report = audit::look(&data, args.most.unwrap_or(audit::MAX_IMAGES))?;
    let is_usable = report.usable() > 0;
    let times = if args.timing == Some(false) || !is_usable {
        Vec::new()
    } else {
        tell(global, "measuring how long an epoch takes here");
        // What follows must not cost the report.
        epoch_seconds(&data, &exec).unwrap_or_else(|why| {
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
        next(global, &after(&data, &out::quoted(&path))?);
        return Ok(());
    }
    let problem =
        format!("none of {} images looked at can be used: the list above says why", report.unusable.count);
    Err(Error::data(path.display().to_string(), problem).into())
}

/// What comes after looking: to train, or to give labels first.
fn after(data: &Splits, place: &str) -> anyhow::Result<String> {
    let labels = data.dataset(Split::All)?.class_counts();
    Ok(match labels.iter().filter(|count| **count > 0).count() {
        0 | 1 => format!("smalti select {place} --number 60, which images to label first"),
        _ => format!("smalti train {place}"),
    })
}

/// Seconds that each model takes to see every image of the train split once.
fn epoch_seconds(data: &Splits, exec: &ExecConfig) -> anyhow::Result<Vec<(Preset, f64)>> {
    let split = if data.has(Split::Train) { Split::Train } else { Split::All };
    let data: Dataset = data.dataset(split)?;
    let time = |preset: Preset| Ok((preset, super::bench::epoch_seconds(preset, &data, exec)?));
    Preset::ALL.into_iter().map(time).collect()
}
