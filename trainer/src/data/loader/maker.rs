//! Makes a batch by its number.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::batch::Batch;
use super::images::Images;
use super::order::{Orders, order};
use super::settings::LoaderSettings;
use crate::data::augment::Draw;
use crate::error::{Error, Result};

/// What all streams of a loader share.
pub(super) struct Maker {
    pub(super) images: Images,
    pub(super) settings: LoaderSettings,
    /// Batches in an epoch, at least 1.
    pub(super) batches: u64,
}

impl Maker {
    /// The batch with this number, counted from the start of epoch 0; a panic becomes an error.
    pub(super) fn batch(&self, number: u64, orders: &Orders) -> Result<Batch> {
        catch_unwind(AssertUnwindSafe(|| self.make(number, orders))).unwrap_or_else(|_| {
            let problem = format!("preparing batch {number} failed; please report this");
            Err(Error::data(self.images.data.root(), problem))
        })
    }

    fn make(&self, number: u64, orders: &Orders) -> Result<Batch> {
        let settings = &self.settings;
        let (epoch, index) = (number / self.batches, number % self.batches);
        let len = self.images.data.len();
        let seed = settings.shuffle.then_some(settings.seed);
        let order = orders.of(epoch, || order(len, settings.repeat, epoch, seed));
        let start = index as usize * settings.batch_size;
        let wanted = order.get(start..order.len().min(start + settings.batch_size)).unwrap_or_default();
        let total = wanted.len();
        let (own, places) = match &settings.share {
            Some(share) => share.places(epoch, total),
            None => (0..total, (0..total).collect()),
        };
        let pixels = settings.views.iter().map(|view| vec![0.0; places.len() * view.values()]);
        let mut batch = Batch {
            epoch,
            index,
            ids: Vec::with_capacity(places.len()),
            views: pixels.collect(),
            labels: Vec::with_capacity(places.len()),
            total,
            at: places.iter().filter(|&&place| place < own.start).count(),
            own,
        };
        for place in places {
            let pass = ((start + place) / len.max(1)) as u64;
            let pass = epoch.wrapping_mul(settings.repeat as u64).wrapping_add(pass);
            self.add(&mut batch, wanted[place], pass)?;
        }
        for (pixels, view) in batch.views.iter_mut().zip(&settings.views) {
            pixels.truncate(batch.ids.len() * view.values());
        }
        Ok(batch)
    }

    /// Adds an image, or what takes its place, to a batch with room for it.
    fn add(&self, batch: &mut Batch, wanted: u32, pass: u64) -> Result<()> {
        let Some((i, prepared)) = self.images.usable(wanted as usize)? else { return Ok(()) };
        for (v, (view, pixels)) in self.settings.views.iter().zip(&mut batch.views).enumerate() {
            let crop_of = self.settings.crops.map(|crops| pass % crops.max(1));
            // A crop that is repeated belongs to the image; otherwise to its place in the order.
            let image = if crop_of.is_some() { i as u64 } else { u64::from(wanted) };
            let draw = Draw { seed: self.settings.seed, pass, image, view: v as u64, crop_of };
            let at = batch.ids.len() * view.values();
            let out = pixels.get_mut(at..at + view.values()).unwrap_or_default();
            view.apply(&prepared[self.images.base_of(v)], draw, out)?;
        }
        batch.ids.push(i as u32);
        batch.labels.push(self.images.data.label(i));
        Ok(())
    }
}
