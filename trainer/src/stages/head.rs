//! The head that fine-tuning starts from: logistic regression on frozen embeddings, so that the first steps do not undo what
//! the encoder knows (LP-FT, arXiv 2202.10054).

use smalti_models::Preprocess;

use crate::data::{Augment, Dataset, Loader, LoaderSettings, View};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::evaluate::probe::linear::LinearHead;
use crate::model::Classifier;
use crate::train::step::GradLanes;
use crate::train::{ExecConfig, StopCheck};

/// Crops of each image that the head learns from, the whole image among them.
const CROPS: usize = 8;
/// Embeddings that it learns from, about: of many images there are fewer crops.
const ROWS: usize = 50_000;

/// Fits the head of `model` on embeddings of labelled images and their crops, and writes it to `params`. Returns the fraction
/// that was right in cross-validation.
///
/// # Errors
/// Images without labels; errors of the data set.
pub fn fit(
    model: &Classifier,
    params: &mut [f32],
    data: &Dataset,
    preprocess: &Preprocess,
    augment: &Augment,
    seed: u64,
    exec: &ExecConfig,
    stop: StopCheck<'_>,
) -> Result<f64> {
    let (mut rows, mut labels, mut images) = (Vec::new(), Vec::new(), Vec::new());
    let lanes = GradLanes::new(exec.threads, 0)?;
    let crops = (ROWS / data.len().max(1)).clamp(1, CROPS);
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
        let loader = Loader::new(data.clone(), settings)?;
        let found = evaluate::predict_pass(model, params, &loader, pass as u64, &lanes, stop)?;
        for ((row, label), id) in found.embeddings.chunks_exact(found.dim).zip(&found.labels).zip(&found.ids)
        {
            let Some(label) = label else {
                let problem = format!("image {id} has no label: a head learns from labelled images");
                return Err(Error::data(data.root(), problem));
            };
            rows.extend_from_slice(row);
            labels.push(*label);
            images.push(*id);
        }
    }
    let head = LinearHead::fit(&rows, &labels, &images, model.vit().dim, model.classes())?;
    let layout = model.layout();
    layout.slot("head.weight")?.of_mut(params).copy_from_slice(&head.weight);
    layout.slot("head.bias")?.of_mut(params).copy_from_slice(&head.bias);
    Ok(head.validation)
}
