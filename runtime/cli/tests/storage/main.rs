//! What the commands that write leave when they are killed, when the file system fails, when the power does: the old file or the
//! new one. Each test has a short form, which is the default, and a long one: see docs/reliability.md.
#![cfg(target_os = "linux")]

mod failing;
mod kill;
mod power;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command that writes one file.
struct Writing {
    name: &'static str,
    /// The file's name.
    file: &'static str,
    /// The arguments; `OUT` stands for the file, `MODEL`, `DETECTOR`, `IMAGES` and `IMAGE` for what is read.
    args: &'static str,
    /// Whether the file is read, too, so that one that is good must be there.
    updates: bool,
}

const fn writing(name: &'static str, file: &'static str, args: &'static str) -> Writing {
    Writing { name, file, args, updates: false }
}

const fn updating(name: &'static str, args: &'static str) -> Writing {
    Writing { name, file: "out.bank", args, updates: true }
}

/// All of them.
const WRITING: [Writing; 9] = [
    writing("quantize", "out.onnx", "quantize MODEL --calib IMAGES --budget 100% -o OUT"),
    writing("explain", "out.png", "explain MODEL IMAGE -o OUT"),
    writing("embed", "out.safetensors", "embed MODEL IMAGE -o OUT"),
    writing("anomaly fit", "out.anomaly", "anomaly fit MODEL OUT IMAGES/red"),
    writing("anomaly score", "out.png", "anomaly score MODEL DETECTOR IMAGE -o OUT"),
    writing("page", "out.html", "page MODEL -o OUT"),
    writing("learn add", "new.bank", "learn add MODEL OUT cup IMAGE --negatives IMAGES/blue"),
    updating("learn add to a bank", "learn add MODEL OUT cup IMAGE"),
    updating("learn remove", "learn remove MODEL OUT white"),
];

/// What the commands read, and a folder that they write to.
struct Files {
    root: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let files = Files { root: tempfile::tempdir().unwrap() };
        for (name, colour) in [("red", [200, 20, 20]), ("blue", [20, 20, 200])] {
            let folder = files.path("images").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..8 {
                // Good images must differ.
                let pixel =
                    |x, y| image::Rgb(colour.map(|value: u8| value + 3 * i + ((x + 2 * y) % 5) as u8));
                image::RgbImage::from_fn(24, 24, pixel).save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
        std::fs::create_dir(files.path("out")).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        // Without links, as faults want it.
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// Where the command writes.
    fn place(&self, writing: &Writing) -> PathBuf {
        self.path("out").join(writing.file)
    }

    fn command(&self, writing: &Writing) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smalti-run"));
        for word in writing.args.split(' ') {
            match word.split_once('/').unwrap_or((word, "")) {
                ("OUT", _) => command.arg(self.place(writing)),
                ("MODEL", _) => command.arg(fixture("models/colours_u8.onnx")),
                ("DETECTOR", _) => command.arg(fixture("learned/good.anomaly")),
                ("IMAGE", _) => command.arg(fixture("models/red.png")),
                ("IMAGES", part) => command.arg(self.path("images").join(part)),
                _ => command.arg(word),
            };
        }
        command
            .arg("--quiet")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// What is there before; no file where that is empty.
    fn old(writing: &Writing) -> Vec<u8> {
        if writing.updates {
            return std::fs::read(fixture("learned/colours.bank")).unwrap();
        }
        // It would be read.
        if writing.file == "new.bank" { Vec::new() } else { b"what was there".to_vec() }
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}
