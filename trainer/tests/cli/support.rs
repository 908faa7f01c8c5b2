//! A folder of its own for each test, small images, and the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use smalti_trainer::data::synthetic;

/// The smallest model that does everything.
pub const TINY: [&str; 7] =
    ["--patch-size=4", "--dim=16", "--depth=1", "--heads=2", "--batch-size=8", "--epochs=1", "--threads=2"];

/// A test's folder, with a drawn set in `data/`.
pub struct Folder(pub tempfile::TempDir);

/// What a call of the program gave.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Folder {
    /// An empty folder.
    pub fn empty() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// With 40 images of 16 pixels to learn from and 20 to measure on.
    pub fn with_data() -> Folder {
        let folder = Folder::empty();
        synthetic::write(&folder.path("data"), 40, 20, 16, 1).unwrap();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program, to be run in this folder, out of reach of the caller's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smalti"));
        ["SMALTI_THREADS", "RUST_LOG"].iter().for_each(|name| _ = command.env_remove(name));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        outcome(&mut self.command(args))
    }

    /// [`Folder::run`] with [`TINY`] behind the arguments; they come first, and a later flag wins.
    pub fn tiny(&self, command: &str, args: &[&str]) -> Outcome {
        self.run(&[&[command], &TINY[..], args].concat())
    }

    /// A pretrained run.
    pub fn pretrained(&self, out: &str) {
        self.tiny("pretrain", &["--data=data", "--dec-dim=8", &format!("--out={out}")]).ok();
    }

    /// The run's settings.
    pub fn settings(&self, run: &str) -> toml::Table {
        read(&self.path(run).join("config.toml")).parse().unwrap()
    }

    /// The run's last tensors.
    pub fn tensors(&self, run: &str) -> Vec<u8> {
        std::fs::read(self.path(run).join("checkpoints/last.safetensors")).unwrap()
    }
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Outcome {
    /// Success.
    pub fn ok(self) -> Outcome {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// Success, and one JSON object with these keys on the standard output.
    pub fn json(self, keys: &[&str]) -> Value {
        let outcome = self.ok();
        let object: Value =
            serde_json::from_str(&outcome.out).unwrap_or_else(|e| panic!("{e}: {}", outcome.out));
        for key in ["schema_version"].iter().chain(keys) {
            assert!(object.get(*key).is_some(), "no `{key}` in {object}");
        }
        object
    }

    /// Failure with this exit code, nothing on the standard output, and one line that says all of this.
    pub fn fails(self, code: i32, said: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("smalti: error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", self.err);
        assert!(self.err.ends_with(&format!("{}\n", errors[0])), "{}", self.err);
        said.iter().for_each(|said| assert!(errors[0].contains(said), "`{said}` is not in {}", errors[0]));
    }
}
