//! `smalti data`: a data set looked over, and how long an epoch of pretraining would take with each model here.

use std::fmt::Write;
use std::time::Duration;

use smalti_models::presets::Preset;
use smalti_trainer::bench::{self, Settings, Task};
use smalti_trainer::data::{Dataset, Split, audit};
use smalti_trainer::model::precision::Precision;

use crate::args::{DataArgs, Global};
use crate::console::log::tell;
use crate::console::out;
use crate::plan::{images, required, size};

/// Images a step when the time is taken: few, so that the largest model does not take long.
const BATCH: usize = 16;
/// How long each model is watched.
const WATCHED: Duration = Duration::from_millis(500);

pub(super) fn run(args: &DataArgs, global: &Global) -> anyhow::Result<()> {
    let path = required(&args.data, "DIR", "a data set")?;
    let threads = super::machine(&args.machine)?.threads;
    let report = audit::look(&path, args.most.unwrap_or(audit::MOST))?;
    let times = match args.timing {
        Some(false) => Vec::new(),
        _ => {
            tell(global, "measuring how long an epoch takes here");
            epoch_seconds(&Dataset::open(&path, Split::Train)?, threads)?
        }
    };
    if global.json {
        let mut report = serde_json::to_value(&report)?;
        report["epoch_seconds"] = times.iter().map(|(preset, time)| (preset.name(), *time)).collect();
        return out::json(report);
    }
    let mut text = report.to_string();
    for (preset, time) in times {
        let name = preset.name();
        _ = writeln!(
            text,
            "an epoch of pretraining {name} on {threads} threads: about {}",
            out::seconds(time)
        );
    }
    out::text(&text)
}

/// Seconds that each model takes to see every image once; none for images that no patch divides.
fn epoch_seconds(data: &Dataset, threads: usize) -> anyhow::Result<Vec<(Preset, f64)>> {
    let shape = images::shape(data)?;
    let Ok(patch_size) = size::patch_size(shape.img_size) else { return Ok(Vec::new()) };
    let time = |preset: Preset| {
        let task = Task::Pretrain(preset.mae(shape.img_size, patch_size, shape.channels));
        let report = bench::run(&Settings {
            task,
            batch_size: BATCH,
            threads,
            time: WATCHED,
            precision: Precision::fastest(),
        })?;
        Ok((preset, data.len() as f64 / report.images_per_s))
    };
    Preset::ALL.into_iter().map(time).collect()
}
