//! A run killed without warning, again and again, loses nothing: its checkpoint is whole and the end is the same. The long form:
//! `SMALTI_KILLS=200 cargo test -p smalti-trainer --test kill -- --nocapture`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SIDE: usize = 8;
const IMAGES: usize = 64;
const TENSORS: &str = "checkpoints/last.safetensors";

/// A folder with MNIST-style IDX files of striped images.
fn write_data(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let header = |magic: u32, sizes: &[usize]| -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|&n| (n as u32).to_be_bytes());
        magic.to_be_bytes().into_iter().chain(sizes).collect()
    };
    let mut images = header(0x803, &[IMAGES, SIDE, SIDE]);
    let mut labels = header(0x801, &[IMAGES]);
    for i in 0..IMAGES {
        labels.push((i % 2) as u8);
        images.extend((0..SIDE * SIDE).map(|p| {
            let place = if i % 2 == 0 { p % SIDE } else { p / SIDE };
            ((place + i / 2) % 3 * 100) as u8
        }));
    }
    std::fs::write(folder.join("train-images-idx3-ubyte"), images).unwrap();
    std::fs::write(folder.join("train-labels-idx1-ubyte"), labels).unwrap();
}

/// Starts a small run of a stage that writes a checkpoint after every step.
fn start(stage: &str, data: &Path, out: &Path, resume: bool) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalti"));
    command.args([stage, "--quiet", "--data"]).arg(data).arg("--out").arg(out);
    command.args(["--epochs", "40", "--batch-size", "16", "--checkpoint-minutes", "0", "--threads", "1"]);
    command.args(["--patch-size", "2", "--dim", "16", "--depth", "1", "--heads", "2"]);
    match stage {
        "pretrain" => command.args(["--dec-dim", "8"]),
        "finetune" => command.args(["--init", "scratch"]),
        _ => command.arg("--teacher").arg(out.with_file_name("teacher")),
    };
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Kills of each stage.
fn kills() -> u64 {
    std::env::var("SMALTI_KILLS").map_or(6, |text| text.parse().expect("SMALTI_KILLS is a number"))
}

fn survives_kills(stage: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [data, whole, killed] = ["data", "whole", "killed"].map(|name| folder.path().join(name));
    write_data(&data);
    if stage == "distil" {
        finish(start("pretrain", &data, &folder.path().join("teacher"), false));
    }
    finish(start(stage, &data, &whole, false));

    let state = killed.join("checkpoints/last.state");
    let (mut started, mut ended) = (false, 0);
    for i in 0..kills() {
        let mut child = start(stage, &data, &killed, started);
        // Wait for the first checkpoint of all, then kill at ever other moments of the cycle of steps and saves.
        while !state.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(5 + 13 * i % 41));
        child.kill().unwrap();
        started = true;
        let bytes = std::fs::read(&state).unwrap();
        safetensors::SafeTensors::deserialize(&bytes).expect("a whole checkpoint after every kill");
        if child.wait().unwrap().success() {
            // It was faster: once more from the start.
            let same =
                std::fs::read(killed.join(TENSORS)).unwrap() == std::fs::read(whole.join(TENSORS)).unwrap();
            assert!(same, "{stage}, ended before kill {i}");
            std::fs::remove_dir_all(&killed).unwrap();
            (started, ended) = (false, ended + 1);
        }
    }
    println!("{stage}: {} kills, {ended} runs had ended before", kills() - ended);
    finish(start(stage, &data, &killed, started));
    let tensors = |run: &Path| std::fs::read(run.join(TENSORS)).unwrap();
    assert_eq!(tensors(&whole), tensors(&killed));
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
