//! Run after run: memory, file descriptors and threads stay, and so does the time of a run. The long form:
//! `SMALTI_INFERENCES=5000000 cargo test --release -p smalti-runtime --test lasting -- --nocapture`.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use smalti_runtime::{Model, images};

/// How many windows a test is divided into; the first is to warm up.
const WINDOWS: usize = 21;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

/// Processor time of this thread, which other programs of a machine change less than the time of day.
fn clock() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    kib: i64,
    files: usize,
    threads: usize,
}

fn held() -> Held {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    Held {
        kib: line.trim().trim_end_matches(" kB").parse().unwrap(),
        files: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
    }
}

/// The 99th percentile in nanoseconds.
fn p99(times: &mut [u64]) -> u64 {
    let place = times.len() * 99 / 100;
    *times.select_nth_unstable(place).1
}

fn median(values: &[u64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2] as f64
}

/// One test, for there is one process to look at.
#[test]
fn run_after_run_takes_what_the_first_took() {
    let runs: usize = std::env::var("SMALTI_INFERENCES").map_or(21_000, |text| text.parse().unwrap());
    let per_window = (runs / WINDOWS).max(100);
    let model = Model::open(fixture("colours_u8.onnx")).unwrap();
    let images = ["red", "green", "blue"].map(|name| images::open(fixture(&format!("{name}.png"))).unwrap());
    let wanted =
        images.each_ref().map(|image| model.session().unwrap().classify(image).unwrap().output.logits);
    let (mut alone, mut shared) = (model.session().unwrap(), model.session_with_threads(2).unwrap());
    let (mut times, mut percentiles, mut start) = (vec![0; per_window], Vec::new(), held());
    for window in 0..WINDOWS {
        for (i, time) in times.iter_mut().enumerate() {
            let before = clock();
            let answer = alone.classify(&images[i % 3]).unwrap();
            *time = (clock() - before).as_nanos() as u64;
            assert_eq!(answer.output.logits, wanted[i % 3]);
            if i % 50 == 0 {
                assert_eq!(shared.classify(&images[i % 3]).unwrap().output.logits, wanted[i % 3]);
            }
            // As a server makes them, one for each client.
            if i % 1000 == 0 {
                model.session_with_threads(2).unwrap();
            }
        }
        let percentile = p99(&mut times);
        match window {
            0 => start = held(),
            _ => percentiles.push(percentile),
        }
    }
    let (end, third) = (held(), percentiles.len() / 3);
    let [first, last] = [&percentiles[..third], &percentiles[percentiles.len() - third..]].map(median);
    let drift = 100.0 * (last / first - 1.0);
    println!(
        "{} runs: {} KiB grown, {} file descriptors, {} threads, p99 {:.1} us, drift {drift:.1} %",
        per_window * WINDOWS,
        end.kib - start.kib,
        end.files,
        end.threads,
        last / 1000.0
    );
    assert!(end.kib - start.kib <= 1024, "{start:?} {end:?}");
    assert_eq!((start.files, start.threads), (end.files, end.threads));
    // A short one measures what else the machine does.
    assert!(runs < 1_000_000 || drift <= 5.0, "p99 by window: {percentiles:?}");
}
