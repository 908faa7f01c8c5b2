//! What looks unlike the good images, learned from good ones alone.
//!
//! An [`AnomalyDetector`] measures an image in two ways. Its tokens, vectors for its places, are held against a memory of
//! tokens of good images: the score is the largest distance of a place to the nearest remembered token (PatchCore, arXiv
//! 2106.08265, without the weighting of section 3.3), which finds small faults and where they are. Its embedding is held
//! against the normal distribution of those of good images, by Mahalanobis's distance (arXiv 1807.03888), which finds other
//! things altogether. Each is divided by what good images reach, the larger one counts, and it is divided by the threshold:
//! above 1 is unusual.
//!
//! The threshold comes from good images that were not learned from: [`fit`] leaves out a part of them at a time.

mod coreset;
mod file;
mod fit;
mod heat_map;

pub use fit::{Settings, fit};
pub use heat_map::overlay;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gaussian::Gaussian;
use crate::load::Model;
use crate::session::Output;
use coreset::Points;

/// By what an image is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// The larger of both.
    #[default]
    Both,
    /// Tokens alone: faults on things that look alike.
    Tokens,
    /// The embedding alone: other things.
    Embedding,
}

/// A detector of one model.
#[derive(Debug)]
pub struct AnomalyDetector {
    model: Digest,
    /// The value that gives the tokens.
    tokens: String,
    /// Rows and columns of places.
    grid: [usize; 2],
    measure: Measure,
    /// Remembered tokens.
    rows: Vec<f32>,
    /// The same, ready for search.
    points: Points,
    /// Of the embedding.
    gaussian: Gaussian,
    /// What good images reach, in tokens and embedding.
    scales: [f32; 2],
    /// What a score is divided by.
    threshold: f32,
    false_alarms: f32,
    /// Images that it was learned from.
    images: usize,
}

/// What was found in an image; used again, it does not grow.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// Above 1 is unusual.
    pub score: f32,
    /// For each place, row by row, the distance of its token on the same scale.
    pub map: Vec<f32>,
    /// The part of the score that the tokens make, before [`Measure`] chooses.
    pub tokens: f32,
    /// The part that the embedding makes.
    pub embedding: f32,
    room: Vec<f32>,
    whitened: Vec<f32>,
}

impl Finding {
    /// Whether the image is unlike the good ones.
    pub fn is_unusual(&self) -> bool {
        self.score > 1.0
    }
}

impl AnomalyDetector {
    /// The name of the value whose tokens it looks at: open the model with it
    /// ([`OpenOptions::tokens`](crate::OpenOptions::tokens)).
    pub fn token_source(&self) -> &str {
        &self.tokens
    }

    /// Rows and columns of the map.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// By what images are measured.
    pub fn measure(&self) -> Measure {
        self.measure
    }

    /// The share of good images that are taken for unusual ones.
    pub fn false_alarms(&self) -> f32 {
        self.false_alarms
    }

    /// Good images that it was learned from.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Tokens that it remembers.
    pub fn remembered(&self) -> usize {
        self.points.len()
    }

    /// Measures an image by the model's answer to it.
    ///
    /// # Errors
    /// [`Error::Usage`] for another model, or one that was opened without the tokens; [`Error::Data`] for values that are
    /// not finite.
    pub fn score_into(&self, model: &Model, output: &Output, finding: &mut Finding) -> Result<()> {
        if model.digest() != self.model {
            return Err(Error::Usage("an anomaly detector of another model".into()));
        }
        let tokens = tokens(model, output)?;
        let [rows, columns] = self.grid;
        let wanted = (&*self.tokens, rows, columns, self.points.dim());
        if model.tokens().is_none_or(|grid| (&*grid.name, grid.rows, grid.columns, grid.dim) != wanted) {
            let problem =
                format!("the detector looks at `{}`: open the model with these tokens", self.tokens);
            return Err(Error::Usage(problem));
        }
        let raw = measure(&self.points, &self.gaussian, tokens, model.embedding_of(output)?, finding);
        let [tokens, embedding] = parts(raw, self.scales);
        let scale = 1.0 / self.threshold;
        (finding.tokens, finding.embedding) = (tokens * scale, embedding * scale);
        finding.score = self.measure.of([tokens, embedding]) * scale;
        let scale = scale / self.scales[0];
        finding.map.iter_mut().for_each(|distance| *distance *= scale);
        Ok(())
    }

    /// What [`AnomalyDetector::score_into`] writes into, large enough.
    pub fn finding(&self) -> Finding {
        Finding {
            map: Vec::with_capacity(self.grid[0] * self.grid[1]),
            room: Vec::with_capacity(self.points.room()),
            whitened: Vec::with_capacity(self.gaussian.dim()),
            ..Finding::default()
        }
    }

    /// An upper bound of the bytes of heap that the detector and one [`Finding`] take.
    pub fn memory_bound(&self) -> usize {
        let gaussian: usize = self.gaussian.parts().iter().map(|part| size_of_val(*part)).sum();
        let finding = self.grid[0] * self.grid[1] + self.points.room() + self.gaussian.dim();
        let floats = finding + self.rows.len();
        self.points.bytes() + gaussian + floats * size_of::<f32>() + self.tokens.len() + size_of::<Self>()
    }
}

impl Measure {
    /// The score of both parts.
    fn of(self, [tokens, embedding]: [f32; 2]) -> f32 {
        match self {
            Measure::Both => tokens.max(embedding),
            Measure::Tokens => tokens,
            Measure::Embedding => embedding,
        }
    }
}

/// The tokens in a model's answer.
fn tokens<'a>(model: &Model, output: &'a Output) -> Result<&'a [f32]> {
    let wanted = model.tokens().map(|grid| grid.values());
    let tokens = output.tokens.as_deref().filter(|found| Some(found.len()) == wanted);
    let tokens = tokens.ok_or_else(|| Error::Usage("the model was opened without tokens".into()))?;
    if tokens.iter().all(|value| value.is_finite()) {
        return Ok(tokens);
    }
    Err(Error::data("image", "the model's tokens of it are not finite"))
}

/// The largest distance of a token, with all of them in the map, and that of the embedding.
fn measure(
    points: &Points,
    gaussian: &Gaussian,
    tokens: &[f32],
    embedding: &[f32],
    finding: &mut Finding,
) -> [f32; 2] {
    let Finding { map, room, whitened, .. } = finding;
    map.resize(tokens.len() / points.dim(), 0.0);
    points.nearest(tokens, room, map);
    whitened.resize(gaussian.dim(), 0.0);
    gaussian.whiten(embedding, whitened);
    let far = whitened.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32;
    [map.iter().copied().fold(0.0, f32::max), far]
}

/// Both distances by what good images reach.
fn parts([tokens, embedding]: [f32; 2], scales: [f32; 2]) -> [f32; 2] {
    [tokens / scales[0], embedding / scales[1]]
}

#[cfg(test)]
mod tests;
