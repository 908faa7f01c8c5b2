//! Mean and standard deviation of each channel, as the model will see the images.

use rayon::prelude::*;
use smalti_models::Preprocess;

use super::dataset::Dataset;
use crate::error::{Error, Result};

/// Maximum number of images that are read: more change the third decimal.
pub const ENOUGH: usize = 10_000;

/// What pixels are like, on a scale from 0 to 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Statistics {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel, at least one grey level: normalisation divides by it.
    pub std: Vec<f32>,
    /// How many images were looked at.
    pub images: usize,
}

/// At most `most` of the numbers below `len`, evenly spread.
pub(crate) fn spread(len: usize, most: usize) -> Vec<usize> {
    let n = len.min(most);
    (0..n).map(|i| (i as u128 * len as u128 / n as u128) as usize).collect()
}

/// Sums of one image's pixels and of their squares, channel by channel: whole numbers, so that the order in which
/// threads add them changes nothing.
type Sums = Vec<(u64, u64)>;

/// The statistics of up to `most` images ([`ENOUGH`]) after resizing and cropping by `preprocess`, whose own mean
/// and standard deviation play no part. Unusable images are named and left out.
pub fn statistics(data: &Dataset, preprocess: &Preprocess, most: usize) -> Result<Statistics> {
    let zero = || (vec![(0, 0); preprocess.channels], 0usize);
    let (sums, images) = spread(data.len(), most)
        .into_par_iter()
        .filter_map(|i| match data.image_for(i, preprocess.side()).and_then(|p| Ok(preprocess.apply(&p)?)) {
            Ok(image) => Some(sums(image.data(), preprocess.channels)),
            Err(why) => {
                data.note_bad(i, &why);
                None
            }
        })
        .fold(zero, |(total, n), sums| (add(total, &sums), n + 1))
        .reduce(zero, |(total, n), (sums, m)| (add(total, &sums), n + m));
    if images == 0 {
        return Err(Error::data(data.root(), "none of the images can be used"));
    }
    let pixels = (images * preprocess.img_size * preprocess.img_size) as f64;
    let mean = |sum: u64| sum as f64 / pixels / 255.0;
    let std = |sum: u64, squares: u64| {
        let variance = squares as f64 / pixels / (255.0 * 255.0) - mean(sum) * mean(sum);
        variance.max(0.0).sqrt().max(1.0 / 255.0)
    };
    Ok(Statistics {
        mean: sums.iter().map(|&(sum, _)| mean(sum) as f32).collect(),
        std: sums.iter().map(|&(sum, squares)| std(sum, squares) as f32).collect(),
        images,
    })
}

fn sums(pixels: &[u8], channels: usize) -> Sums {
    let mut sums = vec![(0, 0); channels];
    for pixel in pixels.chunks_exact(channels) {
        for ((sum, squares), &value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(value);
            *squares += u64::from(value) * u64::from(value);
        }
    }
    sums
}

fn add(mut total: Sums, sums: &Sums) -> Sums {
    for (total, sums) in total.iter_mut().zip(sums) {
        *total = (total.0 + sums.0, total.1 + sums.1);
    }
    total
}

#[cfg(test)]
mod tests {
    use smalti_models::Image;
    use smalti_models::preprocess::FitMode;
    use smalti_models::resize::Interpolation;

    use super::*;

    fn preprocess() -> Preprocess {
        let (mean, std) = (vec![0.5; 3], vec![0.5; 3]);
        Preprocess {
            img_size: 2,
            channels: 3,
            fit: FitMode::Crop,
            resize: None,
            interpolation: Interpolation::Bicubic,
            mean,
            std,
        }
    }

    #[test]
    fn the_numbers_are_right() {
        let image = |v: u8| (Image::new(2, 2, 3, [v, 255 - v, 7].repeat(4)).unwrap(), None);
        let data = Dataset::from_images(vec![], vec![image(0), image(255)]).unwrap();
        let found = statistics(&data, &preprocess(), ENOUGH).unwrap();
        assert_eq!(found.images, 2);
        for (found, expected) in found.mean.iter().zip([0.5, 0.5, 7.0 / 255.0]) {
            assert!((found - expected).abs() < 1e-6);
        }
        for (found, expected) in found.std.iter().zip([0.5, 0.5, 1.0 / 255.0]) {
            assert!((found - expected).abs() < 1e-6, "a flat channel keeps one grey level");
        }
        assert_eq!(statistics(&data, &preprocess(), 1).unwrap().images, 1);
    }

    #[test]
    fn choices_are_even() {
        assert_eq!(spread(3, 10), [0, 1, 2]);
        assert_eq!(spread(10, 4), [0, 2, 5, 7]);
        assert!(spread(0, 4).is_empty() && spread(4, 0).is_empty());
    }
}
