//! The running statistics of batch norms: moving averages over the batches of a run.
//!
//! They are tensors in the flat vector, and what lanes and ranks sum up as their gradients are the statistics of the batch
//! (see [`crate::model::ops::batch_norm`]). They have no part in the gradient norm, in clipping and in the optimizers.

use std::ops::Range;

use crate::model::params::Layout;

/// The weight of a batch in the moving average (PyTorch's default).
const MOMENTUM: f32 = 0.1;

/// Where the running statistics lie in the flat vector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningStatistics {
    ranges: Vec<Range<usize>>,
}

impl RunningStatistics {
    /// Finds them; plain models have none.
    pub fn new(layout: &Layout) -> RunningStatistics {
        let statistics = layout.iter().filter(|(spec, _)| spec.role.is_statistic());
        RunningStatistics { ranges: statistics.map(|(_, slot)| slot.range()).collect() }
    }

    /// Takes the statistics of a batch out of its gradients, where they leave zeros.
    pub fn take(&self, grads: &mut [f32]) -> Vec<f32> {
        let mut taken = Vec::with_capacity(self.ranges.iter().map(Range::len).sum());
        for range in &self.ranges {
            taken.extend_from_slice(&grads[range.clone()]);
            grads[range.clone()].fill(0.0);
        }
        taken
    }

    /// Moves the running statistics towards those of a batch, which [`RunningStatistics::take`] took.
    pub fn update(&self, batch: &[f32], params: &mut [f32]) {
        let mut batch = batch.iter();
        for range in &self.ranges {
            for (running, batch) in params[range.clone()].iter_mut().zip(&mut batch) {
                *running += MOMENTUM * (batch - *running);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::precision::Precision;
    use crate::train::optim::{AdamW, Rates};
    use smalti_models::presets::Preset;
    use smalti_models::{Pooling, names};

    #[test]
    fn only_the_moving_average_moves_them() {
        let specs = names::classifier(&Preset::HybridNano.encoder(32, 16, 3), 10, Pooling::Mean);
        let layout = Layout::new(specs, Precision::F32);
        let (statistics, start) = (RunningStatistics::new(&layout), layout.init::<f32>(0));
        let (mut grads, mut params) = (vec![3.0; layout.len()], start.clone());
        let taken = statistics.take(&mut grads);
        AdamW::new(&layout, [0.9, 0.999], 0.5, Rates::default()).update(1.0, 1.0, &grads, &mut params);
        for (spec, slot) in layout.iter() {
            let is_same = slot.of(&params) == slot.of(&start);
            assert_eq!(is_same, spec.role.is_statistic(), "{}", spec.name);
            assert_eq!(slot.of(&grads).iter().all(|g| *g == 0.0), is_same);
        }
        statistics.update(&taken, &mut params);
        let of = |name: &str| layout.slot(name).unwrap().of(&params)[0];
        assert!((of("stages.0.down.bn.running_mean") - 0.3).abs() < 1e-6);
        assert!((of("stages.3.conv2.bn.running_var") - 1.2).abs() < 1e-6);
    }
}
