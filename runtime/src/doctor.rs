//! What this machine offers to a model.

use serde::Serialize;

use crate::cpu;

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
    /// Instruction sets that matter.
    pub features: Vec<&'static str>,
    /// The instruction set that models run on here.
    pub isa: &'static str,
    /// Memory in all, in MiB, where the system tells it.
    pub memory_mb: Option<f64>,
    /// Memory that is free for programs, in MiB.
    pub available_mb: Option<f64>,
}

/// Looks at the machine.
pub fn look() -> Machine {
    Machine {
        version: env!("CARGO_PKG_VERSION"),
        arch: std::env::consts::ARCH,
        os: std::env::consts::OS,
        cpu: cpu::name(),
        cores: cpu::cores(),
        features: cpu::features(),
        isa: cpu::isa(),
        memory_mb: cpu::proc_mb("/proc/meminfo", "MemTotal"),
        available_mb: cpu::proc_mb("/proc/meminfo", "MemAvailable"),
    }
}
