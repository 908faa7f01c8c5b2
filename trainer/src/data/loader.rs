//! Batches ahead of time: threads read, change and normalise images while the model computes.
//!
//! What a batch holds follows from the seed, the epoch and the batch's number alone: neither the number of threads
//! nor their timing changes a bit. Each thread takes the next batch number, makes the whole batch, and hands it
//! over; the queue is bounded, so memory is too. An unusable image is named once and its place taken by the next
//! usable one in the data set's order; more of them than [`LoaderSettings::max_bad`] allows end the epoch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use smalti_models::Preprocess;
use smalti_models::image::Image;

use super::cache::Cache;
use super::queue::{Queue, lock};
use super::{Augment, Dataset};
use crate::error::{Error, Result};
use crate::rng::{Rng, stream};

/// Images that the model sees together; of several ranks each has its own part of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The epoch.
    pub epoch: u64,
    /// The batch's number in the epoch.
    pub index: u64,
    /// The images' numbers in the data set.
    pub ids: Vec<u32>,
    /// Normalised pixels, `[image, channel, row, column]`.
    pub pixels: Vec<f32>,
    /// The images' labels.
    pub labels: Vec<Option<u32>>,
    /// Images of the whole batch.
    pub total: usize,
    /// Where in the whole batch this rank's own images are.
    pub own: Range<usize>,
    /// Where in this part they begin; around them are images that they are mixed with.
    pub at: usize,
}

impl Batch {
    /// How many images the batch holds.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it holds none: only where a rank has no share of a small batch.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Where in this part the images are that have these places in the whole batch.
    pub fn places(&self, whole: Range<usize>) -> Range<usize> {
        let place = |i: usize| (i + self.at).saturating_sub(self.own.start);
        place(whole.start)..place(whole.end)
    }
}

/// What becomes of the place of an unusable image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// The next usable image of the data set takes it: for training, where batches keep their size.
    #[default]
    Replace,
    /// It stays empty and the batch is smaller: for measuring, where no image may count twice.
    Skip,
}

/// Which images of a batch a rank reads: `share(epoch, images)`, without one all of them.
#[derive(Clone)]
pub struct Share {
    of: Arc<dyn Fn(u64, usize) -> Range<usize> + Send + Sync>,
    mirrored: bool,
}

impl Share {
    /// A share; `mirrored` where image `i` of `n` is needed beside image `n - 1 - i`, see [`super::Mix`].
    pub fn new(mirrored: bool, of: impl Fn(u64, usize) -> Range<usize> + Send + Sync + 'static) -> Share {
        Share { of: Arc::new(of), mirrored }
    }

    /// The rank's own places among `n`, and all that it reads, rising.
    fn places(&self, epoch: u64, n: usize) -> (Range<usize>, Vec<usize>) {
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

/// How a [`Loader`] works.
#[derive(Clone, Debug)]
pub struct LoaderSettings {
    /// Images in a batch.
    pub batch_size: usize,
    /// The model's input.
    pub preprocess: Preprocess,
    /// What is changed about each image.
    pub augment: Augment,
    /// Whether each epoch has an order of its own; otherwise the data set's.
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// The seed of order and augmentation.
    pub seed: u64,
    /// Threads that prepare batches; 0 prepares each when it is asked for.
    pub threads: usize,
    /// The greatest share of unusable images; one alone never ends an epoch unless this is 0.
    pub max_bad: f64,
    /// What becomes of the place of an unusable image.
    pub on_bad: OnBad,
    /// How often an epoch goes through the data set, each time in a new order: for small sets.
    pub repeat: usize,
    /// Memory for prepared images, in bytes.
    pub cache_bytes: usize,
    /// The part of each batch that is read, where ranks share batches.
    pub share: Option<Share>,
}

impl LoaderSettings {
    /// Settings to measure with: every image once, in order, unchanged.
    pub fn new(batch_size: usize, preprocess: Preprocess) -> LoaderSettings {
        LoaderSettings {
            batch_size,
            preprocess,
            augment: Augment::default(),
            shuffle: false,
            drop_last: false,
            seed: 0,
            threads: 1,
            max_bad: 0.05,
            on_bad: OnBad::Skip,
            repeat: 1,
            cache_bytes: 2 << 30,
            share: None,
        }
    }

    /// Settings to train with: shuffled, changed, full batches.
    pub fn training(
        batch_size: usize,
        preprocess: Preprocess,
        augment: Augment,
        seed: u64,
    ) -> LoaderSettings {
        LoaderSettings {
            augment,
            shuffle: true,
            drop_last: true,
            seed,
            on_bad: OnBad::Replace,
            ..LoaderSettings::new(batch_size, preprocess)
        }
    }

    fn check(&self) -> Result<()> {
        self.preprocess.check()?;
        self.augment.check(self.preprocess.img_size)?;
        if self.batch_size == 0 || self.repeat == 0 {
            return Err(Error::Usage("batch size and repeat are at least 1".into()));
        }
        if !(0.0..=1.0).contains(&self.max_bad) {
            return Err(Error::Usage(format!("max-bad is {}, expected 0 to 1", self.max_bad)));
        }
        Ok(())
    }
}

/// Hands out the batches of a data set, epoch by epoch. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    shared: Arc<Shared>,
}

/// What all threads of a loader use.
struct Shared {
    data: Dataset,
    settings: LoaderSettings,
    /// Floats of one image.
    record: usize,
    cache: Cache,
    bad: Mutex<BTreeMap<usize, String>>,
}

impl Loader {
    /// A loader of `data`; images are read when an epoch is begun.
    pub fn new(data: Dataset, settings: LoaderSettings) -> Result<Loader> {
        settings.check()?;
        let images = data.len().saturating_mul(settings.repeat);
        if images > u32::MAX as usize {
            return Err(Error::Usage(format!("an epoch of {images} images, at most {}", u32::MAX)));
        }
        if images == 0 || (settings.drop_last && images < settings.batch_size) {
            let problem = format!(
                "{images} images do not fill a batch of {}; lower the batch size or add images",
                settings.batch_size
            );
            return Err(Error::data(data.root(), problem));
        }
        let size = settings.preprocess.img_size;
        let as_is = data.shape() == Some((size, size, settings.preprocess.channels));
        let budget = if as_is { 0 } else { settings.cache_bytes };
        let shared = Shared {
            record: size * size * settings.preprocess.channels,
            cache: Cache::new(data.len(), budget),
            bad: Mutex::default(),
            data,
            settings,
        };
        Ok(Loader { shared: Arc::new(shared) })
    }

    /// The data set.
    pub fn data(&self) -> &Dataset {
        &self.shared.data
    }

    /// The settings.
    pub fn settings(&self) -> &LoaderSettings {
        &self.shared.settings
    }

    /// How many batches an epoch has.
    pub fn batches_per_epoch(&self) -> usize {
        let Shared { data, settings, .. } = &*self.shared;
        let images = data.len() * settings.repeat;
        if settings.drop_last { images / settings.batch_size } else { images.div_ceil(settings.batch_size) }
    }

    /// The unusable images found so far: where each is, and why.
    pub fn bad(&self) -> Vec<String> {
        lock(&self.shared.bad).values().cloned().collect()
    }

    /// The batches of one epoch from `first_batch` on. Dropping it stops its threads.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Epoch {
        let batches = self.batches_per_epoch();
        let plan = Plan { shared: Arc::clone(&self.shared), epoch, order: self.shared.order(epoch) };
        let (plan, next) = (Arc::new(plan), first_batch.min(batches));
        let queue = Arc::new(Queue::new(next, batches, self.shared.settings.threads + 1));
        let mut threads = Vec::new();
        for i in 0..self.shared.settings.threads.min(batches - next) {
            let (plan, queue) = (Arc::clone(&plan), Arc::clone(&queue));
            let name = format!("loader-{i}");
            // Where the system has no thread left, those there are do the work, or the caller.
            match std::thread::Builder::new().name(name).spawn(move || work(&plan, &queue)) {
                Ok(thread) => threads.push(thread),
                Err(e) => log::warn!("no thread for the loader: {e}"),
            }
        }
        Epoch { plan, queue, threads, next, batches }
    }
}

impl Shared {
    /// The images of an epoch in order.
    fn order(&self, epoch: u64) -> Vec<u32> {
        let n = self.data.len() as u32;
        let repeat = self.settings.repeat as u64;
        let mut order = Vec::with_capacity(n as usize * self.settings.repeat);
        for pass in 0..repeat {
            let start = order.len();
            order.extend(0..n);
            if self.settings.shuffle {
                let mut rng = Rng::new(
                    self.settings.seed,
                    stream::ORDER,
                    [epoch.wrapping_mul(repeat).wrapping_add(pass)],
                );
                rng.shuffle(&mut order[start..]);
            }
        }
        order
    }

    /// Image `i`, decoded and prepared.
    fn prepared(&self, i: usize) -> Result<Arc<Image>> {
        if let Some(image) = self.cache.get(i) {
            return Ok(image);
        }
        if let Some(why) = self.data.known_bad(i) {
            return Err(Error::data(self.data.place(i), why));
        }
        let image = self.data.image(i)?;
        let prepared = self.settings.augment.prepare(image, &self.settings.preprocess);
        let prepared = Arc::new(prepared.map_err(|e| Error::data(self.data.place(i), e.to_string()))?);
        self.cache.put(i, &prepared);
        Ok(prepared)
    }

    /// The image wanted, or what takes its place.
    fn usable(&self, wanted: usize) -> Result<Option<(usize, Arc<Image>)>> {
        let n = self.data.len();
        for step in 0..n {
            let i = (wanted + step) % n;
            match self.prepared(i) {
                Ok(image) => return Ok(Some((i, image))),
                Err(why) => self.note_bad(i, &why)?,
            }
            if self.settings.on_bad == OnBad::Skip {
                return Ok(None);
            }
        }
        Err(Error::data(self.data.root(), format!("none of the {n} images can be used")))
    }

    /// Counts an unusable image; an error when there are too many.
    fn note_bad(&self, i: usize, why: &Error) -> Result<()> {
        self.data.note_bad(i, why);
        let mut bad = lock(&self.bad);
        bad.entry(i).or_insert_with(|| self.data.known_bad(i).unwrap_or_else(|| why.to_string()));
        let (found, n, most) = (bad.len(), self.data.len(), self.settings.max_bad);
        let too_many = found as f64 > most * n as f64 && (found > 1 || most == 0.0);
        if !too_many && found < n {
            return Ok(());
        }
        let first: Vec<&str> = bad.values().take(3).map(String::as_str).collect();
        let problem = format!(
            "at least {found} of {n} images cannot be used, more than --max-bad {}% allows; the first: {}",
            most * 100.0,
            first.join("; ")
        );
        Err(Error::data(self.data.root(), problem))
    }
}

/// One epoch's work.
struct Plan {
    shared: Arc<Shared>,
    epoch: u64,
    order: Vec<u32>,
}

impl Plan {
    /// Makes a batch; a panic becomes an error.
    fn batch(&self, index: usize) -> Result<Batch> {
        catch_unwind(AssertUnwindSafe(|| self.make(index))).unwrap_or_else(|_| {
            Err(Error::data(
                self.shared.data.root(),
                format!("preparing batch {index} failed; please report this"),
            ))
        })
    }

    fn make(&self, index: usize) -> Result<Batch> {
        let Shared { data, settings, record, .. } = &*self.shared;
        let start = index * settings.batch_size;
        let wanted =
            self.order.get(start..(start + settings.batch_size).min(self.order.len())).unwrap_or_default();
        let total = wanted.len();
        let (own, places) = match &settings.share {
            Some(share) => share.places(self.epoch, total),
            None => (0..total, (0..total).collect()),
        };
        let mut batch = Batch {
            epoch: self.epoch,
            index: index as u64,
            ids: Vec::with_capacity(places.len()),
            pixels: vec![0.0; places.len() * record],
            labels: Vec::with_capacity(places.len()),
            total,
            at: places.iter().filter(|&&place| place < own.start).count(),
            own,
        };
        for (offset, wanted) in places.into_iter().map(|place| (place, wanted[place])) {
            let Some((i, image)) = self.shared.usable(wanted as usize)? else { continue };
            let pass = (start + offset) / data.len().max(1);
            let pass = self.epoch.wrapping_mul(settings.repeat as u64).wrapping_add(pass as u64);
            let mut rng = Rng::new(settings.seed, stream::AUGMENT, [pass, u64::from(wanted)]);
            let at = batch.ids.len() * record;
            let out = batch.pixels.get_mut(at..at + record).unwrap_or_default();
            settings.augment.apply(&image, &settings.preprocess, &mut rng, out)?;
            batch.ids.push(i as u32);
            batch.labels.push(data.label(i));
        }
        batch.pixels.truncate(batch.ids.len() * record);
        Ok(batch)
    }
}

/// A loader's thread.
fn work(plan: &Plan, queue: &Queue) {
    while let Some(index) = queue.take() {
        queue.give(index, plan.batch(index));
    }
}

/// The batches of one epoch, in order; after an error there are none.
pub struct Epoch {
    plan: Arc<Plan>,
    queue: Arc<Queue>,
    threads: Vec<std::thread::JoinHandle<()>>,
    next: usize,
    batches: usize,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        while self.next < self.batches {
            let index = self.next;
            self.next += 1;
            // A batch that no thread has begun is made here: nothing waits for a thread that could not be started.
            let batch = self.queue.wait(index).unwrap_or_else(|| self.plan.batch(index));
            match batch {
                // Every image of it was unusable; a rank without a share waits for the others all the same.
                Ok(batch) if batch.is_empty() && !batch.own.is_empty() => continue,
                Ok(batch) => return Some(Ok(batch)),
                Err(error) => {
                    self.next = self.batches;
                    self.queue.stop();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.threads.drain(..) {
            // A panic of the thread was already turned into an error of its batch.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use smalti_models::preprocess::FitMode;
    use smalti_models::resize::Interpolation;

    use super::*;
    use crate::data::{CropKind, Dataset, Split};

    pub(crate) fn preprocess(img_size: usize, channels: usize) -> Preprocess {
        let (mean, std) = (vec![0.5; channels], vec![0.25; channels]);
        Preprocess {
            img_size,
            channels,
            fit: FitMode::Crop,
            interpolation: Interpolation::Bilinear,
            mean,
            std,
        }
    }

    /// `n` grey images; each pixel of image `i` is `i`.
    fn numbered(n: usize) -> Dataset {
        let image = |i: usize| (Image::new(8, 8, 1, vec![i as u8; 64]).unwrap(), Some((i % 2) as u32));
        Dataset::from_images(vec!["even".into(), "odd".into()], (0..n).map(image).collect()).unwrap()
    }

    fn training(n: usize, threads: usize) -> Loader {
        let augment = Augment { crop: CropKind::random_resized(0.3), flip: true, jitter: 0.4, erasing: 0.3 };
        let settings =
            LoaderSettings { threads, ..LoaderSettings::training(4, preprocess(8, 1), augment, 7) };
        Loader::new(numbered(n), settings).unwrap()
    }

    fn all(epoch: Epoch) -> Vec<Batch> {
        epoch.collect::<Result<_>>().unwrap()
    }

    #[test]
    fn every_image_comes_once_and_threads_change_nothing() {
        let plain = all(training(22, 0).epoch(3, 0));
        assert_eq!(plain.len(), 5);
        let mut ids: Vec<u32> = plain.iter().flat_map(|b| b.ids.clone()).collect();
        assert!(plain.iter().all(|b| b.labels.iter().zip(&b.ids).all(|(l, id)| *l == Some(id % 2))));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 20, "no image twice");
        for threads in [1, 2, 5] {
            let loader = training(22, threads);
            assert_eq!(all(loader.epoch(3, 0)), plain, "{threads} threads");
            assert_eq!(all(loader.epoch(3, 2)), plain[2..], "begun in the middle");
            assert_ne!(all(loader.epoch(4, 0))[0].ids, plain[0].ids);
        }
        let other = LoaderSettings { seed: 8, ..training(22, 0).settings().clone() };
        assert_ne!(all(Loader::new(numbered(22), other).unwrap().epoch(3, 0)), plain);
    }

    #[test]
    fn the_cache_changes_nothing() {
        let settings = training(22, 0).settings().clone();
        let images = (0..22).map(|i| {
            let pixels = (0..40 * 30).map(|p| (p * (i + 1) % 251) as u8).collect();
            (Image::new(40, 30, 1, pixels).unwrap(), None)
        });
        let data = Dataset::from_images(vec![], images.collect()).unwrap();
        let epochs = |cache_bytes| {
            let loader =
                Loader::new(data.clone(), LoaderSettings { cache_bytes, ..settings.clone() }).unwrap();
            [all(loader.epoch(0, 0)), all(loader.epoch(0, 0))]
        };
        let [first, again] = epochs(1 << 20);
        assert_eq!(first, again);
        assert_eq!([first, again], epochs(1000));
    }

    #[test]
    fn measuring_goes_in_order_with_a_last_small_batch() {
        let settings = LoaderSettings { threads: 2, ..LoaderSettings::new(4, preprocess(8, 1)) };
        let loader = Loader::new(numbered(10), settings).unwrap();
        let batches = all(loader.epoch(0, 0));
        assert_eq!((loader.batches_per_epoch(), batches.len()), (3, 3));
        assert_eq!(
            batches.iter().flat_map(|b| b.ids.clone()).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        assert_eq!((batches[2].len(), batches[2].pixels.len()), (2, 128));
        assert!((batches[1].pixels[0] - (4.0 / 255.0 - 0.5) / 0.25).abs() < 1e-6);
    }

    #[test]
    fn a_small_set_is_repeated_in_new_orders() {
        let settings = LoaderSettings { repeat: 3, ..training(4, 1).settings().clone() };
        let loader = Loader::new(numbered(4), settings).unwrap();
        let batches = all(loader.epoch(1, 0));
        assert_eq!(batches.len(), 3);
        for batch in &batches {
            let mut ids = batch.ids.clone();
            ids.sort_unstable();
            assert_eq!(ids, [0, 1, 2, 3]);
        }
        assert_ne!(batches[0].pixels, batches[1].pixels);
    }

    #[test]
    fn an_epoch_dropped_half_way_stops_its_threads() {
        let loader = training(200, 3);
        let mut epoch = loader.epoch(0, 0);
        assert!(epoch.next().unwrap().is_ok());
        let watch = Arc::downgrade(&epoch.plan);
        drop(epoch);
        assert!(watch.upgrade().is_none(), "the threads have let go of their work");
    }

    #[test]
    fn unreachable_settings_are_refused() {
        let refused = |change: &dyn Fn(&mut LoaderSettings)| {
            let mut settings = training(22, 0).settings().clone();
            change(&mut settings);
            Loader::new(numbered(22), settings).map(|_| ()).unwrap_err().exit_code()
        };
        assert_eq!(refused(&|s| s.batch_size = 0), 2);
        assert_eq!(refused(&|s| s.max_bad = 2.0), 2);
        assert_eq!(refused(&|s| s.augment.erasing = -1.0), 2);
        assert_eq!(refused(&|s| s.augment.crop = CropKind::Padded(9)), 2);
        assert_eq!(refused(&|s| s.batch_size = 23), 5);
    }

    /// A folder of `n` images of which those numbered in `bad` are text.
    fn folder(n: usize, bad: &[usize]) -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..n {
            let path = dir.path().join(format!("{i:03}.png"));
            if bad.contains(&i) {
                std::fs::write(path, "no image").unwrap();
            } else {
                image::GrayImage::from_pixel(8, 8, image::Luma([i as u8])).save(path).unwrap();
            }
        }
        let data = Dataset::open(dir.path(), Split::Train).unwrap();
        (dir, data)
    }

    #[test]
    fn the_next_good_image_takes_a_bad_ones_place() {
        let (_dir, data) = folder(40, &[3, 4]);
        for threads in [0, 2] {
            let settings = LoaderSettings {
                threads,
                on_bad: OnBad::Replace,
                ..LoaderSettings::new(4, preprocess(8, 1))
            };
            let loader = Loader::new(data.clone(), settings.clone()).unwrap();
            let ids: Vec<Vec<u32>> = all(loader.epoch(0, 0)).into_iter().map(|b| b.ids).collect();
            assert_eq!(ids[..2], [vec![0, 1, 2, 5], vec![5, 5, 6, 7]]);
            assert_eq!(loader.bad().len(), 2);
            assert!(loader.bad()[0].contains("003.png"), "{:?}", loader.bad());
            let skip = LoaderSettings { on_bad: OnBad::Skip, ..settings };
            let batches = all(Loader::new(data.clone(), skip).unwrap().epoch(0, 0));
            assert_eq!((&batches[0].ids[..], batches[0].pixels.len()), (&[0, 1, 2][..], 3 * 64));
        }
    }

    #[test]
    fn too_many_bad_images_end_the_epoch() {
        for (n, bad, max_bad, ends) in [
            (20, &[1][..], 0.01, false),
            (20, &[1], 0.0, true),
            (20, &[1, 2], 0.05, true),
            (40, &[1, 2], 0.05, false),
            (2, &[0, 1], 1.0, true),
        ] {
            let (_dir, data) = folder(n, bad);
            for threads in [0, 3] {
                let settings =
                    LoaderSettings { threads, max_bad, ..LoaderSettings::new(3, preprocess(8, 1)) };
                let loader = Loader::new(data.clone(), settings).unwrap();
                let outcome: Result<Vec<Batch>> = loader.epoch(0, 0).collect();
                assert_eq!(outcome.is_err(), ends, "{n} {bad:?} {max_bad}");
                if let Err(error) = outcome {
                    assert_eq!(error.exit_code(), 5);
                    assert!(error.to_string().contains(".png"), "{error}");
                }
            }
        }
    }
}
