//! What may be typed, what may stand in a settings file, and what is said to all else.

use std::io::Read;
use std::process::Stdio;

use crate::support::{Folder, outcome, read};

#[test]
fn what_cannot_be_is_refused_on_one_line() {
    let folder = Folder::with_data();
    let pretrain = |args: &[&str]| folder.tiny("pretrain", &[&["--data=data", "--out=run"], args].concat());
    folder.run(&["pretrian"]).fails(2, &["pretrian", "pretrain"]);
    folder.run(&["pretrain", "--epoch", "3"]).fails(2, &["--epoch", "--epochs"]);
    folder.run(&["pretrain"]).fails(2, &["--data is missing"]);
    folder.run(&["pretrain", "--data=data"]).fails(2, &["--out is missing"]);
    folder.run(&["finetune", "--data=data", "--out=run"]).fails(2, &["--init is missing", "scratch"]);
    folder.run(&["export"]).fails(2, &["RUN"]);
    pretrain(&["--epochs=many"]).fails(2, &["many", "--epochs"]);
    pretrain(&["--patch-size=5"]).fails(2, &["patch-size is 5", "divisor"]);
    pretrain(&["--mask-ratio=1"]).fails(2, &["mask-ratio is 1"]);
    pretrain(&["--max-bad=lots"]).fails(2, &["max-bad is `lots`"]);
    pretrain(&["--crop=round"]).fails(2, &["crop is `round`"]);
    pretrain(&["--cache=lots"]).fails(2, &["cache is `lots`", "512MiB"]);
    pretrain(&["--augment=auto"]).fails(2, &["augment is `auto`", "trivial"]);
    pretrain(&["--augment=rand:2,99"]).fails(2, &["rand:2,99", "0 to 30"]);
    pretrain(&["--augment=trivial", "--augment-skip=turn"]).fails(2, &["`turn`", "rotate"]);
    pretrain(&["--augment-skip=rotate"]).fails(2, &["augment-skip", "--augment"]);
    pretrain(&["--lr=nan"]).fails(2, &["lr"]);
    assert!(!folder.path("run").exists(), "nothing was begun");
}

#[test]
fn files_that_are_not_there_and_folders_that_hold_nothing_are_told_apart() {
    let folder = Folder::with_data();
    std::fs::create_dir(folder.path("nothing")).unwrap();
    std::fs::write(folder.path("file"), "x").unwrap();
    folder.tiny("pretrain", &["--data=nowhere", "--out=run"]).fails(6, &["nowhere", "No such file"]);
    folder.tiny("pretrain", &["--data=nothing", "--out=run"]).fails(5, &["nothing"]);
    folder.tiny("pretrain", &["--data=data", "--out=file/run"]).fails(6, &["file/run"]);
    folder.run(&["eval", "nothing", "--data=data"]).fails(5, &["nothing", "is not a run"]);
    folder.run(&["pretrain", "--config=nowhere.toml"]).fails(6, &["nowhere.toml"]);
    let verbose = folder.run(&["-v", "data", "nowhere"]);
    assert!(verbose.code == 6 && verbose.err.contains("caused by: "), "{}", verbose.err);
}

#[test]
fn a_flag_comes_before_the_environment_and_that_before_the_file() {
    let folder = Folder::with_data();
    let text = "data = \"data\"\nout = \"run\"\nepochs = 3\nmask_ratio = 0.5\nthreads = 1\npatch-size = 4\n\
                dim = 16\ndepth = 1\nheads = 2\ndec-dim = 8\nbatch-size = 8\nflip = false\nlr = 0.5";
    std::fs::write(folder.path("mine.toml"), text).unwrap();
    let args = ["pretrain", "--config=mine.toml", "--epochs=1", "--weight_decay=0.25", "--no-norm_pix_loss"];
    outcome(folder.command(&args).args(["--blr", "0.01"]).env("SMALTI_THREADS", "2")).ok();
    let saved = folder.settings("run");
    let number = |key: &str| saved[key].as_float().unwrap();
    assert_eq!((saved["epochs"].as_integer(), saved["threads"].as_integer()), (Some(1), Some(2)));
    assert_eq!((number("mask-ratio"), number("weight-decay"), number("lr")), (0.5, 0.25, 0.01 * 8.0 / 256.0));
    assert_eq!((saved["flip"].as_bool(), saved["norm-pix-loss"].as_bool()), (Some(false), Some(false)));
    assert_eq!(saved["img-size"].as_integer(), Some(16), "what was chosen is saved too");
    for key in ["resume", "overwrite", "json", "config", "blr"] {
        assert!(!saved.contains_key(key), "{key}");
    }

    // The saved settings lead to the same run.
    folder.run(&["pretrain", "--config=run/config.toml", "--out=again"]).ok();
    assert_eq!(folder.tensors("run"), folder.tensors("again"));
    outcome(folder.command(&args).env("SMALTI_THREADS", "few")).fails(2, &["SMALTI_THREADS", "few"]);
}

#[test]
fn an_unknown_key_is_named() {
    let folder = Folder::with_data();
    for (text, said) in
        [("learning_rate = 1", "`learning_rate`"), ("epochs = [1, [2]]", "`epochs`"), ("x", "line 1")]
    {
        std::fs::write(folder.path("mine.toml"), text).unwrap();
        folder.run(&["pretrain", "--config=mine.toml"]).fails(2, &["mine.toml", said]);
    }
}

#[test]
fn help_manuals_and_completions_are_there() {
    let folder = Folder::empty();
    let commands = [
        "quickstart",
        "data",
        "select",
        "label",
        "pretrain",
        "finetune",
        "eval",
        "embed",
        "reconstruct",
        "import",
        "export",
        "bench",
        "doctor",
    ];
    let help = folder.run(&["--help"]).ok().out;
    commands.iter().for_each(|command| assert!(help.contains(command), "{command}"));
    assert!(folder.run(&["--version"]).ok().out.starts_with("smalti "));
    assert!(folder.run(&["pretrain", "--help"]).ok().out.contains("Memory does not grow"));
    folder.run(&["man", "pages"]).ok();
    for command in commands {
        assert!(read(&folder.path(&format!("pages/smalti-{command}.1"))).contains(command));
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(folder.run(&["completions", shell]).ok().out.contains("mask-ratio"), "{shell}");
    }
}

/// What bash offers for the last of these words.
#[cfg(unix)]
fn completed(folder: &Folder, words: &[&str]) -> Vec<String> {
    std::fs::write(folder.path("smalti.bash"), folder.run(&["completions", "bash"]).ok().out).unwrap();
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let script = format!(
        "source smalti.bash; COMP_WORDS=('{}'); COMP_CWORD={}; _smalti smalti '{last}' {before} 2>/dev/null; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join("' '"),
        words.len() - 1
    );
    let bash = std::process::Command::new("bash").args(["-c", &script]).current_dir(folder.path("")).output();
    String::from_utf8(bash.unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

#[cfg(unix)]
#[test]
fn bash_completes_values() {
    let folder = Folder::empty();
    std::fs::create_dir(folder.path("photos")).unwrap();
    std::fs::write(folder.path("photo.onnx"), "").unwrap();
    for (words, offered) in [
        (&["smalti", "sel"][..], &["select"][..]),
        (&["smalti", "train", "--model", "m"], &["micro"]),
        (&["smalti", "train", "--start", "p"], &["photos-nano"]),
        (&["smalti", "finetune", "--init", "s"], &["scratch"]),
        (&["smalti", "eval", "--probe", ""], &["knn", "linear"]),
        (&["smalti", "distil", "--config", "photo"], &["photo.onnx", "photos"]),
    ] {
        let mut found = completed(&folder, words);
        found.sort();
        assert_eq!(found, offered, "{words:?}");
    }
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let folder = Folder::empty();
    let mut command = folder.command(&["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}
