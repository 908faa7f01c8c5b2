//! What commands may remove and write over: files that smalti wrote, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Folder, read};

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(contents(&entry)),
            false => _ = found.insert(entry.clone(), std::fs::read(&entry).unwrap()),
        }
    }
    found
}

/// Whether every file that was there is there, unchanged.
#[track_caller]
fn assert_kept(before: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path) {
    let now = contents(folder);
    for (path, bytes) in before {
        assert!(now.get(path) == Some(bytes), "{} was removed or changed", path.display());
    }
}

const QUICK: [&str; 5] = ["quickstart", "--quick", "--minutes=0.05", "--overwrite", "-t2"];

#[test]
fn a_quickstart_keeps_the_user_s_images_wherever_they_lie() {
    let folder = Folder::with_data();
    let before = contents(&folder.path("data"));
    // The very place where a quickstart keeps its photos.
    folder.run(&[&QUICK[..], &["--data=data", "--out=."]].concat()).ok();
    assert_kept(&before, &folder.path("data"));
    // Again, now that there is something to replace.
    folder.run(&[&QUICK[..], &["--data=data", "--out=."]].concat()).ok();
    assert_kept(&before, &folder.path("data"));
    // Without --data it would keep its own there.
    folder.run(&[&QUICK[..], &["--out=."]].concat()).fails(2, &["data", "not empty"]);
    assert_kept(&before, &folder.path("data"));
}

#[test]
fn a_quickstart_does_not_remove_folders_of_others() {
    let folder = Folder::empty();
    for name in ["q/data/a/1.png", "r/train/model.onnx", "s/scratch/config.toml", "t/report.json"] {
        std::fs::create_dir_all(folder.path(name).parent().unwrap()).unwrap();
        std::fs::write(folder.path(name), "mine").unwrap();
    }
    for (out, named) in [("q", "data"), ("r", "train/model.onnx"), ("s", "scratch"), ("t", "report.json")] {
        let before = contents(&folder.path(out));
        folder.run(&[&QUICK[..], &["--out", out]].concat()).fails(2, &[named, "not written by smalti"]);
        assert_eq!(before, contents(&folder.path(out)));
    }
    // Photos of an earlier quickstart are not removed while they are the data.
    folder.run(&[&QUICK[..], &["--out=u"]].concat()).ok();
    let before = contents(&folder.path("u/data"));
    folder.run(&[&QUICK[..], &["--out=u", "--data=u/data"]].concat()).fails(2, &["--data", "u/data"]);
    assert_eq!(before, contents(&folder.path("u/data")));
    folder.run(&[&QUICK[..], &["--out=u"]].concat()).ok();
}

#[test]
fn a_run_is_not_removed_by_one_that_starts_from_it() {
    let folder = Folder::with_data();
    folder.pretrained("run");
    let before = contents(&folder.path("run"));
    for init in ["run", "./run", "run/../run", "run/checkpoints/last.safetensors"] {
        let init = format!("--init={init}");
        let args = ["finetune", "--data=data", "--out=run", "--overwrite", "--epochs=1", &init];
        folder.run(&args).fails(2, &["--init", "--overwrite"]);
        assert_eq!(before, contents(&folder.path("run")));
    }
    folder.tiny("pretrain", &["--data=run/recon", "--out=run", "--overwrite"]).fails(2, &["--data"]);
    assert_eq!(before, contents(&folder.path("run")));
    folder.tiny("pretrain", &["--data=data", "--out=data"]).fails(2, &["--out", "--data"]);
}

#[test]
fn overwriting_keeps_what_other_programs_wrote() {
    let folder = Folder::with_data();
    let mine = ["checkpoints/model_best.pth.tar", "train.log", "report.html", "args.yaml"];
    for name in mine {
        std::fs::create_dir_all(folder.path("run/checkpoints")).unwrap();
        std::fs::write(folder.path("run").join(name), name).unwrap();
    }
    let before = contents(&folder.path("run"));
    let pretrain = |out: &str| folder.tiny("pretrain", &["--data=data", "--overwrite", out]);
    pretrain("--out=run").fails(2, &["--overwrite", "not written by smalti"]);
    assert_eq!(before, contents(&folder.path("run")));

    // In a run of ours, too.
    folder.pretrained("ours");
    std::fs::write(folder.path("ours/checkpoints/mine.pth"), "mine").unwrap();
    std::fs::write(folder.path("ours/model.onnx"), "mine").unwrap();
    pretrain("--out=ours").ok();
    assert_eq!(read(&folder.path("ours/checkpoints/mine.pth")), "mine");
    assert_eq!(read(&folder.path("ours/model.onnx")), "mine");
}

#[test]
fn an_export_belongs_to_its_run() {
    let folder = Folder::with_data();
    let finetune = || folder.tiny("finetune", &["--data=data", "--init=scratch", "--out=run", "--overwrite"]);
    finetune().ok();
    folder.run(&["export", "run"]).ok();
    assert!(folder.path("run/model.onnx").is_file());
    folder.run(&["export", "run"]).ok();
    // The model of the run that was replaced is gone with it.
    finetune().ok();
    assert!(!folder.path("run/model.onnx").exists());
    std::fs::write(folder.path("run/model.onnx"), "mine").unwrap();
    folder.run(&["export", "run"]).fails(2, &["model.onnx", "--output"]);
    assert_eq!(read(&folder.path("run/model.onnx")), "mine");
}

/// A full disk, as a limit on the size of files.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_is_an_error() {
    let folder = Folder::with_data();
    let smalti = env!("CARGO_BIN_EXE_smalti");
    for command in [
        "quickstart --quick --out q",
        "pretrain --data data --out r --dim 16 --depth 1 --heads 2 --patch-size 4 --epochs 1",
    ] {
        let line = format!("trap '' XFSZ; ulimit -f 1; exec {smalti} {command}");
        let mut shell = std::process::Command::new("sh");
        let outcome = crate::support::outcome(shell.args(["-c", &line]).current_dir(folder.path(".")));
        outcome.fails(6, &["cannot write", "too large"]);
    }
}
