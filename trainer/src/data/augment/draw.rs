//! The random streams of one view of one image.

use crate::rng::{Rng, stream};

/// Names one view of one image in one pass over the data set. All its random numbers follow from this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) seed: u64,
    /// Passes over the data set so far.
    pub(crate) pass: u64,
    /// The image's number in the data set.
    pub(crate) image: u64,
    /// The view's number; 0 is the first.
    pub(crate) view: u64,
    /// The pass whose crop and mirroring are repeated, where a teacher has seen the crops of some passes.
    pub(crate) crop_of: Option<u64>,
}

/// The number of each step that has a stream of its own. A number that was used once stays with its step.
const POLICY: u64 = 1;

impl Draw {
    /// The stream that crop, flip, jitter and erasing share, in this order: giving each its own would change the
    /// numbers of every run so far. New steps have streams of their own.
    pub(super) fn shared(self) -> Rng {
        match self.view {
            0 => Rng::new(self.seed, stream::AUGMENT, [self.pass, self.image]),
            view => Rng::new(self.seed, stream::AUGMENT, [self.pass, self.image, view]),
        }
    }

    /// The stream of crop and flip where they are those of another pass: what [`Draw::shared`] was there.
    pub(super) fn repeated(self) -> Option<Rng> {
        self.crop_of.map(|pass| Draw { pass, ..self }.shared())
    }

    /// The policy's stream.
    pub(super) fn policy(self) -> Rng {
        self.own(POLICY)
    }

    fn own(self, step: u64) -> Rng {
        Rng::new(self.seed, stream::AUGMENT, [self.pass, self.image, self.view, step])
    }
}
