//! Steps whose loss or gradient is no number: they are left out, and the learning rate is halved, twice at most.

use crate::data::Dataset;
use crate::error::Error;
use crate::model::params::Layout;

/// How often the rate is halved before the run ends.
const MOST_SETBACKS: u32 = 2;
/// The most images that a message names.
const NAMED: usize = 8;

/// What is wrong with a step.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    loss: f64,
    norm: f64,
    /// The first tensor with such a gradient.
    tensor: Option<String>,
}

impl Fault {
    /// What is wrong with a step of that loss, gradient norm and gradients, if anything is.
    pub(super) fn find(loss: f64, norm: f64, layout: &Layout, grads: &[f32]) -> Option<Fault> {
        if loss.is_finite() && norm.is_finite() {
            return None;
        }
        let is_bad = |values: &[f32]| values.iter().any(|value| !value.is_finite());
        let tensor = layout.iter().find(|(_, slot)| is_bad(slot.of(grads)));
        Some(Fault { loss, norm, tensor: tensor.map(|(spec, _)| spec.name.clone()) })
    }

    /// Says what was found at step `step` (from 1), and what is done after that many setbacks; the error ends the run.
    pub(super) fn judge(
        &self,
        step: u64,
        setbacks: u32,
        lr: f64,
        data: &Dataset,
        ids: &[u32],
    ) -> Result<(), Error> {
        let tensor = self.tensor.as_deref().map_or(String::new(), |name| format!(", first in `{name}`"));
        let found =
            format!("step {step}: the loss is {} and the gradient norm {}{tensor}", self.loss, self.norm);
        if setbacks > MOST_SETBACKS {
            return Err(Error::Diverged(format!(
                "{found}, as in {MOST_SETBACKS} steps before: the learning rate {lr:.2e} is too high for these images; start again with a \
                 lower --lr or --blr, or with --clip-grad 1"
            )));
        }
        let mut images: Vec<String> = ids.iter().take(NAMED).map(|id| data.place(*id as usize)).collect();
        if ids.len() > NAMED {
            images.push(format!("{} more", ids.len() - NAMED));
        }
        let images = images.join(", ");
        log::warn!(
            "{found}; the step is left out and the learning rate halved ({setbacks} of {MOST_SETBACKS} times). Its images: {images}"
        );
        Ok(())
    }

    /// What the learning rate is multiplied by after that many setbacks.
    pub(super) fn rate(setbacks: u32) -> f64 {
        f64::powi(0.5, setbacks as i32)
    }
}
