//! Which patches the encoder sees: random masking of each image by shuffled noise (arXiv 2111.06377, section 3).

use crate::model::mae::Input;
use crate::rng::{Rng, stream};

/// The visible and the hidden patches of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// The places of the visible patches `[batch, visible]`, in the order of their noise.
    pub visible: Vec<u32>,
    /// The places of the patches to predict `[batch, hidden]`: all others, or some of them ([`Mask::predicting`]).
    pub hidden: Vec<u32>,
}

impl Mask {
    /// Draws a mask for each image. It depends only on the seed, the epoch and the image's number.
    pub fn draw(seed: u64, epoch: u64, images: &[u32], patches: usize, visible: usize) -> Mask {
        let mut mask = Mask::default();
        for &image in images {
            let mut rng = Rng::new(seed, stream::MASK, [epoch, u64::from(image)]);
            let mut order: Vec<(u64, u32)> = (0..patches as u32).map(|place| (rng.bits(), place)).collect();
            order.sort_unstable();
            let places = order.iter().map(|&(_, place)| place);
            mask.visible.extend(places.clone().take(visible));
            mask.hidden.extend(places.skip(visible));
        }
        mask
    }

    /// The same mask with only `count` hidden patches of each of its `batch` images to predict. It keeps the first, which
    /// are a random choice.
    pub fn predicting(mut self, batch: usize, count: usize) -> Mask {
        let each = self.hidden.len() / batch.max(1);
        let mut place = 0;
        self.hidden.retain(|_| {
            place += 1;
            (place - 1) % each < count
        });
        self
    }

    /// A mask that hides nothing: every patch of `count` images is visible, in order.
    pub fn none(count: usize, patches: usize) -> Mask {
        Mask { visible: (0..count).flat_map(|_| 0..patches as u32).collect(), hidden: Vec::new() }
    }

    /// Images `[batch, C, H, W]` under this mask, for inference.
    pub fn input<'a, R>(&'a self, pixels: &'a [R], batch: usize) -> Input<'a, R> {
        Input { pixels, visible: &self.visible, hidden: &self.hidden, batch, batch_weight: None }
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn visible_and_hidden_are_all_patches() {
        let mask = Mask::draw(1, 2, &[5, 9], 64, 16);
        assert_eq!((mask.visible.len(), mask.hidden.len()), (32, 96));
        for i in 0..2 {
            let mut all = [&mask.visible[i * 16..][..16], &mask.hidden[i * 48..][..48]].concat();
            all.sort_unstable();
            assert_eq!(all, (0..64).collect::<Vec<u32>>());
        }
        assert_ne!(mask.visible[..16], mask.visible[16..]);
        assert_eq!(mask, Mask::draw(1, 2, &[5, 9], 64, 16));
        assert_ne!(mask, Mask::draw(1, 3, &[5, 9], 64, 16));
    }

    #[test]
    fn fewer_are_predicted() {
        let mask = Mask::draw(1, 2, &[5, 9], 64, 16);
        let few = mask.clone().predicting(2, 12);
        assert_eq!((few.hidden.len(), &few.visible), (24, &mask.visible));
        assert_eq!((&few.hidden[..12], &few.hidden[12..]), (&mask.hidden[..12], &mask.hidden[48..60]));
        assert_eq!(mask.clone().predicting(2, 48), mask);
    }

    #[test]
    fn every_patch_is_seen_equally_often() {
        let images: Vec<u32> = (0..4000).collect();
        let mask = Mask::draw(7, 0, &images, 16, 4);
        let mut seen = [0u32; 16];
        mask.visible.iter().for_each(|&place| seen[place as usize] += 1);
        assert!(seen.iter().all(|&n| (900..1100).contains(&n)), "{seen:?}");
    }
}
