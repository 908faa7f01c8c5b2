//! The search for a model within the budget, by keeping layers float.

use prost::Message as _;
use smalti_models::onnx::ModelProto;

use super::plan::Plan;
use super::rewrite::Change;
use super::{Quantized, Row, Settings, Stage, budget, record, rewrite};
use crate::compare::{Comparison, of_outputs};
use crate::samples::{self, Outputs, Sample};
use smalti_runtime::Model;
use smalti_runtime::selftest;
use smalti_runtime::{Error, Result};

/// The search for a model within the budget.
pub(super) struct Search<'a> {
    pub(super) proto: &'a ModelProto,
    pub(super) float: &'a Model,
    pub(super) plans: &'a [Plan],
    pub(super) measuring: &'a [Sample],
    /// What the float model gives.
    pub(super) wanted: &'a Outputs,
    pub(super) settings: &'a Settings<'a>,
    pub(super) images: usize,
}

impl Search<'_> {
    /// Keeps more and more of the layers with most noise float until the budget holds.
    pub(super) fn run(&self) -> Result<Quantized> {
        let mut worst: Vec<usize> = (0..self.plans.len()).collect();
        worst.sort_by(|&a, &b| self.plans[a].sqnr_db.total_cmp(&self.plans[b].sqnr_db));
        let mut last = String::new();
        for i in 0..self.settings.tries.max(1) {
            let kept = budget::kept_float(i);
            if kept >= self.plans.len() {
                break;
            }
            let (proto, model) = self.build(&worst[..kept])?;
            let found = self.measure(&model, kept)?;
            match self.settings.budget.exceeded(&found) {
                None => return self.finish(proto, &model, found, &worst[..kept]),
                Some(problem) => {
                    last = format!("{problem}, with {kept} of {} layers kept float", self.plans.len())
                }
            }
            log::info!("{last}");
        }
        let advice = "give images like those of the training, or allow more by --budget";
        Err(Error::GateFailed(format!("quantize: {last}; nothing is written; {advice}")))
    }

    /// The model with all layers but these in int8.
    fn build(&self, float: &[usize]) -> Result<(ModelProto, Model)> {
        let chosen = self.plans.iter().enumerate().filter(|(i, _)| !float.contains(i));
        let changes: Vec<Change<'_>> = chosen.map(|(_, plan)| plan.change()).collect();
        let mut proto = self.proto.clone();
        if let Some(graph) = &mut proto.graph {
            rewrite::rewrite(graph, &changes);
        }
        let model = self.load(&proto.encode_to_vec())?;
        Ok((proto, model))
    }

    /// Loads a quantized file with the float model's preprocessing and labels.
    fn load(&self, bytes: &[u8]) -> Result<Model> {
        let model = Model::from_bytes(bytes)?.with_labels(self.float.labels().to_vec())?;
        match self.float.preprocess() {
            Some(preprocess) => model.with_preprocess(preprocess.clone()),
            None => Ok(model),
        }
    }

    fn measure(&self, model: &Model, kept: usize) -> Result<Comparison> {
        let total = self.measuring.len();
        let step = |done| (self.settings.progress)(Stage::MeasureInt8(kept), done, total);
        let found = samples::outputs(model, self.measuring, self.settings.threads, &step)?;
        of_outputs(self.float.labels(), self.measuring, self.wanted, &found)
    }

    /// Writes the record, and holds the file to its own test vectors.
    fn finish(
        &self,
        mut proto: ModelProto,
        model: &Model,
        comparison: Comparison,
        float: &[usize],
    ) -> Result<Quantized> {
        let layers: Vec<Row> =
            self.plans.iter().enumerate().map(|(i, plan)| plan.row(float.contains(&i))).collect();
        let golden = record::golden(self.float, model)?;
        let tolerance = golden.as_ref().map(|(_, furthest)| selftest::quantized_tolerance(*furthest));
        let note = record::quantization(self.settings, self.images, &layers, &comparison, tolerance);
        record::write(&mut proto, golden.as_ref().map(|(golden, _)| &golden[..]), &note);
        let bytes = proto.encode_to_vec();
        let written = Model::from_bytes(&bytes)?;
        if golden.is_some_and(|(golden, _)| !golden.is_empty()) {
            selftest::judge(&selftest::run(&written)?)?;
        }
        Ok(Quantized { bytes, comparison, layers, samples: self.images })
    }
}
