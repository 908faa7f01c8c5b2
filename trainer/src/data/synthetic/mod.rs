//! An image set that needs no download: ten classes told apart by the form and texture of a pattern, nothing else.
//!
//! A class is a pattern: stripes of three directions, two kinds of checks, dots, a grid, rings, rays, or none. It
//! fills a shape, and everything else is nuisance, drawn anew for each image: the shape and its place, size, angle
//! and proportions, all colours, the pattern's period, phases and a small turn, the gradient behind it, blots, noise
//! over all of it. No pixel tells the class, so that a linear classifier on pixels fails; a pattern goes on where a
//! patch is hidden, so that a masked autoencoder learns patterns without being told of them. Every number comes from
//! the seed and the image's index by arithmetic that is the same on every machine.

mod files;
mod scene;

use rayon::prelude::*;
use smalti_models::image::Image;

use super::Dataset;
use crate::error::{Error, Result};
use crate::rng::{Rng, stream};
use scene::{PATTERNS, Scene};

pub use files::write;

/// Sub-pixels a side: the edges are as smooth as those of a photo.
const SAMPLES: usize = 4;

/// The longest side that is drawn.
const LARGEST: usize = 4096;

/// The names of the classes, in the order of the labels.
pub fn classes() -> Vec<String> {
    PATTERNS.iter().map(|(_, name)| (*name).to_string()).collect()
}

/// The label of image `index`: labels take turns.
fn label(index: u64) -> u32 {
    (index % PATTERNS.len() as u64) as u32
}

/// Image `index` of the set of this seed, `size` pixels a side, and its label. The labels take turns.
pub fn draw(seed: u64, index: u64, size: usize) -> Result<(Image, u32)> {
    if !(1..=LARGEST).contains(&size) {
        return Err(Error::Usage(format!("images of {size} pixels a side, expected 1 to {LARGEST}")));
    }
    let mut rng = Rng::new(seed, stream::SYNTHETIC, [index]);
    let label = label(index);
    let scene = Scene::new(label, &mut rng);
    let unit = 32.0 / size as f64;
    let step = unit / SAMPLES as f64;
    let noise = rng.range(2.0, 10.0);
    let mut pixels = Vec::with_capacity(size * size * 3);
    for y in 0..size {
        for x in 0..size {
            let mut sum = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let sx = x as f64 * unit + ((sample % SAMPLES) as f64 + 0.5) * step;
                let sy = y as f64 * unit + ((sample / SAMPLES) as f64 + 0.5) * step;
                let colour = scene.at(sx, sy);
                (0..3).for_each(|c| sum[c] += colour[c]);
            }
            let grain = rng.bits().to_le_bytes();
            for c in 0..3 {
                // Two bytes make a triangular distribution of standard deviation 0.41 around 0.
                let grain = (f64::from(grain[2 * c]) + f64::from(grain[2 * c + 1]) - 255.0) / 255.0;
                let value = sum[c] * (255.0 / (SAMPLES * SAMPLES) as f64) + noise * 2.5 * grain;
                pixels.push(value.round().clamp(0.0, 255.0) as u8);
            }
        }
    }
    Ok((Image::new(size, size, 3, pixels)?, label))
}

/// Images `first` to `first + count` of a set, in memory.
pub fn dataset(seed: u64, first: u64, count: usize, size: usize) -> Result<Dataset> {
    let drawn = (0..count).into_par_iter().map(|i| {
        let (image, label) = draw(seed, first + i as u64, size)?;
        Ok((image, Some(label)))
    });
    Dataset::from_images(classes(), drawn.collect::<Result<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_fixes_every_byte() {
        let (image, label) = draw(1, 7, 32).unwrap();
        assert_eq!((draw(1, 7, 32).unwrap(), label), ((image.clone(), 7), 7));
        assert_ne!(draw(2, 7, 32).unwrap().0, image);
        assert_ne!(draw(1, 17, 32).unwrap().0, image);
        assert!(draw(1, 7, 0).is_err() && draw(1, 7, usize::MAX).is_err());
        // Frozen: tests have numbers of these images.
        let sum = |seed, size| {
            let images = (0..20).map(|i| draw(seed, i, size).unwrap().0);
            images
                .flat_map(Image::into_data)
                .fold(0u32, |sum, v| sum.rotate_left(5).wrapping_add(u32::from(v)))
        };
        assert_eq!((sum(0, 32), sum(3, 17)), (2_907_700_249, 2_911_605_364));
    }

    #[test]
    fn classes_take_turns() {
        let data = dataset(5, 30, 200, 8).unwrap();
        assert_eq!(data.class_counts(), [20; 10]);
        assert_eq!(data.label(1), Some(1));
        let mut sorted = classes();
        sorted.sort();
        assert_eq!(sorted, classes());
    }

    /// Accuracy on 1,000 images of ridge regression on the pixels of 2,000, solved by conjugate gradients.
    fn linear_accuracy(strength: f64) -> f64 {
        let (n, held_out, size) = (2000, 1000, 32);
        let data = dataset(11, 0, n + held_out, size).unwrap();
        let width = size * size * 3;
        let rows: Vec<Vec<f32>> = (0..data.len())
            .map(|i| data.image(i).unwrap().data().iter().map(|&v| f32::from(v) / 128.0 - 1.0).collect())
            .collect();
        let labels = data.labels().unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let scores: Vec<Vec<f64>> = (0..10u32)
            .into_par_iter()
            .map(|class| {
                let normal = |w: &[f32]| {
                    let mut out: Vec<f32> = w.iter().map(|w| w * strength as f32).collect();
                    for row in &rows[..n] {
                        let scale = dot(row, w) as f32;
                        out.iter_mut().zip(row).for_each(|(o, r)| *o += scale * r);
                    }
                    out
                };
                let mut residual = vec![0f32; width];
                for (row, label) in rows[..n].iter().zip(&labels) {
                    let target = if *label == class { 0.9 } else { -0.1 };
                    residual.iter_mut().zip(row).for_each(|(o, r)| *o += target * r);
                }
                let (mut w, mut direction) = (vec![0f32; width], residual.clone());
                let mut squared = dot(&residual, &residual);
                for _ in 0..30 {
                    let image = normal(&direction);
                    let step = squared / dot(&direction, &image);
                    w.iter_mut().zip(&direction).for_each(|(w, d)| *w += step as f32 * d);
                    residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= step as f32 * i);
                    let next = dot(&residual, &residual);
                    let turn = (next / squared) as f32;
                    direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = turn * *d + r);
                    squared = next;
                }
                rows[n..].iter().map(|row| dot(row, &w)).collect()
            })
            .collect();
        let right = (0..held_out).filter(|&i| {
            let best = (0..10).max_by(|&a, &b| scores[a][i].total_cmp(&scores[b][i])).unwrap();
            best as u32 == labels[n + i]
        });
        right.count() as f64 / held_out as f64
    }

    #[test]
    fn a_linear_classifier_on_pixels_fails() {
        for strength in [100.0, 10_000.0] {
            let accuracy = linear_accuracy(strength);
            assert!(accuracy < 0.4, "{accuracy} at {strength}");
        }
    }
}
