//! `bench`: how fast a model runs here.

use std::time::Duration;

use smalti_runtime::Error;
use smalti_runtime::bench::{self, Settings};

use super::args::{Args, BenchArgs};
use super::out;

pub(super) fn run(command: &BenchArgs, args: &Args) -> anyhow::Result<u8> {
    if command.threads != 1 {
        let problem = format!("--threads {}: this version runs a picture on 1 thread", command.threads);
        return Err(Error::Usage(problem).into());
    }
    let settings = Settings { measure: Duration::from_secs_f64(command.seconds), ..Settings::default() };
    let report = bench::run(&command.model, &settings)?;
    if args.json {
        out::json(serde_json::to_value(&report)?)?;
        return Ok(0);
    }
    out::line(&format!(
        "latency  p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms, fastest {:.3} ms ({} runs)",
        report.p50_ms, report.p95_ms, report.p99_ms, report.min_ms, report.runs
    ))?;
    out::line(&format!("load     {:.1} ms", report.load_ms))?;
    out::line(&format!("memory   {:.1} MiB at most", report.peak_rss_mb))?;
    out::line(&format!(
        "compute  {:.1} G multiply-adds/s, {}, {} thread",
        report.gmac_per_s, report.isa, report.threads
    ))?;
    Ok(0)
}
