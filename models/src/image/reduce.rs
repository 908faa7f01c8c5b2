//! How much smaller than it is a JPEG may be decoded, and the same for one that is decoded whole.

use std::iter::repeat_n;

use super::Image;
use crate::error::Result;

/// The largest of 8, 4, 2 and 1 that leaves the short side twice `side`, as Pillow's
/// `thumbnail(..., reducing_gap=2.0)` does: a resize with antialiasing loses nothing that can be seen then.
pub(super) fn reduction(width: usize, height: usize, side: usize) -> usize {
    let leaves_enough = |by: &usize| width.min(height) / by >= side.max(1).saturating_mul(2);
    [8, 4, 2].into_iter().find(leaves_enough).unwrap_or(1)
}

/// Each pixel the mean of `by` x `by`; at the far sides the last pixels count as often as others are missing, as encoders
/// fill their blocks.
pub(super) fn reduce(image: &Image, by: usize) -> Result<Image> {
    let (channels, row) = (image.channels, image.width * image.channels);
    let (width, height) = (image.width.div_ceil(by), image.height.div_ceil(by));
    let (mut data, mut sums) = (Vec::with_capacity(width * height * channels), vec![0u32; width * channels]);
    let count = (by * by) as u32;
    for first in (0..image.height).step_by(by) {
        sums.fill(0);
        for y in first..first + by {
            let row = &image.data[y.min(image.height - 1) * row..][..row];
            for (sums, pixels) in sums.chunks_exact_mut(channels).zip(row.chunks(by * channels)) {
                let (last, pixels) = (&pixels[pixels.len() - channels..], pixels.chunks_exact(channels));
                let missing = by - pixels.len();
                for pixel in pixels.chain(repeat_n(last, missing)) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
                }
            }
        }
        data.extend(sums.iter().map(|sum| ((sum + count / 2) / count) as u8));
    }
    Image::new(width, height, channels, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_reduction_leaves_twice_the_side() {
        let found = |width, height, side| reduction(width, height, side);
        assert_eq!(found(4000, 3000, 96), 8);
        assert_eq!(found(3000, 4000, 224), 4);
        assert_eq!([found(1536, 2000, 96), found(1535, 2000, 96)], [8, 4]);
        assert_eq!([found(384, 384, 96), found(9000, 383, 96)], [2, 1]);
        assert_eq!([found(96, 96, 96), found(32, 32, 224), found(1, 1, 1)], [1, 1, 1]);
        assert_eq!([found(16, 16, 0), found(65535, 65535, usize::MAX)], [8, 1]);
    }

    #[test]
    fn pixels_are_means() {
        let data = vec![0, 1, 2, 3, 9, 4, 5, 6, 7, 200, 10, 20, 30, 40, 50];
        let image = Image::new(5, 3, 1, data).unwrap();
        let reduced = reduce(&image, 2).unwrap();
        assert_eq!((reduced.width(), reduced.height()), (3, 2));
        assert_eq!(reduced.data(), [3, 5, 105, 15, 35, 50]);
        let image = Image::new(3, 2, 3, (0..18).collect()).unwrap();
        assert_eq!(reduce(&image, 2).unwrap().data(), [6, 7, 8, 11, 12, 13]);
        // Of 64 pixels the last column is 48, the last row 56.
        assert_eq!(reduce(&image, 8).unwrap().data(), [13, 14, 15]);
    }
}
