//! Mixing the images of a batch with each other, and their targets with them: mixup and CutMix.
//!
//! One share is drawn for the whole batch, and image `i` is mixed with image `n - 1 - i`, as timm does it.

use super::Batch;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// How strongly images are mixed: the parameter of the Beta distribution that the share is drawn from; 0 for never.
/// With both above 0 each batch takes one or the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Mix {
    /// Weighted sums of two images (Zhang et al. 2017).
    pub mixup: f64,
    /// A rectangle of one image in the other (Yun et al. 2019).
    pub cutmix: f64,
}

/// Soft targets `[image, class]`: 1 for the label, less `smoothing` spread over all classes.
pub fn soft_targets(batch: &Batch, classes: usize, smoothing: f32) -> Result<Vec<f32>> {
    let low = smoothing / classes.max(1) as f32;
    let mut targets = vec![low; batch.len() * classes];
    for (i, label) in batch.labels.iter().enumerate() {
        let place =
            label.filter(|&l| (l as usize) < classes).and_then(|l| targets.get_mut(i * classes + l as usize));
        let Some(target) = place else {
            let found = label.map_or("none".to_owned(), |l| l.to_string());
            let problem =
                format!("label {found}, expected one below {classes}; train on labelled images only");
            return Err(Error::data(
                format!("image {}", batch.ids.get(i).copied().unwrap_or_default()),
                problem,
            ));
        };
        *target = 1.0 - smoothing + low;
    }
    Ok(targets)
}

impl Mix {
    /// Refuses settings that are no parameters of a Beta distribution.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::Usage(format!(
                    "{name} is {value}, expected 0 (off) or more, usually up to 1"
                )));
            }
        }
        Ok(())
    }

    /// Mixes the `pixels`, `[image, channel, row, column]` with `size` rows and columns, and the `targets`,
    /// `[image, class]`, of `n` images. Returns the share that each image keeps of itself.
    pub fn apply(
        &self,
        pixels: &mut [f32],
        targets: &mut [f32],
        n: usize,
        size: usize,
        rng: &mut Rng,
    ) -> f32 {
        let cut = self.cutmix > 0.0 && (self.mixup <= 0.0 || rng.chance(0.5));
        let alpha = if cut { self.cutmix } else { self.mixup };
        if alpha <= 0.0 || n < 2 || size == 0 {
            return 1.0;
        }
        let share = rng.beta(alpha, alpha);
        let share = if cut {
            cut_mix(pixels, n, size, share, rng)
        } else {
            pairs(pixels, n, |a, b| blend(a, b, share as f32));
            share as f32
        };
        pairs(targets, n, |a, b| blend(a, b, share));
        share
    }
}

/// Calls `work` with the records of every two images that are mixed. The middle one of an odd number is mixed with
/// itself, which changes nothing.
fn pairs(values: &mut [f32], n: usize, mut work: impl FnMut(&mut [f32], &mut [f32])) {
    let record = values.len() / n.max(1);
    if record == 0 {
        return;
    }
    let (first, second) = values.split_at_mut(n / 2 * record);
    for (a, b) in first.chunks_exact_mut(record).zip(second.rchunks_exact_mut(record)) {
        work(a, b);
    }
}

fn blend(a: &mut [f32], b: &mut [f32], share: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (share * *a + (1.0 - share) * *b, share * *b + (1.0 - share) * *a);
    }
}

/// Swaps a rectangle between the images of each pair; returns the share of the area that is not swapped, which the
/// image's edge may make larger than the share drawn.
fn cut_mix(pixels: &mut [f32], n: usize, size: usize, share: f64, rng: &mut Rng) -> f32 {
    let side = (size as f64 * libm::sqrt(1.0 - share)) as usize;
    let mut span = || {
        let middle = rng.below(size);
        (middle.saturating_sub(side / 2), (middle + side / 2).min(size))
    };
    let (rows, columns) = (span(), span());
    pairs(pixels, n, |a, b| {
        for (a, b) in a.chunks_exact_mut(size * size).zip(b.chunks_exact_mut(size * size)) {
            for y in rows.0..rows.1 {
                a[y * size + columns.0..y * size + columns.1]
                    .swap_with_slice(&mut b[y * size + columns.0..y * size + columns.1]);
            }
        }
    });
    1.0 - ((rows.1 - rows.0) * (columns.1 - columns.0)) as f32 / (size * size) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::stream;

    fn batch(labels: Vec<Option<u32>>) -> Batch {
        let n = labels.len();
        let (ids, own) = ((0..n as u32).collect(), 0..n);
        Batch { epoch: 0, index: 0, ids, views: vec![], labels, total: n, own, at: 0 }
    }

    #[test]
    fn targets_are_smoothed_and_checked() {
        let targets = soft_targets(&batch(vec![Some(1), Some(0)]), 4, 0.1).unwrap();
        for (target, expected) in targets.iter().zip([0.025, 0.925, 0.025, 0.025, 0.925]) {
            assert!((target - expected).abs() < 1e-6, "{targets:?}");
        }
        assert_eq!(soft_targets(&batch(vec![Some(1)]), 2, 0.0).unwrap(), [0.0, 1.0]);
        assert!(
            soft_targets(&batch(vec![Some(1), None]), 2, 0.0).unwrap_err().to_string().contains("label none")
        );
        assert!(soft_targets(&batch(vec![Some(2)]), 2, 0.0).unwrap_err().to_string().contains("label 2"));
    }

    /// Images whose pixels are all their number, with one-hot targets: then pixels and targets tell the share.
    fn mixed(mix: Mix, n: usize, seed: u64) -> (Vec<f32>, Vec<f32>, f32) {
        let mut pixels: Vec<f32> = (0..n).flat_map(|i| vec![i as f32; 3 * 64]).collect();
        let mut targets: Vec<f32> = (0..n * n).map(|i| f32::from(i / n == i % n)).collect();
        let share = mix.apply(&mut pixels, &mut targets, n, 8, &mut Rng::new(seed, stream::MIX, [0]));
        (pixels, targets, share)
    }

    #[test]
    fn mixup_blends_pairs() {
        let (pixels, targets, share) = mixed(Mix { mixup: 0.8, cutmix: 0.0 }, 5, 1);
        for i in 0..5 {
            let (own, other) = (i as f32, (4 - i) as f32);
            let expected = share * own + (1.0 - share) * other;
            assert!(pixels[i * 192..][..192].iter().all(|v| (v - expected).abs() < 1e-5));
            assert!((targets[i * 5..][..5].iter().sum::<f32>() - 1.0).abs() < 1e-6);
            let weight = if i == 2 { 1.0 } else { share };
            assert!((targets[i * 5 + i] - weight).abs() < 1e-6);
        }
    }

    #[test]
    fn cutmix_swaps_a_rectangle_of_the_area_it_reports() {
        for seed in 0..50 {
            let (pixels, targets, share) = mixed(Mix { mixup: 0.0, cutmix: 1.0 }, 4, seed);
            for i in 0..4 {
                let kept = pixels[i * 192..][..64].iter().filter(|v| **v == i as f32).count() as f32 / 64.0;
                assert!((kept - share).abs() < 1e-6 && (targets[i * 4 + i] - share).abs() < 1e-6);
                assert_eq!(pixels[i * 192..][..64], pixels[i * 192 + 64..][..64], "the same in each channel");
            }
        }
    }

    #[test]
    fn off_is_off_and_both_take_turns() {
        assert_eq!(mixed(Mix::default(), 4, 1).2, 1.0);
        assert_eq!(mixed(Mix { mixup: 0.8, cutmix: 1.0 }, 1, 1).2, 1.0);
        let cuts = (0..100).filter(|&seed| {
            let (pixels, ..) = mixed(Mix { mixup: 0.8, cutmix: 1.0 }, 2, seed);
            pixels.iter().all(|v| *v == 0.0 || *v == 1.0)
        });
        assert!((30..70).contains(&cuts.count()));
        assert_eq!(Mix { mixup: -1.0, cutmix: 0.0 }.check().unwrap_err().exit_code(), 2);
        assert!(Mix { mixup: 0.8, cutmix: f64::NAN }.check().is_err());
    }
}
