//! Which images of a batch are computed together, and which lane accumulates them.

use std::ops::Range;

use smalti_models::{Stem, VitConfig};

use crate::train::ranks::Ranks;

/// Lanes of a small batch: as many threads of all ranks together can work at once.
const LANES: usize = 8;
/// Lanes of a large batch, at most.
const MAX_LANES: usize = 64;
/// Micro-batches of a lane in a large batch.
const MICROS_PER_LANE: usize = 2;
/// Tokens of a micro-batch, about. Its activations should stay in the processor's caches.
const MICRO_TOKENS: usize = 1040;

/// Images of a micro-batch of a model with batch norms, at most. Their statistics are over the images of a micro-batch.
const NORM_IMAGES: usize = 16;

/// Images of a micro-batch when each has this many tokens.
pub fn micro_batch(tokens: usize) -> usize {
    (MICRO_TOKENS / tokens.max(1)).clamp(1, 32)
}

/// How the images of a batch are assigned to micro-batches and lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    batch: usize,
    micro: usize,
    micros: usize,
    lanes: usize,
}

impl BatchPlan {
    /// A plan for `batch` images, `micro` of which make a micro-batch.
    pub fn new(batch: usize, micro: usize) -> BatchPlan {
        let micros = batch.div_ceil(micro.max(1));
        let lanes = micros.min((micros / MICROS_PER_LANE).clamp(LANES, MAX_LANES));
        BatchPlan { batch, micro, micros, lanes }
    }

    /// A plan for `batch` images of which an encoder sees `patches` patches each. With batch norms all micro-batches have as
    /// many images, but for the last, which may have a few less.
    pub fn of(vit: &VitConfig, patches: usize, batch: usize) -> BatchPlan {
        let micro = match vit.stem {
            Stem::Patches => micro_batch(vit.prefix_tokens() + patches),
            Stem::Convolutions => batch.div_ceil(batch.div_ceil(NORM_IMAGES).max(1)),
        };
        BatchPlan::new(batch, micro)
    }

    /// Images of a micro-batch, at most.
    pub fn micro(&self) -> usize {
        self.micro.min(self.batch)
    }

    /// Number of lanes.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Number of micro-batches.
    pub(super) fn micro_batches(&self) -> usize {
        self.micros
    }

    /// The micro-batches of a lane.
    pub(super) fn micros(&self, lane: usize) -> Range<usize> {
        lane * self.micros / self.lanes.max(1)..(lane + 1) * self.micros / self.lanes.max(1)
    }

    /// The images of a micro-batch.
    pub(super) fn images(&self, micro: usize) -> Range<usize> {
        micro * self.micro..((micro + 1) * self.micro).min(self.batch)
    }

    /// The lanes of this rank.
    pub(super) fn own_lanes(&self, ranks: Option<&Ranks>) -> Range<usize> {
        ranks.map_or(0..self.lanes, |ranks| ranks.share(self.lanes))
    }

    /// The images of this rank.
    pub fn share(&self, ranks: Option<&Ranks>) -> Range<usize> {
        let own = self.own_lanes(ranks);
        let start = |lane: usize| (self.micros(lane).start * self.micro).min(self.batch);
        start(own.start)..start(own.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_norms_see_as_many_images_each_time() {
        let vit = smalti_models::presets::Preset::HybridNano.encoder(96, 16, 3);
        for (batch, sizes) in
            [(64, [16; 4].to_vec()), (65, [13; 5].to_vec()), (20, vec![10, 10]), (3, vec![3])]
        {
            let plan = BatchPlan::of(&vit, 36, batch);
            let found: Vec<usize> = (0..plan.micro_batches()).map(|i| plan.images(i).len()).collect();
            assert_eq!(found, sizes);
        }
    }

    #[test]
    fn every_image_is_in_one_lane() {
        for (batch, micro, lanes) in
            [(128, 16, 8), (256, 16, 8), (1024, 16, 32), (5000, 1, 64), (3, 2, 2), (0, 4, 0)]
        {
            let plan = BatchPlan::new(batch, micro);
            assert_eq!(plan.lanes(), lanes);
            let images: Vec<usize> =
                (0..lanes).flat_map(|lane| plan.micros(lane)).flat_map(|micro| plan.images(micro)).collect();
            assert_eq!(images, (0..batch).collect::<Vec<_>>());
            let shares: Vec<usize> =
                Ranks::threads(3).iter().flat_map(|ranks| plan.share(Some(ranks))).collect();
            assert_eq!(shares, images);
        }
    }
}
