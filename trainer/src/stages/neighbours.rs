//! Is it learning? While a stage learns without labels, the labels that there are tell: how often the nearest neighbours of
//! an image, by embedding, are of its class.

use smalti_models::{Pooling, Preprocess, VitConfig};

use crate::data::{Dataset, Loader};
use crate::error::{Error, Result};
use crate::evaluate::{self, probe};
use crate::model::params::Layout;
use crate::model::{Classifier, classifier};
use crate::train::step::GradLanes;
use crate::train::{ExecConfig, StopCheck, Validation};

/// Images that are compared with each other: enough to see a rise of a few points.
const IMAGES: usize = 300;
/// Fewer labelled images say nothing.
const ENOUGH: usize = 20;
/// Looks at a run, at most.
const LOOKS: u64 = 20;

/// Labelled images that are looked at now and then. They change nothing about what is learned.
pub(super) struct Neighbours {
    model: Classifier,
    loader: Loader,
    lanes: GradLanes<classifier::Activations<f32>>,
    classes: usize,
}

impl Neighbours {
    /// The images to look at; none where too few have labels, or all the same.
    pub(super) fn new(
        vit: &VitConfig,
        preprocess: &Preprocess,
        data: &Dataset,
        exec: &ExecConfig,
    ) -> Result<Option<Neighbours>> {
        let labelled = data.labelled();
        let present = labelled.class_counts().iter().filter(|count| **count > 0).count();
        if labelled.len() < ENOUGH || present < 2 {
            return Ok(None);
        }
        let (len, count) = (labelled.len(), labelled.len().min(IMAGES));
        let chosen = labelled.select(&(0..count).map(|i| i * len / count).collect::<Vec<_>>());
        let exec = ExecConfig { ranks: None, ..exec.clone() };
        Ok(Some(Neighbours {
            model: Classifier::new(vit, 1, Pooling::Mean)?,
            loader: evaluate::loader(&chosen, preprocess, &exec)?,
            lanes: GradLanes::new(exec.threads, 0)?,
            classes: data.classes().len(),
        }))
    }

    /// What the neighbours say after epoch `epoch` of `epochs`, now and then: the fraction of the images whose neighbours vote
    /// for their class, under the parameters of a model with `layout`. Images that cannot be read are left out.
    pub(super) fn validate(
        &self,
        [epoch, epochs]: [u64; 2],
        layout: &Layout,
        params: &[f32],
        stop: StopCheck<'_>,
    ) -> Result<Option<Validation>> {
        if !epoch.is_multiple_of(epochs.div_ceil(LOOKS).max(1)) && epoch != epochs {
            return Ok(None);
        }
        let mut own = self.model.layout().init::<f32>(0);
        for (spec, slot) in self.model.layout().iter() {
            // A pretrained encoder has the class token's norm, under the same trained scale.
            let names = [spec.name.clone(), spec.name.replacen("fc_norm", "norm", 1)];
            if let Some(from) = names.iter().find_map(|name| layout.slot(name).ok())
                && from.len() == slot.len()
            {
                slot.of_mut(&mut own).copy_from_slice(from.of(params));
            }
        }
        let found = evaluate::predict(&self.model, &own, &self.loader, &self.lanes, stop)?;
        match probe::leave_one_out(&found, self.classes) {
            Ok(accuracy) => Ok(Some(Validation::Neighbours(accuracy))),
            Err(Error::Usage(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
