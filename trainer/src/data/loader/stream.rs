//! Batches in order, made ahead of time by threads that live as long as the stream.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::batch::Batch;
use super::maker::Maker;
use super::order::Orders;
use super::queue::Queue;
use crate::error::Result;

/// What the threads of one stream share.
struct Work {
    maker: Arc<Maker>,
    orders: Orders,
    queue: Queue<Result<Batch>>,
}

impl Work {
    /// A thread's life.
    fn run(&self) {
        while let Some(number) = self.queue.begin() {
            self.queue.put(number, self.maker.batch(number, &self.orders));
        }
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
    pub(super) fn new(maker: &Arc<Maker>, next: u64, end: u64) -> Stream {
        let wanted = maker.settings.threads;
        let queue = Queue::new(next, end, wanted + 1);
        let work = Arc::new(Work { maker: Arc::clone(maker), orders: Orders::default(), queue });
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
            let Work { maker, orders, queue } = &*self.work;
            let batch = queue.take(number).unwrap_or_else(|| maker.batch(number, orders));
            orders.forget_before(number / maker.batches);
            match batch {
                // Every image of it was unusable; a rank without a share waits for the others all the same.
                Ok(batch) if batch.is_empty() && !batch.own.is_empty() => continue,
                Ok(batch) => return Some(Ok(batch)),
                Err(error) => {
                    self.end = self.next;
                    queue.stop();
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
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::tests::training;
    use super::super::{Loader, LoaderSettings};
    use crate::data::Share;

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
                let work = Arc::downgrade(&stream.work);
                drop(stream);
                assert!(work.upgrade().is_none(), "the threads have let go of their work");
            }
        }
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_end() {
        let loader = training(22, 2);
        let share = Share::new(false, |epoch, n| if epoch < 1 { 0..n } else { panic!("share") });
        let settings = LoaderSettings { share: Some(share), ..loader.settings().clone() };
        for threads in [0, 2] {
            let settings = LoaderSettings { threads, ..settings.clone() };
            let loader = Loader::new(loader.data().clone(), settings).unwrap();
            let mut stream = loader.stream(3);
            assert!(stream.next().unwrap().is_ok() && stream.next().unwrap().is_ok());
            let error = stream.next().unwrap().unwrap_err().to_string();
            assert!(error.contains("batch 5"), "{error}");
            assert!(stream.next().is_none());
        }
    }
}
