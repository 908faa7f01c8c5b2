//! A run whose power fails after any of its writes: whatever the disk has of it, a checkpoint that was finished is there, and
//! the resumed run ends with the same bits. `SMALTI_POWER_LOSSES` is how many of the losses each stage is resumed after (6 by
//! default); all of them are looked at:
//! `SMALTI_POWER_LOSSES=200 cargo test -p smalti-trainer --test storage power -- --nocapture`.

use std::path::Path;

use smalti_faults::{Call, Crash, Disk, Faults, IS_AVAILABLE, read};
use smalti_trainer::model::weights::file;
use smalti_trainer::run::{RunDir, state};

use crate::support::{Runs, finish, rng, setting};

/// The step of a state that lies on a disk.
fn saved(disk: &Disk, scratch: &Path) -> Option<u64> {
    std::fs::write(scratch, disk.read(Path::new("run/checkpoints/last.state"))?).unwrap();
    state::load(scratch).ok().map(|state| state.about.step)
}

/// Looks at what is left of a run: the last checkpoint that was finished, `promised`, or a later one.
fn look(run: &Path, promised: u64, about: &str) {
    let run = RunDir::open(run).unwrap_or_else(|error| panic!("{about}: {error}"));
    let (_, state) = run.load_state().unwrap_or_else(|error| panic!("{about}: {error}"));
    assert!(state.about.step >= promised, "{about}: step {} of {promised}", state.about.step);
    run.load_model_files().unwrap_or_else(|error| panic!("{about}: {error}"));
    for name in ["last", "best"] {
        let path = run.model(name);
        assert!(!path.exists() || file::load(&path).is_ok(), "{about}: {name}");
    }
}

fn survives_power_losses(stage: &'static str) {
    if !IS_AVAILABLE {
        return println!("not checked: needs glibc");
    }
    let runs = Runs::new(stage, 3);
    let (whole, watched, record, scratch) =
        (runs.whole(), runs.path("watched"), runs.path("record"), runs.path("scratch"));
    std::fs::create_dir(&watched).unwrap();
    let mut command = runs.command(&watched.join("run"), false);
    finish(Faults::recorded(&watched, &record).meet(&mut command).spawn().unwrap());

    let (calls, mut disk, mut promised) = (read(&record), Disk::default(), None);
    let (mut looked, mut checkpoints, mut rng) = (0, 0, rng());
    // Some of all, each with the same chance.
    let (resumed, mut sample) = (setting("SMALTI_POWER_LOSSES", 6), Vec::<(String, Crash)>::new());
    for (i, call) in calls.iter().enumerate() {
        disk.play(call);
        if matches!(call, Call::SyncFolder(folder) if folder == Path::new("run/checkpoints")) {
            let step = saved(&disk, &scratch);
            checkpoints += u64::from(step > promised);
            promised = step.max(promised);
        }
        let about = format!("{stage}, {i} calls, step {promised:?}");
        disk.crashes(|crash| {
            if let Some(promised) = promised {
                let lost = runs.path("lost");
                crash.restore(&lost);
                look(&lost.join("run"), promised, &about);
                std::fs::remove_dir_all(&lost).unwrap();
            }
            looked += 1;
            let place = rng.u64(..looked) as usize;
            if (sample.len() as u64) < resumed {
                sample.push((about.clone(), crash.clone()));
            } else if let Some(one) = sample.get_mut(place) {
                *one = (about.clone(), crash.clone());
            }
        });
    }
    // What the calls make is what the program made.
    assert_eq!(disk.read(Path::new("run/checkpoints/last.safetensors")), Some(&whole[..]));
    assert!(checkpoints >= 10, "{checkpoints} checkpoints");

    for (about, crash) in &sample {
        let lost = runs.path("lost");
        crash.restore(&lost);
        assert!(runs.ended(&lost.join("run")) == whole, "{about}: other bits");
        std::fs::remove_dir_all(&lost).unwrap();
    }
    let (calls, resumed) = (calls.len(), sample.len());
    println!("{stage}: {calls} calls, {checkpoints} checkpoints, {looked} disks, {resumed} runs resumed");
}

#[test]
fn a_pretraining_survives_the_loss_of_power() {
    survives_power_losses("pretrain");
}

#[test]
fn a_fine_tuning_survives_the_loss_of_power() {
    survives_power_losses("finetune");
}

#[test]
fn a_distillation_survives_the_loss_of_power() {
    survives_power_losses("distil");
}
