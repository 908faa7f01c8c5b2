//! Runs over their life: begun, not overwritten, stopped, resumed.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{Folder, TINY, read};

#[test]
fn a_run_is_replaced_only_when_asked() {
    let folder = Folder::with_data();
    folder.pretrained("run");
    std::fs::write(folder.path("run/mine.txt"), "keep").unwrap();
    let again = |args: &[&str]| folder.tiny("pretrain", &[&["--data=data", "--out=run"], args].concat());
    again(&[]).fails(2, &["--resume", "--overwrite"]);
    again(&["--overwrite", "--seed=5"]).ok();
    assert_eq!(folder.settings("run")["seed"].as_integer(), Some(5));
    assert_eq!(read(&folder.path("run/mine.txt")), "keep");
    again(&["--resume", "--seed=6"]).fails(2, &["seed was 5, is 6"]);
    folder.tiny("pretrain", &["--data=data", "--out=new", "--resume"]).fails(5, &["new", "is not a run"]);
}

#[test]
fn threads_and_loaders_change_no_bit() {
    let folder = Folder::with_data();
    let run = |out: &str, args: &[&str]| {
        let out = format!("--out={out}");
        folder.tiny("pretrain", &[&["--data=data", "--epochs=2", &out], args].concat()).ok();
    };
    run("a", &["-t1", "--loader-threads=0"]);
    run("b", &["-t3", "--loader-threads=2", "--cache=0"]);
    run("c", &["--seed=1"]);
    assert_eq!(folder.tensors("a"), folder.tensors("b"));
    assert_ne!(folder.tensors("a"), folder.tensors("c"));
}

/// Ends a long run by a signal once it is under way, then goes on with it: the end is that of a run that was left
/// alone.
#[cfg(unix)]
fn stopped_and_resumed(command: &str, args: &[&str], signal: &str, code: i32) {
    let folder = Folder::with_data();
    let args: Vec<&str> = [&[command], &TINY[..], &["--data=data", "--epochs=60"], args].concat();
    folder.run(&[&args[..], &["--out=whole"]].concat()).ok();

    let mut begun = folder.command(&[&args[..], &["--out=stopped"]].concat());
    let mut child = begun.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = folder.path("stopped/metrics.jsonl");
    let steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while steps() < 20 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains("--resume"), "{said}");
    assert!(steps() < 300, "the run was over before it was stopped");

    // Nothing need be said again: the run knows its settings.
    folder.run(&[command, "--out=stopped", "--resume"]).ok();
    assert_eq!(folder.tensors("whole"), folder.tensors("stopped"));
    assert_eq!(read(&metrics).lines().count(), read(&folder.path("whole/metrics.jsonl")).lines().count());
}

#[cfg(unix)]
#[test]
fn a_stopped_pretraining_goes_on_as_if_nothing_had_been() {
    stopped_and_resumed("pretrain", &["--dec-dim=8"], "-TERM", 143);
}

#[cfg(unix)]
#[test]
fn a_stopped_finetuning_goes_on_as_if_nothing_had_been() {
    let args = [
        "--init=scratch",
        "--drop-path=0.1",
        "--mixup=0.2",
        "--token-drop=0.3",
        "--erasing=0.2",
        "--augment=rand:1,20",
        "--augment-skip=geometric,color",
    ];
    stopped_and_resumed("finetune", &args, "-INT", 130);
}
