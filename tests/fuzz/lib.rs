//! Everything that reads bytes from outside, as functions of bytes: targets for fuzzing.
//!
//! A target gives any bytes to one reader and goes on with what that makes of them, as the programs do. It must come back; an
//! error is a good answer, a panic is not, nor is an error that the reader itself calls a bug. [`mutate`] changes seeds without
//! knowing what they hold; `short.rs` drives all targets with it, on any toolchain, within bounds of time and memory, and
//! `libfuzzer/` guided by coverage (`scripts/fuzz`).

pub mod mutate;
mod targets;

use std::path::{Path, PathBuf};

/// One reader.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, which is also that of its folder in `found/`.
    pub name: &'static str,
    /// Reads; says what is wrong if it went wrong without a panic.
    pub run: fn(&[u8]) -> Result<(), String>,
    /// Good inputs, which mutation starts from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All readers.
pub const TARGETS: [Target; 17] = [
    Target { name: "model", run: targets::model::open, seeds: targets::model::seeds },
    Target { name: "model_record", run: targets::model::record, seeds: targets::model::records },
    Target { name: "preprocess", run: targets::model::preprocess, seeds: targets::model::preprocesses },
    Target { name: "signature", run: targets::model::signature, seeds: targets::model::signatures },
    Target { name: "bank", run: targets::learned::bank, seeds: targets::learned::banks },
    Target { name: "anomaly", run: targets::learned::anomaly, seeds: targets::learned::detectors },
    Target { name: "image", run: targets::image::decode, seeds: targets::image::seeds },
    Target { name: "image_reduced", run: targets::image::reduce, seeds: targets::image::sized_seeds },
    Target { name: "raw_frame", run: targets::image::raw_frame, seeds: targets::image::raw_frames },
    Target { name: "mjpeg", run: targets::image::mjpeg, seeds: targets::image::streams },
    Target { name: "weights", run: targets::run::weights, seeds: targets::run::weight_files },
    Target { name: "state", run: targets::run::state, seeds: targets::run::states },
    Target { name: "config", run: targets::run::config, seeds: targets::run::configs },
    Target { name: "table", run: targets::data::table, seeds: targets::data::tables },
    Target { name: "idx", run: targets::data::idx, seeds: targets::data::idx_files },
    Target { name: "cifar", run: targets::data::cifar, seeds: targets::data::cifar_files },
    Target { name: "tar", run: targets::data::tar, seeds: targets::data::tars },
];

/// The target of that name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target `{name}`"))
}

/// A file of this repository.
fn file(path: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Inputs that broke a target once: each is tried again first.
pub fn found(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(target);
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    files.map(|file| (file.path(), std::fs::read(file.path()).expect("a file of the repository"))).collect()
}

/// Writes a target's seeds, and what was found with it, into a folder, one file each.
///
/// # Errors
/// A folder that cannot be written to.
pub fn write_seeds(target: &Target, folder: &Path) -> std::io::Result<()> {
    let inputs = (target.seeds)().into_iter().chain(found(target.name).into_iter().map(|(_, bytes)| bytes));
    inputs.enumerate().try_for_each(|(i, bytes)| std::fs::write(folder.join(format!("seed-{i}")), bytes))
}
