//! A run killed without warning, again and again, loses nothing: its checkpoint is whole and the end is the same. The long form:
//! `SMALTI_KILLS=200 cargo test -p smalti-trainer --test storage kill -- --nocapture`.

use std::path::Path;
use std::time::{Duration, Instant};

use smalti_trainer::run::RunDir;

use crate::support::{Random, Runs, STATE, is_begun, setting, tensors};

/// Whether a checkpoint is being written, or was when the run was killed.
fn is_saving(run: &Path) -> bool {
    let mut entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().ends_with(".part"))
}

/// Kills each stage: every other time at a random moment, else as soon as it is seen to write.
fn survives_kills(stage: &'static str) {
    let runs = Runs::new(stage, 40);
    let (whole, killed) = (runs.whole(), runs.path("killed"));
    let (kills, mut random) = (setting("SMALTI_KILLS", 6), Random::new());
    let (mut done, mut within, mut early, mut ended) = (0, 0, 0, 0);
    while done < kills {
        let mut child = runs.start(&killed, is_begun(&killed));
        let moment = Duration::from_micros(random.below(60_000));
        std::thread::sleep(moment);
        let patience = Instant::now() + Duration::from_secs(2);
        while done % 2 == 1 && !is_saving(&killed) && Instant::now() < patience {}
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // It was faster: once more from the start.
            assert!(tensors(&killed) == whole, "{stage}, ended before kill {done}");
            std::fs::remove_dir_all(&killed).unwrap();
            ended += 1;
            continue;
        }
        done += 1;
        within += u64::from(is_saving(&killed));
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
    // A few come too late.
    assert!(kills < 50 || within * 5 > kills, "{within} of {kills} within a save");
    assert!(runs.ended(&killed) == whole, "{stage}: other bits");
    assert!(!is_saving(&killed), "nothing half written stays");
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
