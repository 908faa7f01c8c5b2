//! `smalti bench`.

use std::time::Duration;

use smalti_models::MaeConfig;
use smalti_trainer::Error;
use smalti_trainer::bench::{self, Settings, Task};

use crate::args::{BenchArgs, Global};
use crate::console::out;
use crate::plan::images::InputShape;
use crate::plan::optim::precision;
use crate::plan::{size, threads};

/// The image that is measured where nothing is said: CIFAR-10's.
const USUAL: InputShape = InputShape { img_size: 32, channels: 3 };

pub(super) fn run(args: &BenchArgs, global: &Global) -> anyhow::Result<()> {
    let mut args = args.clone();
    let encoder = size::encoder(&mut args.size, || Ok(USUAL))?;
    let task = match args.task.as_deref() {
        // A classifier has no decoder: whatever is said of one plays no part.
        Some("finetune") => Task::Finetune(encoder),
        _ => {
            let decoder = size::decoder(&mut args.decoder, &encoder)?;
            Task::Pretrain(MaeConfig { encoder, decoder })
        }
    };
    let batch_size = args.batch_size.unwrap_or(64);
    let seconds = args.seconds.unwrap_or(5.0);
    if !(1..=1 << 16).contains(&batch_size) {
        return Err(Error::Usage(format!("batch-size is {batch_size}: expected 1 to 65536")).into());
    }
    if !(0.0..=3600.0).contains(&seconds) {
        return Err(Error::Usage(format!("seconds is {seconds}: expected 0 to 3600")).into());
    }
    let settings = Settings {
        task,
        batch_size,
        threads: threads(args.threads)?,
        time: Duration::from_secs_f64(seconds),
        precision: precision(args.precision.as_deref()),
    };
    let report = bench::run(&settings)?;
    if global.json {
        return out::json(serde_json::to_value(&report)?);
    }
    out::text(&format!(
        "{:.1} images/s, {:.1} ms a step of {batch_size}, {:.1} Gflop/s ({} of this machine's peak), {} on {} threads, {}{}",
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
    out::text(&rows.collect::<String>())
}
