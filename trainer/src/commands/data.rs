//! `smalti data`: a data set looked over, and how long an epoch of pretraining would take with each model here.

use std::fmt::Write;

use smalti_models::presets::Preset;
use smalti_trainer::data::{Dataset, Split, audit};

use crate::args::{DataArgs, Global};
use crate::console::log::tell;
use crate::console::out;
use crate::plan::required;

pub(super) fn run(args: &DataArgs, global: &Global) -> anyhow::Result<()> {
    let path = required(&args.data, "DIR", "a data set")?;
    let exec = super::machine(&args.machine)?;
    let threads = exec.threads;
    let report = audit::look(&path, args.most.unwrap_or(audit::MOST))?;
    let times = match args.timing {
        Some(false) => Vec::new(),
        _ => {
            tell(global, "measuring how long an epoch takes here");
            let train = Dataset::open(&path, Split::Train)?;
            let time = |preset: Preset| Ok((preset, super::bench::epoch_seconds(preset, &train, &exec)?));
            Preset::ALL.into_iter().map(time).collect::<anyhow::Result<Vec<_>>>()?
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
