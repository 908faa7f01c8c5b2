//! A run killed without warning, again and again, loses nothing: its checkpoint is whole and the end is the same. The long form:
//! `SMALTI_KILLS=200 cargo test -p smalti-trainer --test storage kill -- --nocapture`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use smalti_trainer::run::RunDir;

use crate::support::{Runs, STATE, is_begun, rng, setting, tensors};

/// A checkpoint that is being written, or was when the run was killed.
fn unfinished(run: &Path) -> Option<OsString> {
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).find(|name| name.to_string_lossy().ends_with(".part"))
}

/// Waits until the run writes the file behind that many others.
fn wait_for_save(run: &Path, mut others: u64, child: &mut Child) {
    let mut last = None;
    while child.try_wait().unwrap().is_none() {
        let found = unfinished(run);
        if found.is_some() && found != last {
            if others == 0 {
                return;
            }
            (others, last) = (others - 1, found);
        }
        // Often enough, and the run has the processor.
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Kills each stage: every other time at a random moment, else while it writes.
fn survives_kills(stage: &'static str) {
    let runs = Runs::new(stage, 40);
    let start = Instant::now();
    let (whole, killed, takes) = (runs.whole(), runs.path("killed"), start.elapsed());
    let (kills, mut rng) = (setting("SMALTI_KILLS", 6), rng());
    let (mut done, mut within, mut early, mut ended) = (0, 0, 0, 0);
    while done < kills {
        let mut child = runs.start(&killed, is_begun(&killed));
        if done % 2 == 0 {
            std::thread::sleep(Duration::from_micros(rng.u64(..takes.as_micros() as u64 / 3)));
        } else {
            wait_for_save(&killed, rng.u64(..20), &mut child);
        }
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // It was faster: once more from the start.
            assert!(tensors(&killed) == whole, "{stage}, ended before kill {done}");
            std::fs::remove_dir_all(&killed).unwrap();
            ended += 1;
            continue;
        }
        done += 1;
        within += u64::from(unfinished(&killed).is_some());
        if killed.join(STATE).exists() {
            let (path, _) =
                RunDir::open(&killed).unwrap().load_state().expect("a whole checkpoint after every kill");
            assert!(path.ends_with(STATE), "kill {done}: {}", path.display());
        } else {
            early += 1;
        }
    }
    println!(
        "{stage}: {done} kills, {within} within a save, {early} before the first; {ended} runs had ended before"
    );
    assert!(
        kills < 50 || (within * 5 > kills && early * 2 < kills),
        "{within} within a save, {early} before the first"
    );
    assert!(runs.ended(&killed) == whole, "{stage}: other bits");
    assert_eq!(unfinished(&killed), None, "nothing half written stays");
}

#[test]
fn a_killed_pretraining_ends_with_the_same_bits() {
    survives_kills("pretrain");
}

#[test]
fn a_killed_fine_tuning_ends_with_the_same_bits() {
    survives_kills("finetune");
}

#[test]
fn a_killed_distillation_ends_with_the_same_bits() {
    survives_kills("distil");
}
