//! A network of ours as a teacher, learned or imported: its embedding is the vector in front of its head.

use std::path::Path;

use super::{Teacher, TeacherConfig, digest};
use crate::error::Result;
use crate::evaluate::probe::{self, linear::LinearHead};
use crate::model::classifier;
use crate::model::weights::file;
use crate::objective::Mask;
use crate::run::RunDir;
use crate::stages::finetune::Finetuned;
use crate::train::step::{GradLanes, micro_batch};

/// A network whose encoder is frozen.
pub struct NetworkTeacher {
    config: TeacherConfig,
    network: Finetuned,
    lanes: GradLanes<classifier::Activations<f32>>,
}

impl NetworkTeacher {
    /// Reads what a run learned.
    ///
    /// # Errors
    /// A folder that is no run, weights that do not fit its settings.
    pub fn open(run: &Path) -> Result<NetworkTeacher> {
        NetworkTeacher::new(probe::load(run)?, &RunDir::open(run)?.best_or_last())
    }

    /// A network whose weights lie in that file.
    ///
    /// # Errors
    /// The file system.
    pub fn new(network: Finetuned, weights: &Path) -> Result<NetworkTeacher> {
        let config = TeacherConfig {
            digest: digest(&file::bytes(weights)?),
            width: network.model.vit().dim,
            preprocess: network.preprocess.clone(),
        };
        let lanes = GradLanes::new(rayon::current_num_threads(), 0)?;
        Ok(NetworkTeacher { config, network, lanes })
    }
}

impl Teacher for NetworkTeacher {
    fn config(&self) -> &TeacherConfig {
        &self.config
    }

    fn embed(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let Finetuned { model, params, .. } = &self.network;
        let vit = model.vit();
        let batch = pixels.len() / (vit.channels * vit.img_size * vit.img_size);
        let visible = Mask::none(batch, vit.patches()).visible;
        let input = classifier::Input { pixels, visible: &visible, drop: None, batch, batch_weight: None };
        let parts = self.lanes.map(batch, micro_batch(vit.tokens()), |part, acts| {
            model.predict(params, input.slice(part.start, part.end), acts).1.to_vec()
        });
        Ok(parts.concat())
    }

    fn head(&self) -> Result<Option<LinearHead>> {
        let Finetuned { model, params, labels, .. } = &self.network;
        let is_classifier = !labels.is_empty();
        is_classifier.then(|| LinearHead::read(model.layout(), params)).transpose()
    }
}
