//! Batches in order, made ahead of time by threads that live as long as the stream.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::order::{Orders, order};
use super::queue::Queue;
use super::{Batch, Shared};
use crate::data::augment::Draw;
use crate::error::{Error, Result};

/// What the threads of one stream share.
struct Work {
    shared: Arc<Shared>,
    orders: Orders,
    queue: Queue<Result<Batch>>,
}

impl Work {
    /// A thread's life.
    fn run(&self) {
        while let Some(number) = self.queue.begin() {
            self.queue.put(number, self.batch(number));
        }
    }

    /// Makes a batch; a panic becomes an error.
    fn batch(&self, number: u64) -> Result<Batch> {
        catch_unwind(AssertUnwindSafe(|| self.make(number))).unwrap_or_else(|_| {
            Err(Error::data(
                self.shared.images.data.root(),
                format!("preparing batch {number} failed; please report this"),
            ))
        })
    }

    fn make(&self, number: u64) -> Result<Batch> {
        let Shared { images, settings, batches } = &*self.shared;
        let (epoch, index) = (number / batches, number % batches);
        let len = images.data.len();
        let seed = settings.shuffle.then_some(settings.seed);
        let order = self.orders.of(epoch, || order(len, settings.repeat, epoch, seed));
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
        for (offset, wanted) in places.into_iter().map(|place| (place, wanted[place])) {
            let pass = ((start + offset) / len.max(1)) as u64;
            let pass = epoch.wrapping_mul(settings.repeat as u64).wrapping_add(pass);
            self.add(&mut batch, wanted, pass)?;
        }
        for (pixels, view) in batch.views.iter_mut().zip(&settings.views) {
            pixels.truncate(batch.ids.len() * view.values());
        }
        Ok(batch)
    }

    /// Adds an image, or what takes its place, to a batch with room for it.
    fn add(&self, batch: &mut Batch, wanted: u32, pass: u64) -> Result<()> {
        let Shared { images, settings, .. } = &*self.shared;
        let Some((i, prepared)) = images.usable(wanted as usize)? else { return Ok(()) };
        for (v, (view, pixels)) in settings.views.iter().zip(&mut batch.views).enumerate() {
            let draw = Draw { seed: settings.seed, pass, image: u64::from(wanted), view: v as u64 };
            let at = batch.ids.len() * view.values();
            let out = pixels.get_mut(at..at + view.values()).unwrap_or_default();
            view.apply(&prepared[images.base_of(v)], draw, out)?;
        }
        batch.ids.push(i as u32);
        batch.labels.push(images.data.label(i));
        Ok(())
    }
}

/// Batches in order. After an error there are none. Dropping it ends its threads.
pub struct Stream {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
    end: u64,
}

impl Stream {
    /// The batches from `next` to below `end`, counted from the start of epoch 0.
    pub(super) fn new(shared: &Arc<Shared>, next: u64, end: u64) -> Stream {
        let wanted = shared.settings.threads;
        let queue = Queue::new(next, end, wanted + 1);
        let work = Arc::new(Work { shared: Arc::clone(shared), orders: Orders::default(), queue });
        let mut threads = Vec::new();
        for i in 0..wanted.min(usize::try_from(end.saturating_sub(next)).unwrap_or(usize::MAX)) {
            let (work, name) = (Arc::clone(&work), format!("loader-{i}"));
            // Where the system has no thread left, those there are do the work, or the caller.
            match std::thread::Builder::new().name(name).spawn(move || work.run()) {
                Ok(thread) => threads.push(thread),
                Err(e) => log::warn!("no thread for the loader: {e}"),
            }
        }
        Stream { work, threads, next, end }
    }
}

impl Iterator for Stream {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        while self.next < self.end {
            let number = self.next;
            self.next += 1;
            // A batch that no thread has begun is made here: nothing waits for a thread that could not be started.
            let batch = self.work.queue.take(number).unwrap_or_else(|| self.work.batch(number));
            self.work.orders.forget_before(number / self.work.shared.batches);
            match batch {
                // Every image of it was unusable; a rank without a share waits for the others all the same.
                Ok(batch) if batch.is_empty() && !batch.own.is_empty() => continue,
                Ok(batch) => return Some(Ok(batch)),
                Err(error) => {
                    self.end = self.next;
                    self.work.queue.stop();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.work.queue.stop();
        for thread in self.threads.drain(..) {
            // A panic of the thread was already turned into an error of its batch.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::tests::training;

    #[test]
    fn threads_go_on_from_one_epoch_to_the_next() {
        let loader = training(22, 1);
        assert_eq!(loader.batches_per_epoch(), 5);
        let mut stream = loader.stream(0);
        let thread = stream.threads[0].thread().id();
        for _ in 0..5 {
            stream.next().unwrap().unwrap();
        }
        // The next epoch's batches are made before anyone asks for one.
        let start = Instant::now();
        while stream.work.queue.ready() != [5, 6] && start.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        assert_eq!(stream.work.queue.ready(), [5, 6]);
        assert_eq!(stream.next().unwrap().unwrap().epoch, 1);
        assert_eq!((stream.threads[0].thread().id(), stream.threads[0].is_finished()), (thread, false));
    }

    #[test]
    fn dropping_a_stream_ends_its_threads() {
        for threads in [1, 3] {
            let loader = training(200, threads);
            for mut stream in [loader.stream(7), loader.epoch(0, 0)] {
                assert!(stream.next().unwrap().is_ok());
                let work = std::sync::Arc::downgrade(&stream.work);
                drop(stream);
                assert!(work.upgrade().is_none(), "the threads have let go of their work");
            }
        }
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_end() {
        let loader = training(22, 2);
        let share = crate::data::Share::new(false, |epoch, n| if epoch < 1 { 0..n } else { panic!("share") });
        let settings = super::super::LoaderSettings { share: Some(share), ..loader.settings().clone() };
        for threads in [0, 2] {
            let settings = super::super::LoaderSettings { threads, ..settings.clone() };
            let loader = super::super::Loader::new(loader.data().clone(), settings).unwrap();
            let mut stream = loader.stream(3);
            assert!(stream.next().unwrap().is_ok() && stream.next().unwrap().is_ok());
            let error = stream.next().unwrap().unwrap_err().to_string();
            assert!(error.contains("batch 5"), "{error}");
            assert!(stream.next().is_none());
        }
    }
}
