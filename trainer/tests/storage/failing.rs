//! Every command that writes, on a file system that fails: input/output errors, a full disk, a quota, a read-only one. What was
//! there stays, and the exit code says so. `SMALTI_FAULTS_STRIDE=1` lets each call fail instead of every fourth:
//! `SMALTI_FAULTS_STRIDE=1 cargo test -p smalti-trainer --test storage failing -- --nocapture`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use smalti_faults::{EDQUOT, EIO, ENOSPC, EROFS, Faults, IS_AVAILABLE, Writer, read};
use smalti_trainer::data::synthetic;

use crate::support::{Runs, is_begun, setting, tensors};

fn stride() -> usize {
    setting("SMALTI_FAULTS_STRIDE", 4) as usize
}

/// Commands that write one file, each with whether two runs write the same.
const WRITERS: [(&str, &str, &[&str], bool); 5] = [
    ("export", "out.onnx", &["export", "tuned", "-o"], true),
    ("report", "out.html", &["report", "tuned", "-o"], false),
    ("embed", "out.safetensors", &["embed", "tuned", "--data", "data", "-o"], true),
    ("reconstruct", "out.png", &["reconstruct", "pretrained", "--data", "data", "-o"], true),
    ("export --input", "out.onnx", &["export", "tuned", "--input", "f32-nchw", "-o"], true),
];

/// Commands that write a folder, each with how much rarer calls of it fail: one of many calls takes long.
const FOLDER_WRITERS: [(&str, &[&str], usize); 4] = [
    ("import", &["import", "start.safetensors", "--heads=2"], 1),
    ("select", &["select", "data", "--number=3", "--labels=none", "--init=pretrained"], 2),
    ("train", &["train", "data", "--start=pretrained", "--budget=1s"], 150),
    ("curve", &["curve", "data", "--labels=4", "--starts=pretrained", "--seeds=1", "--budget=1s"], 200),
];

/// A folder with images, a pretrained run, a classifier, and the first one's weights.
struct Work {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Work {
    fn new() -> Work {
        let folder = tempfile::tempdir().unwrap();
        // Without links, as faults want it.
        let work = Work { root: folder.path().canonicalize().unwrap(), _folder: folder };
        synthetic::write(&work.root.join("data"), 8, 4, 16, 1).unwrap();
        std::fs::create_dir(work.root.join("out")).unwrap();
        let tiny = ["--steps=2", "--patch-size=4", "--dim=16", "--depth=1", "--heads=2", "--data=data"];
        work.done(&[&["pretrain", "--dec-dim=8", "--out=pretrained"], &tiny[..]].concat());
        work.done(&[&["finetune", "--init=scratch", "--out=tuned"], &tiny[..]].concat());
        work.done(&["export", "pretrained", "-o", "start.safetensors"]);
        work
    }

    fn smalti(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smalti"));
        command.args(args).arg("--quiet").current_dir(&self.root).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn done(&self, args: &[&str]) {
        let output = self.smalti(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn commands_that_write_a_folder_can_be_repeated() {
    if !IS_AVAILABLE {
        return println!("not checked: needs glibc");
    }
    let work = Work::new();
    let (watched, record) = (work.root.join("out"), work.root.join("record"));
    for (name, args, rarer) in FOLDER_WRITERS {
        let args = [args, &["--out=out/it"]].concat();
        let clear = || {
            std::fs::remove_dir_all(&watched).unwrap();
            std::fs::create_dir(&watched).unwrap();
        };
        clear();
        let _ = std::fs::remove_file(&record);
        let healthy = Faults::recorded(&watched, &record).meet(&mut work.smalti(&args)).output().unwrap();
        assert!(healthy.status.success(), "{name}: {}", String::from_utf8_lossy(&healthy.stderr));
        let calls = read(&record).len();
        let (mut runs, mut refused) = (0, 0);
        for faults in Faults::one_by_one(&watched, calls, stride() * rarer) {
            clear();
            let output = faults.meet(&mut work.smalti(&args)).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let about = format!("{name}, {faults:?}: {:?}: {said}", output.status.code());
            assert!([Some(0), Some(6)].contains(&output.status.code()), "{about}");
            assert!(output.status.success() || !said.is_empty(), "{about}");
            if faults.errno == EROFS {
                assert!(!output.status.success() && !watched.join("it").exists(), "{about}");
            }
            runs += 1;
            refused += usize::from(!output.status.success());
            // What is left of it is no obstacle.
            work.done(&[&args[..], &["--overwrite"]].concat());
        }
        println!("{name}: {calls} calls, {runs} runs with faults, {refused} ended with exit code 6");
        assert!(refused * 2 > runs, "{name}: {refused} of {runs}");
    }
}

#[test]
fn commands_that_write_a_file_leave_the_old_one() {
    if !IS_AVAILABLE {
        return println!("not checked: needs glibc");
    }
    let work = Work::new();
    let out = work.root.join("out");
    for (name, file, args, is_repeatable) in WRITERS {
        let place = out.join(file);
        let command = || work.smalti(&[args, &[place.to_str().unwrap()]].concat());
        let writer =
            Writer { name, folder: &out, file, old: b"what was there", command: &command, is_repeatable };
        let tally = writer.meets_faults(stride());
        std::fs::remove_file(place).unwrap();
        println!("{name}: {} runs with faults, {} ended with exit code 6", tally.runs, tally.refused);
        assert!(tally.refused * 2 > tally.runs, "{name}: {tally:?}");
    }
}

/// One run on a file system that fails, and again on one that does not.
fn train(runs: &Runs, watched: &Path, faults: &Faults<'_>, whole: &[u8]) -> i32 {
    let _ = std::fs::remove_dir_all(watched);
    std::fs::create_dir(watched).unwrap();
    let out = watched.join("run");
    let output = faults.meet(&mut runs.command(&out, false)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let about = format!("{}, {faults:?}: {:?}: {said}", runs.stage, output.status.code());
    match output.status.code() {
        Some(0) => assert!(tensors(&out) == whole, "{about}: success with other bits"),
        Some(6) => assert!(!said.is_empty(), "{about}"),
        _ => panic!("{about}"),
    }
    if faults.errno == EROFS {
        assert!(output.status.code() == Some(6) && !is_begun(&out), "{about}");
    }
    assert!(runs.ended(&out) == whole, "{about}: other bits after the disk works again");
    output.status.code().unwrap()
}

fn trains_through_faults(stage: &'static str) {
    if !IS_AVAILABLE {
        return println!("not checked: needs glibc");
    }
    let runs = Runs::new(stage, 1);
    let (whole, watched, record) = (runs.whole(), runs.path("watched"), runs.path("record"));
    std::fs::create_dir(&watched).unwrap();
    let mut command = runs.command(&watched.join("run"), false);
    assert!(Faults::recorded(&watched, &record).meet(&mut command).status().unwrap().success());
    let calls = read(&record).len();
    let (mut trained, mut refused) = (0, 0);
    let mut meet = |faults: Faults<'_>| match train(&runs, &watched, &faults, &whole) {
        0 => trained += 1,
        _ => refused += 1,
    };
    meet(Faults::from(&watched, 1, EROFS));
    for first in (1..=calls).step_by(8 * stride() - 7) {
        meet(Faults::from(&watched, first, EIO));
        meet(Faults::once(&watched, first, EIO));
        meet(Faults::once(&watched, first, ENOSPC));
        meet(Faults { count: 5, ..Faults::from(&watched, first, EDQUOT) });
    }
    println!(
        "{stage}: {calls} calls; with faults {trained} runs trained to the end, {refused} ended with exit code 6"
    );
    assert!(trained > 0 && refused > 0);
}

#[test]
fn a_pretraining_goes_on_through_faults() {
    trains_through_faults("pretrain");
}

#[test]
fn a_fine_tuning_goes_on_through_faults() {
    trains_through_faults("finetune");
}

#[test]
fn a_distillation_goes_on_through_faults() {
    trains_through_faults("distil");
}
