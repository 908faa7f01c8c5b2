//! What this machine's processor offers.

/// Instruction sets that matter to inference, as the processor and the system report them.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    detect(&mut found);
    found
}

#[cfg(target_arch = "x86_64")]
fn detect(found: &mut Vec<&'static str>) {
    macro_rules! ask {
        ($($name:tt)*) => { $(if std::arch::is_x86_feature_detected!($name) { found.push($name); })* };
    }
    ask!("sse4.1" "avx" "fma" "f16c" "avx2" "avxvnni" "avx512f" "avx512bw" "avx512vl" "avx512vnni" "avx512bf16");
}

#[cfg(target_arch = "aarch64")]
fn detect(found: &mut Vec<&'static str>) {
    macro_rules! ask {
        ($($name:tt)*) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })* };
    }
    ask!("neon" "fp16" "dotprod" "i8mm" "bf16" "sve");
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect(_found: &mut Vec<&'static str>) {}

/// The instruction set that models run on here: one of those that `SMALTI_FORCE_ISA` takes.
pub fn isa() -> &'static str {
    smalti_kernels::Isa::best().name()
}

/// Refuses a name in `SMALTI_FORCE_ISA` that this machine does not know.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage) that names what the machine has.
pub fn check_forced_isa() -> crate::Result<()> {
    smalti_kernels::Isa::forced().map(drop).map_err(|unknown| crate::Error::Usage(unknown.to_string()))
}

/// The processor's name as the system tells it.
pub fn name() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory that this process has had in use, in MiB, where the system tells it.
pub fn peak_memory_mb() -> Option<f64> {
    proc_mb("/proc/self/status", "VmHWM")
}

/// The memory that this process has in use, in MiB, where the system tells it.
pub fn memory_mb() -> Option<f64> {
    proc_mb("/proc/self/status", "VmRSS")
}

/// A size in MiB from a line `NAME: N kB` of a file under /proc.
pub(crate) fn proc_mb(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_isa_is_one_that_was_found() {
        let found = features();
        assert!(match isa() {
            "avx512" => found.contains(&"avx512f"),
            // The standard library does not tell of AMX yet; who has it has VNNI.
            "vnni" | "amx" => found.contains(&"avx512vnni"),
            other => other == "scalar" || found.contains(&other),
        });
        assert!(cores() >= 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_read_from_proc() {
        assert!(proc_mb("/proc/meminfo", "MemTotal").is_some_and(|mb| mb > 1.0));
        assert!(proc_mb("/proc/self/status", "VmHWM").is_some_and(|mb| mb > 0.1));
        assert_eq!(proc_mb("/proc/self/status", "Nothing"), None);
    }
}
