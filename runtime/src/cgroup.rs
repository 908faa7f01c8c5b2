//! What a container or a service may use: the limits of Linux' control groups, of both versions.

use std::path::{Path, PathBuf};

/// The limits of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// Processors, which may be a fraction.
    pub(crate) cpus: Option<f64>,
    /// Bytes of memory.
    pub(crate) memory: Option<f64>,
}

/// Looks where the system tells it.
pub(crate) fn limits() -> Limits {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// The limits in the files below `root`, for a process whose groups are these lines `number:controllers:path`.
fn limits_of(groups: &str, root: &Path) -> Limits {
    let mut limits = Limits::default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let mount = if controllers.is_empty() { root.to_owned() } else { root.join(controllers) };
        // A limit of any group above counts, too. Within a container the path may be that of the host, which is not there.
        let path = mount.join(path.trim_start_matches('/'));
        for folder in path.ancestors().take_while(|folder| folder.starts_with(&mount)) {
            limits.cpus = least(limits.cpus, cpus(folder));
            limits.memory = least(limits.memory, memory(folder));
        }
    }
    limits
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::min)
}

fn cpus(folder: &Path) -> Option<f64> {
    let (quota, period) = match read(folder.join("cpu.max")) {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?)
        }
        None => (number(folder.join("cpu.cfs_quota_us"))?, number(folder.join("cpu.cfs_period_us"))?),
    };
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn memory(folder: &Path) -> Option<f64> {
    let limit = number(folder.join("memory.max")).or_else(|| number(folder.join("memory.limit_in_bytes")))?;
    // Version 1 writes a number near 2^63 where there is no limit.
    (limit > 0.0 && limit < (1u64 << 60) as f64).then_some(limit)
}

fn number(path: PathBuf) -> Option<f64> {
    read(path)?.trim().parse().ok()
}

fn read(path: PathBuf) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let root = tempfile::tempdir().unwrap();
        file(root.path(), "a/cpu.max", "150000 100000\n");
        file(root.path(), "a/b/cpu.max", "max 100000\n");
        file(root.path(), "a/b/memory.max", "1073741824\n");
        let found = limits_of("0::/a/b\n", root.path());
        assert_eq!(found, Limits { cpus: Some(1.5), memory: Some(1073741824.0) });
        assert_eq!(limits_of("0::/none\n", root.path()), Limits::default());
        assert_eq!(limits_of("no line\n", root.path()), Limits::default());
    }

    #[test]
    fn the_first_version_has_other_files() {
        let root = tempfile::tempdir().unwrap();
        file(root.path(), "cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n");
        file(root.path(), "cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
        file(root.path(), "cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
        file(root.path(), "cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        file(root.path(), "memory/memory.limit_in_bytes", "9223372036854771712\n");
        let found = limits_of("4:memory:/\n3:cpu,cpuacct:/x\n", root.path());
        assert_eq!(found, Limits { cpus: Some(0.5), memory: None });
    }
}
