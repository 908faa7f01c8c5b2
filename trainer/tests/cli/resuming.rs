//! `--resume`: on the same images, by one process at a time, and with a right report at the end.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Folder, Outcome, TINY, read};

/// A finished fine-tuning on `data/`, in `run/`.
fn finished(args: &[&str]) -> Folder {
    let folder = Folder::with_data();
    folder.tiny("finetune", &[&["--data=data", "--init=scratch", "--out=run"], args].concat()).ok();
    folder
}

fn checkpoints(folder: &Folder) -> Vec<Vec<u8>> {
    let names = ["last.state", "last.safetensors", "labels.txt", "config.json"];
    names.iter().map(|name| std::fs::read(folder.path("run/checkpoints").join(name)).unwrap()).collect()
}

fn resume(folder: &Folder) -> Outcome {
    folder.run(&["finetune", "--resume", "--out=run"])
}

#[test]
fn classes_that_changed_are_named_and_nothing_is_written() {
    let rename = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |data: &Path| {
            for split in ["train", "test"] {
                std::fs::rename(data.join(split).join(&from), data.join(split).join(&to)).unwrap();
            }
        }
    };
    let add = |data: &Path| {
        let copy = data.join("train/another");
        std::fs::create_dir(&copy).unwrap();
        let first = std::fs::read_dir(data.join("train/rings")).unwrap().next().unwrap().unwrap();
        std::fs::copy(first.path(), copy.join("1.png")).unwrap();
    };
    let renamed = rename("rings", "zebra");
    let changes: [&dyn Fn(&Path); 2] = [&renamed, &add];
    let names: [&[&str]; 2] = [&["rings", "zebra"], &["another"]];
    for (change, named) in changes.into_iter().zip(names) {
        let folder = finished(&["--val=none"]);
        let before = checkpoints(&folder);
        change(&folder.path("data"));
        resume(&folder).fails(5, named);
        assert_eq!(before, checkpoints(&folder));
    }
}

#[test]
fn a_flag_of_a_later_version_is_no_other_setting() {
    let folder = finished(&["--val=none"]);
    let path = folder.path("run/config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let earlier: String =
        text.lines().filter(|line| !line.starts_with("augment ")).map(|line| format!("{line}\n")).collect();
    assert!(earlier.len() < text.len());
    std::fs::write(&path, &earlier).unwrap();
    let changed = folder.run(&["finetune", "--resume", "--out=run", "--augment=rand"]);
    changed.fails(5, &["policy"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), earlier);
    resume(&folder).ok();
}

#[test]
fn a_run_of_another_command_is_named() {
    let folder = finished(&["--val=none"]);
    let before = checkpoints(&folder);
    folder.run(&["pretrain", "--resume", "--out=run"]).fails(2, &["smalti finetune", "run was written by"]);
    assert_eq!(before, checkpoints(&folder));
}

#[test]
fn images_that_came_or_went_are_noticed() {
    let folder = finished(&["--val=none"]);
    let before = checkpoints(&folder);
    let image = std::fs::read_dir(folder.path("data/train/rings")).unwrap().next().unwrap().unwrap().path();
    let aside = folder.path("aside.png");
    std::fs::rename(&image, &aside).unwrap();
    resume(&folder).fails(5, &["40", "39"]);
    std::fs::rename(&aside, &image).unwrap();
    resume(&folder).ok();
    std::fs::copy(&image, image.with_file_name("zzz.png")).unwrap();
    resume(&folder).fails(5, &["40", "41"]);
    // The same number of images, one of them another.
    std::fs::remove_file(&image).unwrap();
    resume(&folder).fails(5, &["other"]);
    assert_eq!(before, checkpoints(&folder));
    // A data set may move.
    let folder = finished(&["--val=none"]);
    std::fs::rename(folder.path("data"), folder.path("moved")).unwrap();
    folder.run(&["finetune", "--resume", "--out=run", "--data=moved"]).ok();
}

#[test]
fn a_finished_run_reports_what_it_reported() {
    let folder = finished(&["--val=25%", "--epochs=4"]);
    let keys = ["accuracy", "best_epoch", "steps", "seconds"];
    let again = |json: &str| folder.run(&["finetune", "--resume", "--out=run", json]);
    let first = folder.run(&["eval", "run", "--data=data", "--json"]).json(&["accuracy"]);
    let before = checkpoints(&folder);
    let found = again("--json").json(&keys);
    assert_eq!((&found["accuracy"], found["best_epoch"].is_u64()), (&first["accuracy"], true), "{found}");
    assert!(found["steps"].as_u64() > Some(0) && before == checkpoints(&folder));

    let folder = Folder::with_data();
    folder.pretrained("run");
    let found = folder.run(&["pretrain", "--resume", "--out=run", "--json"]).json(&["loss", "steps"]);
    assert!(found["steps"] == 5 && found["loss"].as_f64().unwrap() > 0.0, "{found}");
}

#[test]
fn flags_that_change_no_result_may_change() {
    let folder = Folder::with_data();
    folder.pretrained("run");
    let args = ["--checkpoint-minutes=1", "--loader-threads=2", "--threads=1", "--max-bad=10%"];
    folder.run(&[&["pretrain", "--resume", "--out=run"], &args[..]].concat()).ok();
    // Another run's settings, with another optimizer.
    let other = ["pretrain", "--config=run/config.toml", "--optimizer=adamw", "--out=other"];
    folder.run(&other).ok();
    assert_eq!(folder.settings("other")["optimizer"].as_str(), Some("adamw"));
    folder.tiny("pretrain", &["--data=data", "--out=run", "--resume", "--dec-dim=8"]).ok();
}

#[cfg(unix)]
#[test]
fn a_second_process_is_told_of_the_lock() {
    let folder = Folder::with_data();
    let args = [&["pretrain"], &TINY[..], &["--data=data", "--out=run", "--epochs=100000"]].concat();
    let mut child = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = folder.path("run/metrics.jsonl");
    let mut waited = 0;
    while !metrics.exists() && waited < 2000 {
        std::thread::sleep(Duration::from_millis(10));
        waited += 1;
    }
    let second = folder.run(&["pretrain", "--resume", "--out=run", "--data=data"]);
    let over = folder.tiny("pretrain", &["--data=data", "--out=run", "--overwrite"]);
    child.kill().unwrap();
    child.wait().unwrap();
    second.fails(1, &["smalti-files.txt", "locked"]);
    over.fails(1, &["smalti-files.txt", "locked"]);
    assert!(metrics.exists());
}

#[test]
fn a_run_that_diverges_is_an_error() {
    let folder = Folder::with_data();
    for optimizer in [&["--optimizer=adamw", "--lr=10"][..], &["--muon-lr=50", "--lr=10"]] {
        let args = [&["--data=data", "--out=run", "--overwrite", "--epochs=30"], optimizer].concat();
        folder.tiny("pretrain", &args).fails(1, &["--lr"]);
    }
}

#[cfg(unix)]
#[test]
fn a_quickstart_that_is_stopped_says_what_is_left() {
    let folder = Folder::empty();
    let mut command = folder.command(&["quickstart", "--minutes=10", "--out=q", "-t1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = folder.path("q/train/config.toml");
    while !begun.is_file() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("q/train") && said.contains("--resume"), "{said}");
    let left: Vec<String> = std::fs::read_dir(folder.path("."))
        .unwrap()
        .chain(std::fs::read_dir(folder.path("q")).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(read(&folder.path("q/smalti-files.txt")).contains("data/train/potato"));
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let folder = finished(&["--val=none", "--checkpoint-minutes=0"]);
    let [last, previous] =
        ["last", "previous"].map(|name| folder.path(&format!("run/checkpoints/{name}.state")));
    let (whole, tensors) = (std::fs::read(&last).unwrap(), folder.tensors("run"));
    let (good, mut damaged) = (std::fs::read(&previous).unwrap(), whole.clone());
    damaged[whole.len() / 2] ^= 1;
    for torn in [&damaged[..], &whole[..whole.len() / 3], &[]] {
        std::fs::write(&last, torn).unwrap();
        std::fs::write(&previous, &good).unwrap();
        let done = resume(&folder).ok();
        assert!(done.err.contains("the checkpoint before"), "{}", done.err);
        assert_eq!(tensors, folder.tensors("run"));
    }
    // Both of them: nothing is written, and nothing lost.
    std::fs::write(&last, &damaged).unwrap();
    std::fs::write(&previous, &damaged[1..]).unwrap();
    resume(&folder).fails(5, &["last.state", "damaged"]);
    assert_eq!(std::fs::read(&last).unwrap(), damaged);
}
