//! The space in which images are held against each other: cosine similarity, behind a whitening where negatives say how.
//!
//! Embeddings of a classifier have much in common that tells nothing of the class. Where there are negatives, their mean is
//! taken off and their covariance is made round, as speaker verification does before it takes cosines (within-class
//! covariance normalisation, Hatch and others, Interspeech 2006); the total covariance takes no labels and does as well.

use super::{Class, Example};
use crate::gaussian::Gaussian;

/// What a similarity is multiplied by to become a logit.
pub(super) const SHARPNESS: f32 = 20.0;
/// A class's similarity is the mean over so many of its images that are most alike.
const NEIGHBOURS: usize = 5;
/// The fewest negatives whose covariance is used.
const ENOUGH: usize = 20;

/// The mapped images of all classes.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    dim: usize,
    whitening: Option<Gaussian>,
    /// For each class unit vectors, one behind the other.
    classes: Vec<Vec<f32>>,
}

impl Space {
    pub(super) fn new(classes: &[Class], negatives: &[Example], dim: usize) -> Space {
        let rows: Vec<f32> = match negatives.len() >= ENOUGH {
            true => negatives.iter().flat_map(|example| &example.embedding).copied().collect(),
            false => Vec::new(),
        };
        let mut space = Space { dim, whitening: Gaussian::fit(&rows, dim), classes: Vec::new() };
        let (mut query, mut mapped) = (Vec::new(), Vec::new());
        for class in classes {
            let mut vectors = Vec::with_capacity(class.examples.len() * dim);
            for example in &class.examples {
                // One that is the negatives' very mean is like nothing, and stays zero.
                if !space.map(&example.embedding, &mut query) {
                    query.fill(0.0);
                }
                vectors.extend_from_slice(&query);
            }
            mapped.push(vectors);
        }
        space.classes = mapped;
        space
    }

    /// An embedding as a unit vector of the space; false where it has no direction.
    pub(super) fn map(&self, embedding: &[f32], out: &mut Vec<f32>) -> bool {
        out.clear();
        match &self.whitening {
            Some(whitening) => {
                out.resize(embedding.len(), 0.0);
                whitening.whiten(embedding, out);
            }
            None => out.extend_from_slice(embedding),
        }
        let length = out.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if !(length > 0.0 && length.is_finite()) {
            return false;
        }
        out.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        true
    }

    /// How alike a mapped image and a class are: the mean cosine of the most alike of its images, one of them left out. -1
    /// for a class without others.
    pub(super) fn similarity(
        &self,
        query: &[f32],
        class: usize,
        left_out: Option<usize>,
        similarities: &mut Vec<f32>,
    ) -> f32 {
        similarities.clear();
        let vectors = self.classes.get(class).map_or(&[][..], Vec::as_slice);
        for (i, vector) in vectors.chunks_exact(self.dim.max(1)).enumerate() {
            if left_out != Some(i) {
                similarities.push(query.iter().zip(vector).map(|(x, y)| x * y).sum());
            }
        }
        similarities.sort_unstable_by(|a, b| b.total_cmp(a));
        similarities.truncate(NEIGHBOURS);
        if similarities.is_empty() {
            -1.0
        } else {
            similarities.iter().sum::<f32>() / similarities.len() as f32
        }
    }

    /// The mapped images of a class.
    pub(super) fn vectors(&self, class: usize) -> impl Iterator<Item = &[f32]> {
        self.classes.get(class).into_iter().flat_map(|vectors| vectors.chunks_exact(self.dim.max(1)))
    }

    /// Bytes of heap besides the mapped images.
    pub(super) fn bytes(&self) -> usize {
        let whitening = self
            .whitening
            .as_ref()
            .map_or(0, |whitening| whitening.parts().iter().map(|part| size_of_val(*part)).sum());
        whitening + self.classes.len() * size_of::<Vec<f32>>()
    }
}
