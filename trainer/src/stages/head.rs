//! The head that fine-tuning starts from: logistic regression on frozen embeddings, so that the first steps do not undo what
//! the encoder knows (LP-FT, arXiv 2202.10054).

use super::finetune::Finetuned;
use crate::data::{Augment, Dataset, Loader, LoaderSettings, View};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::evaluate::probe::linear::LinearHead;
use crate::train::step::GradLanes;
use crate::train::{ExecConfig, StopCheck};

/// Crops of each image that the head learns from, the whole image among them.
const CROPS: usize = 8;
/// Maximum number of embeddings that it learns from, where the time is not limited: of many images there are fewer crops.
pub const MAX_ROWS: usize = 20_000;

/// Embeddings of labelled images and their crops, by a frozen encoder.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// `[rows, dim]`.
    pub rows: Vec<f32>,
    /// The class of each row.
    pub labels: Vec<u32>,
    /// The number of each row's image.
    pub images: Vec<u32>,
    /// Width of an embedding.
    pub dim: usize,
    /// Number of classes.
    pub classes: usize,
}

impl Embedded {
    /// Embeds labelled images and crops of them, up to about `max_rows`: fewer crops first, then fewer images of each class.
    ///
    /// # Errors
    /// Images without labels; errors of the data set.
    pub fn new(
        encoder: &Finetuned,
        data: &Dataset,
        augment: &Augment,
        seed: u64,
        max_rows: usize,
        exec: &ExecConfig,
        stop: StopCheck<'_>,
    ) -> Result<Embedded> {
        let Finetuned { model, params, preprocess, .. } = encoder;
        let (dim, classes) = (model.vit().dim, model.classes());
        let mut all = Embedded { rows: Vec::new(), labels: Vec::new(), images: Vec::new(), dim, classes };
        let lanes = GradLanes::new(exec.threads, 0)?;
        let numbers = evenly(data, max_rows);
        let chosen = data.select(&numbers);
        let crops = (max_rows / numbers.len().max(1)).clamp(1, CROPS);
        for pass in 0..crops {
            // The first is the image as the device sees it.
            let augment = if pass == 0 {
                Augment::default()
            } else {
                Augment { crop: augment.crop, flip: augment.flip, ..Augment::default() }
            };
            let settings = LoaderSettings {
                views: vec![View::new(augment, preprocess.clone())],
                seed,
                threads: exec.loader_threads,
                cache: exec.cache.clone(),
                max_bad: exec.max_bad,
                ..LoaderSettings::new(evaluate::BATCH, preprocess.clone())
            };
            let loader = Loader::new(chosen.clone(), settings)?;
            let found = evaluate::predict_pass(model, params, &loader, pass as u64, &lanes, stop)?;
            for (label, id) in found.labels.iter().zip(&found.ids) {
                let Some(label) = label else {
                    let number = numbers[*id as usize];
                    let problem = format!("image {number} has no label: a head learns from labelled images");
                    return Err(Error::data(data.root(), problem));
                };
                all.labels.push(*label);
            }
            all.rows.extend(found.embeddings);
            all.images.extend(found.ids.iter().map(|id| numbers[*id as usize] as u32));
        }
        Ok(all)
    }

    /// Fits a head to the images that `kept` names, rising, or to all; with a decay that is known, or the one of
    /// cross-validation.
    ///
    /// # Errors
    /// No rows.
    pub fn fit(&self, kept: Option<&[usize]>, decay: Option<f64>) -> Result<LinearHead> {
        let Some(kept) = kept else {
            return LinearHead::fit_with(
                &self.rows,
                &self.labels,
                &self.images,
                self.dim,
                self.classes,
                decay,
            );
        };
        let (mut rows, mut labels, mut images) = (Vec::new(), Vec::new(), Vec::new());
        let all = self.rows.chunks_exact(self.dim.max(1)).zip(self.labels.iter().zip(&self.images));
        for (row, (label, image)) in
            all.filter(|(_, (_, image))| kept.binary_search(&(**image as usize)).is_ok())
        {
            rows.extend_from_slice(row);
            labels.push(*label);
            images.push(*image);
        }
        LinearHead::fit_with(&rows, &labels, &images, self.dim, self.classes, decay)
    }
}

/// Numbers of at most `most` images, rising; of too many the same fraction of each class.
fn evenly(data: &Dataset, most: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..data.len()).collect();
    if numbers.len() > most {
        numbers.sort_by_key(|&i| data.label(i));
        numbers = (0..most).map(|i| numbers[i * numbers.len() / most]).collect();
        numbers.sort_unstable();
    }
    numbers
}

#[cfg(test)]
mod tests {
    use smalti_models::image::Image;

    use super::*;

    #[test]
    fn of_too_many_images_each_class_keeps_the_same_fraction() {
        let image = |label| (Image::new(1, 1, 1, vec![0]).unwrap(), Some(label));
        let images = (0..1000).map(|i| image(u32::from(i % 10 == 3))).collect();
        let data = Dataset::from_images(vec!["a".into(), "b".into()], images).unwrap();
        let numbers = evenly(&data, 200);
        assert!(numbers.is_sorted_by(|a, b| a < b));
        assert_eq!(numbers.len(), 200);
        assert_eq!(numbers.iter().filter(|&&i| data.label(i) == Some(1)).count(), 20);
        assert_eq!(evenly(&data, 1000).len(), 1000);
    }
}
