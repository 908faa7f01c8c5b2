//! Frozen teachers: networks whose embeddings a student learns ([`crate::stages::distil`]).
//!
//! A [`Teacher`] embeds images: an ONNX file on the runtime's kernels ([`onnx`]), or a run or imported weights ([`network`]).
//! [`open`] tells which it is. What it says of a data set's crops is kept in a [`Cache`], since it costs more than anything
//! that the student does with it; what it says of whole images in [`Embeddings`].

pub mod cache;
pub mod embeddings;
pub mod network;
pub mod onnx;
mod token_files;
mod tokens;
pub mod whitening;

use std::path::Path;

use serde::{Deserialize, Serialize};
use smalti_models::Preprocess;

pub use cache::Cache;
pub use embeddings::Embeddings;
pub use network::NetworkTeacher;
pub use onnx::OnnxTeacher;
pub use token_files::TokenTargets;

use crate::clock;
use crate::error::Result;
use crate::evaluate::probe::linear::LinearHead;

/// What a teacher is: part of a student's settings, so that a run is resumed with the same one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TeacherConfig {
    /// SHA-256 of its file, in hexadecimal digits.
    pub digest: String,
    /// Values of an embedding.
    pub width: usize,
    /// Its input.
    pub preprocess: Preprocess,
}

/// Vectors for the places of an image: a square grid of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Places along each side.
    pub side: usize,
    /// Values of a vector.
    pub values: usize,
}

/// What a teacher says of images.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `[images, width]`.
    pub embeddings: Vec<f32>,
    /// `[images, side, side, values]`; empty where the teacher has no [`Teacher::grid`].
    pub tokens: Vec<f32>,
}

/// A frozen network that embeds images.
pub trait Teacher {
    /// What it is.
    fn config(&self) -> &TeacherConfig;
    /// The embeddings `[images, width]` of normalised pixels `[images, C, H, W]`, computed on rayon's threads. Their number
    /// changes no bit.
    ///
    /// # Errors
    /// What the network cannot run.
    fn embed(&self, pixels: &[f32]) -> Result<Vec<f32>>;
    /// The vectors whose mean is the embedding, where it is that.
    fn grid(&self) -> Option<Grid> {
        None
    }
    /// As [`Teacher::embed`], with the vectors of [`Teacher::grid`].
    ///
    /// # Errors
    /// As [`Teacher::embed`].
    fn see(&self, pixels: &[f32]) -> Result<Seen> {
        Ok(Seen { embeddings: self.embed(pixels)?, tokens: Vec::new() })
    }
    /// The layer on its embeddings that answers with logits, where there is one.
    ///
    /// # Errors
    /// A classifier without a head.
    fn head(&self) -> Result<Option<LinearHead>> {
        Ok(None)
    }
}

/// Seconds of CPU time that a teacher takes for an image, with cutting it out.
///
/// # Errors
/// As [`Teacher::embed`].
pub fn cpu_per_image(teacher: &dyn Teacher) -> Result<f64> {
    /// Cutting a crop out of a decoded photo and resizing it to 224 x 224.
    const CUTTING: f64 = 2e-3;
    let input = &teacher.config().preprocess;
    let images = 2 * rayon::current_num_threads();
    let pixels = vec![0.0; images * input.channels * input.img_size * input.img_size];
    teacher.embed(&pixels)?;
    let start = clock::cpu_time();
    teacher.embed(&pixels)?;
    Ok((clock::cpu_time() - start).as_secs_f64() / images as f64 + CUTTING)
}

/// What the user says of a teacher where its file does not.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// The output that is the embedding.
    pub output: Option<String>,
    /// Mean of each channel on the scale 0 to 1.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel on the scale 0 to 1.
    pub std: Option<Vec<f32>>,
}

/// Opens a teacher: a run's folder, or an ONNX file.
///
/// # Errors
/// A file that is neither, or a network that cannot run here.
pub fn open(path: &Path, hints: &Hints) -> Result<Box<dyn Teacher>> {
    if path.is_dir() {
        return Ok(Box::new(NetworkTeacher::open(path)?));
    }
    Ok(Box::new(OnnxTeacher::open(path, hints)?))
}

/// SHA-256 in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
