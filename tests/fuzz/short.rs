//! Every target with mutants of its seeds, each within bounds of time and memory.
//!
//! `SMALTI_FUZZ_SECONDS` is the processor time for each target (2 by default), `SMALTI_FUZZ_SEED` the first mutant's number: the
//! same number makes the same input. An input that breaks a bound is left in the temporary folder, and named.

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};
use smalti_fuzz::mutate::mutate;
use smalti_fuzz::{TARGETS, Target, found};

/// The most processor time that one input may take.
const TIME: Duration = Duration::from_secs(2);
/// The most memory that one input may take at once.
const BYTES: u64 = 256 << 20;

/// Processor time of this thread.
fn clock() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Gives an input to a target; says what was wrong.
fn problem(target: &Target, bytes: &[u8]) -> Option<String> {
    let (mut answer, before) = (Ok(Ok(())), clock());
    let memory = allocation_counter::measure(|| answer = catch_unwind(|| (target.run)(bytes)));
    let time = clock() - before;
    match answer {
        Err(_) => Some("a panic, said above".into()),
        Ok(Err(problem)) => Some(problem),
        Ok(Ok(())) if time > TIME => Some(format!("{:.1} s", time.as_secs_f64())),
        Ok(Ok(())) if memory.bytes_max > BYTES => Some(format!("{} MiB", memory.bytes_max >> 20)),
        Ok(Ok(())) => None,
    }
}

fn drive(name: &str) {
    let target = smalti_fuzz::target(name);
    for (path, bytes) in found(name) {
        assert_eq!(problem(&target, &bytes), None, "{}", path.display());
    }
    let seeds = (target.seeds)();
    for (i, seed) in seeds.iter().enumerate() {
        assert_eq!(problem(&target, seed), None, "seed {i} of {name}");
    }
    let (start, end) = (clock(), Duration::from_secs(setting("SMALTI_FUZZ_SECONDS", 2)));
    let (mut number, mut problems) = (setting("SMALTI_FUZZ_SEED", 0), Vec::new());
    let first = number;
    while clock() - start < end && problems.len() < 10 {
        let mut rng = Rng::with_seed(number);
        let mut bytes = seeds[rng.usize(..seeds.len())].clone();
        mutate(&mut bytes, &seeds[rng.usize(..seeds.len())], &mut rng);
        if let Some(problem) = problem(&target, &bytes) {
            let path: PathBuf = std::env::temp_dir().join(format!("smalti-{name}-{number}"));
            std::fs::write(&path, &bytes).unwrap();
            problems.push(format!("{}: {problem}", path.display()));
        }
        number += 1;
    }
    println!("{name}: {} inputs in {:.0} s", number - first, (clock() - start).as_secs_f64());
    assert!(problems.is_empty(), "{name}:\n{}", problems.join("\n"));
}

#[test]
fn every_target_has_a_test() {
    assert_eq!(TARGETS.map(|target| target.name), TESTED);
}

macro_rules! tests {
    ($($name:ident)*) => {
        const TESTED: [&str; TARGETS.len()] = [$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            drive(stringify!($name));
        })*
    };
}

tests! {
    model model_record preprocess signature bank anomaly image image_reduced raw_frame mjpeg weights state config table idx cifar tar
}
