//! Small data, small runs, and numbers that differ from run to run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SIDE: usize = 8;
const IMAGES: usize = 64;
pub const TENSORS: &str = "checkpoints/last.safetensors";
pub const STATE: &str = "checkpoints/last.state";

/// A folder with MNIST-style IDX files of striped images.
pub fn write_data(folder: &Path) {
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

/// Small runs of one stage, each of which writes a checkpoint after every step.
pub struct Runs {
    pub stage: &'static str,
    pub epochs: u32,
    folder: tempfile::TempDir,
}

impl Runs {
    /// With data, and what the stage begins with.
    pub fn new(stage: &'static str, epochs: u32) -> Runs {
        let runs = Runs { stage, epochs, folder: tempfile::tempdir().unwrap() };
        write_data(&runs.path("data"));
        if stage == "distil" {
            let teacher = Runs { stage: "pretrain", epochs: 2, folder: tempfile::tempdir().unwrap() };
            write_data(&teacher.path("data"));
            finish(teacher.start(&runs.path("teacher"), false));
        }
        runs
    }

    pub fn path(&self, name: &str) -> PathBuf {
        // Without links, as faults want it.
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub fn command(&self, out: &Path, resume: bool) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smalti"));
        command.args([self.stage, "--quiet", "--data"]).arg(self.path("data")).arg("--out").arg(out);
        command.args([
            "--epochs",
            &self.epochs.to_string(),
            "--batch-size",
            "16",
            "--checkpoint-minutes",
            "0",
        ]);
        command.args(["--patch-size", "2", "--dim", "16", "--depth", "1", "--heads", "2", "--threads", "1"]);
        match self.stage {
            "pretrain" => command.args(["--dec-dim", "8"]),
            "finetune" => command.args(["--init", "scratch"]),
            _ => command.arg("--teacher").arg(self.path("teacher")),
        };
        if resume {
            command.arg("--resume");
        }
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub fn start(&self, out: &Path, resume: bool) -> Child {
        self.command(out, resume).spawn().unwrap()
    }

    /// The tensors of a run that nothing happens to.
    pub fn whole(&self) -> Vec<u8> {
        finish(self.start(&self.path("whole"), false));
        tensors(&self.path("whole"))
    }

    /// Brings a run to its end, whatever is there of it; its tensors.
    pub fn ended(&self, out: &Path) -> Vec<u8> {
        finish(self.start(out, is_begun(out)));
        tensors(out)
    }
}

/// Whether there is anything to resume.
pub fn is_begun(run: &Path) -> bool {
    run.join("smalti-files.txt").exists()
}

pub fn tensors(run: &Path) -> Vec<u8> {
    std::fs::read(run.join(TENSORS)).unwrap()
}

pub fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// A number of the environment, such as how often something is done.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// A generator seeded by the clock, unless `SMALTI_SEED` says otherwise; the seed is printed.
pub fn rng() -> fastrand::Rng {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = setting("SMALTI_SEED", now);
    println!("SMALTI_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
