//! What a teacher says of the places of a data set's crops, kept in files beside its embeddings:
//!
//! ```text
//! teacher/whitening.safetensors     what tokens are multiplied by, learned from the first crops
//! teacher/tokens-000.safetensors    f16 [images, side · side, kept], one file a pass; zeros where an image cannot be used
//! metadata                          smalti: JSON of the pass's number, the teacher, the crops, the images and the side
//! ```

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::whitening::{KEPT, Whitening};
use super::{Grid, Teacher};
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::model::weights::file;
use crate::model::weights::positions::Filter;
use crate::run::RunDir;

/// Batches of crops that the whitening is learned from.
const BATCHES: usize = 4;
/// The name of the only tensor.
const TOKENS: &str = "tokens";

/// The targets of a student's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTargets {
    /// Places along each side of the student's grid.
    pub side: usize,
    /// Values of a target.
    pub values: usize,
}

impl TokenTargets {
    /// Those of a teacher with this grid for a student with `side` places along each side.
    pub fn of(grid: Grid, side: usize) -> TokenTargets {
        TokenTargets { side, values: KEPT.min(grid.values) }
    }

    /// Values of all places of an image.
    pub fn row(self) -> usize {
        self.side * self.side * self.values
    }
}

/// Makes targets of a teacher's tokens.
pub(super) struct Projection {
    grid: Grid,
    targets: TokenTargets,
    whitening: Whitening,
    /// Whom the files belong to.
    about: Value,
}

impl Projection {
    /// Reads the run's whitening, or learns one from the first crops and keeps it.
    ///
    /// # Errors
    /// A whitening of another teacher or of other images; the file system.
    pub(super) fn open(
        run: &RunDir,
        teacher: &dyn Teacher,
        grid: Grid,
        targets: TokenTargets,
        loader: &Loader,
        about: Value,
    ) -> Result<Projection> {
        let about = json!({"of": about, "side": targets.side});
        let path = run.path().join("teacher/whitening.safetensors");
        if path.is_file() {
            let (whitening, found) = Whitening::load(&path)?;
            if found != about || whitening.kept() != targets.values {
                return Err(of_another(&path));
            }
            return Ok(Projection { grid, targets, whitening, about });
        }
        let mut tokens = Vec::new();
        for batch in loader.epoch(0, 0).take(BATCHES) {
            tokens.extend(resampled(&teacher.see(batch?.pixels())?.tokens, grid, targets.side));
        }
        let whitening = Whitening::learn(&tokens, grid.values);
        let path = run.own("teacher/whitening.safetensors")?;
        path.parent().map_or(Ok(()), crate::files::make_folder)?;
        whitening.save(&path, &about)?;
        Ok(Projection { grid, targets, whitening, about })
    }

    /// Targets `[images, side · side, values]` of a teacher's tokens.
    pub(super) fn targets(&self, tokens: &[f32]) -> Vec<f32> {
        self.whitening.apply(&resampled(tokens, self.grid, self.targets.side))
    }

    /// Values of an image's targets.
    pub(super) fn row(&self) -> usize {
        self.targets.row()
    }

    /// Whether the run has this pass's file.
    ///
    /// # Errors
    /// A file of another teacher or of other images.
    pub(super) fn has(&self, run: &RunDir, pass: u64, images: usize) -> Result<bool> {
        let path = run.path().join(name(pass));
        if !path.is_file() {
            return Ok(false);
        }
        read(&path, Some(&self.of_pass(pass)), [images, self.row()]).map(|_| true)
    }

    /// Writes the rows of a pass.
    pub(super) fn save(&self, run: &RunDir, pass: u64, rows: &[f32]) -> Result<()> {
        let TokenTargets { side, values } = self.targets;
        let shape = [rows.len() / self.row().max(1), side * side, values];
        let path = run.own(&name(pass))?;
        file::save_half(&path, [(TOKENS, &shape[..], rows)], &self.of_pass(pass))
    }

    fn of_pass(&self, pass: u64) -> Value {
        json!({"pass": pass, "whitening": self.about})
    }
}

/// A teacher's tokens on a grid with `to` places along each side, the student's.
fn resampled(tokens: &[f32], grid: Grid, to: usize) -> Vec<f32> {
    let Grid { side, values } = grid;
    let image = |image| Filter::Antialiased.resample(image, values, side, to);
    tokens.chunks_exact((side * side * values).max(1)).flat_map(image).collect()
}

/// The targets of all passes.
#[derive(Clone, Debug)]
pub(super) struct TokenFiles {
    folder: PathBuf,
    /// Number of images, and values of each.
    shape: [usize; 2],
    /// The pass in memory.
    current: Option<(u64, Vec<f32>)>,
}

impl TokenFiles {
    /// Those in a run's folder.
    pub(super) fn new(run: &Path, images: usize, row: usize) -> TokenFiles {
        TokenFiles { folder: run.into(), shape: [images, row], current: None }
    }

    /// Zeros in place of files that are yet to be written.
    pub(super) fn blank(row: usize) -> TokenFiles {
        TokenFiles { folder: PathBuf::new(), shape: [0, row], current: None }
    }

    /// Reads a pass.
    ///
    /// # Errors
    /// A file that is gone.
    pub(super) fn load(&mut self, pass: u64) -> Result<()> {
        let of_pass = self.current.as_ref().is_some_and(|(current, _)| *current == pass);
        if !of_pass && self.shape[0] > 0 {
            self.current = None;
            self.current = Some((pass, read(&self.folder.join(name(pass)), None, self.shape)?));
        }
        Ok(())
    }

    /// Adds the targets of an image of the pass in memory.
    pub(super) fn add(&self, image: u32, targets: &mut Vec<f32>) {
        let (row, rows) = (self.shape[1], self.current.as_ref().map_or(&[][..], |(_, rows)| rows));
        match rows.get(image as usize * row..(image as usize + 1) * row) {
            Some(values) => targets.extend_from_slice(values),
            None => targets.resize(targets.len() + row, 0.0),
        }
    }
}

/// The file of a pass, in a run.
fn name(pass: u64) -> String {
    format!("teacher/tokens-{pass:03}.safetensors")
}

/// Reads one pass `[images, values of an image]`.
fn read(path: &Path, about: Option<&Value>, [images, row]: [usize; 2]) -> Result<Vec<f32>> {
    let (mut tensors, details) = file::load(path)?;
    let tensor = tensors.remove(TOKENS).filter(|_| about.is_none_or(|about| *about == details));
    match tensor.filter(|tensor| tensor.shape.first() == Some(&images) && tensor.values.len() == images * row)
    {
        Some(tensor) => Ok(tensor.values),
        None => Err(of_another(path)),
    }
}

fn of_another(path: &Path) -> Error {
    file::unusable(
        path,
        "holds tokens of another teacher, other crops or other images: remove it, or use another --out",
    )
}
