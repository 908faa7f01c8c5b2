//! Prepared images kept in memory, so that a small data set is decoded once in a run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use smalti_models::image::Image;

/// The largest default budget: 2 GiB.
const DEFAULT_BYTES: usize = 2 << 30;

/// The memory in which all loaders of a process keep prepared images. Clones share one budget, so make one and hand
/// it to every loader; a loader returns what it took when it is dropped.
#[derive(Clone, Debug)]
pub struct CacheBudget {
    bytes: usize,
    left: Arc<AtomicUsize>,
}

impl CacheBudget {
    /// A budget of so many bytes; 0 caches nothing.
    pub fn new(bytes: usize) -> CacheBudget {
        CacheBudget { bytes, left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// Bytes that no loader has taken.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Takes so many bytes if they are left.
    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Default for CacheBudget {
    /// 2 GiB, or a quarter of the memory that this process may use if that is less.
    fn default() -> CacheBudget {
        let quarter = memory().map_or(DEFAULT_BYTES as u64, |bytes| bytes / 4);
        CacheBudget::new(quarter.min(DEFAULT_BYTES as u64) as usize)
    }
}

/// The machine's memory, or the limit of the process's control group where that is less. Known on Linux alone.
fn memory() -> Option<u64> {
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = limits.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    limits.chain(machine).min()
}

/// Bytes by the line `MemTotal:  16384 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// One image prepared for every view.
pub(super) type Prepared = Vec<Image>;

/// One slot for each image. An image that finds the budget used up is prepared again whenever it is asked for.
pub(super) struct Cache {
    slots: Vec<OnceLock<Arc<Prepared>>>,
    budget: CacheBudget,
    taken: AtomicUsize,
}

impl Cache {
    /// A cache for images numbered from 0 to below `len`.
    pub(super) fn new(len: usize, budget: CacheBudget) -> Cache {
        let len = if budget.bytes == 0 { 0 } else { len };
        Cache { slots: (0..len).map(|_| OnceLock::new()).collect(), budget, taken: AtomicUsize::new(0) }
    }

    /// A cache that keeps nothing.
    pub(super) fn none() -> Cache {
        Cache::new(0, CacheBudget::new(0))
    }

    pub(super) fn get(&self, i: usize) -> Option<Arc<Prepared>> {
        self.slots.get(i)?.get().cloned()
    }

    /// Keeps the image if the budget allows.
    pub(super) fn put(&self, i: usize, image: &Arc<Prepared>) {
        let Some(slot) = self.slots.get(i) else { return };
        let bytes = bytes(image);
        if slot.get().is_some() || !self.budget.take(bytes) {
            return;
        }
        match slot.set(Arc::clone(image)) {
            Ok(()) => _ = self.taken.fetch_add(bytes, Ordering::Relaxed),
            // Another thread prepared the same image at the same time.
            Err(_) => self.budget.give_back(bytes),
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.budget.give_back(*self.taken.get_mut());
    }
}

/// Pixels, and the counts and pointers around them.
fn bytes(image: &Prepared) -> usize {
    let pixels: usize = image.iter().map(|image| image.data().len()).sum();
    pixels + image.len() * size_of::<Image>() + size_of::<Prepared>() + 2 * size_of::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Arc<Prepared> {
        Arc::new(vec![Image::new(100, 10, 1, vec![0; 1000]).unwrap()])
    }

    #[test]
    fn all_caches_keep_within_one_budget() {
        let (image, budget) = (image(), CacheBudget::new(2500));
        let (first, second) = (Cache::new(5, budget.clone()), Cache::new(5, budget.clone()));
        first.put(0, &image);
        first.put(0, &image);
        first.put(9, &image);
        (0..5).for_each(|i| second.put(i, &image));
        assert_eq!((0..6).filter(|&i| first.get(i).is_some()).count(), 1);
        assert_eq!((0..6).filter(|&i| second.get(i).is_some()).count(), 1);
        assert_eq!(budget.left(), 2500 - 2 * bytes(&image));
        drop(first);
        assert_eq!(budget.left(), 2500 - bytes(&image));
        second.put(1, &image);
        assert!(second.get(1).is_some(), "what one cache returns another may take");
        drop(second);
        assert_eq!(budget.left(), 2500);
        let none = Cache::new(5, CacheBudget::new(0));
        none.put(0, &image);
        assert!(none.get(0).is_none());
    }

    #[test]
    fn threads_that_prepare_the_same_images_pay_once() {
        let (image, budget) = (image(), CacheBudget::new(usize::MAX));
        let cache = Cache::new(100, budget.clone());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|i| cache.put(i, &image)));
            }
        });
        assert_eq!(budget.left(), usize::MAX - 100 * bytes(&image));
    }

    #[test]
    fn the_default_budget_heeds_the_machine() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(total("MemTotal: lots\n"), None);
        let default = CacheBudget::default().left();
        assert!(default > 0 && default <= DEFAULT_BYTES);
        assert!(memory().is_none_or(|bytes| default as u64 <= bytes / 4));
    }
}
