//! The order of the images in each epoch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use super::queue::lock;
use crate::rng::{Rng, stream};

/// The numbers of `len` images in the order of an epoch, which goes through all of them `repeat` times; shuffled with
/// a seed, each time anew.
pub(super) fn order(len: usize, repeat: usize, epoch: u64, seed: Option<u64>) -> Vec<u32> {
    let mut order = Vec::with_capacity(len * repeat);
    for pass in 0..repeat {
        let start = order.len();
        order.extend(0..len as u32);
        if let Some(seed) = seed {
            let key = epoch.wrapping_mul(repeat as u64).wrapping_add(pass as u64);
            Rng::new(seed, stream::ORDER, [key]).shuffle(&mut order[start..]);
        }
    }
    order
}

/// The images of an epoch in order, once they are known.
type Order = Arc<OnceLock<Arc<[u32]>>>;

/// The orders of the epochs that threads work on. Each is made once, by the thread that needs it first.
#[derive(Default)]
pub(super) struct Orders {
    epochs: Mutex<BTreeMap<u64, Order>>,
}

impl Orders {
    /// The order of an epoch, which `make` makes if it is new.
    pub(super) fn of(&self, epoch: u64, make: impl FnOnce() -> Vec<u32>) -> Arc<[u32]> {
        let cell = Arc::clone(lock(&self.epochs).entry(epoch).or_default());
        // Without the lock: threads in another epoch need not wait.
        Arc::clone(cell.get_or_init(|| make().into()))
    }

    /// Lets go of the orders of epochs before this one.
    pub(super) fn forget_before(&self, epoch: u64) {
        let mut epochs = lock(&self.epochs);
        if epochs.first_key_value().is_some_and(|(&first, _)| first < epoch) {
            *epochs = epochs.split_off(&epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_pass_has_an_order_of_its_own() {
        assert_eq!(order(3, 2, 7, None), [0, 1, 2, 0, 1, 2]);
        let shuffled = order(50, 2, 7, Some(1));
        let (first, second) = shuffled.split_at(50);
        assert_ne!(first, second);
        for pass in [first, second] {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (0..50).collect::<Vec<_>>());
        }
        assert_eq!(first, order(50, 1, 14, Some(1)), "pass 14 in all");
        assert_ne!(first, order(50, 1, 14, Some(2)));
    }

    #[test]
    fn an_order_is_made_once() {
        let (orders, made) = (Orders::default(), AtomicUsize::new(0));
        let of = |epoch: u64| {
            orders.of(epoch, || {
                made.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(20));
                vec![epoch as u32]
            })
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..3).for_each(|epoch| assert_eq!(*of(epoch), [epoch as u32])));
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 3);
        orders.forget_before(2);
        assert_eq!(lock(&orders.epochs).keys().copied().collect::<Vec<_>>(), [2]);
    }
}
