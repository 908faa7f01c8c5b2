//! `doctor`: what this machine offers.

use smalti_runtime::doctor;

use super::args::Args;
use super::out;

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let machine = doctor::look();
    if args.json {
        out::json(serde_json::to_value(&machine)?)?;
        return Ok(0);
    }
    let size = |mb: Option<f64>| mb.map_or("unknown".into(), |mb| format!("{mb:.0} MiB"));
    let features = if machine.features.is_empty() { "none".into() } else { machine.features.join(" ") };
    out::line(&format!("smalti-run {}, {} {}", machine.version, machine.os, machine.arch))?;
    out::line(&format!("processor  {}", machine.cpu.as_deref().unwrap_or("unknown")))?;
    out::line(&format!("cores      {}", machine.cores))?;
    out::line(&format!("features   {features}"))?;
    out::line(&format!("isa        {} (what models run on)", machine.isa))?;
    out::line(&format!("memory     {}, {} available", size(machine.memory_mb), size(machine.available_mb)))?;
    Ok(0)
}
