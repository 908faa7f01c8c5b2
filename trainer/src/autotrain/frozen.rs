//! The frozen encoder under a logistic regression: what fine-tuning starts from.

use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::probe::linear::LinearHead;
use smalti_trainer::stages::finetune::{self, FinetuneSettings, Finetuned};
use smalti_trainer::stages::head::Embedded;

use super::{Autotrain, cpu_seconds};
use crate::plan::finetune::Init;

/// Embeddings that heads are fitted to, for each second of the budget: about a tenth of it.
const ROWS_PER_SECOND: f64 = 20.0;
/// The same, at least.
const LEAST_ROWS: f64 = 1000.0;

/// The start with a head that has learned from all labels, and what heads of a part of them are fitted to.
pub(super) struct Frozen {
    pub(super) classifier: Finetuned,
    embedded: Embedded,
    /// The decay that cross-validation on all labels found.
    pub(super) decay: f64,
    /// CPU seconds in which an image is read and embedded.
    pub(super) per_image: f64,
}

impl Frozen {
    /// Embeds the labelled images, as many as there is time for, and fits the regression.
    pub(super) fn new(
        job: &Autotrain<'_>,
        settings: &FinetuneSettings,
        labelled: &Dataset,
        init: &Init,
    ) -> Result<Frozen> {
        let mut classifier = finetune::start(settings, labelled.classes(), init.file())?;
        let (augment, seed, stop) = (&settings.augment, settings.optim.seed, || job.stop.code());
        // By the budget alone, not by time that passed: a command that continues takes as many.
        let rows = (ROWS_PER_SECOND * job.budget).max(LEAST_ROWS) as usize;
        let began = cpu_seconds();
        let embedded = Embedded::new(&classifier, labelled, augment, seed, rows, &job.exec, &stop)?;
        let per_image = (cpu_seconds() - began) / embedded.images.len().max(1) as f64;
        let head = embedded.fit(None, None)?;
        head.write(classifier.model.layout(), &mut classifier.params)?;
        Ok(Frozen { classifier, embedded, decay: head.decay, per_image })
    }

    /// The embeddings of the images as the device sees them, without those of crops.
    pub(super) fn whole(&self) -> Embedded {
        let Embedded { rows, labels, images, dim, classes } = &self.embedded;
        // They come first, in rising order.
        let count = images.windows(2).position(|pair| pair[1] <= pair[0]).map_or(images.len(), |i| i + 1);
        Embedded {
            rows: rows[..count * dim].to_vec(),
            labels: labels[..count].to_vec(),
            images: images[..count].to_vec(),
            dim: *dim,
            classes: *classes,
        }
    }

    /// All parameters with a regression on these labelled images alone, rising.
    pub(super) fn params_of(&self, kept: &[usize]) -> Result<Vec<f32>> {
        let mut params = self.classifier.params.clone();
        self.head(Some(kept))?.write(self.classifier.model.layout(), &mut params)?;
        Ok(params)
    }

    /// A regression on these labelled images alone, rising, or on all.
    pub(super) fn head(&self, kept: Option<&[usize]>) -> Result<LinearHead> {
        self.embedded.fit(kept, Some(self.decay))
    }
}
