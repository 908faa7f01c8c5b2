//! The space in which images are held against each other: cosine similarity, behind a whitening where negatives say how.
//!
//! Embeddings of a classifier have much in common that tells nothing of the class. Where there are negatives, their mean is
//! taken off and their covariance is made round, as speaker verification does before it takes cosines (within-class
//! covariance normalisation, Hatch and others, Interspeech 2006); the total covariance takes no labels and does as well.

use super::{Class, Example};
use crate::gaussian::Gaussian;

/// What a similarity is multiplied by to become a logit.
pub(super) const SHARPNESS: f32 = 40.0;
/// An image is held against the mean of so many of a class's images that are most like it.
const NEIGHBOURS: usize = 5;
/// The fewest negatives whose covariance is used.
const ENOUGH: usize = 20;

/// Room for a search.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours {
    /// Similarities and numbers.
    nearest: Vec<(f32, usize)>,
    mean: Vec<f32>,
}

impl Neighbours {
    /// For classes of that many images.
    pub(super) fn new(images: usize, dim: usize) -> Neighbours {
        Neighbours { nearest: Vec::with_capacity(images), mean: Vec::with_capacity(dim) }
    }
}

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

    /// How alike a mapped image and a class are: the cosine to the mean of those of its images that are most alike, one of
    /// them left out. -1 for a class without others.
    pub(super) fn similarity(
        &self,
        query: &[f32],
        class: usize,
        left_out: Option<usize>,
        room: &mut Neighbours,
    ) -> f32 {
        let Neighbours { nearest, mean } = room;
        nearest.clear();
        for (i, vector) in self.vectors(class).enumerate().filter(|(i, _)| left_out != Some(*i)) {
            nearest.push((query.iter().zip(vector).map(|(x, y)| x * y).sum(), i));
        }
        nearest.sort_unstable_by(|a: &(f32, usize), b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        nearest.truncate(NEIGHBOURS);
        mean.clear();
        mean.resize(self.dim, 0.0);
        for (_, i) in nearest.iter() {
            let vector = self.vectors(class).nth(*i).unwrap_or_default();
            mean.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        if length > 0.0 {
            nearest.iter().map(|(similarity, _)| similarity).sum::<f32>() / length
        } else {
            -1.0
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
