//! How a loader works.

use std::ops::Range;
use std::sync::Arc;

use smalti_models::Preprocess;

use super::cache::CacheBudget;
use crate::data::{Augment, View};
use crate::error::{Error, Result};

/// What becomes of the place of an unusable image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// The next usable image of the data set takes it: for training, where batches keep their size.
    #[default]
    Replace,
    /// It stays empty and the batch is smaller: for measuring, where no image may count twice.
    Skip,
}

/// Which images of a batch a rank reads: `share(epoch, images)`. Without a share it reads all of them.
#[derive(Clone)]
pub struct Share {
    of: Arc<dyn Fn(u64, usize) -> Range<usize> + Send + Sync>,
    mirrored: bool,
}

impl Share {
    /// A share; `mirrored` where image `i` of `n` is mixed with image `n - 1 - i`, see [`crate::data::Mix`].
    pub fn new(mirrored: bool, of: impl Fn(u64, usize) -> Range<usize> + Send + Sync + 'static) -> Share {
        Share { of: Arc::new(of), mirrored }
    }

    /// The rank's own places among `n`, and all that it reads, rising.
    pub(super) fn places(&self, epoch: u64, n: usize) -> (Range<usize>, Vec<usize>) {
        let own = (self.of)(epoch, n);
        let wanted = |i: &usize| own.contains(i) || (self.mirrored && own.contains(&(n - 1 - i)));
        let read = (0..n).filter(wanted).collect();
        (own, read)
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").field("mirrored", &self.mirrored).finish_non_exhaustive()
    }
}

/// How a [`super::Loader`] works.
#[derive(Clone, Debug)]
pub struct LoaderSettings {
    /// Images in a batch.
    pub batch_size: usize,
    /// The forms in which each image is shown, at least one. Each has random streams of its own; what a view holds
    /// does not depend on the others.
    pub views: Vec<View>,
    /// Whether each epoch has an order of its own; otherwise the data set's.
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// The seed of order and augmentation.
    pub seed: u64,
    /// Threads that prepare batches; 0 prepares each when it is asked for.
    pub threads: usize,
    /// The maximum fraction of unusable images. A single one never ends an epoch unless this is 0.
    pub max_bad: f64,
    /// What becomes of the place of an unusable image.
    pub on_bad: OnBad,
    /// How often an epoch goes through the data set, each time in a new order: for small sets.
    pub repeat: usize,
    /// After so many passes crop and mirroring of each image repeat, where a teacher has seen the crops of those passes.
    pub crops: Option<u64>,
    /// The memory for prepared images, shared with other loaders.
    pub cache: CacheBudget,
    /// The part of each batch that is read, where ranks share batches.
    pub share: Option<Share>,
}

impl LoaderSettings {
    /// Settings to measure with: every image once, in order, unchanged. Nothing is cached.
    pub fn new(batch_size: usize, preprocess: Preprocess) -> LoaderSettings {
        LoaderSettings {
            batch_size,
            views: vec![View::new(Augment::default(), preprocess)],
            shuffle: false,
            drop_last: false,
            seed: 0,
            threads: 1,
            max_bad: 0.05,
            on_bad: OnBad::Skip,
            repeat: 1,
            crops: None,
            cache: CacheBudget::new(0),
            share: None,
        }
    }

    /// Settings to train with: shuffled, changed, full batches of one view. Nothing is cached.
    pub fn training(
        batch_size: usize,
        preprocess: Preprocess,
        augment: Augment,
        seed: u64,
    ) -> LoaderSettings {
        LoaderSettings {
            views: vec![View::new(augment, preprocess.clone())],
            shuffle: true,
            drop_last: true,
            seed,
            on_bad: OnBad::Replace,
            ..LoaderSettings::new(batch_size, preprocess)
        }
    }

    /// Refuses what cannot be carried out.
    pub(super) fn check(&self) -> Result<()> {
        self.views.iter().try_for_each(View::check)?;
        let refuse = |what: String| Err(Error::Usage(what));
        if self.views.is_empty() {
            return refuse("a loader without views: expected at least one".into());
        }
        if self.batch_size == 0 || self.repeat == 0 {
            return refuse("batch size and repeat: expected at least 1".into());
        }
        if !(0.0..=1.0).contains(&self.max_bad) {
            return refuse(format!("max-bad is {}, expected 0 to 1", self.max_bad));
        }
        Ok(())
    }
}
