//! `bench`: how fast a model runs here.

use std::time::Duration;

use smalti_runtime::Model;
use smalti_tools::bench::{self, Report, Settings};

use super::args::{Args, BenchArgs};
use super::{open, out};

pub(super) fn run(command: &BenchArgs, args: &Args) -> anyhow::Result<u8> {
    let options = open::options(&command.file)?;
    if let Some(runs) = command.only_runs {
        let bytes = options.read(&command.model)?;
        let model =
            if command.engine { Model::from_bytes_on_tract(&bytes)? } else { Model::from_bytes(&bytes)? };
        bench::only_runs(&model, runs)?;
        return Ok(0);
    }
    for &threads in &command.threads {
        let measure = Duration::from_secs_f64(command.seconds);
        let settings = Settings { measure, threads: threads.into(), ..Settings::default() };
        let report = bench::run_opened(|| Model::open_with(&command.model, &options), &settings)?;
        match args.json {
            true => out::json(serde_json::to_value(&report)?)?,
            false => print(&report)?,
        }
    }
    out::next(args, &format!("smalti-run run {} IMAGES", out::quoted(&command.model)));
    Ok(0)
}

fn print(report: &Report) -> anyhow::Result<()> {
    out::line(&format!(
        "latency  p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms, fastest {:.3} ms ({} runs)",
        report.p50_ms, report.p95_ms, report.p99_ms, report.min_ms, report.runs
    ))?;
    out::line(&format!("load     {:.1} ms", report.load_ms))?;
    out::line(&format!("memory   {:.1} MiB at most", report.peak_rss_mb))?;
    out::line(&format!(
        "compute  {:.1} G multiply-adds/s, {} on {}, {} thread{}",
        report.gmac_per_s,
        report.backend,
        report.isa,
        report.threads,
        if report.threads == 1 { "" } else { "s" }
    ))?;
    let [floats, bytes] = report.peak_gmac_per_s;
    out::line(&format!("core     {floats:.0} G multiply-adds/s at most in floats, {bytes:.0} in bytes"))?;
    for step in &report.steps {
        let products = match step.multiply_adds {
            0 => String::new(),
            _ => format!("{:7.1} G/s, {:.0}% of the peak", step.gmac_per_s, 100.0 * step.peak_share),
        };
        let (kind, count, ms, share) = (step.kind, step.count, step.ms, 100.0 * step.share);
        out::line(format!("  {kind:12} {count:4} x {ms:8.3} ms {share:5.1}% {products}").trim_end())?;
    }
    Ok(())
}
