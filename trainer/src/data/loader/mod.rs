//! Batches ahead of time: threads read, change and normalise images while the model computes.
//!
//! What a batch holds follows from the seed, the epoch and the batch's number alone: neither the number of threads
//! nor their timing changes a bit. Each thread takes the next batch number, makes the whole batch, and hands it
//! over; the queue is bounded, so memory is too. An unusable image is named once and its place taken by the next
//! usable one in the data set's order; more of them than [`LoaderSettings::max_bad`] allows are an error.

mod batch;
mod cache;
mod images;
mod maker;
mod order;
mod queue;
mod settings;
mod stream;

use std::sync::Arc;

use super::Dataset;
use crate::error::{Error, Result};

pub use batch::Batch;
pub use cache::CacheBudget;
use images::Images;
use maker::Maker;
pub use settings::{LoaderSettings, OnBad, Share};
pub use stream::Stream;

/// Hands out the batches of a data set. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    maker: Arc<Maker>,
}

impl Loader {
    /// A loader of `data`; images are read when a stream is begun.
    ///
    /// # Errors
    /// Settings that cannot be carried out; a data set that does not fill a batch.
    pub fn new(data: Dataset, settings: LoaderSettings) -> Result<Loader> {
        settings.check()?;
        let images = data.len().saturating_mul(settings.repeat);
        if images > u32::MAX as usize {
            return Err(Error::Usage(format!("an epoch of {images} images, at most {}", u32::MAX)));
        }
        let (full, size) = (images / settings.batch_size, settings.batch_size);
        let batches = if settings.drop_last { full } else { images.div_ceil(size) } as u64;
        if batches == 0 {
            let problem =
                format!("{images} images do not fill a batch of {size}; lower the batch size or add images");
            return Err(Error::data(data.root(), problem));
        }
        let images = Images::new(data, &settings);
        Ok(Loader { maker: Arc::new(Maker { images, settings, batches }) })
    }

    /// The data set.
    pub fn data(&self) -> &Dataset {
        &self.maker.images.data
    }

    /// The settings.
    pub fn settings(&self) -> &LoaderSettings {
        &self.maker.settings
    }

    /// How many batches an epoch has, at least 1.
    pub fn batches_per_epoch(&self) -> usize {
        self.maker.batches as usize
    }

    /// The unusable images found so far: where each is, and why.
    pub fn bad(&self) -> Vec<String> {
        self.maker.images.bad()
    }

    /// Endless batches from number `first` on, counted from the start of epoch 0: batch `n` belongs to epoch
    /// `n / batches_per_epoch`. Nothing waits where one epoch ends and the next begins.
    pub fn stream(&self, first: u64) -> Stream {
        Stream::new(&self.maker, first, u64::MAX)
    }

    /// The batches of one epoch from its batch `first` on.
    pub fn epoch(&self, epoch: u64, first: usize) -> Stream {
        let batches = self.maker.batches;
        let (start, end) = (epoch.saturating_mul(batches), epoch.saturating_add(1).saturating_mul(batches));
        Stream::new(&self.maker, end.min(start.saturating_add(first as u64)), end)
    }
}

#[cfg(test)]
mod tests;
