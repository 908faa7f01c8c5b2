//! Prepared images kept in memory, up to a budget, so that a small data set is decoded once in a run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use smalti_models::image::Image;

/// One slot an image; what does not fit the budget is simply prepared again when it is asked for.
pub(crate) struct Cache {
    slots: Vec<OnceLock<Arc<Image>>>,
    left: AtomicUsize,
}

impl Cache {
    /// A cache for `len` images of `budget` bytes in all.
    pub(crate) fn new(len: usize, budget: usize) -> Cache {
        let len = if budget == 0 { 0 } else { len };
        Cache { slots: (0..len).map(|_| OnceLock::new()).collect(), left: AtomicUsize::new(budget) }
    }

    pub(crate) fn get(&self, i: usize) -> Option<Arc<Image>> {
        self.slots.get(i)?.get().cloned()
    }

    /// Keeps the image if there is room.
    pub(crate) fn put(&self, i: usize, image: &Arc<Image>) {
        let Some(slot) = self.slots.get(i) else { return };
        let size = image.data().len();
        let take = |left: usize| left.checked_sub(size);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            && slot.set(Arc::clone(image)).is_err()
        {
            // Another thread prepared the same image at the same time.
            self.left.fetch_add(size, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds() {
        let image = Arc::new(Image::new(10, 10, 1, vec![0; 100]).unwrap());
        let cache = Cache::new(5, 250);
        (0..5).for_each(|i| cache.put(i, &image));
        cache.put(0, &image);
        cache.put(9, &image);
        assert_eq!((0..6).filter(|&i| cache.get(i).is_some()).count(), 2);
        assert_eq!(cache.left.load(Ordering::Relaxed), 50);
        let none = Cache::new(5, 0);
        none.put(0, &image);
        assert!(none.get(0).is_none());
    }
}
