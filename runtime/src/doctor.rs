//! What this machine offers to a model, and what may get in the way.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::files::Staged;
use crate::{cgroup, cpu};

/// Less memory than this is little for an image of many megapixels and a model.
const LITTLE_MEMORY_MB: f64 = 256.0;

/// The machine, as far as it matters here.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// This crate's version.
    pub version: &'static str,
    /// Architecture: `x86_64`, `aarch64`, ...
    pub arch: &'static str,
    /// Operating system.
    pub os: &'static str,
    /// The processor's name, where the system tells it.
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Cores' worth of time that this process may use at most, where it is limited (a container, a service).
    pub cpu_limit: Option<f64>,
    /// Instruction sets that matter.
    pub features: Vec<&'static str>,
    /// The instruction set that models run on here.
    pub isa: &'static str,
    /// Memory in all, in MiB, where the system tells it.
    pub memory_mb: Option<f64>,
    /// Memory that is free for programs, in MiB.
    pub available_mb: Option<f64>,
    /// Memory that this process may use at most, in MiB, where it is limited.
    pub memory_limit_mb: Option<f64>,
    /// What may get in the way, and what to do about it.
    pub findings: Vec<String>,
}

/// Looks at the machine.
pub fn look() -> Machine {
    let limits = cgroup::limits();
    let mut machine = Machine {
        version: env!("CARGO_PKG_VERSION"),
        arch: std::env::consts::ARCH,
        os: std::env::consts::OS,
        cpu: cpu::name(),
        cores: cpu::cores(),
        cpu_limit: limits.cpus,
        features: cpu::features(),
        isa: cpu::isa(),
        memory_mb: cpu::proc_mb("/proc/meminfo", "MemTotal"),
        available_mb: cpu::proc_mb("/proc/meminfo", "MemAvailable"),
        memory_limit_mb: limits.memory.map(|bytes| bytes / f64::from(1 << 20)),
        findings: Vec::new(),
    };
    machine.findings = machine.find(&std::env::temp_dir());
    machine
}

impl Machine {
    /// What gets in the way where programs keep temporary files in `temp`.
    fn find(&self, temp: &Path) -> Vec<String> {
        let mut findings = Vec::new();
        if let Some(cpus) = self.cpu_limit.filter(|cpus| *cpus < self.cores as f64) {
            findings.push(format!(
                "the CPU limit of {cpus:.2} is below the {} threads that are used by default: give -t {:.0}",
                self.cores,
                cpus.floor().max(1.0)
            ));
        }
        let free = [self.available_mb, self.memory_limit_mb].into_iter().flatten().reduce(f64::min);
        if let Some(mb) = free.filter(|mb| *mb < LITTLE_MEMORY_MB) {
            findings
                .push(format!("only {mb:.0} MiB of memory are free: large photos and models may not fit"));
        }
        if let Err(why) = Staged::probe(&temp.join("smalti-doctor")) {
            findings
                .push(format!("no temporary files: {why}; set TMPDIR to a folder that can be written to"));
        }
        if self.isa == "scalar" && self.arch != "arm" {
            findings
                .push("models run without vector instructions: expect a tenth of the speed or less".into());
        }
        if cfg!(debug_assertions) {
            findings.push("this is a build for debugging, which is slower: build with --release".into());
        }
        findings
    }
}

/// A line for each thing, in two columns.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |mb: Option<f64>| mb.map_or("unknown".into(), |mb| format!("{mb:.0} MiB"));
        let limit =
            |limit: Option<String>| limit.map_or(String::new(), |limit| format!(", limited to {limit}"));
        let features = if self.features.is_empty() { "none".into() } else { self.features.join(" ") };
        writeln!(f, "system     {} {}", self.os, self.arch)?;
        writeln!(f, "processor  {}", self.cpu.as_deref().unwrap_or("unknown"))?;
        let cpus = limit(self.cpu_limit.map(|cpus| format!("{cpus:.2}")));
        writeln!(f, "cores      {}{cpus}", self.cores)?;
        writeln!(f, "features   {features}")?;
        writeln!(f, "isa        {} (what models run on)", self.isa)?;
        let memory = limit(self.memory_limit_mb.map(|mb| format!("{mb:.0} MiB")));
        write!(f, "memory     {}, {} available{memory}", mb(self.memory_mb), mb(self.available_mb))?;
        self.findings.iter().try_for_each(|finding| write!(f, "\nnote       {finding}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_in_the_way_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let well = Machine {
            cores: 4,
            cpu_limit: None,
            isa: "avx2",
            available_mb: Some(4096.0),
            memory_limit_mb: None,
            ..look()
        };
        let found = |machine: &Machine| {
            machine.find(temp.path()).join("\n").replace(&well.find(temp.path()).join("\n"), "")
        };
        assert_eq!(found(&well), "");
        let said = found(&Machine { cpu_limit: Some(1.5), ..well.clone() });
        assert!(said.contains("1.50") && said.contains("4 threads") && said.contains("-t 1"), "{said}");
        let said = found(&Machine { memory_limit_mb: Some(64.0), ..well.clone() });
        assert!(said.contains("64 MiB"), "{said}");
        let said = well.find(&temp.path().join("nowhere")).join("\n");
        assert!(said.contains("nowhere") && said.contains("TMPDIR"), "{said}");
        assert!(found(&Machine { isa: "scalar", arch: "x86_64", ..well.clone() }).contains("vector"));
    }

    #[test]
    fn the_machine_is_told_in_lines() {
        let machine = Machine { cpu_limit: Some(0.5), findings: vec!["a, b".into()], ..look() };
        let text = machine.to_string();
        assert!(text.contains("limited to 0.50") && text.ends_with("note       a, b"), "{text}");
        assert!(text.lines().all(|line| line.len() > 11 && line.is_char_boundary(11)), "{text}");
    }
}
