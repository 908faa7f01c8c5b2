//! What the teacher itself makes of the labels: logistic regression on the embeddings that distillation left in its run.

use std::path::Path;

use smalti_trainer::Result;
use smalti_trainer::evaluate::probe::linear::LinearHead;
use smalti_trainer::stages::head::Embedded;
use smalti_trainer::teacher::Cache;

use super::images::Images;
use super::look_alikes::Embeddings;

/// Embeddings that a head is fitted to, about: of many images there are fewer crops.
const ROWS: usize = 4000;

/// A teacher's embeddings of all images, those of the labelled ones at hand.
pub(super) struct TeacherHead {
    cache: Cache,
    labelled: Embedded,
    /// The decay that cross-validation on all labels found.
    decay: f64,
}

impl TeacherHead {
    /// Reads the embeddings that are kept in `run`; none if it keeps none of these images.
    ///
    /// # Errors
    /// A file that is damaged.
    pub(super) fn open(run: &Path, images: &Images) -> Result<Option<TeacherHead>> {
        let all = &images.all;
        let Some(mut cache) = Cache::of_run(run, all)? else { return Ok(None) };
        let (dim, classes) = (cache.width(), all.classes().len());
        let mut labelled =
            Embedded { rows: Vec::new(), labels: Vec::new(), images: Vec::new(), dim, classes };
        let places = (0..all.len()).filter_map(|i| Some((i, all.label(i)?))).collect::<Vec<_>>();
        for pass in 0..(ROWS / places.len().max(1)).clamp(1, cache.passes()) {
            let embeddings = cache.pass(pass)?;
            for (number, (place, label)) in places.iter().enumerate() {
                labelled.rows.extend_from_slice(&embeddings[place * dim..(place + 1) * dim]);
                labelled.labels.push(*label);
                labelled.images.push(number as u32);
            }
        }
        // One crop of each image tells the decay as well as all do, and takes a part of the time.
        let one = Embedded {
            rows: labelled.rows[..places.len() * dim].to_vec(),
            labels: labelled.labels[..places.len()].to_vec(),
            images: labelled.images[..places.len()].to_vec(),
            ..labelled
        };
        let decay = one.fit(None, None)?.decay;
        Ok(Some(TeacherHead { cache, labelled, decay }))
    }

    /// Logits `[held, classes]` of the labelled images `held` by a head that learned from those in `kept`, rising.
    pub(super) fn held_out(&self, kept: &[usize], held: &[usize]) -> Result<Vec<f32>> {
        let (head, classes) = (self.head(Some(kept))?, self.labelled.classes);
        let mut sum = vec![0.0; held.len() * classes];
        let logits = head.logits(&self.labelled.rows)?;
        for (row, image) in logits.chunks_exact(classes).zip(&self.labelled.images) {
            let Some(place) = held.iter().position(|held| held == &(*image as usize)) else { continue };
            sum[place * classes..].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        Ok(mean(sum, self.labelled.labels.len() / self.images()))
    }

    /// A head that learned from the labelled images `kept`, rising, or from all.
    pub(super) fn head(&self, kept: Option<&[usize]>) -> Result<LinearHead> {
        self.labelled.fit(kept, Some(self.decay))
    }

    /// The mean embeddings over all crops of these images, of all.
    pub(super) fn embeddings(&mut self, numbers: &[usize]) -> Result<Embeddings> {
        let dim = self.labelled.dim;
        let mut sum = vec![0.0; numbers.len() * dim];
        for pass in 0..self.cache.passes() {
            let embeddings = self.cache.pass(pass)?;
            for (sum, number) in sum.chunks_exact_mut(dim).zip(numbers) {
                let row = &embeddings[number * dim..(number + 1) * dim];
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        Ok(Embeddings { rows: mean(sum, self.cache.passes()), dim })
    }

    /// Number of labelled images.
    fn images(&self) -> usize {
        self.labelled.images.last().map_or(1, |last| *last as usize + 1)
    }
}

fn mean(sum: Vec<f32>, count: usize) -> Vec<f32> {
    sum.into_iter().map(|x| x / count.max(1) as f32).collect()
}
